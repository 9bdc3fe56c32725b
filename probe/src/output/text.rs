//! What the text outputs share: names, threads, callers, how a call ended, colours.

use std::{borrow::Cow, fmt::Write as _};

use anstyle::{AnsiColor, Style};

use super::{escape, time::Clock};
use crate::calls::{CallerStack, Cut, End, Frame, Home, Origin, Shed, Thread, TraceInfo};

/// A block's or event's origin.
pub(super) const HEADER: Style = Style::new().bold();
/// What stands behind the calls: tree glyphs, callers.
pub(super) const FAINT: Style = Style::new().dimmed();
/// How a call ended, if not by returning.
pub(super) const LABEL: Style = AnsiColor::Yellow.on_default();

/// Colours, or not.
#[derive(Clone, Copy, Debug)]
pub(super) struct Painter {
    pub(super) color: bool,
}

impl Painter {
    /// Appends what `write` appends, in `style` if colours are wanted.
    pub(super) fn paint(self, out: &mut String, style: Style, write: impl FnOnce(&mut String)) {
        if self.color {
            let _ = write!(out, "{}", style.render());
        }
        write(out);
        if self.color {
            let _ = write!(out, "{}", style.render_reset());
        }
    }
}

/// The traced functions' names as they are shown, by position in [`TraceInfo::functions`].
#[derive(Debug, Default)]
pub(super) struct Names(Vec<String>);

impl Names {
    pub(super) fn new(trace: &TraceInfo) -> Names {
        let mut names = Names::default();
        names.grow(trace);
        names
    }

    /// Adds those that are new.
    pub(super) fn grow(&mut self, trace: &TraceInfo) {
        let shown = trace.functions.iter().skip(self.0.len()).map(|function| {
            let mut name = String::new();
            if function.point.is_some() {
                name.push_str("• ");
            }
            escape::text(&mut name, &function.name);
            // A point at a bare address has that as its name and no distance from it.
            if let Some(offset) = function.point.filter(|offset| *offset > 0) {
                let _ = write!(name, "+{offset:#x}");
            }
            name
        });
        let shown: Vec<String> = shown.collect();
        self.0.extend(shown);
    }

    pub(super) fn get(&self, function: u32) -> &str {
        usize::try_from(function).ok().and_then(|at| self.0.get(at)).map_or("?", String::as_str)
    }
}

/// Appends `srv 4711/4715 g42 (web, pid 1)`: process name, pid/tid, goroutine, container, and its pid there.
pub(super) fn push_thread(out: &mut String, comm: &str, thread: Thread, goroutine: Option<u64>, home: &Home) {
    escape::text(out, comm);
    let _ = write!(out, " {}/{}", thread.pid, thread.tid);
    if let Some(goroutine) = goroutine {
        let _ = write!(out, " g{goroutine}");
    }
    match (&home.container, home.inner_pid) {
        (None, None) => {}
        (None, Some(inner)) => {
            let _ = write!(out, " (inner pid {inner})");
        }
        (Some(container), inner) => {
            out.push_str(" (");
            escape::text(out, container);
            if let Some(inner) = inner {
                let _ = write!(out, ", pid {inner}");
            }
            out.push(')');
        }
    }
}

/// Appends ` (from g7 at main.serve main.go:31)`: who made the goroutine; nothing where that is not known.
pub(super) fn push_origin(out: &mut String, origin: Option<&Origin>) {
    let Some(Origin { parent, go_statement }) = origin else { return };
    match (parent, go_statement) {
        (Some(parent), None) => {
            let _ = write!(out, " (from g{parent})");
        }
        (Some(parent), Some(place)) => {
            let _ = write!(out, " (from g{parent} at ");
            push_frame(out, place);
            out.push(')');
        }
        (None, Some(place)) => {
            out.push_str(" (from ");
            push_frame(out, place);
            out.push(')');
        }
        (None, None) => {}
    }
}

/// How a call ended, as it stands behind the name: empty for a return.
pub(super) fn end_label(end: End, lost: bool) -> &'static str {
    if lost {
        return " ?lost";
    }
    match end {
        End::Return => "",
        End::TailCall => " → tail call",
        End::Unwind => " !unwound",
        End::Exit => " !exit",
        End::Exec => " !exec",
        End::Open => " …",
        End::Shed => " … shed",
    }
}

/// Appends the line that says that a function is not traced from here on.
pub(super) fn push_shed(out: &mut String, painter: Painter, clock: &Clock, name: &str, shed: &Shed) {
    painter.paint(out, HEADER, |out| {
        let before = out.len();
        clock.push(out, shed.at_ns);
        if out.len() > before {
            out.push_str("  ");
        }
        let _ = write!(out, "shed: {name}, {} events a second: not traced from here on", shed.rate);
    });
    out.push('\n');
}

/// Why a stack is cut, in the words that all outputs use.
pub(super) fn cut_reason(cut: Cut) -> &'static str {
    match cut {
        Cut::NoFramePointers => "no frame pointers",
        Cut::NoRules => "no unwind rules",
        Cut::CopyTooShort => "stack copy too short",
        Cut::OtherStack => "goes on in another stack",
        Cut::ReturnProbe => "a return probe hides the caller",
        Cut::Depth => "--stack-depth reached",
        Cut::Unreadable => "stack not readable",
        Cut::UnknownCode => "unknown code",
    }
}

/// Appends the kernel's frames and then the callers, innermost first, one on each line behind `margin`.
pub(super) fn push_callers(out: &mut String, painter: Painter, margin: &str, stack: &CallerStack) {
    let mut lead = "in ";
    let mut line = |lead: &str, write: &dyn Fn(&mut String)| {
        painter.paint(out, FAINT, |out| {
            out.push_str(margin);
            out.push_str(lead);
            write(out);
        });
        out.push('\n');
    };
    for frame in stack.kernel.iter().flat_map(|frames| frames.iter()) {
        line(lead, &|out| push_kernel_frame(out, frame));
        lead = "   ";
    }
    lead = "at ";
    for frame in &stack.frames {
        line(lead, &|out| push_frame(out, frame));
        lead = "   ";
    }
    if let Some(cut) = stack.cut {
        line(lead, &|out| {
            let _ = write!(out, "(cut: {})", cut_reason(cut));
        });
    }
}

fn push_kernel_frame(out: &mut String, frame: &Frame) {
    match &frame.function {
        Some(function) => escape::text(out, function),
        None => {
            let _ = write!(out, "{:#x}", frame.ip);
        }
    }
    if let Some(module) = &frame.binary {
        out.push(' ');
        escape::text(out, module);
    }
}

fn push_frame(out: &mut String, frame: &Frame) {
    match (&frame.function, &frame.binary, frame.address) {
        (Some(function), ..) => escape::text(out, &brief(function)),
        (None, Some(binary), Some(address)) => {
            escape::text(out, basename(binary));
            let _ = write!(out, "+{address:#x}");
        }
        _ => {
            let _ = write!(out, "{:#x}", frame.ip);
        }
    }
    if let Some(file) = &frame.file {
        out.push(' ');
        escape::text(out, basename(file));
        if let Some(line) = frame.line {
            let _ = write!(out, ":{line}");
        }
    }
    if frame.inlined {
        out.push_str(" (inlined)");
    }
}

/// A caller's name as a line of text has room for it: where it is longer than [`LONGEST_NAME`], generic and template arguments
/// are left out, as `<…>`. What stands in front of a path, as in `<T as Trait>::method`, is part of the name.
fn brief(name: &str) -> Cow<'_, str> {
    if name.len() <= LONGEST_NAME {
        return name.into();
    }
    let (mut short, mut depth) = (String::with_capacity(LONGEST_NAME), 0_usize);
    let mut before = ' ';
    for c in name.chars() {
        match c {
            // Arguments stand behind a name; `operator<<` and its like do not have any there.
            '<' if depth > 0 || (is_part_of_name(before) && !short.ends_with("operator")) => {
                if depth == 0 {
                    short.truncate(short.trim_end_matches("::").len());
                    short.push_str("<…>");
                }
                depth += 1;
            }
            // The arrow of a function's type closes nothing.
            '>' if depth > 0 && before != '-' => depth -= 1,
            _ if depth > 0 => {}
            _ => short.push(c),
        }
        before = c;
    }
    // Brackets without a partner: operators, which are not understood here.
    if depth > 0 { name.into() } else { short.into() }
}

/// Characters.
const LONGEST_NAME: usize = 60;

fn is_part_of_name(c: char) -> bool {
    c.is_alphanumeric() || matches!(c, '_' | ':')
}

fn basename(path: &str) -> &str {
    path.rsplit('/').next().filter(|name| !name.is_empty()).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_of_callers_lose_their_generic_arguments_and_short_ones_nothing() {
        let object = "&dyn core::ops::function::Fn<(), Output = i32> + core::marker::Sync";
        for (name, shown) in [
            ("call_once<fn(), ()>", "call_once<fn(), ()>".to_owned()),
            (&format!("std::panic::catch_unwind::<{object}, i32>"), "std::panic::catch_unwind<…>".to_owned()),
            (
                &format!("<{object} as core::ops::function::FnOnce<()>>::call_once"),
                "<&dyn core::ops::function::Fn<…> + core::marker::Sync as core::ops::function::FnOnce<…>>::call_once"
                    .to_owned(),
            ),
            (
                "and_then<(), fn(alloc::vec::Vec<u8>) -> bool, probe::trace::session::{closure_env#0}>",
                "and_then<…>".to_owned(),
            ),
            (
                "std::map<std::string, std::vector<int, std::allocator<int> >, std::less<std::string> >::find(int) const",
                "std::map<…>::find(int) const".to_owned(),
            ),
            (
                "std::operator<< <std::char_traits<char> >(std::basic_ostream<char>&, char const*)",
                "std::operator<< <std::char_traits<…> >(std::basic_ostream<…>&, char const*)".to_owned(),
            ),
            (
                "a_function_of_many_words_whose_name_is_long_enough_to_be_shortened::if_it_had_arguments",
                "a_function_of_many_words_whose_name_is_long_enough_to_be_shortened::if_it_had_arguments".to_owned(),
            ),
        ] {
            assert_eq!(brief(name), shown);
        }
    }
}
