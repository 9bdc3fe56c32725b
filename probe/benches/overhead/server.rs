//! How many requests a Go HTTP server still answers, and how soon, while 1, 10, 100, 1,000 of its functions are traced,
//! and all of them: without a budget, and second by second within the default one.

use std::{
    ffi::OsString,
    io::Write as _,
    ops::Range,
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use probe::{attach::monotonic_ns, plan, request::Returns, target::TracedFile};
use serde_json::Value;

use crate::{
    report::{Series, Verdicts, Wanted, figure},
    run::{Probe, Server, built},
};

/// Each takes half a minute, of which requests come over eight connections, as fast as they are answered.
const ROUNDS: usize = 5;
/// Seconds of load for one figure.
const SECONDS: u64 = 2;
/// Without a budget, a server hardly goes on: longer would say no more.
const UNBOUNDED: u64 = 3;
/// Seconds told apart after everything is traced within the budget.
const TOLD: usize = 6;
/// What the contract gives a trace of everything to become bearable, seconds.
const SETTLING: usize = 2;
const FUNCTIONS: [usize; 4] = [1, 10, 100, 1000];
const SECOND_NS: u64 = 1_000_000_000;

/// Measures and prints.
pub(crate) fn bench(server: &Path, verdicts: &mut Verdicts) -> Result<()> {
    let names = in_order_of_interest(server)?;
    let mut untraced = Series::default();
    let mut ratios = vec![Series::default(); FUNCTIONS.len()];
    let mut unbounded = Series::default();
    let mut whole = Whole::default();
    for _ in 0..ROUNDS {
        let running = Server::start(server)?;
        for (count, ratio) in FUNCTIONS.into_iter().zip(&mut ratios) {
            let list = listed(names.get(..count).context("the server has fewer functions")?)?;
            let from_file = OsString::from(format!("--from-file={}", list.path().display()));
            let [before, traced] = compared(&running, &[from_file], SECONDS)?;
            ratio.push(traced / before);
            untraced.push(before);
        }
        let [before, traced] = compared(&running, &["--budget=0".into(), "*".into()], UNBOUNDED)?;
        unbounded.push(traced / before);
        whole.round(&running)?;
    }
    println!("\nA Go HTTP server under load from eight connections, client and `probe` on the same machine");
    figure("untraced", &untraced, "req/s");
    for (count, ratio) in FUNCTIONS.into_iter().zip(&ratios) {
        figure(&format!("{count} functions traced: of the throughput before"), ratio, "");
    }
    figure("'*', no budget: of that before", &unbounded, "");
    whole.print(verdicts);
    Ok(())
}

/// Everything, within the default budget.
#[derive(Default)]
struct Whole {
    /// Of the throughput before, by second.
    kept: [Series; TOLD],
    settled: Series,
    /// ms; what no probe has to do with, and while they come and the first two seconds after.
    slowest: [Series; 2],
}

impl Whole {
    fn round(&mut self, server: &Server) -> Result<()> {
        let load = Load::start(server, SECONDS + TOLD as u64 + 3)?;
        thread::sleep(Duration::from_secs(SECONDS));
        let started_ns = monotonic_ns();
        let probe = Probe::start(&[target(server), vec!["*".into()]].concat())?;
        let attached_ns = monotonic_ns();
        thread::sleep(Duration::from_secs(TOLD as u64));
        let answered = load.ended()?;
        probe.stop()?;
        let before = started_ns - SECONDS * SECOND_NS..started_ns;
        let untraced = answered.per_second(&before);
        let second = |n: usize| attached_ns + n as u64 * SECOND_NS;
        for (n, kept) in self.kept.iter_mut().enumerate() {
            kept.push(answered.per_second(&(second(n)..second(n + 1))) / untraced);
        }
        self.settled.push(answered.per_second(&(second(SETTLING)..second(TOLD))) / untraced);
        for (series, time) in self.slowest.iter_mut().zip([before, started_ns..second(SETTLING)]) {
            series.push(answered.slowest_ns(&time) / 1e6);
        }
        Ok(())
    }

    fn print(&self, verdicts: &mut Verdicts) {
        for (n, kept) in self.kept.iter().enumerate() {
            figure(&format!("'*', default budget, second {}: of that before", n + 1), kept, "");
        }
        figure("'*', default budget, from the third second on: of that before", &self.settled, "");
        let [untraced, traced] = &self.slowest;
        figure("slowest answer in two seconds, untraced", untraced, "ms");
        figure("slowest answer until two seconds after '*', default budget", traced, "ms");
        let kept = "'*' of a loaded Go server, default budget: of the throughput from the third second on";
        verdicts.want(kept, Wanted::AtLeast(0.7), self.settled.median());
        let later = "'*' of a loaded Go server: the slowest answer, later than untraced, ms";
        verdicts.want(later, Wanted::AtMost(100.0), traced.median() - untraced.median());
    }
}

/// Requests a second before the trace and in it.
fn compared(server: &Server, args: &[OsString], seconds: u64) -> Result<[f64; 2]> {
    let before = throughput(server, SECONDS)?;
    let probe = Probe::start(&[&target(server), args].concat())?;
    let traced = throughput(server, seconds)?;
    probe.stop()?;
    Ok([before, traced])
}

/// The server's own functions first, then those of the HTTP library, then the others.
fn in_order_of_interest(server: &Path) -> Result<Vec<String>> {
    let file = TracedFile::open(server, &server.display().to_string())?;
    let options = plan::Options { all: false, returns: Returns::Ret, thorough: false };
    let plan = plan::plan(std::slice::from_ref(&file), &["*".parse()?], options)?;
    let mut names: Vec<String> = plan.functions.into_iter().map(|function| function.traced.name).collect();
    names.sort_by_key(|name| (!name.starts_with("main.(*Store)"), !name.starts_with("net/http."), name.clone()));
    names.dedup();
    Ok(names)
}

/// A file with these names as patterns.
fn listed(names: &[String]) -> Result<tempfile::NamedTempFile> {
    let mut file = tempfile::NamedTempFile::new()?;
    for name in names {
        writeln!(file, "{name}")?;
    }
    Ok(file)
}

fn target(server: &Server) -> Vec<OsString> {
    vec!["--json".into(), "-p".into(), server.pid().to_string().into()]
}

/// Requests a second.
fn throughput(server: &Server, seconds: u64) -> Result<f64> {
    Ok(Load::start(server, seconds)?.ended()?.all)
}

/// Requests on their way.
struct Load(Child);

/// What became of them.
struct Answered {
    /// A second.
    all: f64,
    begin_ns: u64,
    /// Answers in each tenth of a second, and the slowest of them, ns.
    tenths: Vec<(f64, f64)>,
}

impl Load {
    fn start(server: &Server, seconds: u64) -> Result<Self> {
        let mut load = Command::new(built("go/load")?);
        load.args(["-addr", server.address(), "-s", &seconds.to_string()]).stdout(Stdio::piped());
        Ok(Self(load.spawn().context("failed to start the load")?))
    }

    fn ended(self) -> Result<Answered> {
        let output = self.0.wait_with_output()?;
        let report: Value = serde_json::from_slice(&output.stdout).context("the load said nothing")?;
        ensure!(report["failures"] == 0, "requests failed: {report}");
        let tenths = report["tenths"].as_array().context("no tenths")?;
        Ok(Answered {
            all: report["per_second"].as_f64().context("no per_second")?,
            begin_ns: report["begin_ns"].as_u64().context("no begin_ns")?,
            tenths: tenths.iter().filter_map(|tenth| Some((tenth[0].as_f64()?, tenth[1].as_f64()?))).collect(),
        })
    }
}

impl Answered {
    /// Tenths that begin within a time (`CLOCK_MONOTONIC`, ns).
    fn within(&self, time: &Range<u64>) -> impl Iterator<Item = (f64, f64)> {
        let began = (self.begin_ns..).step_by(SECOND_NS as usize / 10);
        began.zip(&self.tenths).filter(|(at, _)| time.contains(at)).map(|(_, tenth)| *tenth)
    }

    fn per_second(&self, time: &Range<u64>) -> f64 {
        let tenths: Vec<f64> = self.within(time).map(|(requests, _)| requests).collect();
        tenths.iter().sum::<f64>() * 10.0 / tenths.len() as f64
    }

    fn slowest_ns(&self, time: &Range<u64>) -> f64 {
        self.within(time).map(|(_, slowest)| slowest).fold(0.0, f64::max)
    }
}
