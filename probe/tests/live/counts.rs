//! Programs that count their own calls: what a trace counts is equal, and each call ends as the program says.

mod c;
mod cpp;
mod go;
mod rust;
mod short;
mod stacks;
mod versions;

use std::collections::BTreeMap;

use serde_json::Value;

use crate::{
    harness::{self, Traced},
    trace::Call,
};

/// The line of truth that a program prints at its end (`testdata/README.md`).
pub(crate) struct Truth(BTreeMap<String, u64>);

impl Truth {
    pub(crate) fn of(stdout: &str) -> Self {
        let line = stdout.lines().last().unwrap_or_else(|| panic!("no line of truth: '{stdout}'"));
        Self(serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
    }

    /// Functions, with the number of their calls.
    pub(crate) fn calls(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().filter(|(key, _)| !key.starts_with('_')).map(|(key, n)| (key.as_str(), *n))
    }

    /// Functions that were called.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.calls().map(|(name, _)| name).collect()
    }

    /// A fact that is no count of calls; 0 where it is not given.
    pub(crate) fn note(&self, kind: &str, name: &str) -> u64 {
        self.0.get(&format!("_{kind}:{name}")).copied().unwrap_or(0)
    }

    /// Without what differs from run to run: times and process ids.
    fn stable(&self) -> BTreeMap<&str, u64> {
        let differs = |key: &str| key.starts_with("_ns:") || key.starts_with("_pid:");
        self.0.iter().filter(|(key, _)| !differs(key)).map(|(key, n)| (key.as_str(), *n)).collect()
    }
}

/// A name as the programs write it: of all instances of a template or generic the same, of either mangling.
fn plain(name: &str) -> String {
    let name = name.replace("{closure#0}", "{{closure}}");
    if let Some((inherent, rest)) = name.strip_prefix('<').and_then(|n| n.split_once(">::"))
        && !inherent.contains(" as ")
    {
        return format!("{inherent}::{rest}");
    }
    match name.find('<') {
        Some(at) if at > 0 && name.ends_with('>') => name[..at].trim_end_matches("::").to_owned(),
        _ => name,
    }
}

/// A program's run under `probe` with all its functions traced, compared with its run alone and with its own truth.
pub(crate) fn check(program: &str, mode: &[&str], options: &[&str]) -> (Traced, Truth) {
    let path = harness::path(program);
    let alone = harness::run(&path, mode);
    let alone_truth = Truth::of(&alone.stdout);
    let mut args = options.to_vec();
    args.extend(alone_truth.names());
    let mut command = vec![path.as_str()];
    command.extend(mode);
    let traced = harness::trace(&args, &command);
    assert_eq!(traced.ended.code(), alone.code(), "{program} {mode:?}: {}", traced.ended.stderr);
    let truth = Truth::of(&traced.ended.stdout);
    assert_eq!(truth.stable(), alone_truth.stable(), "{program} {mode:?} did something else under probe");
    let lines = |stdout: &str| stdout.lines().count();
    assert_eq!(lines(&traced.ended.stdout), lines(&alone.stdout), "{program} {mode:?} wrote something else");
    assert_counts(&format!("{program} {mode:?}"), &traced, &truth);
    assert!(mode[0] == "migrate" || !traced.trace.has_moved(), "{program} {mode:?}: a thread's call ended on another");
    (traced, truth)
}

/// Every function was called as often as the program says, and its calls ended so; or the loss is told.
pub(crate) fn assert_counts(what: &str, traced: &Traced, truth: &Truth) {
    let mut seen: BTreeMap<String, Vec<&Call>> = BTreeMap::new();
    for call in &traced.trace.calls {
        seen.entry(plain(&call.function)).or_default().push(call);
    }
    let skipped: Vec<&str> = skipped(traced).into_iter().map(|(name, _)| name).collect();
    for (name, calls) in truth.calls().filter(|(name, _)| !skipped.contains(name)) {
        let of_it = seen.remove(name).unwrap_or_default();
        let lost: u64 = traced_names(&of_it).iter().map(|shown| traced.lost("entries", shown)).sum();
        assert_eq!(of_it.len() as u64 + lost, calls, "{what}: calls of {name}; {lost} lost; {}", traced.ended.stderr);
        if traced.lost_total() == 0 {
            assert_ends(what, name, &of_it, truth);
        }
    }
    assert!(seen.is_empty(), "{what}: functions that were not called: {:?}", seen.keys());
    assert_eq!(traced.trace.summary["calls"], traced.trace.calls.len(), "{what}");
}

fn traced_names<'a>(calls: &[&'a Call]) -> Vec<&'a str> {
    let mut names: Vec<&str> = calls.iter().map(|call| &*call.function).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn assert_ends(what: &str, name: &str, calls: &[&Call], truth: &Truth) {
    let with = |end: &str| calls.iter().filter(|call| &*call.end == end).count() as u64;
    let exits = truth.note("exit", name) + truth.note("thread_exit", name);
    let others = [
        ("tailcall", truth.note("tailcall", name)),
        ("unwind", truth.note("unwind", name)),
        ("exit", exits),
        ("exec", truth.note("exec", name)),
    ];
    for (end, number) in others {
        assert_eq!(with(end), number, "{what}: calls of {name} that end as {end}");
    }
    let returned = calls.len() as u64 - others.iter().map(|(_, n)| n).sum::<u64>();
    assert_eq!(with("return"), returned, "{what}: calls of {name} that return");
    assert!(calls.iter().all(|call| !call.lost), "{what}: {name} marked as lost, but nothing was");
}

/// What was matched and not traced, with the reason.
pub(crate) fn skipped(traced: &Traced) -> Vec<(&str, &str)> {
    let skipped = traced.trace.header["skipped"].as_array().expect("a list");
    skipped.iter().map(|s| (text(&s["function"]), text(&s["reason"]))).collect()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

/// `recurse` in all its calls lies in itself, 200 deep, and nothing else does.
fn assert_recursion(traced: &Traced, function: &str, rounds: usize) {
    let calls = &traced.trace.calls;
    assert!(calls.iter().all(|call| plain(&call.function) == function));
    for depth in 0..200 {
        assert_eq!(calls.iter().filter(|call| call.depth == depth).count(), rounds, "calls at depth {depth}");
    }
}

/// Durations against the program's own clock, which is read inside the shortest calls' bodies and around them: never
/// shorter than the work takes, never longer than what the program measured around the calls.
fn assert_durations(traced: &Traced, truth: &Truth, at_least_ns: &[(&str, u64)]) {
    for (name, minimum) in at_least_ns {
        let durations: Vec<u64> =
            traced.trace.calls.iter().filter(|c| &*c.function == *name).filter_map(|c| c.duration_ns).collect();
        assert_eq!(durations.len(), 50, "{name}");
        let shortest = durations.iter().min().expect("some");
        assert!(shortest >= minimum, "{name} takes {minimum} ns at least, not {shortest}");
        let (sum, own) = (durations.iter().sum::<u64>(), truth.note("ns", name));
        assert!(sum <= own, "{name}: {sum} ns together, {own} by the program's clock");
    }
}

/// The parent's function of each call of `child`.
fn assert_inside(traced: &Traced, child: &str, parent: &str) {
    let names: std::collections::HashMap<u64, String> =
        traced.trace.calls.iter().map(|call| (call.id, plain(&call.function))).collect();
    for call in traced.trace.calls.iter().filter(|call| plain(&call.function) == child) {
        let found = call.parent.and_then(|id| names.get(&id)).map(String::as_str);
        assert_eq!(found, Some(parent), "{call:?}");
    }
}

/// Enough room that nothing is lost on a busy machine.
const ROOM: [&str; 3] = ["--stack=none", "--buffer", "512M"];
