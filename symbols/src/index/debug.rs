//! Lines and inlined functions of an index, from Go's tables or DWARF.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use super::places::is_tail_of_path;
use super::select::{Found, Hit};
use super::{Index, LeftOut};
use crate::Error;
use crate::addr::Vaddr;
use crate::binary::Binary;
use crate::debugfile::{self, AddressMap, DebugFile, DebugReport, DebugSearch, Origin, SplitFiles};
use crate::demangle;
use crate::dwarf::{self, Debug, Files, Frame};
use crate::go::{SourceLine, names as go_names};
use crate::plt;
use crate::unwind::SharedBytes;

/// Where the names and the debug information of an index come from, besides the file.
#[derive(Default)]
pub(super) struct Sources {
    files: Vec<DebugFile>,
    search: Option<DebugSearch>,
    report: DebugReport,
    /// The debug information, and which of `files` it is from (none: the file's own), once asked for.
    dwarf: OnceLock<Option<(Option<usize>, Debug)>>,
}

impl Sources {
    pub(super) fn files(&self) -> &[DebugFile] {
        &self.files
    }

    /// Whether functions that nothing names are to be listed by their bounds: where no symbol table tells them.
    pub(super) fn adds_nameless(&self, binary: &Binary) -> bool {
        // Debug information knows nothing of assembly.
        let is_table = |file: &DebugFile| file.has_symbols() && file.origin == Origin::Symbols;
        let named = self.files.iter().any(is_table) || binary.sections().symtab.is_some();
        self.search.is_some() && !named && binary.go().is_none()
    }

    fn dwarf(&self, binary: &Binary) -> Option<(&Debug, Option<&AddressMap>)> {
        let (file, debug) = self.dwarf.get_or_init(|| self.find_dwarf(binary)).as_ref()?;
        let map = file.and_then(|number| self.files.get(number)).map(|file| &file.map);
        Some((debug, map))
    }

    fn find_dwarf(&self, binary: &Binary) -> Option<(Option<usize>, Debug)> {
        let own_code = binary.segments().iter().filter(|s| s.executable);
        let own_code = own_code.map(|s| s.vaddr.0..s.vaddr.0.saturating_add(s.mem_size)).collect();
        let files = || -> Option<Box<dyn Files>> {
            Some(Box::new(SplitFiles { search: self.search.clone()?, debug_file: self.report.used.clone() }))
        };
        if let Some(own) = Debug::of(binary.shared_data(), own_code, files()) {
            return Some((None, own));
        }
        self.files.iter().enumerate().find_map(|(number, file)| {
            let code = file.sections.sections.iter().filter(|s| s.executable && s.allocated);
            let code = code.map(|s| s.address.0..s.end().0).collect();
            Some((Some(number), Debug::of(&file.data, code, files())?))
        })
    }

    /// The functions that only debug information names: where there is no symbol table.
    fn described(&self, binary: &Binary) -> Option<DebugFile> {
        if binary.sections().symtab.is_some() || self.files.iter().any(DebugFile::has_symbols) {
            return None;
        }
        let (debug, map) = self.dwarf(binary)?;
        debug.as_symbols().finish(map.cloned().unwrap_or_default(), Origin::Dwarf)
    }
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
        let (debug, v) = self.dwarf_at(v)?;
        debug.line(v)
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
        let Some((debug, there)) = self.dwarf_at(v) else { return Vec::new() };
        let mut frames: Vec<_> = debug.frames(there).into_iter().map(shown).collect();
        // Assembly has lines, but no entries that describe its functions.
        if frames.is_empty()
            && let Some(source) = debug.line(there)
        {
            frames.push(InlineFrame { name: String::new(), source: Some(source) });
        }
        // The symbol knows the whole name, where DWARF of C++ may have only the last element.
        if let Some((last, function)) = frames.last_mut().zip(self.at(v))
            && (last.name.is_empty() || function.left_out != Some(LeftOut::Nameless))
        {
            last.name = function.name.to_owned();
        }
        frames
    }

    /// The `.debug_frame` of a debug file whose addresses are the file's own.
    pub(crate) fn debug_frame(&self) -> Option<SharedBytes> {
        let files = self.debug.files.iter().filter(|file| file.map.is_identity());
        files.filter_map(|file| dwarf::debug_frame(&file.data)).next()
    }

    /// Like [`Self::new`], with what separate debug files know of the file's functions, lines and inlined code. Functions
    /// of a stripped file that nothing names are known by their bounds.
    ///
    /// # Errors
    /// [`Error::NoSymbolsNorDebugFile`] if there is no function at all.
    pub fn with_debug(binary: Arc<Binary>, search: &DebugSearch) -> Result<Self, Error> {
        let (files, report) = debugfile::find(&binary, search);
        let looked = Box::new(report.clone());
        let mut sources = Sources { files, report, search: Some(search.clone()), dwarf: OnceLock::new() };
        sources.files.extend(sources.described(&binary));
        sources.files.extend(plt::stubs(&binary));
        Self::from_sources(binary, sources).map_err(|error| match error {
            Error::NoSymbols => Error::NoSymbolsNorDebugFile(looked),
            other => other,
        })
    }

    /// What separate debug files were looked for.
    pub fn debug_report(&self) -> &DebugReport {
        &self.debug.report
    }

    /// Whether the file is stripped, and nothing else names its functions but what it exports.
    pub fn is_stripped(&self) -> bool {
        let named = self.debug.files.iter().any(DebugFile::has_symbols);
        !named && self.binary.sections().symtab.is_none() && self.binary.go().is_none()
    }

    /// `MODULE+0xADDR`
    pub(super) fn name_of_nameless(&self, name: &super::Name) -> String {
        format!("{}+{}", self.own_name(), name.address())
    }

    /// Whether the word may be in the name of a function without one.
    pub(super) fn may_name_nameless(&self, word: &str) -> bool {
        self.own_name().contains(word) || word.bytes().all(|b| b.is_ascii_hexdigit() || b == b'x')
    }

    pub(super) fn is_own_name(&self, text: &str) -> bool {
        self.own_name() == text
    }

    /// The file's name without folders.
    fn own_name(&self) -> &str {
        self.own_name.get_or_init(|| {
            let path = self.debug.search.as_ref().and_then(|s| s.path.as_deref()).and_then(Path::file_name);
            let own = path.map(|name| name.to_string_lossy()).or(self.binary.soname().map(Cow::Borrowed));
            own.unwrap_or("program".into()).into_owned()
        })
    }

    /// The debug information, and the map from its file's addresses if that is a separate one.
    pub(super) fn dwarf(&self) -> Option<(&Debug, Option<&AddressMap>)> {
        self.debug.dwarf(&self.binary)
    }

    /// The debug information, and an address as its file has it.
    fn dwarf_at(&self, v: Vaddr) -> Option<(&Debug, u64)> {
        let (debug, map) = self.dwarf()?;
        Some((debug, map.map_or(Some(v.0), |map| map.to_debug(v.0))?))
    }

    /// What DWARF knows of a file, or of a line in it. Go's own functions are found by Go's tables.
    pub(super) fn find_in_debug(&self, path: &str, line: Option<u32>, found: &mut Found) {
        let Some((debug, map)) = self.dwarf() else { return };
        let wanted = |file: &str| is_tail_of_path(file, path);
        let Some(line) = line else {
            let units = debug.units_from(wanted);
            for function in 0..self.len() {
                let start = self.start(function);
                let Some(there) = map.map_or(Some(start.0), |map| map.to_debug(start.0)) else { continue };
                if debug.line_from(&units, there).is_some_and(|l| wanted(l.file)) {
                    found.hits.extend(self.elf_hit(function as u32));
                }
            }
            return;
        };
        let mut first: BTreeMap<u32, Vaddr> = BTreeMap::new();
        let here = |there| map.map_or(Some(there), |map| map.to_program(there)).map(Vaddr);
        for address in debug.line_starts(line, wanted).into_iter().filter_map(here) {
            if let Some(function) = self.at(address) {
                first.entry(function.id.0).or_insert(address);
            }
        }
        for (function, address) in first {
            let Some(hit) = self.elf_hit(function) else { continue };
            match address.0.saturating_sub(self.start(function as usize).0) {
                0 => found.hits.push(hit),
                offset => found.points.push((address, Some(hit), offset)),
            }
        }
    }

    /// A function by the name it is shown by, unless it is Go's.
    fn elf_hit(&self, function: u32) -> Option<Hit> {
        let name = self.shown(function as usize)?;
        let is_go = self.entry(name)?.is_go();
        (!is_go).then_some(Hit { function, name: u32::try_from(name).ok()? })
    }
}

fn shown(frame: Frame<'_>) -> InlineFrame<'_> {
    InlineFrame {
        name: frame.name.map(|name| demangle::full(name).into_owned()).unwrap_or_default(),
        source: frame.source,
    }
}
