//! Wrong usage is exit status 2 and says on stderr what to write instead; stdout stays empty.

use super::{probe, text};

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

#[test]
fn help_version_completions_and_the_manual_go_to_stdout() {
    for (args, words) in [
        (&["--help"][..], "probe list"),
        (&["-h"], "--min-duration"),
        (&["list", "--help"], "--json"),
        (&["--version"], env!("CARGO_PKG_VERSION")),
        (&["completions", "bash"], "_probe"),
        (&["completions", "fish"], "min-duration"),
        (&["man"], ".TH probe"),
    ] {
        let output = probe(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert!(text(&output.stdout).contains(words), "{args:?}");
        assert!(output.stderr.is_empty(), "{args:?}");
    }
}
