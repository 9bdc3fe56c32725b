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
    target::{
        modules::{Modules, Of},
        processes::Processes,
    },
};
use symbols::{binary::Binary, unwind::Tables};

use crate::{
    ROUNDS,
    others::{Tools, perf_recording},
    report::{Series, Verdicts, Wanted, beside, figure, number, single},
    run::{Measured, Subject, built, first_instruction, own_cpu_ns, under_bpftrace},
};

const DEPTHS: [u64; 3] = [5, 20, 100];
/// Of a round: the buffer holds all records.
const CALLS: u64 = 20_000;
const BUFFER: u32 = 512 << 20;
/// Of perf's rounds: more are lost, and take a minute to unwind.
const PERF_CALLS: u64 = 4_000;

/// How callers are collected: what to call it, callers at most, where stacks are copied.
const WAYS: [(&str, u32, StackCopies); 3] = [
    ("no stack", 0, StackCopies::None),
    ("frame pointers", 127, StackCopies::None),
    ("a copy of the stack", 127, StackCopies::WithoutFramePointers),
];
const NO_STACK: usize = 0;
const FRAME_POINTERS: usize = 1;
const COPY: usize = 2;

/// The same of bpftrace: what it does at each call. What it keeps is not told for each call.
const SCRIPTS: [(&str, &str); 2] =
    [("bpftrace, @ = count()", "@ = count();"), ("bpftrace, @[ustack(127)] = count()", "@[ustack(127)] = count();")];

/// And of `perf record`: its options.
const RECORDINGS: [(&str, &[&str]); 3] = [
    ("perf record", &[]),
    ("perf record -g", &["-g"]),
    ("perf record --call-graph dwarf (8 KiB of stack)", &["--call-graph", "dwarf"]),
];
const PERF_DWARF: usize = 2;

/// Measures and prints.
pub(crate) fn bench(tools: &Tools, verdicts: &mut Verdicts) -> Result<()> {
    let subject = Subject { name: "C", path: built("c/deep-fp")?, function: "hot" };
    for depth in DEPTHS {
        collecting(&subject, depth, tools, verdicts)?;
    }
    let subject = Subject { path: built("c/deep")?, ..subject };
    unwinding(&subject, tools, verdicts)?;
    tables(verdicts)
}

/// What a way costs.
#[derive(Default)]
struct Cost {
    cpu: Series,
    clock: Series,
    bytes: Series,
}

impl Cost {
    fn push(&mut self, measured: Measured) {
        self.cpu.push(measured.cpu_ns_per_call);
        self.clock.push(measured.ns_per_call);
    }

    fn print(&self, name: &str) {
        if self.cpu.is_empty() {
            return;
        }
        beside(name, &self.cpu, "ns", &self.clock);
        if !self.bytes.is_empty() {
            single("  bytes", &number(self.bytes.median()), "");
        }
    }
}

/// What a call of `hot` costs at this depth, and what each record takes.
fn collecting(subject: &Subject, depth: u64, tools: &Tools, verdicts: &mut Verdicts) -> Result<()> {
    let file = subject.open()?;
    let first = first_instruction(&file, &subject.plan(&file, Returns::None)?, 0)?;
    let mut ours: [Cost; 3] = Default::default();
    let mut bpftraces: [Cost; 2] = Default::default();
    let mut perfs: [Cost; 3] = Default::default();
    for _ in 0..ROUNDS {
        for (cost, (_, limit, copies)) in ours.iter_mut().zip(WAYS) {
            let (measured, records) = collected(subject, depth, limit, copies)?;
            ensure!(records.iter().all(|record| reaches(record, depth)), "not {depth} callers");
            cost.push(measured);
            cost.bytes.push(records.iter().map(Vec::len).sum::<usize>() as f64 / records.len() as f64);
        }
        for (cost, (_, action)) in bpftraces.iter_mut().zip(SCRIPTS).filter(|_| tools.bpftrace.is_ok()) {
            let script = format!("uprobe:{}:hot {{ {action} }}", subject.path.display());
            cost.push(under_bpftrace(subject, &script, CALLS, depth)?);
        }
        for (cost, (_, options)) in perfs.iter_mut().zip(RECORDINGS).filter(|_| tools.perf.is_ok()) {
            let recording = perf_recording(subject, first, false, options, PERF_CALLS, depth)?;
            cost.push(recording.measured);
            cost.bytes.push(recording.bytes()? as f64 / recording.samples()? as f64);
        }
    }
    println!("\nCost per call of hot, {depth} frames deep: CPU time, and (right) by the clock");
    let names = WAYS.map(|(name, ..)| name).into_iter();
    let names = names.chain(SCRIPTS.map(|(name, _)| name)).chain(RECORDINGS.map(|(name, _)| name));
    names.zip(ours.iter().chain(&bpftraces).chain(&perfs)).for_each(|(name, cost)| cost.print(name));
    if depth == 20 {
        let ratio = ours[FRAME_POINTERS].cpu.median() / ours[NO_STACK].cpu.median();
        verdicts.want("frame pointers at depth 20, to no stack", Wanted::AtMost(1.3), ratio);
    }
    if tools.perf.is_ok() {
        let (copy, perf) = (&ours[COPY], &perfs[PERF_DWARF]);
        let ratio = copy.cpu.median() / perf.cpu.median();
        verdicts.want(format!("a copy at depth {depth}, to perf's: time"), Wanted::AtMost(1.0), ratio);
        let ratio = copy.bytes.median() / perf.bytes.median();
        verdicts.want(format!("a copy at depth {depth}, to perf's: bytes"), Wanted::AtMost(1.0), ratio);
    }
    Ok(())
}

/// Whether what was walked is this deep.
fn reaches(record: &[u8], depth: u64) -> bool {
    let frames = events::decode(record).and_then(|record| record.frames);
    frames.is_none_or(|frames| frames.stack.is_some() || frames.addresses().count() as u64 >= depth)
}

/// Nobody reads until the end: what the calls cost, and all records.
fn collected(subject: &Subject, depth: u64, limit: u32, copies: StackCopies) -> Result<(Measured, Vec<Vec<u8>>)> {
    let file = subject.open()?;
    let mut plan = subject.plan(&file, Returns::None)?;
    let options = attach::Options {
        groups: None,
        scope: Scope::Everyone,
        stack_depth: limit,
        stack_all: true,
        kernel_stack: false,
        origins: false,
        stack_copy: copies,
        buffer_bytes: BUFFER,
        force: false,
        counted: false,
        min_duration_ns: 0,
        traps: false,
    };
    let mut attachment = attach::attach(&mut plan, &[file], &Features::detect()?, &options, None)?;
    let output = Command::new(&subject.path)
        .args(["-n", &CALLS.to_string(), "-t", &depth.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    let measured = subject.measured(&String::from_utf8_lossy(&output.stdout))?;
    let mut records = Vec::new();
    attachment.rings().look();
    while let Some(record) = attachment.rings().next() {
        records.push(record.to_vec());
    }
    let lost = attachment.losses()?.total();
    ensure!(lost == 0, "the buffer is too small: {lost} records lost");
    records.retain(|record| events::decode(record).is_some_and(|r| r.event.point == 0));
    Ok((measured, records))
}

/// How many copied stacks a second of CPU time are unwound: everything is looked up for the first time in each round.
fn unwinding(subject: &Subject, tools: &Tools, verdicts: &mut Verdicts) -> Result<()> {
    println!("\nStacks unwound in a second of CPU time");
    for depth in DEPTHS {
        let mut recorder = Recorder::start()?;
        let (_, records) = collected(subject, depth, 127, StackCopies::WithoutFramePointers)?;
        let last = records.last().and_then(|record| events::decode(record)).context("no record")?.event.time_ns;
        let mut processes = Processes::default();
        processes.record(recorder.drain());
        processes.advance(last);
        let mut series = Series::default();
        for _ in 0..ROUNDS {
            let before = own_cpu_ns()?;
            unwind(&records, depth, &mut processes)?;
            series.push(records.len() as f64 * 1e9 / (own_cpu_ns()? - before) as f64);
        }
        figure(&format!("{depth} frames deep"), &series, "/s");
        if depth == 20 {
            verdicts.want("stacks unwound a second, 20 deep", Wanted::AtLeast(50_000.0), series.median());
        }
        if tools.perf.is_ok() {
            let file = subject.open()?;
            let first = first_instruction(&file, &subject.plan(&file, Returns::None)?, 0)?;
            let recording = perf_recording(subject, first, false, RECORDINGS[PERF_DWARF].1, PERF_CALLS, depth)?;
            let rate = recording.samples()? as f64 * 1e9 / recording.reading_ns()? as f64;
            single(&format!("{depth} frames deep, perf script, with names"), &number(rate), "/s");
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
            Some(mapping) => modules.step(Of { pid, dump: None }, mapping, address),
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
