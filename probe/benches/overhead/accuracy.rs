//! How true durations are: call by call beside the program's own clock, as they are measured and with
//! `--subtract-overhead`.
//!
//! `durations` reads its clock where no probe lies between two readings, so it knows what each call took without the
//! probes, in the run that is traced. What is allowed is a microsecond and the probe's own cost: that of the two probes of
//! one call.

use std::{
    ffi::OsString,
    fs::File,
    io::{BufRead as _, BufReader},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    report::{Series, Verdicts, Wanted, figure, single},
    run::built,
};

/// Traces of each kind.
const ROUNDS: usize = 5;
/// Calls in each.
const CALLS: u64 = 2000;
/// Calls made in each call, traced too.
const INNER: [u32; 3] = [0, 1, 10];
/// Shorter ones do not count, ns.
const LONG_NS: f64 = 10_000.0;
const MICROSECOND_NS: f64 = 1000.0;
/// Of the long calls.
const SHARE: f64 = 0.99;

/// A program that knows how long its calls took.
struct Subject {
    name: &'static str,
    path: &'static str,
    functions: [&'static str; 2],
}

const SUBJECTS: [Subject; 2] = [
    Subject { name: "C", path: "c/durations", functions: ["outer", "inner"] },
    Subject { name: "Go", path: "go/durations", functions: ["main.outer", "main.inner"] },
];

/// How wrong durations are.
#[derive(Default)]
struct Errors {
    /// Of each trace's calls, the median, µs: how much longer they are shown.
    median: Series,
    /// The same without their sign, 99 of 100.
    most: Series,
    /// Part of the calls that are wrong by no more than a microsecond.
    within: Series,
    /// The same, and the probe's own cost.
    allowed: Series,
}

impl Errors {
    fn add(&mut self, mut errors_ns: Vec<f64>, own_ns: f64) {
        errors_ns.sort_by(f64::total_cmp);
        let middle = errors_ns.get(errors_ns.len() / 2).copied().unwrap_or(f64::NAN);
        let mut sizes: Vec<f64> = errors_ns.iter().map(|error| error.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        let most = sizes.get(sizes.len() * 99 / 100).copied().unwrap_or(f64::NAN);
        let part = |allowed_ns: f64| sizes.partition_point(|size| *size <= allowed_ns) as f64 / sizes.len() as f64;
        self.median.push(middle / MICROSECOND_NS);
        self.most.push(most / MICROSECOND_NS);
        self.within.push(part(MICROSECOND_NS));
        self.allowed.push(part(MICROSECOND_NS + own_ns));
    }

    fn print(&self, what: &str) {
        figure(&format!("{what}: too long by, median"), &self.median, "us");
        figure(&format!("{what}: wrong by, 99 % at most"), &self.most, "us");
        figure(&format!("{what}: within 1 us, of all"), &self.within, "");
        figure(&format!("{what}: within 1 us + the probe's own cost, of all"), &self.allowed, "");
    }
}

/// Measures and prints.
pub(crate) fn bench(verdicts: &mut Verdicts) -> Result<()> {
    for subject in &SUBJECTS {
        for inner in INNER {
            let (mut measured, mut subtracted) = (Errors::default(), Errors::default());
            let mut own = Series::default();
            for _ in 0..ROUNDS {
                let trace = traced(subject, inner, true)?;
                own.push(trace.own_ns / MICROSECOND_NS);
                subtracted.add(trace.errors_ns, trace.own_ns);
                measured.add(traced(subject, inner, false)?.errors_ns, trace.own_ns);
            }
            println!("\nDurations of calls in {} of 10 us or more, {inner} calls traced in each", subject.name);
            figure("the probe's own cost, a call's two, as measured at the start", &own, "us");
            measured.print("as measured");
            subtracted.print("subtracted");
            let name = format!("{}, {inner} calls inside: within 1 us + own cost", subject.name);
            verdicts.want(name, Wanted::AtLeast(SHARE), subtracted.allowed.median());
        }
    }
    single("calls in each trace", &CALLS.to_string(), "");
    Ok(())
}

/// What a trace says, beside what the program says.
struct Traced {
    /// By how much each long call is shown too long.
    errors_ns: Vec<f64>,
    /// What the two probes of a call cost; 0 where that was not measured.
    own_ns: f64,
}

fn traced(subject: &Subject, inner: u32, subtract: bool) -> Result<Traced> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("trace");
    let mut args: Vec<OsString> = vec!["-q".into(), "--json".into(), "-o".into(), file.clone().into()];
    if subtract {
        args.push("--subtract-overhead".into());
    }
    args.extend(subject.functions.map(OsString::from));
    args.extend([
        "--".into(),
        built(subject.path)?.into(),
        inner.to_string().into(),
        "-n".into(),
        CALLS.to_string().into(),
    ]);
    let output = Command::new(env!("CARGO_BIN_EXE_probe")).args(&args).output().context("failed to run probe")?;
    ensure!(output.status.success(), "probe failed: {}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8_lossy(&output.stdout);
    let truth: Vec<f64> = said.lines().filter_map(|line| line.parse().ok()).collect();
    let mut own_ns = 0.0;
    let mut shown: Vec<(u64, f64)> = Vec::new();
    for line in BufReader::new(File::open(&file)?).lines() {
        let line: Value = serde_json::from_str(&line?)?;
        if let Some(costs) = line["probe_cost_ns"].as_object() {
            let of = |what: &str| costs.iter().find(|(name, _)| name.ends_with(what)).and_then(|(_, ns)| ns.as_f64());
            own_ns = of("entry").context("no cost of an entry")? + of("return").context("no cost of a return")?;
        }
        if line["type"] == "call" && line["function"] == subject.functions[0] {
            let start = line["start_ns"].as_u64().context("no start")?;
            shown.push((start, line["duration_ns"].as_f64().context("no duration")?));
        }
    }
    ensure!(shown.len() == truth.len(), "{} calls, probe saw {}", truth.len(), shown.len());
    shown.sort_by_key(|(start, _)| *start);
    let long = shown.iter().zip(&truth).filter(|(_, truth)| **truth >= LONG_NS);
    Ok(Traced { errors_ns: long.map(|((_, shown), truth)| shown - truth).collect(), own_ns })
}
