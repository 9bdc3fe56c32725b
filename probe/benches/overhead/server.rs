//! How many requests a Go HTTP server still answers while 1, 10, 100, 1,000 of its functions are traced, and all of them
//! within the default budget.

use std::{ffi::OsString, io::Write as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use probe::{plan, request::Returns, target::TracedFile};
use serde_json::Value;

use crate::{
    report::{Series, Verdicts, Wanted, figure},
    run::{Probe, Server, built},
};

/// Each takes seconds, of which requests come over eight connections, as fast as they are answered.
const ROUNDS: usize = 3;
/// Seconds of load for one figure.
const SECONDS: u32 = 2;
/// What the contract gives a trace of everything to become bearable, seconds.
const SETTLING: u32 = 2;
const FUNCTIONS: [usize; 4] = [1, 10, 100, 1000];

/// Measures and prints.
pub(crate) fn bench(server: &Path, verdicts: &mut Verdicts) -> Result<()> {
    let names = in_order_of_interest(server)?;
    let mut untraced = Series::default();
    let mut ratios = vec![Series::default(); FUNCTIONS.len()];
    let mut whole = Series::default();
    for _ in 0..ROUNDS {
        let running = Server::start(server)?;
        for (count, ratio) in FUNCTIONS.into_iter().zip(&mut ratios) {
            let list = listed(names.get(..count).context("the server has fewer functions")?)?;
            let before = throughput(&running, SECONDS)?;
            let from_file = OsString::from(format!("--from-file={}", list.path().display()));
            let probe = Probe::start(&[target(&running), vec![from_file]].concat())?;
            ratio.push(throughput(&running, SECONDS)? / before);
            probe.stop()?;
            untraced.push(before);
        }
        let before = throughput(&running, SECONDS)?;
        let probe = Probe::start(&[target(&running), vec!["*".into()]].concat())?;
        throughput(&running, SETTLING)?;
        whole.push(throughput(&running, SECONDS)? / before);
        probe.stop()?;
    }
    println!("\nA Go HTTP server under load from eight connections, client and `probe` on the same machine");
    figure("untraced", &untraced, "req/s");
    for (count, ratio) in FUNCTIONS.into_iter().zip(&ratios) {
        figure(&format!("{count} functions traced: of the throughput before"), ratio, "");
    }
    figure("'*', default budget, from the third second on: of that before", &whole, "");
    verdicts.want("'*' of a loaded Go server, default budget: of the throughput", Wanted::AtLeast(0.7), whole.median());
    Ok(())
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
fn throughput(server: &Server, seconds: u32) -> Result<f64> {
    let output =
        Command::new(built("go/load")?).args(["-addr", server.address(), "-s", &seconds.to_string()]).output()?;
    let report: Value = serde_json::from_slice(&output.stdout).context("the load said nothing")?;
    ensure!(report["failures"] == 0, "requests failed: {report}");
    report["per_second"].as_f64().context("no per_second")
}
