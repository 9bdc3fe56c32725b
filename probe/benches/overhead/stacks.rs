//! What callers cost: in the target, in the ring buffer, and to unwind.

use std::{
    hint::black_box,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, ensure};
use probe::{
    attach::{self, Scope, StackCopies, features::Features, recorder::Recorder},
    calls::Cut,
    events,
    request::Returns,
    stacks::{CodeAddress, Step, Unwinder},
    target::{modules::Modules, processes::Processes},
};
use symbols::{binary::Binary, unwind::Tables};

use crate::{
    ROUNDS,
    report::{Series, Verdicts, Wanted, beside, figure, single},
    run::{Measured, Subject, built, under_bpftrace},
};

const DEPTHS: [u64; 3] = [5, 20, 100];
/// Of a round: the buffer holds all records.
const CALLS: u64 = 20_000;
const BUFFER: u32 = 512 << 20;

/// How callers are collected: what to call it, callers at most, where stacks are copied.
const WAYS: [(&str, u32, StackCopies); 3] = [
    ("no stack", 0, StackCopies::None),
    ("frame pointers", 127, StackCopies::None),
    ("a copy of the stack", 127, StackCopies::WithoutFramePointers),
];

/// Measures and prints.
pub(crate) fn bench(verdicts: &mut Verdicts) -> Result<()> {
    let subject = Subject { name: "C", path: built("c/deep-fp")?, function: "hot" };
    for depth in DEPTHS {
        collecting(&subject, depth, verdicts)?;
    }
    unwinding(&subject, verdicts)?;
    tables(verdicts)
}

/// What a call of `hot` costs at this depth, and what each record takes.
fn collecting(subject: &Subject, depth: u64, verdicts: &mut Verdicts) -> Result<()> {
    let script = format!("uprobe:{}:hot {{ @[ustack(127)] = count(); }}", subject.path.display());
    let (mut cpu, mut clock) = ([(); 4].map(|()| Series::default()), [(); 4].map(|()| Series::default()));
    let mut bytes = [0.0; 3];
    for _ in 0..ROUNDS {
        for (way, (_, depth_limit, copies)) in WAYS.into_iter().enumerate() {
            let (measured, records) = collected(subject, depth, depth_limit, copies)?;
            cpu[way].push(measured.cpu_ns_per_call);
            clock[way].push(measured.ns_per_call);
            bytes[way] = records.iter().map(Vec::len).sum::<usize>() as f64 / records.len() as f64;
        }
        let measured = under_bpftrace(subject, &script, CALLS, depth)?;
        cpu[3].push(measured.cpu_ns_per_call);
        clock[3].push(measured.ns_per_call);
    }
    println!("\nCost per call of hot, {depth} frames deep: CPU time, and (right) by the clock");
    for (way, (name, ..)) in WAYS.into_iter().enumerate() {
        beside(name, &cpu[way], "ns", &clock[way]);
        single("  in the ring buffer, per call", &format!("{:.0}", bytes[way]), "bytes");
    }
    beside("bpftrace, @[ustack(127)] = count()", &cpu[3], "ns", &clock[3]);
    if depth == 20 {
        let ratio = cpu[1].median() / cpu[0].median();
        verdicts.want("frame pointers at depth 20, to no stack".to_owned(), Wanted::AtMost(1.3), ratio);
    }
    Ok(())
}

/// Nobody reads until the end: what the calls cost, and all records.
fn collected(subject: &Subject, depth: u64, limit: u32, copies: StackCopies) -> Result<(Measured, Vec<Vec<u8>>)> {
    let file = subject.open()?;
    let mut plan = subject.plan(&file, Returns::None)?;
    let options = attach::Options {
        scope: Scope::Everyone,
        groups: None,
        stack_depth: limit,
        stack_all: true,
        origins: false,
        stack_copy: copies,
        buffer_bytes: BUFFER,
        force: false,
        counted: false,
        min_duration_ns: 0,
    };
    let mut attachment = attach::attach(&mut plan, &[file], &Features::detect()?, &options, None)?;
    let output = Command::new(&subject.path)
        .args(["-n", &CALLS.to_string(), "-t", &depth.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    let measured = subject.measured(&String::from_utf8_lossy(&output.stdout))?;
    let mut records = Vec::new();
    while let Some(record) = attachment.ring().next() {
        records.push(record.to_vec());
    }
    let lost = attachment.losses()?.total();
    ensure!(lost == 0, "the buffer is too small: {lost} records lost");
    records.retain(|record| events::decode(record).is_some_and(|r| r.event.point == 0));
    Ok((measured, records))
}

/// How many copied stacks a second are unwound, on one core: everything is looked up for the first time in each round.
fn unwinding(subject: &Subject, verdicts: &mut Verdicts) -> Result<()> {
    println!("\nStacks unwound a second, on one core");
    for depth in DEPTHS {
        let mut recorder = Recorder::start()?;
        let (_, records) = collected(subject, depth, 127, StackCopies::WithoutFramePointers)?;
        let last = records.last().and_then(|record| events::decode(record)).context("no record")?.event.time_ns;
        let mut processes = Processes::default();
        processes.record(recorder.drain());
        processes.advance(last);
        let mut series = Series::default();
        for _ in 0..ROUNDS {
            let start = Instant::now();
            unwind(&records, depth, &mut processes)?;
            series.push(records.len() as f64 / start.elapsed().as_secs_f64());
        }
        figure(&format!("{depth} frames deep"), &series, "stacks/s");
        if depth == 20 {
            verdicts.want("stacks unwound a second, 20 deep", Wanted::AtLeast(50_000.0), series.median());
        }
    }
    Ok(())
}

fn unwind(records: &[Vec<u8>], depth: u64, processes: &mut Processes) -> Result<()> {
    let (mut modules, mut unwinder, mut callers) = (Modules::default(), Unwinder::default(), Vec::new());
    for record in records {
        let record = events::decode(record).context("no record")?;
        let stack = record.frames.and_then(|frames| frames.stack).context("no stack")?;
        let pid = (record.event.pid_tgid >> 32) as u32;
        let mut code = |address: CodeAddress| match processes.mapping(pid, address.for_lookup().0) {
            Some(mapping) => modules.step(pid, mapping, address),
            None => Step::Cut(Cut::UnknownCode),
        };
        callers.clear();
        let cut = unwinder.unwind(&stack, 127, &mut code, &mut callers);
        ensure!(cut.is_none() && callers.len() as u64 >= depth, "{} callers, {cut:?}", callers.len());
        black_box(&callers);
    }
    Ok(())
}

/// How long it takes until a library's unwind tables can be used.
fn tables(verdicts: &mut Verdicts) -> Result<()> {
    let path = Path::new("/usr/lib/llvm-22/lib/libLLVM.so.22.1");
    let mut series = Series::default();
    let mut records = 0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        let binary = Binary::open(path).with_context(|| format!("{} is missing", path.display()))?;
        records = Tables::of(&binary, None).len();
        series.push(start.elapsed().as_secs_f64() * 1e3);
    }
    println!("\nUnwind tables of libLLVM-22, {records} records");
    figure("from opening the file until they can be used", &series, "ms");
    verdicts.want("unwind tables of libLLVM-22, ms", Wanted::AtMost(1000.0), series.median());
    Ok(())
}
