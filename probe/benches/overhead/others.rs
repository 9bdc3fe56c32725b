//! Other tools: perf, uftrace and a bpftrace that prints, each run on a test program, and what they lost.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};

use crate::{
    run::{Subject, bpftrace, in_tracefs},
    threads::Round,
};

/// Which tools can be run; or why not.
pub(crate) struct Tools {
    pub(crate) bpftrace: Result<(), String>,
    pub(crate) perf: Result<(), String>,
    pub(crate) uftrace: Result<(), String>,
    versions: Vec<String>,
}

impl Tools {
    pub(crate) fn find() -> Self {
        let mut versions = Vec::new();
        let mut installed = |name: &str| {
            let output = Command::new(name).arg("--version").output();
            let version = output.ok().filter(|o| o.status.success()).map(|o| text(&o.stdout).trim().to_owned());
            versions.push(version.clone().unwrap_or_else(|| format!("no {name}")));
            version.map(|_| ()).ok_or_else(|| "not installed".to_owned())
        };
        let (bpftrace, perf, uftrace) = (installed("bpftrace"), installed("perf"), installed("uftrace"));
        Self { bpftrace, perf, uftrace, versions }
    }

    /// As they say it themselves.
    pub(crate) fn versions(&self) -> String {
        self.versions.join(", ")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn events(calls: u64, returns: bool) -> u64 {
    if returns { calls * 2 } else { calls }
}

/// bpftrace with a script that prints a line for each event, to a file.
pub(crate) fn printing_bpftrace(
    subject: &Subject,
    script: &str,
    returns: bool,
    calls: u64,
    threads: u64,
) -> Result<Round> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("out");
    let mut command = bpftrace(script);
    command.arg("-o").arg(&out).args(["-c", &subject.command(calls, threads)]);
    let output = command.output().context("failed to run bpftrace")?;
    let measured = subject.measured(&text(&output.stdout))?;
    let printed = text(&fs::read(&out)?).lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).count();
    let lost = events(measured.calls, returns).saturating_sub(printed as u64);
    Ok(Round { measured, lost, cores: None })
}

/// `perf record` of a uprobe at the first instruction, and a uretprobe.
pub(crate) fn perf_record(
    subject: &Subject,
    first: u64,
    returns: bool,
    stacks: bool,
    calls: u64,
    threads: u64,
) -> Result<Round> {
    const SCRIPT: &str = "events=/sys/kernel/tracing/uprobe_events; place=$1 out=$2 returns=$3 stacks=$4; shift 4; \
                          trap 'echo -:probe_bench/entry >>$events; [ -z \"$returns\" ] || echo -:probe_bench/return \
                          >>$events' EXIT; echo \"p:probe_bench/entry $place\" >>$events || exit; set -- -- \"$@\"; \
                          if [ -n \"$returns\" ]; then echo \"r:probe_bench/return $place\" >>$events || exit; \
                          set -- -e probe_bench:return \"$@\"; fi; \
                          perf record -q $stacks -o \"$out\" -e probe_bench:entry \"$@\"";
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("perf.data");
    let place = format!("{}:{first:#x}", subject.path.display());
    let mut command = in_tracefs(SCRIPT);
    command.arg(place).arg(&out).args([if returns { "yes" } else { "" }, if stacks { "-g" } else { "" }]);
    command.arg(&subject.path).args(["-n", &calls.to_string(), "-t", &threads.to_string()]);
    let output = command.output().context("failed to run perf")?;
    let measured = subject.measured(&text(&output.stdout)).with_context(|| text(&output.stderr))?;
    let lost = events(measured.calls, returns).saturating_sub(samples(&out)?);
    Ok(Round { measured, lost, cores: None })
}

/// Events that a recording of perf's holds.
fn samples(recording: &Path) -> Result<u64> {
    let report = Command::new("perf").args(["report", "--stats", "-i"]).arg(recording).output()?;
    let stats = text(&report.stdout);
    let count = stats.lines().find_map(|line| line.trim().strip_prefix("SAMPLE events:"));
    let count = count.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
    count.with_context(|| format!("perf report says no count: {stats}"))
}

/// `uftrace record`, which rewrites the function's first instructions as the program starts.
pub(crate) fn uftrace_record(subject: &Subject, calls: u64, threads: u64) -> Result<Round> {
    let folder = tempfile::tempdir()?;
    let mut command = Command::new("uftrace");
    command.args(["record", "--no-libcall", "-P", subject.function, "-d"]).arg(folder.path().join("data"));
    command.arg(&subject.path).args(["-n", &calls.to_string(), "-t", &threads.to_string()]);
    let output = command.output().context("failed to run uftrace")?;
    let measured = subject.measured(&text(&output.stdout)).with_context(|| text(&output.stderr))?;
    let report = Command::new("uftrace")
        .args(["report", "--no-pager", "-f", "call", "-d"])
        .arg(folder.path().join("data"))
        .output()?;
    let report = text(&report.stdout);
    let seen = report.lines().find(|line| line.trim_end().ends_with(subject.function));
    let seen: Option<u64> = seen.and_then(|line| line.split_whitespace().next()?.parse().ok());
    ensure!(seen.is_some(), "uftrace saw no call: {report}");
    Ok(Round { lost: measured.calls.saturating_sub(seen.unwrap_or(0)), measured, cores: None })
}
