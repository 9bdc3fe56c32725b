//! Soak: servers under load from their usual clients, while `probe` comes and goes, is killed, and they are restarted
//! and rebuilt. No request fails, nothing crashes, nothing stays in the kernel or in their code, and `probe`
//! does not grow.
//!
//! `SOAK_SECONDS` says how long (120), `SOAK_SEED` which way. Live: needs root, bpftool, redis and testdata/build.

#[path = "../common/children.rs"]
mod children;
#[path = "../harm/left.rs"]
#[allow(dead_code, reason = "the tests of harm use the rest")]
mod left;
#[path = "../harm/run.rs"]
#[allow(dead_code, reason = "the tests of harm use the rest")]
mod run;
mod targets;

use std::{
    collections::BTreeMap,
    fs,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use left::{InKernel, KernelLog, changed_code, kernel_objects};
use run::{Probe, as_text, program, signal, until};
use targets::Target;

/// What happened, for the last line.
static HAPPENED: Mutex<BTreeMap<&str, u64>> = Mutex::new(BTreeMap::new());

fn happened(what: &'static str, times: u64) {
    *HAPPENED.lock().unwrap_or_else(PoisonError::into_inner).entry(what).or_default() += times;
}

/// Chance that can be repeated: splitmix64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn of<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        &choices[(self.next() % choices.len() as u64) as usize]
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.next().is_multiple_of(n)
    }
}

fn from_environment(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().unwrap_or_else(|_| panic!("{name}={value}")))
}

#[test]
fn servers_under_load_are_unharmed_while_probes_come_and_go() {
    let seconds = from_environment("SOAK_SECONDS", 120);
    let seed = from_environment("SOAK_SEED", u64::from(std::process::id()));
    println!("soak: {seconds} s, SOAK_SEED={seed}");
    let before = kernel_objects();
    let mut log = KernelLog::from_now();
    let over = AtomicBool::new(false);
    let end = Instant::now() + Duration::from_secs(seconds);
    thread::scope(|all| {
        // Whoever fails ends the others too.
        let over = &over;
        let run = |work: Box<dyn FnOnce() + Send>| {
            all.spawn(move || {
                let _ended = EndsAll(over);
                work();
            });
        };
        for (n, target) in Target::all().into_iter().enumerate() {
            let chance = Chance(seed.wrapping_add(n as u64));
            run(Box::new(move || soak(target, chance, end, over)));
        }
        run(Box::new(move || stays_small(end, over)));
    });
    // The kernel frees in the background.
    until("everything to leave the kernel", || kernel_objects().is_subset(&before).then_some(()));
    assert_eq!(log.leaks(), 0, "the kernel could not remove some uprobes");
    println!("soak: {:?}", HAPPENED.lock().unwrap_or_else(PoisonError::into_inner));
}

/// When dropped, tells the others to come to their ends.
struct EndsAll<'a>(&'a AtomicBool);

impl Drop for EndsAll<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.store(true, Ordering::Relaxed);
        }
    }
}

/// Loads one target and traces it in ever other ways, to the end of the time.
fn soak(target: Target, mut chance: Chance, end: Instant, over: &AtomicBool) {
    let goes_on = || Instant::now() < end && !over.load(Ordering::Relaxed);
    while goes_on() {
        let server = target.start();
        let patterns = target.patterns();
        let stop = AtomicBool::new(false);
        let sent = AtomicU64::new(0);
        thread::scope(|both| {
            both.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    sent.fetch_add(server.requests(), Ordering::Relaxed);
                }
            });
            let _ended = Stops(&stop);
            for _ in 0..5 + chance.next() % 5 {
                if goes_on() {
                    trace(&target, &server.pid(), &patterns, &mut chance);
                }
            }
        });
        let sent = sent.into_inner();
        server.ends_well(sent);
        happened("requests", sent);
        happened("restarts", 1);
        if chance.one_in(2) {
            target.rebuild(chance.one_in(2));
            happened("rebuilds", 1);
        }
    }
}

struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// One trace: some functions, some way, some time, some end.
fn trace(target: &Target, pid: &str, patterns: &[String], chance: &mut Chance) {
    let whole = [vec!["-p", pid], vec!["-x", target.path()], vec!["-x", target.path(), "--follow", "-p", pid]];
    let outputs = [&["--json"][..], &[], &["--layout=stream"]];
    let limits = [&[][..], &["--returns=none"], &["--slow", "1ms"], &["--min-duration", "50us"], &["--max-depth", "2"]];
    let stacks = [&["--stack=none"][..], &["--stack=fp"], &["--stack-all"]];
    let mut args = chance.of(&whole).clone();
    for choices in [&outputs[..], &limits, &stacks] {
        args.extend(*chance.of(choices));
    }
    args.extend(["-o", "/dev/null"]);
    if chance.one_in(8) {
        args.push("--all");
    }
    let own_end = chance.one_in(4);
    if own_end {
        args.extend(*chance.of(&[&["--duration", "300ms"][..], &["--limit", "1"]]));
    }
    let chosen: Vec<&String> = (0..1 + chance.next() % 2).map(|_| chance.of(patterns)).collect();
    args.extend(chosen.iter().map(|pattern| pattern.as_str()));

    let mut probe = Probe::attached(&args);
    let held = InKernel::of(probe.id());
    happened("traces", 1);
    thread::sleep(Duration::from_millis(chance.next() % 700));
    if chance.one_in(3) {
        // One that has ended by itself is not waited for yet: its id is still its own.
        signal("KILL", probe.id());
        probe.status();
        happened("kills", 1);
    } else {
        let ended = if own_end { until_end_or_interrupt(probe) } else { probe.interrupted() };
        assert!(ended.status.success(), "probe {args:?}: {:?}: {}", ended.status, ended.stderr);
    }
    held.is_gone_if_any();
    until("every breakpoint to be removed", || (changed_code(pid, target.path()) == 0).then_some(()));
}

/// A trace that ends by itself may wait for a call that nobody makes.
fn until_end_or_interrupt(mut probe: Probe) -> run::Ended {
    let patience = Instant::now() + Duration::from_secs(3);
    while Instant::now() < patience {
        if probe.child.try_wait().expect("its state").is_some() {
            return probe.ended();
        }
        thread::sleep(Duration::from_millis(20));
    }
    probe.interrupted()
}

/// A `probe` that traces all the time does not grow.
fn stays_small(end: Instant, over: &AtomicBool) {
    let target = Target::go("go-long");
    let server = target.start();
    let probe = Probe::attached(&["-p", &server.pid(), "--json", "-o", "/dev/null", "main.*", "encoding/json.*"]);
    let mut sent = 0;
    let mut sizes = Vec::new();
    while Instant::now() < end && !over.load(Ordering::Relaxed) {
        sent += server.requests();
        sizes.push(resident(probe.id()));
    }
    let ended = probe.interrupted();
    assert!(ended.status.success(), "{:?}: {}", ended.status, ended.stderr);
    server.ends_well(sent);
    happened("requests", sent);
    // At first it learns names and fills its buffers.
    let (early, late) = sizes.split_at(sizes.len() / 4);
    let most = |sizes: &[u64]| sizes.iter().copied().max().expect("it ran long enough");
    println!("soak: probe's resident memory, MB: {} at first, {} at most later", most(early) >> 20, most(late) >> 20);
    assert!(most(late) <= most(early) + most(early) / 5 + (4 << 20), "it grows: {sizes:?}");
}

/// Bytes of memory that a process has of its own: its ring buffer counts as it is read, so it is left out.
fn resident(pid: i64) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("in every kernel since 4.5");
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").trim().parse().expect("a number");
    kilobytes << 10
}
