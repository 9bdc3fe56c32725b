//! How long attaching and detaching take, beside a bare attach of the same points and beside bpftrace.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    path::Path,
    slice,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use probe::{
    attach::{self, Scope, features::Features},
    calls::Skipped,
    plan::{self, Plan, PointKind},
    request::Returns,
    target::TracedFile,
};

use crate::{
    ROUNDS,
    bare::Bare,
    report::{Series, Verdicts, Wanted, figure, number, single},
    run::{Server, bpftrace_attach},
};

/// Functions that bpftrace gets too.
const FEW: usize = 500;
/// bpftrace may take so long to attach, and again to detach.
const PATIENCE: Duration = Duration::from_secs(150);

#[derive(Default)]
struct Times {
    attach: Series,
    detach: Series,
    both: Series,
}

impl Times {
    fn measure<T>(&mut self, attach: impl FnOnce() -> Result<T>) -> Result<()> {
        let start = Instant::now();
        let attached = attach()?;
        let attach = start.elapsed();
        let start = Instant::now();
        drop(attached);
        let detach = start.elapsed();
        self.attach.push(milliseconds(attach));
        self.detach.push(milliseconds(detach));
        self.both.push(milliseconds(attach + detach));
        Ok(())
    }

    fn print(&self, name: &str) {
        figure(&format!("{name}: attach"), &self.attach, "ms");
        figure(&format!("{name}: detach"), &self.detach, "ms");
        figure(&format!("{name}: both"), &self.both, "ms");
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Measures and prints.
pub(crate) fn bench(server: &Path, verdicts: &mut Verdicts) -> Result<()> {
    let file = TracedFile::open(server, &server.display().to_string())?;
    let running = Server::start(server)?;
    let plan_all = |returns| {
        plan::plan(slice::from_ref(&file), &["*".parse()?], plan::Options { all: false, returns, thorough: false })
    };

    let mut all = plan_all(Returns::Ret)?;
    println!("\nAttach and detach, a Go server that runs: all {} functions", all.functions.len());
    let (probe, bare) = compare(&mut all, &file, server, running.pid())?;
    probe.print(&format!("probe, {} points", all.points.len()));
    bare.print(&format!("an empty program, same points, {} links", groups(&all).len()));
    verdicts.want(
        "all of a Go server: attach and detach, to an empty program",
        Wanted::AtMost(2.0),
        probe.both.median() / bare.both.median(),
    );

    let mut few = plan_all(Returns::None)?;
    let beyond: BTreeSet<u32> = (FEW as u32..few.functions.len() as u32).collect();
    few.remove(&beyond, |function| Skipped { function, reason: "one of too many".to_owned() });
    println!("\nAttach and detach, {} functions of it, entries only", few.functions.len());
    let (probe, bare) = compare(&mut few, &file, server, running.pid())?;
    probe.print("probe");
    bare.print("an empty program");
    let took = bpftrace_attach(&bpftrace_script(&few, server), few.functions.len(), PATIENCE)?;
    single("bpftrace, once: attach", &number(milliseconds(took.attach)), "ms");
    let (more, detach) = took.detach.map_or(("> ", PATIENCE), |detach| ("", detach));
    single("bpftrace, once: detach", &format!("{more}{}", number(milliseconds(detach))), "ms");
    if took.detach.is_none() {
        println!("  (bpftrace was killed; the kernel goes on removing its probes)");
    }
    verdicts.want(
        "500 functions: bpftrace's attach and detach, to probe's",
        Wanted::AtLeast(100.0),
        milliseconds(took.attach + detach) / probe.both.median(),
    );
    Ok(())
}

/// probe's own attach and detach, and bare ones of the same points.
fn compare(plan: &mut Plan, file: &TracedFile, path: &Path, pid: u32) -> Result<(Times, Times)> {
    let files = slice::from_ref(file);
    let features = Features::detect()?;
    let options = attach::Options {
        groups: None,
        stack_copy: attach::StackCopies::None,
        scope: Scope::Processes { pids: vec![pid], follow: false },
        stack_depth: 64,
        stack_all: false,
        kernel_stack: false,
        origins: false,
        buffer_bytes: 64 << 20,
        force: false,
        counted: false,
        min_duration_ns: 0,
        traps: false,
    };
    // What the kernel refuses is out of the plan after this.
    drop(attach::attach(plan, files, &features, &options, None)?);
    let (mut probe, mut bare) = (Times::default(), Times::default());
    for _ in 0..ROUNDS {
        let before = plan.points.len();
        probe.measure(|| attach::attach(plan, files, &features, &options, None))?;
        ensure!(plan.points.len() == before, "the kernel refused a point that it had taken before");
        // Inside: `attach` too has to put together what it attaches.
        bare.measure(|| Bare::attach(path, &groups(plan), pid))?;
    }
    Ok((probe, bare))
}

/// The points as `attach` makes links of them.
fn groups(plan: &Plan) -> Vec<Vec<u64>> {
    let kinds: [&[PointKind]; 5] = [
        &[PointKind::Return, PointKind::TailJump, PointKind::GoroutineEnd],
        &[PointKind::MaybeJump],
        &[PointKind::AfterReturn],
        &[PointKind::Passed],
        &[PointKind::Entry],
    ];
    let of = |kinds: &[PointKind]| -> Vec<u64> {
        plan.points.iter().filter(|p| kinds.contains(&p.kind)).map(|p| p.offset.0).collect()
    };
    kinds.into_iter().map(of).filter(|group| !group.is_empty()).collect()
}

fn bpftrace_script(plan: &Plan, path: &Path) -> String {
    let mut script = String::new();
    for function in &plan.functions {
        let separator = if script.is_empty() { "" } else { ",\n" };
        // Writing to a string cannot fail.
        let _ = write!(script, "{separator}uprobe:{}:{:#x}", path.display(), function.traced.address);
    }
    script.push_str(" { @ = count(); }");
    script
}
