//! Wrong usage is exit status 2 and says on stderr what to write instead; stdout stays empty.

use super::{fails, probe, text};

#[test]
fn wrong_usage_ends_with_2_and_a_way_out() {
    for (args, words) in [
        (&["-x", "/bin/true"][..], "'*' means all"),
        (&["main.main"], "-x FILE"),
        (&["stat", "-x", "/bin/true", "f"], "not available in this version"),
        (&["-p", "1", "f", "--", "/bin/true"], "-p and -- COMMAND"),
        (&["-x", "/bin/true", "--json", "--layout=tree", "f"], "--json and --layout"),
        (&["-x", "/bin/true", "--slow", "10", "f"], "ns, us, ms, s, m or h"),
        (&["--no-such-option"], "--no-such-option"),
        (&["list"], "nothing to list"),
    ] {
        let output = probe(args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
        assert!(output.stdout.is_empty(), "{args:?}");
    }
}

/// What follows `--` is a command.
#[test]
fn nobody_is_told_to_write_two_dashes_before_an_option_that_does_not_exist() {
    for args in [&["--duration", "-1s", "-x", "/bin/true", "f"][..], &["--slwo", "1ms", "f"], &["-p", "-1", "f"]] {
        let output = probe(args);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
        assert!(!stderr.contains("'-- "), "{args:?}: {stderr}");
    }
    fails(&["--slwo", "1ms", "f"], 2, &["'--slow'"]);
    fails(&["--comm", "", "f"], 2, &["--comm"]);
}

#[test]
fn help_version_completions_and_the_manual_go_to_stdout() {
    for (args, words) in [
        (&["--help"][..], "probe list"),
        (&["-h"], "--min-duration"),
        (&["list", "--help"], "--json"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["completions", "bash"], "_probe"),
        (&["completions", "fish"], "min-duration"),
        (&["man"], ".TH probe 1"),
        (&["man", "list"], ".TH probe-list 1"),
        (&["man", "doctor"], ".TH probe-doctor 1"),
    ] {
        let output = probe(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(text(&output.stdout).contains(words), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn an_output_file_that_is_a_program_or_was_read_is_left_alone() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let at = |name: &str| folder.path().join(name).into_os_string().into_string().expect("UTF-8");
    let (traced, link, patterns) = (at("traced"), at("link"), at("patterns"));
    std::fs::copy("/bin/true", &traced).expect("it can be copied");
    std::os::unix::fs::symlink(&traced, &link).expect("a link can be made");
    std::fs::write(&patterns, "main\n").expect("it can be written");
    for args in [
        &["-o", &traced, "-x", &traced, "main"][..],
        &["-o", &link, "-x", "/bin/false", "main"],
        &["-o", &traced, "main", "--", &traced],
    ] {
        fails(args, 2, &["a program or library, which would be lost"]);
    }
    fails(&["-o", &patterns, "-x", &traced, "--from-file", &patterns], 2, &["patterns are read from this file"]);
    assert_eq!(std::fs::read(&traced).expect("it is there"), std::fs::read("/bin/true").expect("it is there"));
    assert_eq!(std::fs::read_to_string(&patterns).expect("it is there"), "main\n");
}
