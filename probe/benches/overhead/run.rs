//! Running what is measured: the test programs, `probe`, bpftrace.

use std::{
    ffi::OsString,
    io::{BufRead as _, BufReader, Read as _},
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};
use nix::{
    sys::{
        resource::{UsageWho, getrusage},
        signal::{Signal, kill},
        time::TimeValLike as _,
    },
    unistd::Pid,
};
use probe::{
    plan::{self, Plan},
    request::Returns,
    target::TracedFile,
};
use serde_json::Value;
use symbols::addr::Vaddr;

/// One of the test programs, and its function that is called.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    pub(crate) path: PathBuf,
    pub(crate) function: &'static str,
}

/// A test program under `testdata/build`.
pub(crate) fn built(path: &str) -> Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/build").join(path);
    path.canonicalize().with_context(|| format!("{} is missing: run `make programs`", path.display()))
}

/// What a test program says of its own run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Measured {
    /// All threads together.
    pub(crate) calls: u64,
    pub(crate) ns_per_call: f64,
    /// CPU time: the same on an idle machine.
    pub(crate) cpu_ns_per_call: f64,
    pub(crate) calls_per_s: f64,
}

impl Subject {
    /// Calls the function `calls` times in each of `threads`.
    pub(crate) fn run(&self, calls: u64, threads: u64) -> Result<Measured> {
        let output = Command::new(&self.path)
            .args(["-n", &calls.to_string(), "-t", &threads.to_string()])
            .stderr(Stdio::inherit())
            .output()
            .with_context(|| format!("failed to run {}", self.path.display()))?;
        self.measured(&String::from_utf8_lossy(&output.stdout))
    }

    /// The line of truth in a program's output, or in that of the bpftrace which ran it.
    pub(crate) fn measured(&self, output: &str) -> Result<Measured> {
        let line = output.lines().find(|line| line.starts_with("{\""));
        let line = line.with_context(|| format!("{} said nothing: {output}", self.path.display()))?;
        let value: Value = serde_json::from_str(line)?;
        let number = |key: &str| value.get(key).and_then(Value::as_f64).with_context(|| format!("no {key} in {line}"));
        Ok(Measured {
            calls: number(self.function)? as u64,
            ns_per_call: number("ns_per_call")?,
            cpu_ns_per_call: number("cpu_ns_per_call")?,
            calls_per_s: number("calls_per_s")?,
        })
    }

    pub(crate) fn open(&self) -> Result<TracedFile> {
        TracedFile::open(&self.path, &self.path.display().to_string())
    }

    /// The plan for this function alone.
    pub(crate) fn plan(&self, file: &TracedFile, returns: Returns) -> Result<Plan> {
        let options = plan::Options { all: false, returns, thorough: false };
        plan::plan(std::slice::from_ref(file), &[self.function.parse()?], options)
    }

    /// `push -n CALLS -t THREADS`, as bpftrace wants a command.
    pub(crate) fn command(&self, calls: u64, threads: u64) -> String {
        format!("{} -n {calls} -t {threads}", self.path.display())
    }
}

/// File offset of a planned function's first instruction.
pub(crate) fn first_instruction(file: &TracedFile, plan: &Plan, function: usize) -> Result<u64> {
    let function = plan.functions.get(function).context("no such function in the plan")?;
    let offset = file.index.binary().file_offset(Vaddr(function.traced.address));
    Ok(offset.context("a function outside of its file")?.0)
}

/// A running `probe`.
pub(crate) struct Probe {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// CPU time when the probes were in place, ns.
    cpu_at_start_ns: u64,
}

/// How a `probe` ended.
pub(crate) struct Traced {
    pub(crate) calls: u64,
    pub(crate) lost: u64,
    /// Its CPU time while the target ran and the rest was read, ns.
    pub(crate) cpu_ns: u64,
}

impl Probe {
    /// Starts it with its output going to /dev/null, and waits until the probes are in place.
    pub(crate) fn start(args: &[OsString]) -> Result<Self> {
        let mut child = Command::new(env!("CARGO_BIN_EXE_probe"))
            .args(args)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("failed to run probe")?;
        let mut stderr = BufReader::new(child.stderr.take().context("no stderr")?);
        let mut said = String::new();
        while !said.contains("; Ctrl-C ends") {
            if stderr.read_line(&mut said)? == 0 {
                bail!("probe did not start: {said}");
            }
        }
        let cpu_at_start_ns = cpu_ns(child.id())?;
        Ok(Self { child, stderr, cpu_at_start_ns })
    }

    /// Waits until it has read all there is, and ends it.
    pub(crate) fn stop(mut self) -> Result<Traced> {
        let cpu_ns = self.settled()?.saturating_sub(self.cpu_at_start_ns);
        interrupt(&self.child)?;
        let mut said = String::new();
        self.stderr.read_to_string(&mut said)?;
        self.child.wait()?;
        let (calls, lost) = closing_line(&said).with_context(|| format!("no closing line: {said}"))?;
        Ok(Traced { calls, lost, cpu_ns })
    }

    /// The CPU time, once it no longer grows by more than an idle reader's.
    fn settled(&self) -> Result<u64> {
        const LOOK: Duration = Duration::from_millis(20);
        let mut before = cpu_ns(self.child.id())?;
        loop {
            std::thread::sleep(LOOK);
            let now = cpu_ns(self.child.id())?;
            if now - before < LOOK.as_nanos() as u64 / 10 {
                return Ok(now);
            }
            before = now;
        }
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // Of one that has ended, nothing happens; of one that a failed measurement left, nothing is to be learnt.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `N calls (…), E events in T, L lost`: N and L.
fn closing_line(said: &str) -> Option<(u64, u64)> {
    let line = said.lines().find(|line| line.ends_with(" lost"))?;
    let calls = line.strip_prefix("probe: ")?.split(' ').next()?.parse().ok()?;
    let lost = line.strip_suffix(" lost")?.rsplit(' ').next()?.parse().ok()?;
    Some((calls, lost))
}

/// CPU time of a process's first thread, ns.
fn cpu_ns(pid: u32) -> Result<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).context("failed to read CPU time")?;
    text.split(' ').next().and_then(|n| n.parse().ok()).with_context(|| format!("not a CPU time: {text}"))
}

/// CPU time of this process, ns.
pub(crate) fn own_cpu_ns() -> Result<u64> {
    used_ns(UsageWho::RUSAGE_SELF)
}

/// CPU time of all children that were waited for, ns.
pub(crate) fn cpu_of_children_ns() -> Result<u64> {
    used_ns(UsageWho::RUSAGE_CHILDREN)
}

fn used_ns(who: UsageWho) -> Result<u64> {
    let used = getrusage(who)?;
    Ok((used.user_time() + used.system_time()).num_microseconds() as u64 * 1000)
}

fn interrupt(child: &Child) -> Result<()> {
    Ok(kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGINT)?)
}

/// A script of the shell that finds tracefs mounted, and no limit on locked memory. Arguments follow as `$1` and on.
pub(crate) fn in_tracefs(script: &str) -> Command {
    const PREPARED: &str = "[ -e /sys/kernel/tracing/events ] || mount -t tracefs tracefs /sys/kernel/tracing; \
                            ulimit -l unlimited 2>/dev/null; ";
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &[PREPARED, script].concat(), "sh"]);
    command
}

/// bpftrace with a script.
pub(crate) fn bpftrace(script: &str) -> Command {
    let mut command = in_tracefs("exec bpftrace \"$@\"");
    command.args(["-e", script]).stderr(Stdio::null());
    command
}

/// Runs the program under bpftrace.
pub(crate) fn under_bpftrace(subject: &Subject, script: &str, calls: u64, threads: u64) -> Result<Measured> {
    let mut command = bpftrace(script);
    let output = command.args(["-c", &subject.command(calls, threads)]).output().context("failed to run bpftrace")?;
    subject.measured(&String::from_utf8_lossy(&output.stdout)).map_err(|error| anyhow!("under bpftrace: {error:#}"))
}

/// How long bpftrace took; none: longer than it was given.
pub(crate) struct BpftraceTook {
    pub(crate) attach: Duration,
    pub(crate) detach: Option<Duration>,
}

/// Attaches and detaches one script with bpftrace. Its own work of compiling is left out: the time of attaching is from
/// its first perf event to its last.
pub(crate) fn bpftrace_attach(script: &str, probes: usize, at_most: Duration) -> Result<BpftraceTook> {
    let mut child = bpftrace(script).stdout(Stdio::null()).env("BPFTRACE_MAX_PROBES", "100000").spawn()?;
    let attached = perf_events_made(&mut child, probes, at_most);
    let attach = match attached {
        Ok(took) => took,
        Err(error) => {
            child.kill()?;
            child.wait()?;
            return Err(error);
        }
    };
    let start = Instant::now();
    interrupt(&child)?;
    while start.elapsed() < at_most {
        if child.try_wait()?.is_some() {
            return Ok(BpftraceTook { attach, detach: Some(start.elapsed()) });
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // Not waited for: in the kernel it goes on removing probes, and cannot be hurried.
    child.kill()?;
    Ok(BpftraceTook { attach, detach: None })
}

fn perf_events_made(child: &mut Child, probes: usize, at_most: Duration) -> Result<Duration> {
    let begun = Instant::now();
    let mut first = None;
    loop {
        let made = perf_events(child.id());
        if made > 0 && first.is_none() {
            first = Some(Instant::now());
        }
        if let Some(first) = first
            && made >= probes
        {
            return Ok(first.elapsed());
        }
        if child.try_wait()?.is_some() || begun.elapsed() > at_most {
            bail!("bpftrace attached {made} of {probes} probes");
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Perf events that a process holds.
fn perf_events(pid: u32) -> usize {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return 0 };
    let is_one = |target: PathBuf| target.as_os_str() == "anon_inode:[perf_event]";
    entries.flatten().filter(|entry| std::fs::read_link(entry.path()).is_ok_and(is_one)).count()
}

/// The running Go server; ended when dropped.
pub(crate) struct Server {
    child: Child,
    address: String,
    _stdout: BufReader<ChildStdout>,
}

impl Server {
    pub(crate) fn start(path: &Path) -> Result<Self> {
        let mut child = Command::new(path).stdout(Stdio::piped()).spawn().context("failed to start the server")?;
        let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        let mut ready = String::new();
        stdout.read_line(&mut ready)?;
        let address = ready.strip_prefix("ready ").context("it is not ready")?.trim().to_owned();
        Ok(Self { child, address, _stdout: stdout })
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is ours, and nothing is to be learnt from its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
