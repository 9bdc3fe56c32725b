//! Kernels that lack something, by injection: what still works works, the rest says what is missing since when.

use super::{Built, Ended, Probe, as_text, program};

fn start_lacking(features: &str, args: &[&str]) -> Probe {
    let mut command = Probe::command(args);
    command.env("PROBE_KERNEL_LACKS", features);
    Probe::spawn(command)
}

fn lacking(features: &str, args: &[&str]) -> Ended {
    start_lacking(features, args).ended()
}

#[test]
fn without_links_to_many_uprobes_every_call_is_seen_all_the_same() {
    let built = Built::new();
    for features in ["uprobe-multi", "uprobe-multi,uprobe-multi-pid", "uprobe-multi-pid"] {
        let mut beat = built.start();
        let traced =
            start_lacking(features, &["-p", &beat.pid(), "--json", "beat", "beat_all"]).when_said("Ctrl-C ends");
        beat.told("beat 500");
        let ended = traced.interrupted();
        ended.code(0);
        assert_eq!((ended.calls("beat"), ended.calls("beat_all")), (500, 1), "{features}: {}", ended.stderr);
        beat.ends_well();
    }
}

#[test]
fn without_them_many_points_want_force_and_the_command_is_not_started() {
    let demo = program("go/demo");
    let ended = lacking("uprobe-multi", &["*", "--", as_text(&demo)]);
    ended.code(1).says(&["one by one", "Linux 6.6", "points", "--force"]);
    assert!(ended.stdout.is_empty(), "{}", ended.stdout);
}

#[test]
fn what_is_indispensable_is_named_with_the_first_kernel_that_has_it() {
    let built = Built::new();
    for (feature, since) in [("ring-buffer", "Linux 5.8"), ("attach-cookie", "Linux 5.15")] {
        for target in [&["--", "/bin/echo", "started"][..], &[]] {
            let ended = lacking(feature, &[&["-x", &built.beat(), "beat"], target].concat());
            ended.code(1).says(&["kernel lacks", feature, since]);
            assert!(ended.stdout.is_empty(), "{}", ended.stdout);
        }
    }
}

#[test]
fn without_type_information_children_cannot_be_followed_and_the_rest_works() {
    let built = Built::new();
    let ended = lacking("btf", &["-x", &built.beat(), "beat", "--", "/bin/echo", "started"]);
    ended.code(1).says(&["type information", "CONFIG_DEBUG_INFO_BTF"]);
    assert!(ended.stdout.is_empty(), "{}", ended.stdout);

    let mut beat = built.start();
    let traced = start_lacking("btf", &["-p", &beat.pid(), "--json", "beat"]).when_said("Ctrl-C ends");
    beat.told("beat 20");
    let ended = traced.interrupted();
    ended.code(0);
    assert_eq!(ended.calls("beat"), 20);
}

#[test]
fn doctor_names_what_is_missing_and_what_that_costs() {
    let ended = lacking("uprobe-multi", &["doctor"]);
    ended.code(0);
    assert!(ended.stdout.contains("one by one") && ended.stdout.contains("tracing works here"), "{}", ended.stdout);
    let ended = lacking("attach-cookie", &["doctor"]);
    ended.code(1);
    assert!(ended.stdout.contains("tracing does not work here"), "{}", ended.stdout);
}
