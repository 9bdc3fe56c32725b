//! Lines and inlined functions of an index, from Go's tables or DWARF.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::places::is_tail_of_path;
use super::select::{Found, Hit};
use super::{Index, Source};
use crate::addr::Vaddr;
use crate::demangle;
use crate::dwarf::{Debug, Frame};
use crate::go::{SourceLine, names as go_names};

/// Where the debug information of an index comes from.
#[derive(Default)]
pub(super) struct Sources {
    /// The file's own DWARF, once asked for.
    own: OnceLock<Option<Debug>>,
}

/// One of the functions that are at one address because they were inlined into each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFrame<'a> {
    /// As [`super::Function::name`]; empty if it is not known.
    pub name: String,
    /// Where it is: innermost the address's own line, further out the line of the inlined call.
    pub source: Option<SourceLine<'a>>,
}

impl Index {
    /// The file and line of an address, inlined code included: from Go's function table or from DWARF.
    pub fn line(&self, v: Vaddr) -> Option<SourceLine<'_>> {
        if let Some(function) = self.binary.go().and_then(|go| go.function_at(&self.binary, v))
            && let Some(line) = function.line_at(v)
        {
            return Some(line);
        }
        self.debug()?.line(v.0)
    }

    /// The functions that are at an address, innermost first. The last is the function that has the code; those before
    /// it were inlined. Empty if neither Go's tables nor DWARF know the address.
    pub fn inlined(&self, v: Vaddr) -> Vec<InlineFrame<'_>> {
        let go = self.binary.go().and_then(|go| Some((go, go.function_at(&self.binary, v)?)));
        if let Some((go, function)) = go
            && function.line_at(v).is_some()
        {
            let frames = go.inlined(&self.binary, &function, v).into_iter();
            let shown =
                |(name, source): (&str, _)| InlineFrame { name: go_names::unescaped(name).into_owned(), source };
            return frames.map(shown).collect();
        }
        let Some(debug) = self.debug() else { return Vec::new() };
        let mut frames: Vec<_> = debug.frames(v.0).into_iter().map(shown).collect();
        // Assembly has lines, but no entries that describe its functions.
        if frames.is_empty()
            && let Some(source) = debug.line(v.0)
        {
            frames.push(InlineFrame { name: String::new(), source: Some(source) });
        }
        // The symbol knows the whole name, where DWARF of C++ may have only the last element.
        if let Some((last, function)) = frames.last_mut().zip(self.at(v)) {
            last.name = function.name.to_owned();
        }
        frames
    }

    fn debug(&self) -> Option<&Debug> {
        let own = || {
            let code = self.binary.segments().iter().filter(|s| s.executable);
            let code = code.map(|s| s.vaddr.0..s.vaddr.0.saturating_add(s.mem_size)).collect();
            Debug::of(self.binary.shared_data(), code)
        };
        self.debug.own.get_or_init(own).as_ref()
    }

    /// What DWARF knows of a file, or of a line in it. Go's own functions are found by Go's tables.
    pub(super) fn find_in_debug(&self, path: &str, line: Option<u32>, found: &mut Found) {
        let Some(debug) = self.debug() else { return };
        let wanted = |file: &str| is_tail_of_path(file, path);
        let Some(line) = line else {
            let units = debug.units_from(wanted);
            for (function, start) in self.starts.iter().enumerate() {
                if debug.line_from(&units, start.0).is_some_and(|l| wanted(l.file)) {
                    found.hits.extend(self.elf_hit(function as u32));
                }
            }
            return;
        };
        let mut first: BTreeMap<u32, Vaddr> = BTreeMap::new();
        for address in debug.line_starts(line, wanted).into_iter().map(Vaddr) {
            if let Some(function) = self.at(address) {
                first.entry(function.id.0).or_insert(address);
            }
        }
        for (function, address) in first {
            let Some(hit) = self.elf_hit(function) else { continue };
            match address.0.saturating_sub(self.start(function).0) {
                0 => found.hits.push(hit),
                offset => found.points.push((address, Some(hit), offset)),
            }
        }
    }

    /// A function by the name it is shown by, unless it is Go's.
    fn elf_hit(&self, function: u32) -> Option<Hit> {
        let name = self.shown(function as usize)?;
        let is_go = self.names.get(name)?.source == Source::Go;
        (!is_go).then_some(Hit { function, name: u32::try_from(name).ok()? })
    }
}

fn shown(frame: Frame<'_>) -> InlineFrame<'_> {
    InlineFrame {
        name: frame.name.map(|name| demangle::full(name).into_owned()).unwrap_or_default(),
        source: frame.source,
    }
}
