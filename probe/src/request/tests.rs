//! What command lines mean, and which are refused.

use std::io::Write as _;

use super::*;

fn parsed(line: &str) -> Result<Command, clap::Error> {
    parse(std::iter::once("probe").chain(line.split_whitespace()).map(OsString::from))
}

fn traced(line: &str) -> Trace {
    match parsed(line) {
        Ok(Command::Trace(trace)) => *trace,
        other => panic!("{line}: {other:?}"),
    }
}

/// The exit status and the message.
fn refused(line: &str) -> (i32, String) {
    let error = parsed(line).expect_err(line);
    assert!(error.use_stderr(), "{line}");
    (error.exit_code(), error.to_string())
}

#[test]
fn defaults_are_those_of_the_contract() {
    let trace = traced("-x ./srv main.main");
    assert_eq!(
        trace,
        Trace {
            binaries: vec![PathBuf::from("./srv")],
            patterns: vec!["main.main".to_owned()],
            returns: Returns::Ret,
            stack: StackMode::Auto,
            stack_depth: 64,
            buffer_bytes: 64 << 20,
            budget: NonZeroU64::new(20_000),
            ..Trace::default()
        }
    );
    assert_eq!(trace.output.format, Format::Tree);
    assert_eq!(trace.output.time, TimeFormat::Clock);
}

#[test]
fn every_option_arrives() {
    let trace = traced(
        "-x a -x libssl -p 4711,12 -p 4711 -o out --layout=stream --time=relative --duration 1.5s \
         --limit 9 -q --dry-run --returns=none --max-depth 3 --stack=none --stack-depth 7 --buffer 5M --budget 0 --force --all f g",
    );
    assert_eq!(trace.budget, None);
    assert_eq!(trace.binaries, [PathBuf::from("a"), PathBuf::from("libssl")]);
    assert_eq!(trace.target.pids, [12, 4711]);
    assert_eq!(trace.output_file, Some(PathBuf::from("out")));
    assert_eq!((trace.output.format, trace.output.time), (Format::Stream, TimeFormat::Relative));
    assert_eq!((trace.duration_ns, trace.limit), (Some(1_500_000_000), Some(9)));
    assert!(trace.quiet && trace.dry_run && trace.force && trace.all && trace.output.entries_only);
    assert_eq!((trace.returns, trace.stack, trace.stack_depth), (Returns::None, StackMode::None, 7));
    assert_eq!(trace.output.max_depth, Some(3));
    assert_eq!(trace.buffer_bytes, 8 << 20);
    assert_eq!(trace.patterns, ["f", "g"]);

    assert_eq!(traced("--tid 6,5 --tid 6 f").target.tids, [5, 6]);
    assert_eq!(traced("-x a --comm srv f").target.comm.as_deref(), Some("srv"));

    let trace = traced("-p 1 --json --min-duration 10ms --slow 2m --stack=fp --stack-all --follow -vv f");
    assert_eq!(trace.output.format, Format::Json);
    assert_eq!(trace.output.min_duration_ns, Some(10_000_000));
    assert_eq!(trace.output.slow_ns, Some(120_000_000_000));
    assert!(trace.stack_all && trace.target.follow && trace.binaries.is_empty());
    assert!(!trace.subtract_overhead && traced("-p 1 --subtract-overhead f").subtract_overhead);
    assert_eq!(trace.verbose, 2);
}

#[test]
fn what_stands_after_two_dashes_is_the_command() {
    let trace = traced("f g -- ./test -x --json list");
    let words = ["./test", "-x", "--json", "list"].map(OsString::from);
    assert_eq!(trace.target.command.as_deref(), Some(&words[..]));
    assert_eq!(trace.patterns, ["f", "g"]);
    assert!(trace.target.follow);
    assert_eq!(trace.output.format, Format::Tree);
}

#[test]
fn a_subcommand_is_one_only_as_the_first_argument() {
    assert_eq!(parsed("doctor").ok(), Some(Command::Doctor));
    assert_eq!(parsed("man").ok(), Some(Command::Man(None)));
    assert_eq!(parsed("man list").ok(), Some(Command::Man(Some("list".to_owned()))));
    assert_eq!(parsed("completions zsh").ok(), Some(Command::Completions(Shell::Zsh)));
    for name in ["list", "doctor", "man", "completions", "stat", "record", "replay", "report", "export", "help"] {
        assert_eq!(traced(&format!("-x app {name}")).patterns, [name]);
        assert_eq!(traced(&format!("={name} -x app")).patterns, [name]);
    }
}

#[test]
fn subcommands_to_come_are_refused_with_the_way_to_the_function() {
    for name in LATER {
        let (status, message) = refused(&format!("{name} -x app f"));
        assert_eq!(status, 2);
        assert!(message.contains(&format!("`{name}` is not available in this version")), "{message}");
        assert!(message.contains(&format!("'={name}'")), "{message}");
    }
}

#[test]
fn a_listing_needs_a_file_or_a_process_but_no_pattern() {
    let Ok(Command::List(list)) = parsed("list -x app -p 7 *Store* --json --all") else { panic!("a listing") };
    assert_eq!(list.patterns, ["*Store*"]);
    assert!(list.json && list.all);
    assert_eq!((list.binaries, list.pids), (vec![PathBuf::from("app")], vec![7]));
    assert!(matches!(parsed("list -x app"), Ok(Command::List(list)) if list.patterns.is_empty()));
    assert_eq!(refused("list *Store*").0, 2);
}

#[test]
fn contradictions_are_named() {
    for (line, words) in [
        ("-p 1 f -- ./test", "-p and -- COMMAND"),
        ("--tid 1 f -- ./test", "--tid and -- COMMAND"),
        ("-x a --follow f", "--follow needs"),
        ("-p 1 --user nobody f", "--user needs"),
        ("-p 1 --tid 1 f", "-p and --tid"),
        ("-x a --tid 1 --follow f", "--follow needs"),
        ("-p 1 --comm srv f", "--comm chooses"),
        ("--comm srv f", "nothing to trace"),
        ("--cgroup docker/1 f", "nothing to trace"),
        ("--container web f -- true", "exclude -- COMMAND"),
        ("--pod web --tid 1 f", "--tid names a thread"),
        ("-x a --container web --cgroup docker/1 f", "--cgroup excludes"),
        ("list --cgroup docker/1", "nothing to list"),
        ("-x a --json --layout=tree f", "--json and --layout"),
        ("-x a --json --time=clock f", "--json and --time"),
        ("-x a --returns=none --slow 1s f", "need returns"),
        ("-x a --returns=none --subtract-overhead f", "--subtract-overhead is about durations"),
        ("-x a --stack=none --stack-all f", "--stack-all and --stack=none"),
        ("-x a", "'*' means all"),
        ("-x a =", "empty pattern"),
        ("f", "nothing to trace"),
        ("-v list", "only as the first argument"),
        ("-x a -q -v f", "cannot be used with"),
        ("-x a --duration 10 f", "a unit is missing: ns, us, ms, s, m or h"),
        ("-x a --buffer 5G f", "at most 1G"),
        ("-p 0 f", "0 is not in"),
        ("-p abc f", "invalid digit"),
        ("-x a --limit 0 f", "0 is not in"),
        ("-x a --stack-depth 1000 f", "1000 is not in"),
        ("-x a --layout=forest f", "possible values: tree, stream"),
        ("-x a --no-such-flag f", "unexpected argument"),
        ("-x a --from-file /nonexistent/patterns", "failed to read patterns from '/nonexistent/patterns'"),
    ] {
        let (status, message) = refused(line);
        assert_eq!(status, 2, "{line}");
        assert!(message.contains(words), "{line}: {message}");
    }
}

#[test]
fn a_place_is_a_container_or_a_pod_or_one_of_a_pods_containers_or_a_cgroup() {
    let container = |name: &str| Some(Within::Container(name.to_owned()));
    for (line, within) in [
        ("--container web f", container("web")),
        ("--pod web f", Some(Within::Pod("web".to_owned()))),
        ("--pod shop/web --container app f", container("shop/web/app")),
        ("-x a --cgroup docker/1 f", Some(Within::Cgroup(PathBuf::from("docker/1")))),
        ("-p 1 --container web --follow f", container("web")),
        ("-x a f", None),
    ] {
        assert_eq!(traced(line).target.within, within, "{line}");
    }
    assert_eq!(traced("-x a --proc /host/proc f").proc, Some(PathBuf::from("/host/proc")));
}

#[test]
fn help_and_version_are_no_errors() {
    for line in ["--help", "-h", "--version", "list --help"] {
        let shown = parsed(line).expect_err("text to print");
        assert_eq!((shown.exit_code(), shown.use_stderr()), (0, false), "{line}");
    }
}

#[test]
fn pattern_files_have_one_pattern_a_line() {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    write!(file, "# hot ones\nmain.main\r\n\n  Vec::push  \n=stat\ns::mid::{{closure#0}}\n!runtime.*")
        .expect("written");
    let trace = traced(&format!("-x app first --from-file {}", file.path().display()));
    assert_eq!(trace.patterns, ["first", "main.main", "Vec::push", "stat", "s::mid::{closure#0}", "!runtime.*"]);
}

#[test]
fn a_buffer_is_a_power_of_two_that_the_kernel_takes() {
    for (typed, bytes) in [("1", 4096), ("4096", 4096), ("5000", 8192), ("64M", 64 << 20), ("1G", 1 << 30)] {
        assert_eq!(traced(&format!("-x a --buffer {typed} f")).buffer_bytes, bytes, "{typed}");
    }
}

#[test]
fn completions_and_the_manual_know_the_flags() {
    let mut page = Vec::new();
    man(None, &mut page).expect("memory can be written");
    assert!(String::from_utf8_lossy(&page).contains("min\\-duration"));
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut script = Vec::new();
        completions(shell, &mut script).expect("memory can be written");
        assert!(String::from_utf8_lossy(&script).contains("min-duration"), "{shell}");
    }
}
