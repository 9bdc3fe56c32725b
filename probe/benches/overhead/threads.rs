//! How many calls a second 1, 2 and 4 threads make, and what a call costs them: without a probe, with the least that a
//! probe can be, with `probe` reading all events, with the same probes when nobody reads, and with other tools.

use std::slice;

use anyhow::{Context as _, Result, ensure};
use probe::{
    attach::{self, Scope, features::Features},
    plan::{Plan, PointKind},
    request::Returns,
    target::TracedFile,
};

use crate::{
    bare::Bare,
    others::{self, Tools},
    report::{Series, Verdicts, Wanted, number},
    run::{Measured, Probe, Subject, first_instruction, under_bpftrace},
};

const THREADS: [u64; 3] = [1, 2, 4];
const ROUNDS: usize = 5;
/// Times in each round that `probe` and its ceiling are measured, one right after the other. A virtual machine can be a third
/// slower from one second to the next: so they are compared pair by pair.
const PAIRS: usize = 2;
/// How long each of them takes: enough to fill the default buffer several times, should nobody read. Any other.
const LENGTH_S: f64 = 0.8;
const SHORT_S: f64 = 0.4;
/// What all threads together may leave in the ceiling's ring buffer.
const CEILING_BUFFER: u32 = 256 << 20;
/// Calls of the run that says how many a round takes.
const TRIAL: u64 = 40_000;
/// Without a probe a call takes a thousandth of what it takes with one.
const UNPROBED: u64 = 200;

/// What is told of each call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Entries,
    Calls,
    Stacks,
}

impl Told {
    const ALL: [Self; 3] = [Self::Entries, Self::Calls, Self::Stacks];

    fn shown(self) -> &'static str {
        match self {
            Self::Entries => "entries only",
            Self::Calls => "entries and returns",
            Self::Stacks => "entries with callers, and returns",
        }
    }

    fn flags(self) -> &'static [&'static str] {
        match self {
            Self::Entries => &["--json", "--stack=none", "--returns=none"],
            Self::Calls => &["--json", "--stack=none"],
            Self::Stacks => &["--json"],
        }
    }

    fn returns(self) -> Returns {
        if self == Self::Entries { Returns::None } else { Returns::Ret }
    }

    /// Bytes in the ring buffer for each call, at most: a record is 48 with its head, and 8 more for the head of its
    /// callers and for each of them, of which the programs have up to six.
    fn bytes(self) -> u64 {
        match self {
            Self::Entries => 48,
            Self::Calls => 96,
            Self::Stacks => 96 + 56,
        }
    }
}

/// One run of the program.
pub(crate) struct Round {
    pub(crate) measured: Measured,
    /// Events that the tool could not pass on.
    pub(crate) lost: u64,
    /// CPU time of the tool itself, cores; none: not measured.
    pub(crate) cores: Option<f64>,
}

impl From<Measured> for Round {
    fn from(measured: Measured) -> Self {
        Self { measured, lost: 0, cores: None }
    }
}

/// Runs the program with so many calls in each of so many threads.
type Run<'a> = Box<dyn Fn(u64, u64) -> Result<Round> + 'a>;

#[derive(Default)]
struct Figures {
    /// What a first, short run reached, calls a second.
    trial: Option<f64>,
    rate: Series,
    cpu: Series,
    cores: Series,
    lost: u64,
    events: u64,
}

struct Row<'a> {
    name: &'static str,
    /// Or why there is nothing to run.
    run: Result<Run<'a>, String>,
    length_s: f64,
    factor: u64,
    figures: [Figures; THREADS.len()],
}

impl<'a> Row<'a> {
    fn new(name: &'static str, run: impl Fn(u64, u64) -> Result<Round> + 'a) -> Self {
        Self { name, run: Ok(Box::new(run)), length_s: SHORT_S, factor: 1, figures: Default::default() }
    }

    fn of_tool(name: &'static str, can: Result<(), String>, run: impl Fn(u64, u64) -> Result<Round> + 'a) -> Self {
        Self { run: can.map(|()| Box::new(run) as Run<'a>), ..Self::new(name, |_, _| unreachable!()) }
    }

    fn long(self) -> Self {
        Self { length_s: LENGTH_S, ..self }
    }

    fn times(self, factor: u64) -> Self {
        Self { factor, ..self }
    }

    /// As [`Self::measure`] with as many calls a second as it makes itself, or `calls_per_s` if that is less: a tool that
    /// costs ten times as much as another would take ten times as long.
    fn measure_by_itself(&mut self, at: usize, calls_per_s: f64, most: u64) -> Result<()> {
        let Ok(run) = &self.run else { return Ok(()) };
        let own = match self.figures[at].trial {
            Some(own) => own,
            None => run(TRIAL / THREADS[at], THREADS[at]).with_context(|| self.name.trim())?.measured.calls_per_s,
        };
        self.figures[at].trial = Some(own);
        self.measure(at, own.min(calls_per_s), most)
    }

    fn measure(&mut self, at: usize, calls_per_s: f64, most: u64) -> Result<()> {
        let Ok(run) = &self.run else { return Ok(()) };
        let calls = ((calls_per_s * self.length_s) as u64).clamp(TRIAL, most) * self.factor;
        let round = run(calls / THREADS[at], THREADS[at]).with_context(|| self.name.trim())?;
        let figures = &mut self.figures[at];
        figures.rate.push(round.measured.calls_per_s);
        figures.cpu.push(round.measured.cpu_ns_per_call);
        figures.lost += round.lost;
        figures.events += round.measured.calls;
        if let Some(cores) = round.cores {
            figures.cores.push(cores);
        }
        Ok(())
    }

    fn print(&self) {
        if let Err(reason) = &self.run {
            println!("  {:<46} {reason}", self.name);
            return;
        }
        let cells = |cell: &dyn Fn(&Figures) -> String| self.figures.iter().map(cell).collect::<String>();
        let rate = |f: &Figures| format!("{:>12} {:>10}", number(f.rate.median()), number(f.cpu.median()));
        println!("  {:<46}{}", self.name, cells(&rate));
        if !self.figures[0].cores.is_empty() {
            println!(
                "  {:<46}{}",
                "  its own CPU time, cores",
                cells(&|f| format!("{:>23}", number(f.cores.median())))
            );
        }
        if self.figures.iter().any(|f| f.lost > 0) || !self.figures[0].cores.is_empty() {
            let share = |f: &Figures| format!("{:>22.1}%", 100.0 * f.lost as f64 / f.events.max(1) as f64);
            println!("  {:<46}{}", "  lost, of the calls of all rounds", cells(&share));
        }
    }
}

/// Measures and prints the three tables of one function.
pub(crate) fn bench(subject: &Subject, is_go: bool, tools: &Tools, verdicts: &mut Verdicts) -> Result<()> {
    for told in Told::ALL {
        table(subject, is_go, told, tools, verdicts)?;
    }
    Ok(())
}

fn table(subject: &Subject, is_go: bool, told: Told, tools: &Tools, verdicts: &mut Verdicts) -> Result<()> {
    let file = subject.open()?;
    let plan = subject.plan(&file, told.returns())?;
    let mut rows = vec![
        Row::new("no probe", |calls, threads| Ok(subject.run(calls, threads)?.into())).times(UNPROBED),
        Row::new("empty programs, the entry at its first byte", bare(subject, bare_points(&file, &plan, true)?)),
        Row::new("empty programs, where probe puts its own", bare(subject, bare_points(&file, &plan, false)?)),
        Row::new("the same probes, nobody reads", |calls, threads| Ok(unread(subject, told, calls, threads)?.into()))
            .long(),
        Row::new("probe", |calls, threads| traced(subject, told, calls, threads)).long(),
    ];
    let address = plan.functions[0].traced.address;
    let offset = first_instruction(&file, &plan, 0)?;
    rows.extend(of_other_tools(subject, is_go, told, tools, Place { address, offset }));
    let (ceiling, read) = (3, 4);
    let most = u64::from(CEILING_BUFFER) / told.bytes();
    for (at, threads) in THREADS.into_iter().enumerate() {
        let trial = unread(subject, told, TRIAL / threads, threads)?.calls_per_s;
        for _ in 0..ROUNDS {
            for (number, row) in rows.iter_mut().enumerate() {
                if number != ceiling && number != read {
                    row.measure_by_itself(at, trial, most)?;
                }
            }
            for _ in 0..PAIRS {
                for row in &mut rows[ceiling..=read] {
                    row.measure(at, trial, most)?;
                }
            }
        }
    }

    println!("\n{} in {}, {}: calls a second, and CPU ns a call", subject.function, subject.name, told.shown());
    println!("  {:<46}{:>23}{:>23}{:>23}", "", "1 thread", "2 threads", "4 threads");
    rows.iter().for_each(Row::print);
    for (at, threads) in THREADS.into_iter().enumerate() {
        let [ceiling, read] = [&rows[ceiling].figures[at], &rows[read].figures[at]];
        let plural = if threads == 1 { "" } else { "s" };
        let name = |what| format!("{}, {}, {threads} thread{plural}: {what}", subject.name, told.shown());
        // The goal is one for a trace without callers.
        if told != Told::Stacks {
            let ratios = read.rate.divided_by(&ceiling.rate);
            verdicts.want(name("of the ceiling"), Wanted::AtLeast(0.8), ratios.median());
            verdicts.want(name("own CPU, cores"), Wanted::AtMost(1.0), read.cores.median());
        }
        verdicts.want(name("lost"), Wanted::AtMost(0.0), read.lost as f64);
    }
    Ok(())
}

/// Of the plan's points, those of the function's calls.
fn bare_points(file: &TracedFile, plan: &Plan, at_first_byte: bool) -> Result<Vec<u64>> {
    let first = first_instruction(file, plan, 0)?;
    let of_calls = plan.points.iter().filter(|p| p.function == 0);
    Ok(of_calls.map(|p| if at_first_byte && p.kind == PointKind::Entry { first } else { p.offset.0 }).collect())
}

fn bare(subject: &Subject, offsets: Vec<u64>) -> impl Fn(u64, u64) -> Result<Round> {
    move |calls, threads| {
        let _bare = Bare::attach(&subject.path, slice::from_ref(&offsets), 0)?;
        Ok(subject.run(calls, threads)?.into())
    }
}

/// Nobody reads, and the buffer holds it all.
fn unread(subject: &Subject, told: Told, calls: u64, threads: u64) -> Result<Measured> {
    let file = subject.open()?;
    let mut plan = subject.plan(&file, told.returns())?;
    let options = attach::Options {
        groups: None,
        scope: Scope::Everyone,
        stack_depth: if told == Told::Stacks { 64 } else { 0 },
        stack_copy: attach::StackCopies::None,
        stack_all: false,
        kernel_stack: false,
        origins: false,
        buffer_bytes: CEILING_BUFFER,
        force: false,
        counted: false,
        min_duration_ns: 0,
        traps: false,
    };
    let mut attachment = attach::attach(&mut plan, &[file], &Features::detect()?, &options, None)?;
    let measured = subject.run(calls, threads)?;
    let lost = attachment.losses()?.total();
    ensure!(lost == 0, "the ceiling's buffer is too small: {lost} records lost");
    Ok(measured)
}

fn traced(subject: &Subject, told: Told, calls: u64, threads: u64) -> Result<Round> {
    let mut args = vec!["-x".into(), subject.path.clone().into_os_string(), subject.function.into()];
    args.extend(told.flags().iter().map(Into::into));
    let probe = Probe::start(&args)?;
    let measured = subject.run(calls, threads)?;
    let traced = probe.stop()?;
    ensure!(traced.lost > 0 || traced.calls == measured.calls, "{} calls, probe saw {}", measured.calls, traced.calls);
    let seconds = measured.calls as f64 / measured.calls_per_s;
    Ok(Round { measured, lost: traced.lost, cores: Some(traced.cpu_ns as f64 / 1e9 / seconds) })
}

/// The first instruction, as bpftrace and as perf want it.
#[derive(Clone, Copy)]
struct Place {
    address: u64,
    offset: u64,
}

/// bpftrace, perf and uftrace, as far as they are installed and can do it without killing the program.
fn of_other_tools<'a>(subject: &'a Subject, is_go: bool, told: Told, tools: &Tools, place: Place) -> Vec<Row<'a>> {
    let at = format!("{}:{:#x}", subject.path.display(), place.address);
    let returns = if told == Told::Entries { String::new() } else { format!("uretprobe:{at} {{ @r = count(); }}") };
    let entry = if told == Told::Stacks { "@[ustack] = count();" } else { "@e = count();" };
    let counting = format!("uprobe:{at} {{ {entry} }} {returns}");
    let printing = format!(
        "uprobe:{at} {{ printf(\"%d %ld\\n\", tid, nsecs); }} {}",
        returns.replace("@r = count()", "printf(\"%d %ld\\n\", tid, nsecs)")
    );
    let can = |installed: &Result<(), String>| {
        installed.clone()?;
        let kills = is_go && told != Told::Entries;
        if kills { Err("its uretprobes kill Go programs".to_owned()) } else { Ok(()) }
    };
    let count = move |calls, threads| Ok(under_bpftrace(subject, &counting, calls, threads)?.into());
    let print =
        move |calls, threads| others::printing_bpftrace(subject, &printing, told != Told::Entries, calls, threads);
    let record = move |calls, threads| {
        others::perf_record(subject, place.offset, told != Told::Entries, told == Told::Stacks, calls, threads)
    };
    let mut rows = vec![
        Row::of_tool("bpftrace, counting", can(&tools.bpftrace), count),
        Row::of_tool("perf record", can(&tools.perf), record),
    ];
    if told != Told::Stacks {
        rows.insert(1, Row::of_tool("bpftrace, a line for each event", can(&tools.bpftrace), print));
    }
    if told == Told::Calls {
        let installed = if is_go { Err("it kills Go programs".to_owned()) } else { tools.uftrace.clone() };
        let run = move |calls, threads| others::uftrace_record(subject, calls, threads);
        rows.push(Row::of_tool("uftrace record, patched as it starts", installed, run));
    }
    rows
}
