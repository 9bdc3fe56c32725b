//! How many calls a second two threads make while `probe` reads them all, beside what they make when nobody reads.

use anyhow::{Result, ensure};
use probe::{
    attach::{self, Scope, features::Features},
    request::Returns,
};

use crate::{
    ROUNDS,
    report::{Series, Verdicts, Wanted, figure, single},
    run::{Measured, Probe, Subject},
};

const THREADS: u64 = 2;
/// Of a round, where the buffer allows it.
const LENGTH_S: f64 = 1.5;
/// What all threads together may leave in the ceiling's ring buffer: it takes 48 bytes for each.
const RECORDS: u64 = 5_000_000;
const CEILING_BUFFER: u32 = 256 << 20;
/// Calls of the run that says how many a round takes.
const TRIAL: u64 = 50_000;

const _: () = assert!(RECORDS * 48 <= CEILING_BUFFER as u64);

/// Measures and prints.
pub(crate) fn bench(subject: &Subject, returns: Returns, verdicts: &mut Verdicts) -> Result<()> {
    let (mut ceiling, mut read, mut cpu) = (Series::default(), Series::default(), Series::default());
    let mut lost = 0;
    let most = RECORDS / if returns == Returns::None { 1 } else { 2 };
    let trial = unread(subject, returns, TRIAL / THREADS)?.calls_per_s;
    // In each thread.
    let calls = ((trial * LENGTH_S) as u64).clamp(TRIAL, most) / THREADS;
    for _ in 0..ROUNDS {
        ceiling.push(unread(subject, returns, calls)?.calls_per_s);
        let round = traced(subject, returns, calls)?;
        read.push(round.measured.calls_per_s);
        cpu.push(round.cpu_ns as f64 / round.measured.calls as f64);
        lost += round.lost;
    }
    let what = if returns == Returns::None { "entries only" } else { "entries and returns" };
    println!("\nCalls a second, {THREADS} threads of {}, {what}, {} calls a round", subject.name, calls * THREADS);
    figure("the ceiling: the same probes, nobody reads", &ceiling, "calls/s");
    figure("probe --stack=none --json", &read, "calls/s");
    figure("  its own CPU time, per call", &cpu, "ns");
    single("  lost, in all rounds", &lost.to_string(), "records");
    let name = format!("{}, {what}: of the ceiling", subject.name);
    verdicts.want(name, Wanted::AtLeast(0.7), read.median() / ceiling.median());
    verdicts.want(format!("{}, {what}: lost", subject.name), Wanted::AtMost(0.0), lost as f64);
    Ok(())
}

/// Nobody reads, and the buffer holds it all.
fn unread(subject: &Subject, returns: Returns, calls: u64) -> Result<Measured> {
    let file = subject.open()?;
    let mut plan = subject.plan(&file, returns)?;
    let options = attach::Options {
        scope: Scope::Everyone,
        stack_depth: 0,
        stack_all: false,
        buffer_bytes: CEILING_BUFFER,
        force: false,
        counted: false,
    };
    let mut attachment = attach::attach(&mut plan, &[file], &Features::detect()?, &options, None)?;
    let measured = subject.run(calls, THREADS)?;
    let lost = attachment.losses()?.total();
    ensure!(lost == 0, "the ceiling's buffer is too small: {lost} records lost");
    Ok(measured)
}

struct Round {
    measured: Measured,
    lost: u64,
    cpu_ns: u64,
}

fn traced(subject: &Subject, returns: Returns, calls: u64) -> Result<Round> {
    let returns = if returns == Returns::None { "--returns=none" } else { "--returns=ret" };
    let args = ["--stack=none".into(), "--json".into(), returns.into(), "-x".into(), subject.path.clone().into()];
    let probe = Probe::start(&[&args[..], &[subject.function.into()]].concat())?;
    let measured = subject.run(calls, THREADS)?;
    let traced = probe.stop()?;
    ensure!(traced.lost > 0 || traced.calls == measured.calls, "{} calls, probe saw {}", measured.calls, traced.calls);
    Ok(Round { measured, lost: traced.lost, cpu_ns: traced.cpu_ns })
}
