//! What tracing costs, beside the least it can cost and beside bpftrace: `make bench`.
//!
//! Needs root, the programs of `testdata/`, bpftrace 0.17 and a kernel with `uprobe.multi` (6.6). Figures are medians of
//! interleaved rounds of one run; those of different runs or machines do not compare. Not measured with criterion: what
//! counts is the time of whole processes, which they tell themselves.

mod attaching;
mod bare;
mod cost;
mod report;
mod run;
mod server;
mod throughput;

use std::time::Instant;

use anyhow::Result;
use probe::request::Returns;

use report::Verdicts;
use run::{Subject, built};

/// Rounds of each figure.
const ROUNDS: usize = 7;

fn main() -> Result<()> {
    let start = Instant::now();
    let go = Subject { name: "Go", path: built("go/bench")?, function: "main.(*Counter).Hot" };
    let c = Subject { name: "C", path: built("c/push")?, function: "hot_push" };
    let server = built("go/server")?;
    let cpus = std::thread::available_parallelism()?;
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    println!(
        "Medians of {ROUNDS} interleaved rounds (lowest … highest), {cpus} CPUs, load {load}, {}",
        run::bpftrace_version()?
    );

    let mut verdicts = Verdicts::default();
    cost::bench(&go, false, &mut verdicts)?;
    cost::bench(&c, true, &mut verdicts)?;
    for subject in [&go, &c] {
        for returns in [Returns::Ret, Returns::None] {
            throughput::bench(subject, returns, &mut verdicts)?;
        }
    }
    attaching::bench(&server, &mut verdicts)?;
    server::bench(&server, &mut verdicts)?;

    println!("\nWanted");
    verdicts.print();
    println!("\nThe benchmark took {} s", start.elapsed().as_secs());
    Ok(())
}
