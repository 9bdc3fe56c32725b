//! What every output makes of durations that are less what the probes cost.

use serde_json::{Value, json};

use super::testing::{MS, SECOND, Story};
use super::*;
use crate::calls::overhead::{Trap, TrapKind};

const ENDED: u64 = 20 * MS;

/// A call that is open for 20 ms by the clock, of which the probes took so many; with a tick before its end.
fn shown(options: &OutputOptions, probes_ns: u64) -> [String; 2] {
    let mut story = Story::new(options, &["outer"]);
    story.trace.subtracted = Some(Vec::new());
    story.begin();
    story.spent_ns = Some(Rc::default());
    story.enter(1, 0, 0);
    if let Some(spent_ns) = &story.spent_ns {
        spent_ns.set(probes_ns);
    }
    story.tick(0);
    let open = story.tick(ENDED);
    story.leave(1, ENDED);
    [open, story.end(&Summary::default())]
}

/// All ways of showing only what takes at least 10 ms.
fn only_long() -> impl Iterator<Item = OutputOptions> {
    let (time, least) = (TimeFormat::None, Some(10 * MS));
    [Format::Tree, Format::Stream].into_iter().flat_map(move |format| {
        let slow = OutputOptions { format, time, slow_ns: least, ..OutputOptions::default() };
        let long = OutputOptions { format, time, min_duration_ns: least, ..OutputOptions::default() };
        [slow, long]
    })
}

#[test]
fn what_is_long_only_for_its_probes_is_hidden_while_it_is_open_and_at_its_end() {
    for options in only_long() {
        assert_eq!(shown(&options, 15 * MS), ["", ""], "{options:?}");
        let [_, end] = shown(&options, 5 * MS);
        assert!(end.contains("15.0 ms"), "{options:?}: {end}");
    }
}

/// A thread that waits within a trap does not take longer by that, and it is not known before.
#[test]
fn an_open_call_is_not_shown_before_it_surely_is_long() {
    for options in only_long() {
        let mut story = Story::new(&options, &["waits", "works"]);
        story.spent_ns = Some(Rc::default());
        story.enter(1, 0, 0);
        assert_eq!(story.tick(SECOND + 5 * MS), "", "{options:?}");
        story.spent_ns.as_ref().expect("it is counted").set(SECOND);
        story.leave(1, SECOND + 5 * MS);
        story.enter(2, 1, 2 * SECOND);
        let open = story.tick(3 * SECOND + 10 * MS);
        assert!(open.contains("works") && !open.contains("waits"), "{options:?}: {open}");
    }
}

#[test]
fn json_has_the_duration_and_what_it_is_less_by_and_what_was_measured() {
    let mut story = Story::new(&OutputOptions { format: Format::Json, ..OutputOptions::default() }, &["outer"]);
    story.tick(0);
    let measured = [(TrapKind::EmulatedEntry, true, 610), (TrapKind::Return, true, 1900), (TrapKind::Jump, false, 7)];
    story.trace.subtracted = Some(measured.map(|(kind, go, ns)| (Trap { kind, go }, ns)).to_vec());
    story.begin();
    story.spent_ns = Some(Rc::default());
    story.enter(1, 0, 0);
    story.enter(2, 0, 0);
    if let Some(spent_ns) = &story.spent_ns {
        spent_ns.set(5 * MS);
    }
    story.leave(1, ENDED);
    story.ends(2, None, 4715, crate::calls::End::Open, false);
    let text = story.end(&Summary::default());
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("a JSON line")).collect();
    assert_eq!(lines[0]["probe_cost_ns"], json!({"go_emulated_entry": 610, "go_return": 1900, "jump": 7}));
    let times = |line: &Value| (line["duration_ns"].clone(), line["overhead_ns"].clone());
    assert_eq!(times(&lines[1]), (json!(15 * MS), json!(5 * MS)));
    assert_eq!(times(&lines[2]), (Value::Null, Value::Null));
    assert!(lines[1].get("overhead_ns").is_some() && lines[2].get("overhead_ns").is_some());
}
