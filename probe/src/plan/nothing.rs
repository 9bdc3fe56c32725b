//! What to say where there is nothing to trace.

use std::{fmt::Write as _, path::Path};

use symbols::{
    index::{LeftOut, Selection},
    pattern::Pattern,
};

use super::{Plan, where_inlined};
use crate::{
    output::escape,
    target::{self, TracedFile},
};

/// What to say of a pattern that matches nothing: why, and what is near.
pub fn no_match(files: &[TracedFile], pattern: &Pattern) -> String {
    let names: Vec<_> = files.iter().map(|f| escape::escaped(&f.shown)).collect();
    let mut text = format!("no function matches '{pattern}' in {}", names.join(", "));
    for file in files {
        let copies = file.index.inlined_copies(std::slice::from_ref(pattern), &Selection::default(), true);
        if !copies.is_empty() {
            let copies = escape::escaped(&where_inlined(&file.index, &copies));
            let _ = write!(text, ": {copies}; not probeable by name (`probe list` shows where each copy begins)");
            return text;
        }
    }
    if let Some(why) = files.iter().find_map(|f| f.index.why_no_match(pattern)) {
        let _ = write!(text, ": {}", escape::escaped(&why));
    }
    for why in files.iter().filter_map(why_nameless) {
        let _ = write!(text, "\n{why}");
    }
    if Path::new(&pattern.to_string()).is_file() {
        let _ = write!(text, "\n'{pattern}' is a file: -x names the file to look into");
        return text;
    }
    let hints: Vec<String> = files.iter().flat_map(|f| f.index.nearest(pattern, 5)).take(5).collect();
    if hints.is_empty() {
        text.push_str("; `probe list -x FILE` shows what there is");
    } else {
        text.push_str("\nnearest:");
        for hint in hints {
            let _ = write!(text, "\n  {}", escape::escaped(&hint));
        }
    }
    text
}

/// Why most functions of a file have no name, if it is so: nobody can select them by one.
pub fn why_nameless(file: &TracedFile) -> Option<String> {
    if !file.index.is_stripped() {
        return None;
    }
    let shown = escape::escaped(&file.shown);
    if let Some(cut_off) = file.index.binary().cut_off() {
        return Some(format!("{shown} is {cut_off}"));
    }
    let report = file.index.debug_report();
    let advice = target::advice(report, file.asked);
    Some(format!("{shown} is stripped; {}{advice}", escape::escaped(&report.to_string())))
}

/// What to say of a plan without a single function.
pub(super) fn nothing_left(plan: &Plan, files: &[TracedFile]) -> String {
    if let [only] = plan.skipped.as_slice() {
        return format!("{} cannot be probed: {}", escape::escaped(&only.function), only.reason);
    }
    if let Some(first) = plan.skipped.first() {
        return format!(
            "none of the {} matched functions can be probed; the first, {}: {}",
            plan.matched,
            escape::escaped(&first.function),
            first.reason
        );
    }
    let left_out: u64 = plan.left_out.values().sum();
    const NAME_ONE: &str = "name an implementation: they often have the name in theirs (`'*strlen*'`)";
    if left_out > 0 && plan.left_out.keys().all(|why| *why == LeftOut::UncalledIfunc) {
        return format!(
            "what matches is an IFUNC: the symbol names a resolver, which runs once and chooses the function; its own file \
             never calls it, so that no process shows there which. {NAME_ONE}"
        );
    }
    if left_out > 0 && plan.left_out.keys().all(|why| why.is_final()) {
        return format!(
            "what matches is an IFUNC: the symbol names a resolver, which runs once and chooses the function; no process \
             that runs the file shows which. -p PID may; or {NAME_ONE}"
        );
    }
    let mut text = match (plan.taken_away, left_out) {
        (0, _) => format!("all {left_out} matched functions are left out by default; --all takes them in"),
        (1, 0) => "the only matched function is taken away by a `!` pattern".to_owned(),
        (taken, 0) => format!("all {taken} matched functions are taken away by `!` patterns"),
        (taken, _) => format!(
            "nothing is left of {} matched functions: {taken} taken away by `!` patterns, {left_out} left out by default \
             (--all takes them in)",
            taken + left_out
        ),
    };
    if plan.left_out.contains_key(&LeftOut::Nameless) {
        for why in files.iter().filter_map(why_nameless) {
            let _ = write!(text, "\n{why}");
        }
    }
    text
}
