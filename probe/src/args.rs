//! The command line as typed: flags and their help, nothing decided.
//!
//! In: `argv`. Out: [`LowArgs`]. What follows from the flags, and which of them exclude each other, is in
//! [`crate::request`]. Each flag's help is its comment here.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum, builder::NonEmptyStringValueParser};
use clap_complete::Shell;

const EXAMPLES: &str = "\
Examples:
  probe -x ./srv 'main.(*Store).Get'    every call of a method, in all processes
  probe -p 4711 SaveNetworkLocateInfo   by the end of its name, in one process
  probe -p 4711 --slow 10ms 'main.*'    only what took 10 ms or more
  probe -x ./test '*' -- ./test         start a program, trace its functions
  probe -x libssl -p 4711 'SSL_*'       functions of a library
  probe --container web 'main.*'        only in this container
  probe list -x ./srv '*[Ss]tore*'      what there is to trace

Durations are written 500ns, 100us, 10ms, 1.5s, 2m.
A subcommand is one only as the first argument: a function called `list` is
`=list`. Ctrl-C ends the trace; the target goes on unharmed.";

const PATTERNS: &str = "\
A function's name as in the source (`main.(*Store).Get`, `Vec::push`) or the end of it, a glob (`net/http.*`), a \
`/regex/`, an address (`0x12e0220`), a place in a function (`main.work+0x12`). `!PATTERN` takes away what it matches";

/// Show every call of a running program's functions: when, how long, called from where
#[derive(Clone, Debug, Parser)]
#[command(
    name = "probe",
    version,
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    max_term_width = 120,
    after_help = EXAMPLES,
    override_usage = "probe [-x FILE] [-p PID] [OPTIONS] PATTERN... [-- COMMAND ARG...]\n       \
                      probe list [-x FILE] [-p PID] [PATTERN...]\n       probe doctor"
)]
pub struct LowArgs {
    /// A subcommand, where the first argument is one.
    #[command(subcommand)]
    pub command: Option<LowCommand>,
    /// Else a trace.
    #[command(flatten)]
    pub trace: TraceArgs,
}

/// The subcommands.
#[derive(Clone, Debug, Subcommand)]
pub enum LowCommand {
    /// List what can be traced, where it is, and what cannot be traced and why
    List(Box<ListArgs>),
    /// Say what works on this machine (kernel, permissions), and what to do about what does not
    Doctor,
    /// Print a shell's completions
    #[command(hide = true)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Print a manual page
    #[command(hide = true)]
    Man {
        /// The subcommand that it is of
        #[arg(value_parser = ["list", "doctor"])]
        subcommand: Option<String>,
    },
}

/// Where to look for functions.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Select")]
pub struct SelectArgs {
    /// Program or library: a path, or a library's name (`libssl`, `libc.so.6`): what the process of -p has mapped, what
    /// the COMMAND needs, else what any program would be given; with a target also what it loads later. What takes a file's
    /// place while it is traced is traced too. Repeatable. May be left out with -p and with a COMMAND: their own program is meant
    #[arg(short = 'x', value_name = "FILE")]
    pub binaries: Vec<PathBuf>,
    /// All threads of these processes. With --container also by the PIDs that they have inside
    #[arg(short = 'p', value_name = "PID[,PID…]", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..))]
    pub pids: Vec<u32>,
    /// Processes of this container, also those that start later, and when it starts anew: its name (Docker, podman, CRI-O,
    /// containerd, runc), POD/NAME, or its ID's first digits (4 or more). Without -x, the program of its first process
    #[arg(long, value_name = "ID|NAME", help_heading = "Target")]
    pub container: Option<String>,
    /// The same for all containers of a pod, or the one that --container names: the pod's name, or NAMESPACE/NAME
    #[arg(long, value_name = "NAME", help_heading = "Target")]
    pub pod: Option<String>,
    /// Processes in this cgroup and below it, of version 1 or 2: a directory (`/sys/fs/cgroup/…`), or a path as
    /// /proc/PID/cgroup shows it (`docker/9c22…`)
    #[arg(long, value_name = "PATH", help_heading = "Target")]
    pub cgroup: Option<PathBuf>,
    /// Look processes up in this /proc: in a container, the host's
    #[arg(long, value_name = "DIR", help_heading = "Target")]
    pub proc: Option<PathBuf>,
    /// More patterns, one a line; empty lines and those that begin with # do not count
    #[arg(long, value_name = "PATTERNS")]
    pub from_file: Vec<PathBuf>,
    /// Take in what is left out by default: the Go runtime, wrappers, start-up code, nameless functions
    #[arg(long)]
    pub all: bool,
    /// Fetch missing debug files from debuginfod servers: those of DEBUGINFOD_URLS, or these. What is in debuginfod's cache
    /// is used in any case
    #[arg(long, value_name = "URL[,URL…]", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub debuginfod: Option<String>,
    /// Say more: what was left out and why. Twice: for debugging probe itself
    #[arg(short, long, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// What to trace, how, and what to show of it.
#[derive(Args, Clone, Debug, Default)]
pub struct TraceArgs {
    /// Where to look for functions.
    #[command(flatten)]
    pub select: SelectArgs,
    #[doc = "One or more patterns."]
    #[arg(value_name = "PATTERN", help = PATTERNS, help_heading = "Arguments")]
    pub patterns: Vec<String>,
    /// Start this program when the probes are in place, and trace it. Its exit status becomes probe's; the trace goes to
    /// stderr, or to -o FILE
    #[arg(last = true, value_name = "COMMAND", help_heading = "Arguments")]
    pub command: Vec<OsString>,

    /// Only this thread. Repeatable
    #[arg(long = "tid", value_name = "TID", value_delimiter = ',', help_heading = "Target",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub tids: Vec<u32>,
    /// Only processes of this name (15 bytes at most, as `ps -o comm` shows it), also those that take it later
    #[arg(long, value_name = "NAME", help_heading = "Target", value_parser = NonEmptyStringValueParser::new())]
    pub comm: Option<String>,
    /// Child processes too. The default with a COMMAND
    #[arg(long, help_heading = "Target")]
    pub follow: bool,
    /// The COMMAND runs as this user (a name or a number), with the user's groups, HOME, USER and LOGNAME
    #[arg(long, value_name = "USER", help_heading = "Target")]
    pub user: Option<String>,

    /// Write the trace to a file
    #[arg(short = 'o', value_name = "FILE", help_heading = "Output")]
    pub output: Option<PathBuf>,
    /// JSON lines, one for each call at its end
    #[arg(long, help_heading = "Output")]
    pub json: bool,
    /// `tree`: a block for each outermost call, when it ends. `stream`: entries and exits in the order of events
    #[arg(long, value_name = "LAYOUT", help_heading = "Output")]
    pub layout: Option<Layout>,
    /// Time of day, seconds since the start, seconds of CLOCK_MONOTONIC, or no times [default: clock]
    #[arg(long, value_name = "TIME", help_heading = "Output")]
    pub time: Option<Time>,
    /// No talk on stderr but errors and what was lost
    #[arg(short, long, help_heading = "Output", conflicts_with = "verbose")]
    pub quiet: bool,
    /// Show what would be attached where, and attach nothing
    #[arg(long, help_heading = "Output")]
    pub dry_run: bool,

    /// Hide calls that took less
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Filter")]
    pub min_duration: Option<u64>,
    /// Show outermost calls that took at least this long, with all that was called in them; nothing else
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Filter")]
    pub slow: Option<u64>,
    /// Show this many levels of calls: 1 shows outermost calls only
    #[arg(long, value_name = "N", help_heading = "Filter", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_depth: Option<u32>,
    /// End the trace after this time
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Filter")]
    pub duration: Option<u64>,
    /// End the trace after N outermost calls
    #[arg(long, value_name = "N", help_heading = "Filter", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,

    /// Subtract from each duration what the probes themselves cost in it: those of the call and those of the calls traced in
    /// it. Measured on this machine, at the start and, where the kernel lets it, in each trap
    #[arg(long, help_heading = "Probes")]
    pub subtract_overhead: bool,
    /// How returns are seen: by probes on the functions' own exits; by uretprobes (refused on Go, which they kill; they
    /// abort Rust and C++ programs that unwind); or not at all
    #[arg(long, value_name = "HOW", default_value = "ret", help_heading = "Probes")]
    pub returns: Returns,
    /// How the callers of each outermost call are found: by frame pointers (fp); by unwind tables, from a copy of the
    /// stack (dwarf); in Go by frame pointers, which it always keeps, elsewhere by unwind tables (auto); or not at all
    #[arg(long, value_name = "HOW", default_value = "auto", help_heading = "Probes")]
    pub stack: Stack,
    /// Callers at most
    #[arg(long, value_name = "N", default_value = "64", help_heading = "Probes",
          value_parser = clap::value_parser!(u32).range(1..=127))]
    pub stack_depth: u32,
    /// Callers of every call, not only of outermost ones
    #[arg(long, help_heading = "Probes")]
    pub stack_all: bool,
    /// With the callers also the kernel's frames at that moment. A probe is reached through a trap, and nothing but that trap
    /// is below it
    #[arg(long, help_heading = "Probes")]
    pub kernel_stack: bool,
    /// Say of each goroutine which one made it, and at which `go` statement. Go 1.21 and later keep its number, all keep the
    /// statement
    #[arg(long, help_heading = "Probes")]
    pub goroutines: bool,
    /// Memory for events on their way out of the kernel: bytes, or with k, M, G. Rounded up to a power of two
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "64M", help_heading = "Probes")]
    pub buffer: u64,
    /// Events a second that functions matched by a glob, regex or file may make together; 0: any number. Beyond it the
    /// hottest are detached while the trace goes on, and this is said. What is named exactly, or by the end of its name,
    /// is always traced and does not count. What counts is the cost: the entry and the return of a usual call are two
    /// events; alone, one at an instruction that the kernel emulates (a push, a jump) counts 0.2, any other (every
    /// return) 1.8
    #[arg(long, value_name = "N", default_value = "20000", help_heading = "Probes")]
    pub budget: u64,
    /// Attach more than 200 points also where each takes 0.1 s to remove (kernels before 6.6)
    #[arg(long, help_heading = "Probes")]
    pub force: bool,
}

/// What to list.
#[derive(Args, Clone, Debug, Default)]
pub struct ListArgs {
    /// Where to look for functions.
    #[command(flatten)]
    pub select: SelectArgs,
    #[doc = "Patterns; none means all."]
    #[arg(value_name = "PATTERN", help = PATTERNS, help_heading = "Arguments")]
    pub patterns: Vec<String>,
    /// JSON lines, one for each function
    #[arg(long, help_heading = "Output")]
    pub json: bool,
}

/// `--layout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// A block for each outermost call.
    Tree,
    /// Entries and exits in the order of events.
    Stream,
}

/// `--time`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Time {
    /// Local time of day.
    Clock,
    /// Seconds since the trace began.
    Relative,
    /// Seconds of `CLOCK_MONOTONIC`.
    Monotonic,
    /// None.
    None,
}

/// `--returns`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Returns {
    /// Probes on the functions' exits.
    #[default]
    Ret,
    /// The kernel's return probes.
    Uretprobe,
    /// Entries only.
    None,
}

/// `--stack`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Stack {
    /// The best that there is.
    #[default]
    Auto,
    /// Frame pointers.
    Fp,
    /// Unwind tables.
    Dwarf,
    /// None.
    None,
}

/// Reads a duration with its unit, as ns: `10ms`, `1.5s`.
fn duration(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 8] = [
        ("ns", 1),
        ("us", 1_000),
        ("µs", 1_000),       // U+00B5, the micro sign
        ("\u{3bc}s", 1_000), // the Greek letter looks the same
        ("ms", 1_000_000),
        ("s", 1_000_000_000),
        ("m", 60_000_000_000),
        ("h", 3_600_000_000_000),
    ];
    let (number, unit) = split_number(text);
    if unit.is_empty() && !number.is_empty() {
        return Err("a unit is missing: ns, us, ms, s, m or h".to_owned());
    }
    let unit_ns = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, ns)| *ns);
    let unit_ns = unit_ns.ok_or("not a duration: a number and one of ns, us, ms, s, m, h, like 10ms or 1.5s")?;
    scaled(number, unit_ns).ok_or_else(|| format!("not a number, or too large: '{number}'"))
}

/// Reads a size in bytes: `64M`.
fn size(text: &str) -> Result<u64, String> {
    let (number, unit) = split_number(text);
    let bytes = match unit {
        "" | "B" => 1,
        "k" | "K" | "kB" | "KiB" => 1 << 10,
        "M" | "MB" | "MiB" => 1 << 20,
        "G" | "GB" | "GiB" => 1 << 30,
        _ => return Err("not a size: a number of bytes, or one with k, M or G, like 64M".to_owned()),
    };
    scaled(number, bytes).ok_or_else(|| format!("not a number, or too large: '{number}'"))
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number, unit.trim_start())
}

/// `number` times `unit`, exactly; fractions of 1 are cut off.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() || fraction.len() > 18 {
        return None;
    }
    let mut value = u128::from(whole.parse::<u64>().ok()?).checked_mul(unit.into())?;
    if !fraction.is_empty() {
        let digits: u128 = fraction.parse().ok()?;
        let scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
        value = value.checked_add(digits.checked_mul(unit.into())? / scale)?;
    }
    u64::try_from(value).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_need_a_number_and_a_unit() {
        for (text, ns) in [
            ("0ns", 0),
            ("10ms", 10_000_000),
            ("1.5s", 1_500_000_000),
            ("100us", 100_000),
            ("100µs", 100_000),
            ("100μs", 100_000),
            ("2m", 120_000_000_000),
            ("1h", 3_600_000_000_000),
            ("0.000001s", 1_000),
            ("1.5ns", 1),
            ("10 ms", 10_000_000),
        ] {
            assert_eq!(duration(text), Ok(ns), "{text}");
        }
        for text in ["", "ms", "10", "1.5", "-1s", "1.2.3s", ".5s", "10minutes", "99999999999h", "1e3s", "٣s"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert_eq!(duration("10"), Err("a unit is missing: ns, us, ms, s, m or h".to_owned()));
    }

    #[test]
    fn sizes_are_bytes_or_have_a_suffix() {
        for (text, bytes) in
            [("4096", 4096), ("64k", 65_536), ("64M", 67_108_864), ("1.5M", 1_572_864), ("1G", 1 << 30)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "64X", "-1", "99999999999G"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_flags_are_well_formed() {
        use clap::CommandFactory as _;
        LowArgs::command().debug_assert();
    }
}
