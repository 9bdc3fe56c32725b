//! The request: what the command line asks for, typed, with nothing contradictory left in it.
//!
//! In: [`crate::args::LowArgs`]. Out: [`Command`], or a usage error (exit status 2) that says what to write instead.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::num::NonZeroU64;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use clap::error::{ContextKind, ErrorKind};
use clap::{CommandFactory as _, Parser as _};
pub use clap_complete::Shell;

pub use crate::args::Returns;
use crate::args::{Layout, ListArgs, LowArgs, LowCommand, SelectArgs, Stack, Time, TraceArgs};
use crate::output::{Format, Notes, OutputOptions, TimeFormat};
use crate::target::containers::Within;

/// Subcommands that are to come. As the first argument they are refused, so that a script which names one does not
/// trace a function of that name instead.
const LATER: [&str; 5] = ["stat", "record", "replay", "report", "export"];

/// Sizes that the kernel takes for a ring buffer, bytes: at least a page, less than 2^32 and a power of two.
const BUFFER_BYTES: std::ops::RangeInclusive<u64> = 4096..=1 << 30;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Trace calls.
    Trace(Box<Trace>),
    /// List functions.
    List(List),
    /// Examine the machine.
    Doctor,
    /// Print completions.
    Completions(Shell),
    /// Print the manual page, or that of a subcommand.
    Man(Option<String>),
}

/// A trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Paths or library names; empty: the program of the target processes, of the threads' or of the command.
    pub binaries: Vec<PathBuf>,
    /// Whose calls.
    pub target: TargetRequest,
    /// Another `/proc` to look processes up in.
    pub proc: Option<PathBuf>,
    /// What functions: at least one.
    pub patterns: Vec<String>,
    /// How returns are seen.
    pub returns: Returns,
    /// Durations are to be less what the probes cost.
    pub subtract_overhead: bool,
    /// How callers are found.
    pub stack: StackMode,
    /// Callers at most.
    pub stack_depth: u32,
    /// Callers of every call, not only of outermost ones.
    pub stack_all: bool,
    /// The kernel's frames, too.
    pub kernel_stack: bool,
    /// Who made each goroutine is to be told.
    pub goroutines: bool,
    /// The trace ends after so many outermost calls.
    pub limit: Option<u64>,
    /// The trace ends after so long, ns.
    pub duration_ns: Option<u64>,
    /// Size of the ring buffer of all CPUs, bytes; a power of two.
    pub buffer_bytes: u64,
    /// Events a second that functions which are not named exactly may make; none: any number.
    pub budget: Option<NonZeroU64>,
    /// Attach also what takes long to detach.
    pub force: bool,
    /// Take in what is left out by default.
    pub all: bool,
    /// Fetch debug files from these servers; empty: from those of the environment.
    pub debuginfod: Option<String>,
    /// Only print the plan.
    pub dry_run: bool,
    /// Say little.
    pub quiet: bool,
    /// Say more: times that `-v` was given.
    pub verbose: u8,
    /// Write to this file and not to the standard output.
    pub output_file: Option<PathBuf>,
    /// What to show. Colour is left to the caller, who knows the terminal.
    pub output: OutputOptions,
}

/// Whose calls to trace: at most one of processes, threads, a name and a command is given; none means everyone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetRequest {
    /// These processes; empty: all.
    pub pids: Vec<u32>,
    /// Only in this container, pod or cgroup. The processes' numbers may be those inside.
    pub within: Option<Within>,
    /// These threads; empty: all.
    pub tids: Vec<u32>,
    /// Processes of this name.
    pub comm: Option<String>,
    /// Children too.
    pub follow: bool,
    /// A program to start: its name and arguments.
    pub command: Option<Vec<OsString>>,
    /// The user, by name or number, that it is started as; none: ours.
    pub user: Option<String>,
}

/// How callers are found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StackMode {
    /// Not at all.
    None,
    /// By frame pointers in Go, by unwind tables elsewhere.
    #[default]
    Auto,
    /// By frame pointers.
    FramePointers,
    /// By unwind tables.
    Dwarf,
}

/// A listing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct List {
    /// Paths or library names; empty: the program of the processes.
    pub binaries: Vec<PathBuf>,
    /// Look where these processes see the files.
    pub pids: Vec<u32>,
    /// Look in this container, pod or cgroup.
    pub within: Option<Within>,
    /// Another `/proc` to look processes up in.
    pub proc: Option<PathBuf>,
    /// What functions; empty: all.
    pub patterns: Vec<String>,
    /// Take in what is left out by default.
    pub all: bool,
    /// Fetch debug files from these servers; empty: from those of the environment.
    pub debuginfod: Option<String>,
    /// JSON lines.
    pub json: bool,
    /// Say more: times that `-v` was given.
    pub verbose: u8,
}

/// Reads the command line (the program's name first). Help and version come as an error too, as clap does it: print it
/// ([`clap::Error::print`]) and exit with [`clap::Error::exit_code`].
pub fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let argv: Vec<OsString> = argv.into_iter().collect();
    if let Some(name) = argv.get(1).and_then(|first| LATER.into_iter().find(|name| first == *name)) {
        return Err(usage(format!(
            "`{name}` is not available in this version\n\n  tip: a function of that name is written '={name}'"
        )));
    }
    from_args(LowArgs::try_parse_from(argv).map_err(|mut error| {
        // "use '-- -1'": but what follows `--` is a command.
        error.remove(ContextKind::Suggested);
        error
    })?)
}

fn from_args(args: LowArgs) -> Result<Command, clap::Error> {
    match args.command {
        None => trace(args.trace).map(|trace| Command::Trace(Box::new(trace))),
        Some(LowCommand::List(args)) => list(*args).map(Command::List),
        Some(LowCommand::Doctor) => Ok(Command::Doctor),
        Some(LowCommand::Completions { shell }) => Ok(Command::Completions(shell)),
        Some(LowCommand::Man { subcommand }) => Ok(Command::Man(subcommand)),
    }
}

/// Writes a shell's completions.
pub fn completions(shell: Shell, out: &mut dyn io::Write) -> io::Result<()> {
    // Into memory first: the generator panics where it cannot write.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut LowArgs::command(), "probe", &mut script);
    out.write_all(&script)
}

/// Writes the manual page (roff), or that of a subcommand.
pub fn man(subcommand: Option<&str>, out: &mut dyn io::Write) -> io::Result<()> {
    let mut whole = LowArgs::command();
    // Gives subcommands their whole names.
    whole.build();
    let page = subcommand.and_then(|name| whole.find_subcommand(name)).unwrap_or(&whole);
    clap_mangen::Man::new(page.clone()).render(&mut { out })
}

fn trace(args: TraceArgs) -> Result<Trace, clap::Error> {
    let patterns = patterns(&args.patterns, &args.select)?;
    refuse_contradictions(&args)?;
    refuse_no_function(&args, &patterns)?;
    let output = output(&args);
    let command = (!args.command.is_empty()).then_some(args.command);
    let within = within(&args.select);
    Ok(Trace {
        binaries: args.select.binaries,
        target: TargetRequest {
            pids: unique(args.select.pids),
            within,
            tids: unique(args.tids),
            comm: args.comm,
            follow: args.follow || command.is_some(),
            command,
            user: args.user,
        },
        proc: args.select.proc,
        patterns,
        returns: args.returns,
        subtract_overhead: args.subtract_overhead,
        stack: stack(args.stack),
        stack_depth: args.stack_depth,
        stack_all: args.stack_all,
        kernel_stack: args.kernel_stack,
        goroutines: args.goroutines,
        limit: args.limit,
        duration_ns: args.duration,
        buffer_bytes: buffer(args.buffer)?,
        budget: NonZeroU64::new(args.budget),
        force: args.force,
        all: args.select.all,
        debuginfod: args.select.debuginfod,
        dry_run: args.dry_run,
        quiet: args.quiet,
        verbose: args.select.verbose,
        output_file: args.output.map(|path| not_read(path, &args.select.from_file)).transpose()?,
        output,
    })
}

fn list(args: ListArgs) -> Result<List, clap::Error> {
    let patterns = patterns(&args.patterns, &args.select)?;
    if let Some(message) = places_exclude_each_other(&args.select) {
        return Err(usage(message));
    }
    let within = within(&args.select);
    if args.select.binaries.is_empty() && args.select.pids.is_empty() && !has_programs(within.as_ref()) {
        return Err(usage(
            "nothing to list: give a program or library with -x FILE, a process with -p PID, or a container with \
             --container NAME",
        ));
    }
    Ok(List {
        binaries: args.select.binaries,
        pids: unique(args.select.pids),
        within,
        proc: args.select.proc,
        patterns,
        all: args.select.all,
        debuginfod: args.select.debuginfod,
        json: args.json,
        verbose: args.select.verbose,
    })
}

fn output(args: &TraceArgs) -> OutputOptions {
    OutputOptions {
        format: match (args.json, args.layout) {
            (true, _) => Format::Json,
            (false, Some(Layout::Stream)) => Format::Stream,
            (false, Some(Layout::Tree) | None) => Format::Tree,
        },
        time: match args.time {
            Some(Time::Clock) | None => TimeFormat::Clock,
            Some(Time::Relative) => TimeFormat::Relative,
            Some(Time::Monotonic) => TimeFormat::Monotonic,
            Some(Time::None) => TimeFormat::None,
        },
        color: false,
        min_duration_ns: args.min_duration,
        slow_ns: args.slow,
        max_depth: args.max_depth,
        entries_only: args.returns == Returns::None,
        notes: Notes::default(),
    }
}

/// Options that cannot stand together, in the order in which they are looked for.
fn refuse_contradictions(args: &TraceArgs) -> Result<(), clap::Error> {
    let command = !args.command.is_empty();
    let some_pid = !args.select.pids.is_empty();
    let timed = args.min_duration.is_some() || args.slow.is_some();
    let some_place = within(&args.select).is_some();
    let refused = [
        (
            some_place && command,
            "--container, --pod and --cgroup choose among what runs by itself: they exclude -- COMMAND",
        ),
        (
            some_place && !args.tids.is_empty(),
            "--tid names a thread as the host does: it excludes --container, --pod and --cgroup",
        ),
        (command && some_pid, "-p and -- COMMAND exclude each other: trace a running process, or start one"),
        (command && !args.tids.is_empty(), "--tid and -- COMMAND exclude each other: its threads are not there yet"),
        (some_pid && !args.tids.is_empty(), "-p and --tid exclude each other: a thread's process need not be named"),
        (
            args.comm.is_some() && (command || some_pid || !args.tids.is_empty()),
            "--comm chooses among all processes: it excludes -p, --tid and -- COMMAND",
        ),
        (args.follow && !some_pid && !command, "--follow needs a process to follow: -p PID or -- COMMAND"),
        (args.user.is_some() && !command, "--user needs a program to start: -- COMMAND"),
        (args.json && args.layout.is_some(), "--json and --layout exclude each other: JSON lines have one layout"),
        (args.json && args.time.is_some(), "--json and --time exclude each other: JSON times are start_ns"),
        (
            timed && args.returns == Returns::None,
            "--min-duration and --slow need returns, which --returns=none leaves out",
        ),
        (
            args.subtract_overhead && args.returns == Returns::None,
            "--subtract-overhead is about durations: it needs returns, which --returns=none leaves out",
        ),
        (args.stack == Stack::None && args.stack_all, "--stack-all and --stack=none exclude each other"),
        (args.stack == Stack::None && args.kernel_stack, "--kernel-stack and --stack=none exclude each other"),
    ];
    let places = places_exclude_each_other(&args.select);
    match places.or_else(|| refused.into_iter().find(|(applies, _)| *applies).map(|(_, message)| message)) {
        Some(message) => Err(usage(message)),
        None => Ok(()),
    }
}

fn places_exclude_each_other(select: &SelectArgs) -> Option<&'static str> {
    let some_container = select.container.is_some() || select.pod.is_some();
    (some_container && select.cgroup.is_some())
        .then_some("--cgroup excludes --container and --pod: it names processes by itself")
}

/// Where the processes are that are meant.
fn within(select: &SelectArgs) -> Option<Within> {
    match (&select.pod, &select.container) {
        (Some(pod), Some(container)) => Some(Within::Container(format!("{pod}/{container}"))),
        (None, Some(container)) => Some(Within::Container(container.clone())),
        (Some(pod), None) => Some(Within::Pod(pod.clone())),
        (None, None) => select.cgroup.clone().map(Within::Cgroup),
    }
}

/// Whether it says what program is meant: a cgroup has no first process.
fn has_programs(within: Option<&Within>) -> bool {
    matches!(within, Some(Within::Container(_) | Within::Pod(_)))
}

/// A trace needs a file to look into and a function to look for.
fn refuse_no_function(args: &TraceArgs, patterns: &[String]) -> Result<(), clap::Error> {
    let some_process = !args.select.pids.is_empty() || !args.tids.is_empty() || !args.command.is_empty();
    let some_process = some_process || has_programs(within(&args.select).as_ref());
    if args.select.binaries.is_empty() && !some_process {
        let message = "nothing to trace: give a program or library with -x FILE, a process with -p PID, a container with \
                       --container NAME, or a command after --";
        let subcommand = patterns.iter().find(|pattern| ["list", "doctor"].contains(&pattern.as_str()));
        return Err(usage(match subcommand {
            Some(name) => format!("{message}\n\n  tip: `{name}` is a subcommand only as the first argument"),
            None => message.to_owned(),
        }));
    }
    if patterns.is_empty() {
        return Err(usage("no function given\n\n  tip: '*' means all of the program's own functions"));
    }
    Ok(())
}

/// The patterns of the command line and of the files it names. `=NAME` is NAME: only a way not to be a subcommand.
fn patterns(given: &[String], select: &SelectArgs) -> Result<Vec<String>, clap::Error> {
    let plain = |pattern: &str| pattern.strip_prefix('=').unwrap_or(pattern).to_owned();
    let mut patterns: Vec<String> = given.iter().map(|pattern| plain(pattern)).collect();
    for path in &select.from_file {
        patterns.extend(lines_of(path)?.lines().map(str::trim).filter(|line| counts(line)).map(plain));
    }
    match patterns.iter().any(String::is_empty) {
        true => Err(usage("an empty pattern matches nothing\n\n  tip: '*' means all of the program's own functions")),
        false => Ok(patterns),
    }
}

/// A file that may be written over: no program or library, which may be what is traced, or mapped by what runs, and nothing that
/// was read.
fn not_read(path: PathBuf, read: &[PathBuf]) -> Result<PathBuf, clap::Error> {
    let Ok(there) = fs::metadata(&path) else { return Ok(path) };
    let is_same = |other: &PathBuf| fs::metadata(other).is_ok_and(|o| (o.dev(), o.ino()) == (there.dev(), there.ino()));
    if read.iter().any(is_same) {
        return Err(usage(format!("-o {}: patterns are read from this file", path.display())));
    }
    let mut magic = [0; 4];
    let is_elf = there.is_file()
        && File::open(&path).and_then(|mut file| file.read_exact(&mut magic)).is_ok()
        && magic == *b"\x7fELF";
    if is_elf {
        return Err(usage(format!("-o {}: this is a program or library, which would be lost", path.display())));
    }
    Ok(path)
}

fn counts(line: &str) -> bool {
    !line.is_empty() && !line.starts_with('#')
}

fn lines_of(path: &Path) -> Result<String, clap::Error> {
    std::fs::read_to_string(path)
        .map_err(|error| usage(format!("failed to read patterns from '{}': {error}", path.display())))
}

fn stack(stack: Stack) -> StackMode {
    match stack {
        Stack::Auto => StackMode::Auto,
        Stack::Fp => StackMode::FramePointers,
        Stack::Dwarf => StackMode::Dwarf,
        Stack::None => StackMode::None,
    }
}

fn buffer(bytes: u64) -> Result<u64, clap::Error> {
    let rounded = bytes.max(*BUFFER_BYTES.start()).checked_next_power_of_two();
    rounded
        .filter(|bytes| BUFFER_BYTES.contains(bytes))
        .ok_or_else(|| usage("--buffer is too large: the kernel takes at most 1G"))
}

fn unique(mut ids: Vec<u32>) -> Vec<u32> {
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// A usage error: printed with the usage, exit status 2.
fn usage(message: impl std::fmt::Display) -> clap::Error {
    LowArgs::command().error(ErrorKind::ArgumentConflict, message)
}

#[cfg(test)]
mod tests;
