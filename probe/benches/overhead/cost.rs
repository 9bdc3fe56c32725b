//! What one call costs the thread that makes it. Judged by CPU time: on an idle machine it is the time that passes, and
//! on a busy one other programs do not add to it.

use std::{ffi::OsString, slice};

use anyhow::{Context as _, Result, ensure};
use probe::{plan::PointKind, request::Returns};

use crate::{
    ROUNDS,
    bare::Bare,
    report::{Series, Verdicts, Wanted, beside, figure},
    run::{Measured, Probe, Subject, first_instruction, under_bpftrace},
};

/// Of a round.
const LENGTH_NS: f64 = 2.5e8;
const CALLS: std::ops::RangeInclusive<u64> = 10_000..=1_000_000;
/// Times in each round that what is compared is measured, one right after the other. On a virtual machine a single step takes 10 us
/// in one tenth of a second and 15 in the next, whatever the processor and the priority: so costs are compared value by value, and
/// many of them.
const TIMES: usize = 9;

/// A measurement of a program's calls, `n` of them.
type Measure<'a> = Box<dyn Fn(u64) -> Result<Measured> + 'a>;

struct Case<'a> {
    name: &'static str,
    measure: Measure<'a>,
    /// Of the next round: as many as take [`LENGTH_NS`], by what the last round took.
    calls: u64,
    cpu: Series,
    clock: Series,
}

impl<'a> Case<'a> {
    fn new(name: &'static str, measure: impl Fn(u64) -> Result<Measured> + 'a) -> Self {
        Self {
            name,
            measure: Box::new(measure),
            calls: *CALLS.start(),
            cpu: Series::default(),
            clock: Series::default(),
        }
    }

    fn run(&mut self, warm: bool) -> Result<()> {
        let measured = (self.measure)(self.calls).with_context(|| self.name)?;
        self.calls = ((LENGTH_NS / measured.ns_per_call) as u64).clamp(*CALLS.start(), *CALLS.end());
        if warm {
            self.cpu.push(measured.cpu_ns_per_call);
            self.clock.push(measured.ns_per_call);
        }
        Ok(())
    }
}

/// Measures and prints one function's costs.
pub(crate) fn bench(subject: &Subject, uretprobe: bool, verdicts: &mut Verdicts) -> Result<()> {
    let file = subject.open()?;
    let plan = subject.plan(&file, Returns::None)?;
    let first = first_instruction(&file, &plan, 0)?;
    let entry = plan.points.iter().find(|p| p.kind == PointKind::Entry).context("no entry in the plan")?;
    let (chosen, address) = (entry.offset.0, plan.functions[0].traced.address);

    let returns = subject.plan(&file, Returns::Ret)?;
    let returns: Vec<u64> =
        returns.points.iter().filter(|p| p.kind == PointKind::Return && p.function == 0).map(|p| p.offset.0).collect();
    let bare = |offset: u64, returns: &[u64]| {
        let offsets = [&[offset], returns].concat();
        move |calls| {
            let _bare = Bare::attach(&subject.path, slice::from_ref(&offsets), 0)?;
            subject.run(calls, 1)
        }
    };
    let probe = |flags: &'static [&'static str]| move |calls| probed(subject, flags, calls);
    let at = format!("{}:{address:#x}", subject.path.display());
    let count = format!("uprobe:{at} {{ @ = count(); }}");
    let time = format!(
        "uprobe:{at} {{ @start[tid] = nsecs; }} uretprobe:{at} /@start[tid]/ \
         {{ @ = hist(nsecs - @start[tid]); delete(@start[tid]); }}"
    );

    let mut cases = vec![
        Case::new("(a) nothing", |calls| subject.run(calls, 1)),
        Case::new("(b) an empty program, at the first instruction", bare(first, &[])),
        Case::new("(c) probe --stack=none --json --returns=none", probe(&["--stack=none", "--json", "--returns=none"])),
        Case::new("(c) probe --stack=none --json", probe(&["--stack=none", "--json"])),
        Case::new("    empty programs, at the first instruction and the RETs", bare(first, &returns)),
        Case::new("    an empty program, where probe puts its own", bare(chosen, &[])),
        Case::new("    empty programs, where probe puts its own, and the RETs", bare(chosen, &returns)),
        Case::new("    probe --json (callers by frame pointers)", probe(&["--json"])),
        Case::new("    probe (callers, tree)", probe(&[])),
        Case::new("(d) bpftrace, counting", |calls| under_bpftrace(subject, &count, calls, 1)),
    ];
    if uretprobe {
        let flags = &["--stack=none", "--json", "--returns=uretprobe"];
        cases.push(Case::new("    probe --stack=none --json --returns=uretprobe", probe(flags)));
        cases
            .push(Case::new("(d) bpftrace, timing with a uretprobe", |calls| under_bpftrace(subject, &time, calls, 1)));
    }
    let (bare_entry, entries, calls, bare_both) = (1, 2, 3, 4);
    // The first round says how many calls make a round, and warms up.
    for round in 0..=ROUNDS {
        for case in &mut cases {
            case.run(round > 0)?;
        }
        for _ in 1..TIMES {
            for case in &mut cases[bare_entry..=bare_both] {
                case.run(round > 0)?;
            }
        }
    }
    println!("\nCost per call of {} in {}: CPU time, and (right) by the clock", subject.function, subject.name);
    for case in &cases {
        beside(case.name, &case.cpu, "ns", &case.clock);
    }
    let cpu = |case: usize| &cases[case].cpu;
    let ratios = cpu(entries).divided_by(cpu(bare_entry));
    let bound = if uretprobe { 1.5 } else { 0.25 };
    verdicts.want(format!("{}: (c) entries only, to (b)", subject.name), Wanted::AtMost(bound), ratios.median());
    if !uretprobe {
        // What is left of a probe at the first instruction and one at the RET when the entry has become so much cheaper.
        let won = cpu(bare_entry).with(cpu(entries), |bare, probe| bare - probe);
        let left = cpu(bare_both).with(&won, |both, won| both - won);
        let ratios = cpu(calls).divided_by(&left);
        let name = "entry and return, to (b) at both less what the entry won";
        figure(&format!("(c) {name}"), &ratios, "");
        verdicts.want(format!("{}: {name}", subject.name), Wanted::AtMost(1.0), ratios.median());
    }
    Ok(())
}

fn probed(subject: &Subject, flags: &[&str], calls: u64) -> Result<Measured> {
    let mut args: Vec<OsString> = vec!["-x".into(), subject.path.clone().into(), subject.function.into()];
    args.extend(flags.iter().map(Into::into));
    let probe = Probe::start(&args)?;
    let measured = subject.run(calls, 1)?;
    let traced = probe.stop()?;
    ensure!(
        traced.calls + traced.lost == measured.calls || traced.lost > 0,
        "{} calls, probe saw {} and lost {}",
        measured.calls,
        traced.calls,
        traced.lost
    );
    Ok(measured)
}
