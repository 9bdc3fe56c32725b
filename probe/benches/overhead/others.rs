//! Other tools: perf, uftrace and a bpftrace that prints, each run on a test program, and what they lost.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use tempfile::TempDir;

use crate::{
    run::{Measured, Subject, bpftrace, cpu_of_children_ns, in_tracefs},
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

/// What `perf record` wrote.
pub(crate) struct Recording {
    /// Holds the file.
    folder: TempDir,
    pub(crate) measured: Measured,
}

impl Recording {
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("perf.data")
    }

    pub(crate) fn bytes(&self) -> Result<u64> {
        Ok(fs::metadata(self.path())?.len())
    }

    /// CPU time of `perf script`, which unwinds and names every stack, ns.
    pub(crate) fn reading_ns(&self) -> Result<u64> {
        let before = cpu_of_children_ns()?;
        let mut command = Command::new("perf");
        command.args(["script", "--no-inline", "-i"]).arg(self.path());
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        ensure!(status.success(), "perf script failed: {status}");
        Ok(cpu_of_children_ns()? - before)
    }

    /// Events that it holds.
    pub(crate) fn samples(&self) -> Result<u64> {
        let report = Command::new("perf").args(["report", "--stats", "-i"]).arg(self.path()).output()?;
        let stats = text(&report.stdout);
        let count = stats.lines().find_map(|line| line.trim().strip_prefix("SAMPLE events:"));
        let count = count.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        count.with_context(|| format!("perf report says no count: {stats}"))
    }
}

/// `perf record` of a uprobe at the first instruction, and a uretprobe; `options` are what callers want.
pub(crate) fn perf_recording(
    subject: &Subject,
    first: u64,
    returns: bool,
    options: &[&str],
    calls: u64,
    threads: u64,
) -> Result<Recording> {
    const SCRIPT: &str = "events=/sys/kernel/tracing/uprobe_events; place=$1 out=$2 returns=$3 options=$4; shift 4; \
                          trap 'echo -:probe_bench/entry >>$events; [ -z \"$returns\" ] || echo -:probe_bench/return \
                          >>$events' EXIT; echo \"p:probe_bench/entry $place\" >>$events || exit; set -- -- \"$@\"; \
                          if [ -n \"$returns\" ]; then echo \"r:probe_bench/return $place\" >>$events || exit; \
                          set -- -e probe_bench:return \"$@\"; fi; \
                          perf record -q $options -o \"$out\" -e probe_bench:entry \"$@\"";
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("perf.data");
    let place = format!("{}:{first:#x}", subject.path.display());
    let mut command = in_tracefs(SCRIPT);
    command.arg(place).arg(&out).args([if returns { "yes" } else { "" }, &options.join(" ")]);
    command.arg(&subject.path).args(["-n", &calls.to_string(), "-t", &threads.to_string()]);
    let output = command.output().context("failed to run perf")?;
    let measured = subject.measured(&text(&output.stdout)).with_context(|| text(&output.stderr))?;
    Ok(Recording { folder, measured })
}

/// The same, and what was lost.
pub(crate) fn perf_record(
    subject: &Subject,
    first: u64,
    returns: bool,
    stacks: bool,
    calls: u64,
    threads: u64,
) -> Result<Round> {
    let options: &[&str] = if stacks { &["-g"] } else { &[] };
    let recording = perf_recording(subject, first, returns, options, calls, threads)?;
    let measured = recording.measured;
    let lost = events(measured.calls, returns).saturating_sub(recording.samples()?);
    Ok(Round { measured, lost, cores: None })
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
