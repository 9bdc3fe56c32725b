//! The closing lines, for stderr: what was seen, and what was not.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::escape::escaped;
use super::time::duration;
use crate::calls::{Shed, Summary, TraceInfo};

/// Functions named beside a loss.
const NAMED_MAX: usize = 5;

/// Functions named that were shed.
const SHED_NAMED_MAX: usize = 20;

/// Writes the closing lines. `notes` are those of the output ([`super::Notes::take`]). Of a `quiet` trace only what was
/// lost is said.
pub fn write(
    out: &mut dyn Write,
    trace: &TraceInfo,
    summary: &Summary,
    notes: &[String],
    quiet: bool,
) -> io::Result<()> {
    for line in lines(trace, summary, notes, quiet) {
        // One write: stderr is not buffered, and what is written to the same terminal must not come between.
        out.write_all(format!("probe: {line}\n").as_bytes())?;
    }
    Ok(())
}

fn lines(trace: &TraceInfo, summary: &Summary, notes: &[String], quiet: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if !quiet {
        lines.push(format!(
            "{} ({} outermost), {} events in {}, {} lost",
            count(summary.calls, "call"),
            summary.outermost,
            summary.events,
            duration(summary.duration_ns),
            summary.lost()
        ));
    }
    lines.extend(shed(trace, &summary.shed));
    lines.extend(losses(trace, summary));
    if summary.unmatched_returns > 0 && (!quiet || summary.lost() > 0) {
        let before = "of calls that began before the probes were there, or whose entry was lost";
        lines.push(format!("{} without an entry: {before}", count(summary.unmatched_returns, "return")));
    }
    if summary.open > 0 && !quiet {
        lines.push(format!("{} still open", count(summary.open, "call")));
    }
    if !quiet {
        lines.extend(share(trace, summary));
    }
    lines.extend(summary.notes.iter().chain(notes).map(|note| escaped(note)));
    lines
}

/// What was shed, the hottest first: losses that were chosen.
fn shed(trace: &TraceInfo, shed: &[Shed]) -> Option<String> {
    if shed.is_empty() {
        return None;
    }
    let mut hottest: Vec<&Shed> = shed.iter().collect();
    hottest.sort_by_key(|shed| (std::cmp::Reverse(shed.rate), shed.function));
    let name = |shed: &&Shed| format!("{} {}/s", function_name(trace, shed.function), shed.rate);
    let mut named: Vec<String> = hottest.iter().take(SHED_NAMED_MAX).map(name).collect();
    if let Some(more) = shed.len().checked_sub(SHED_NAMED_MAX).filter(|more| *more > 0) {
        named.push(format!("and {more} more, each said where it happened"));
    }
    let what = count(shed.len() as u64, "function");
    Some(format!(
        "{what} shed, for making too many events: {}. What is named exactly is always traced; --budget 0 traces all",
        named.join(", ")
    ))
}

fn function_name(trace: &TraceInfo, function: u32) -> String {
    let function = usize::try_from(function).ok().and_then(|at| trace.functions.get(at));
    escaped(function.map_or("?", |function| function.name.as_str()))
}

fn losses(trace: &TraceInfo, summary: &Summary) -> Vec<String> {
    let mut lines = Vec::new();
    for (what, by_function) in [("entries", &summary.lost_entries), ("returns", &summary.lost_exits)] {
        let total: u64 = by_function.iter().map(|(_, lost)| lost).sum();
        if total > 0 {
            lines.push(format!("{total} {what} lost: {}", named(trace, by_function)));
        }
    }
    if summary.marked_lost > 0 {
        lines.push(format!("{} marked ?lost: no true end is known", count(summary.marked_lost, "call")));
    }
    if summary.lost() > 0 {
        lines.push("a larger --buffer, fewer functions or --stack=none lose less".to_owned());
    }
    lines
}

/// The functions that lost most.
fn named(trace: &TraceInfo, by_function: &[(u32, u64)]) -> String {
    let mut most = by_function.to_vec();
    most.sort_by_key(|(function, lost)| (std::cmp::Reverse(*lost), *function));
    let mut text = String::new();
    for (function, lost) in most.iter().take(NAMED_MAX) {
        let name = function_name(trace, *function);
        let separator = if text.is_empty() { "" } else { ", " };
        let _ = write!(text, "{separator}{name} {lost}");
    }
    if let Some(more) = most.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
        let _ = write!(text, ", and {more} functions more");
    }
    text
}

/// The probes' part of the time, as far as it can be told.
fn share(trace: &TraceInfo, summary: &Summary) -> Option<String> {
    if summary.probes_ns == 0 || summary.duration_ns == 0 {
        return None;
    }
    let permille = u128::from(summary.probes_ns) * 1000 / u128::from(summary.duration_ns);
    let took = duration(summary.probes_ns);
    let how_sure = if trace.subtracted.is_some() { "about" } else { "at least" };
    Some(format!(
        "the probes took {how_sure} {took} of the target's time, {}.{} % of the trace's length (all threads together)",
        permille / 10,
        permille % 10
    ))
}

fn count(number: u64, what: &str) -> String {
    format!("{number} {what}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::TracedFunction;

    fn trace() -> TraceInfo {
        let names = ["a", "b\x1b[2J", "c", "d", "e", "f", "g"];
        let function = |name: &str| TracedFunction {
            name: name.to_owned(),
            binary: "/srv".to_owned(),
            address: 0x1000,
            point: None,
        };
        TraceInfo { functions: names.into_iter().map(function).collect(), ..TraceInfo::default() }
    }

    fn shown(summary: &Summary, notes: &[String], quiet: bool) -> String {
        let mut out = Vec::new();
        write(&mut out, &trace(), summary, notes, quiet).expect("memory can be written");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_trace_without_losses_says_so_in_one_line() {
        let summary = Summary { calls: 1, outermost: 1, events: 2, duration_ns: 2_000_000_000, ..Summary::default() };
        assert_eq!(shown(&summary, &[], false), "probe: 1 call (1 outermost), 2 events in 2.00 s, 0 lost\n");
        assert_eq!(shown(&summary, &[], true), "");
    }

    #[test]
    fn what_the_probes_took_is_told_as_measured_or_as_the_least_it_can_be() {
        let summary = Summary { duration_ns: 1_000_000_000, probes_ns: 12_300_000, ..Summary::default() };
        let last = |trace: &TraceInfo| lines(trace, &summary, &[], false).pop().unwrap_or_default();
        let share = "12.3 ms of the target's time, 1.2 % of the trace's length (all threads together)";
        assert_eq!(last(&trace()), format!("the probes took at least {share}"));
        let measured = TraceInfo { subtracted: Some(Vec::new()), ..trace() };
        assert_eq!(last(&measured), format!("the probes took about {share}"));
    }

    #[test]
    fn everything_lost_is_named_with_the_worst_first() {
        let summary = Summary {
            calls: 9,
            outermost: 3,
            events: 18,
            lost_entries: vec![(0, 1), (1, 20), (2, 3), (3, 4), (4, 5), (5, 6), (6, 1)],
            lost_exits: vec![(0, 2)],
            unmatched_returns: 4,
            open: 2,
            marked_lost: 5,
            shed: vec![Shed { function: 2, rate: 900, at_ns: 1 }, Shed { function: 1, rate: 812_000, at_ns: 1 }],
            duration_ns: 1_000_000_000,
            probes_ns: 12_300_000,
            notes: vec!["mapping records were lost".to_owned()],
        };
        let lost = "probe: 2 functions shed, for making too many events: b\\x1b[2J 812000/s, c 900/s. What is named \
                    exactly is always traced; --budget 0 traces all\n\
                    probe: 40 entries lost: b\\x1b[2J 20, f 6, e 5, d 4, c 3, and 2 functions more\n\
                    probe: 2 returns lost: a 2\n\
                    probe: 5 calls marked ?lost: no true end is known\n\
                    probe: a larger --buffer, fewer functions or --stack=none lose less\n\
                    probe: 4 returns without an entry: of calls that began before the probes were there, or whose \
                    entry was lost\n";
        let notes = "probe: mapping records were lost\nprobe: from the output\n";
        assert_eq!(
            shown(&summary, &["from the output".to_owned()], false),
            format!(
                "probe: 9 calls (3 outermost), 18 events in 1.00 s, 42 lost\n{lost}probe: 2 calls still open\n\
                 probe: the probes took at least 12.3 ms of the target's time, 1.2 % of the trace's length (all threads \
                 together)\n{notes}"
            )
        );
        assert_eq!(shown(&summary, &["from the output".to_owned()], true), format!("{lost}{notes}"));
    }
}
