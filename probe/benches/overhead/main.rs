//! What tracing costs, beside the least it can cost and beside bpftrace: `make bench`.
//!
//! `cargo bench -p probe --bench overhead -- PART…` runs some parts alone: `cost`, `threads`, `attaching`, `server`,
//! `accuracy`, `stacks`.
//!
//! Needs root, the programs of `testdata/`, bpftrace 0.17 and a kernel with `uprobe.multi` (6.6); perf and uftrace where
//! they are installed. Figures are medians of interleaved rounds of one run; those of different runs or machines do not
//! compare. Not measured with criterion: what counts is the time of whole processes, which they tell themselves.

mod accuracy;
mod attaching;
mod bare;
mod cost;
mod others;
mod report;
mod run;
mod server;
mod stacks;
mod threads;

use std::time::Instant;

use anyhow::{Result, bail};

use others::Tools;
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
    let tools = Tools::find();
    println!("Medians of interleaved rounds (lowest … highest), {cpus} CPUs, load {load}; {}", tools.versions());

    let mut verdicts = Verdicts::default();
    if wanted("cost")? {
        cost::bench(&go, false, &mut verdicts)?;
        cost::bench(&c, true, &mut verdicts)?;
    }
    if wanted("threads")? {
        threads::bench(&go, true, &tools, &mut verdicts)?;
        threads::bench(&c, false, &tools, &mut verdicts)?;
    }
    if wanted("attaching")? {
        attaching::bench(&server, &mut verdicts)?;
    }
    if wanted("server")? {
        server::bench(&server, &mut verdicts)?;
    }
    if wanted("accuracy")? {
        accuracy::bench(&mut verdicts)?;
    }
    if wanted("stacks")? {
        stacks::bench(&tools, &mut verdicts)?;
    }

    println!("\nWanted");
    verdicts.print();
    println!("\nThe benchmark took {} s", start.elapsed().as_secs());
    Ok(())
}

/// The parts, by the names that choose them.
const PARTS: [&str; 6] = ["cost", "threads", "attaching", "server", "accuracy", "stacks"];

/// Whether a part is to be run: it was named, or none was. Cargo itself passes options.
fn wanted(part: &str) -> Result<bool> {
    let named: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    if let Some(unknown) = named.iter().find(|name| !PARTS.contains(&name.as_str())) {
        bail!("no part {unknown}: there are {}", PARTS.join(", "));
    }
    Ok(named.is_empty() || named.iter().any(|name| name == part))
}
