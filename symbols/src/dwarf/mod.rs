//! Debug information (DWARF 4 and 5): lines, and functions that were inlined.
//!
//! In: the bytes of an ELF file, which may be a separate debug file. Out: answers in that file's own addresses. Nothing
//! is read before it is asked for, and then only the units that are concerned. Everything is untrusted: see `budget`.
//!
//! * `sections`: the bytes, decompressed where needed.
//! * `units`: which unit has an address.
//! * `lines`: a unit's line table.
//! * `functions`: a unit's functions and what was inlined into them.
//! * `split`: units that are in `.dwo` and `.dwp` files.
//! * `supplement`: what several files share in another one (dwz).
//! * `names`: what the functions are called.

mod budget;
mod functions;
mod lines;
mod names;
mod sections;
mod split;
mod supplement;
mod units;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::sync::{Arc, OnceLock};

use gimli::{EndianSlice, LittleEndian, SectionId};
use rustc_hash::FxHashMap;

use self::budget::Budget;
use self::functions::{Functions, Inlined};
use self::lines::Lines;
use self::names::{Entries, Name, Qualified};
use self::sections::Sections;
use self::split::{Package, Split};
use self::supplement::Supplement;
use self::units::Units;
use crate::debugfile::Made;
use crate::elf::SYMBOL_SIZE;
use crate::go::SourceLine;
use crate::mmap::Data;
use crate::parallel;

pub(crate) use self::sections::debug_frame;
pub(crate) use self::split::Files;

type Reader<'a> = EndianSlice<'a, LittleEndian>;
type Dwarf<'a> = gimli::Dwarf<Reader<'a>>;
type Unit<'a> = gimli::Unit<Reader<'a>>;

/// The debug information of one file.
pub(crate) struct Debug {
    sections: Sections,
    units: OnceLock<Units>,
    budget: Budget,
    /// Bytes of the file.
    len: usize,
    /// Where code is; what is elsewhere was thrown away by the linker.
    code: Vec<Range<u64>>,
    /// Reads what split DWARF left elsewhere.
    split_files: Option<Box<dyn Files>>,
    package: Package,
    supplement: OnceLock<Option<Supplement>>,
}

/// A frame as the debug information has it.
pub(crate) struct Frame<'a> {
    /// The function's name, perhaps mangled.
    pub(crate) name: Option<&'a [u8]>,
    /// Where it is executing: innermost the address's line, further out that of the inlined call.
    pub(crate) source: Option<SourceLine<'a>>,
}

/// A place where a function was inlined.
pub(crate) struct InlinedPlace<'a> {
    /// The inlined function's name, perhaps mangled. What C++ has in one file only is not: then it is as in the source.
    pub(crate) name: Cow<'a, [u8]>,
    /// Where the function begins that has the code.
    pub(crate) function: u64,
    /// The lowest address of the inlined code; `None` if nothing is left of it.
    pub(crate) address: Option<u64>,
    /// Where it was called.
    pub(crate) call: Option<SourceLine<'a>>,
}

/// Units that one thread reads at a time.
const UNITS_AT_A_TIME: usize = 4;

impl Debug {
    /// The debug information in a file, if it has any. `code`: where its code is.
    pub(crate) fn of(data: &Arc<Data>, code: Vec<Range<u64>>, files: Option<Box<dyn Files>>) -> Option<Self> {
        let budget = Budget::for_file(data.len());
        let sections = Sections::of(data, &budget)?;
        Some(Self {
            sections,
            units: OnceLock::new(),
            budget,
            len: data.len(),
            code,
            split_files: files,
            package: Package::default(),
            supplement: OnceLock::new(),
        })
    }

    /// The file and line of an address, inlined code included.
    pub(crate) fn line(&self, v: u64) -> Option<SourceLine<'_>> {
        self.units().at(v).find_map(|unit| self.line_in(unit, v))
    }

    fn line_in(&self, unit: usize, v: u64) -> Option<SourceLine<'_>> {
        let (file, line) = self.lines(unit)?.at(v)?;
        Some(SourceLine { file: self.file(unit, file)?, line })
    }

    /// The functions at an address, innermost first; the last is the one that has the code.
    pub(crate) fn frames(&self, v: u64) -> Vec<Frame<'_>> {
        self.units().at(v).find_map(|unit| self.frames_in(unit, v)).unwrap_or_default()
    }

    fn frames_in(&self, unit: usize, v: u64) -> Option<Vec<Frame<'_>>> {
        let dwarf = self.dwarf();
        let (functions, split) = self.functions(unit)?;
        let (function, chain) = functions.at(v)?;
        let mut frames = Vec::with_capacity(chain.len() + 1);
        let mut source = self.line_in(unit, v);
        for inlined in chain {
            frames.push(Frame { name: self.kept_name(&dwarf, (unit, split), inlined.origin), source });
            source = self.call_of(unit, inlined);
        }
        // A symbol has it whole, nearly always.
        frames.push(Frame { name: self.name(&dwarf, split, function).map(|name| name.text), source });
        Some(frames)
    }

    /// As [`Self::full_name`], with the unit's names kept.
    fn kept_name<'a>(
        &'a self,
        dwarf: &Dwarf<'a>,
        (unit, split): (usize, Option<&'a Split>),
        offset: usize,
    ) -> Option<&'a [u8]> {
        let name = self.name(dwarf, split, offset)?;
        let Some(at) = name.element_at else { return Some(name.text) };
        let read = || Box::new(self.qualified(dwarf, (unit, split), &self.budget).unwrap_or_default());
        let qualified = self.units().all.get(unit)?.qualified.get_or_init(read);
        Some(qualified.get(&at).map_or(name.text, |name| name))
    }

    /// The file and line of an address in one of `units`, which are in order.
    pub(crate) fn line_from(&self, units: &[usize], v: u64) -> Option<SourceLine<'_>> {
        self.units().at(v).filter(|unit| units.binary_search(unit).is_ok()).find_map(|unit| self.line_in(unit, v))
    }

    /// The units that speak of a file whose path is `wanted`, in order. Their line tables are not read yet.
    pub(crate) fn units_from(&self, wanted: impl Fn(&str) -> bool) -> Vec<usize> {
        let units = self.units();
        let tables: Vec<bool> =
            (0..units.tables.len()).map(|t| self.files(t).iter().any(|path| wanted(path))).collect();
        let has = |unit: &usize| {
            let table = units.all.get(*unit).filter(|u| u.has_code)?.table?;
            tables.get(table as usize).copied().filter(|has| *has)
        };
        (0..units.all.len()).filter(|unit| has(unit).is_some()).collect()
    }

    /// The paths of all source files that line tables name.
    pub(crate) fn all_files(&self) -> impl Iterator<Item = &str> {
        (0..self.units().tables.len()).flat_map(|table| self.files(table)).map(|path| &**path)
    }

    /// The lines of the files that are `wanted` for which there is code.
    pub(crate) fn lines_with_code(&self, wanted: impl Fn(&str) -> bool) -> BTreeSet<u32> {
        let units = self.units_from(&wanted);
        let tables: BTreeMap<_, _> = units.iter().filter_map(|&u| Some((self.units().all.get(u)?.table?, u))).collect();
        let runs = |unit: usize| self.lines(unit).into_iter().flat_map(Lines::runs).map(move |run| (unit, run));
        let all = tables.into_values().flat_map(runs).filter(|(_, run)| run.line != 0);
        all.filter(|(unit, run)| self.file(*unit, run.file).is_some_and(&wanted)).map(|(_, run)| run.line).collect()
    }

    /// The starts of the code of line `line` in the files that are `wanted`: places where a statement begins, if there are
    /// any, by address.
    pub(crate) fn line_starts(&self, line: u32, wanted: impl Fn(&str) -> bool) -> Vec<u64> {
        let mut found = Vec::new();
        let units = self.units_from(&wanted);
        // Units may share a table.
        let tables: BTreeMap<_, _> = units.iter().filter_map(|&u| Some((self.units().all.get(u)?.table?, u))).collect();
        for unit in tables.into_values() {
            let Some(lines) = self.lines(unit) else { continue };
            let runs = lines.runs().filter(|run| run.line == line);
            let here = runs.filter(|run| self.file(unit, run.file).is_some_and(&wanted));
            found.extend(here.map(|run| (run.statement, run.start)));
        }
        if found.iter().any(|(statement, _)| *statement) {
            found.retain(|(statement, _)| *statement);
        }
        found.sort_unstable_by_key(|(_, start)| *start);
        found.dedup();
        found.into_iter().map(|(_, start)| start).collect()
    }

    /// The places where functions were inlined whose names, perhaps mangled, are `wanted`, unit by unit, with what
    /// `wanted` said of the name. Reads all there is, and keeps none of it.
    pub(crate) fn inlined_places<'a, T: Copy + Send>(
        &'a self,
        wanted: impl Fn(&[u8]) -> Option<T> + Sync,
    ) -> Vec<(T, InlinedPlace<'a>)> {
        let units: Vec<usize> = self.with_code().collect();
        let places = parallel::map_chunks(&units, UNITS_AT_A_TIME, |units| {
            units.iter().flat_map(|&unit| self.inlined_places_in(unit, &wanted).unwrap_or_default()).collect::<Vec<_>>()
        });
        places.into_iter().flatten().collect()
    }

    fn inlined_places_in<'a, T: Copy>(
        &'a self,
        unit: usize,
        wanted: &impl Fn(&[u8]) -> Option<T>,
    ) -> Option<Vec<(T, InlinedPlace<'a>)>> {
        let dwarf = self.dwarf();
        let data = self.units().all.get(unit)?;
        let read;
        let (functions, split) = match (data.functions.get(), data.split.get_or_init(|| self.find_split(unit))) {
            (_, Some(_)) => self.functions(unit)?,
            (Some(functions), None) => (functions.as_ref()?, None),
            (None, None) => {
                read = self.read_functions(unit, &Budget::for_file(self.len))?;
                (&read, None)
            }
        };
        let mut known = FxHashMap::default();
        let mut qualified = None;
        let mut found = Vec::new();
        for (inlined, address, function) in functions.places() {
            let name = known.entry(inlined.origin).or_insert_with(|| {
                let name = self.full_name(&dwarf, (unit, split), inlined.origin, &mut qualified)?;
                Some((wanted(&name)?, name))
            });
            if let Some((what, name)) = name {
                let (name, call) = (name.clone(), self.call_of(unit, inlined));
                found.push((*what, InlinedPlace { name, function, address, call }));
            }
        }
        Some(found)
    }

    /// The name of a function's entry, which may be in a split unit: as the linker spells it, or with the namespaces and
    /// classes that it is in. Those are read, for the unit, when the first is asked for.
    fn full_name<'a>(
        &'a self,
        dwarf: &Dwarf<'a>,
        (unit, split): (usize, Option<&'a Split>),
        offset: usize,
        qualified: &mut Option<Qualified>,
    ) -> Option<Cow<'a, [u8]>> {
        let name = self.name(dwarf, split, offset)?;
        let Some(at) = name.element_at else { return Some(Cow::Borrowed(name.text)) };
        let read = || self.qualified(dwarf, (unit, split), &Budget::for_file(self.len)).unwrap_or_default();
        let qualified = qualified.get_or_insert_with(read);
        Some(qualified.get(&at).map_or(Cow::Borrowed(name.text), |name| Cow::Owned(name.to_vec())))
    }

    fn qualified(
        &self,
        dwarf: &Dwarf<'_>,
        (unit, split): (usize, Option<&Split>),
        budget: &Budget,
    ) -> Option<Qualified> {
        let root = self.units().root(dwarf, unit)?;
        match split {
            Some(split) => split.qualified(&root, dwarf, budget),
            None => Some(names::qualified(dwarf, &root.unit, budget)),
        }
    }

    /// Where the call stood in whose place something was inlined.
    fn call_of(&self, unit: usize, inlined: &Inlined) -> Option<SourceLine<'_>> {
        let line = Some(inlined.call_line).filter(|&line| line != 0)?;
        Some(SourceLine { file: self.file(unit, inlined.call_file)?, line })
    }

    /// Bytes that describe functions; `None` if some are in other files, whose sizes are not known before they are read.
    pub(crate) fn info_len(&self) -> Option<usize> {
        let dwarf = self.dwarf();
        let is_split = |unit| self.units().root(&dwarf, unit).is_some_and(|root| root.split.is_some());
        let is_whole = !(0..self.units().all.len()).any(is_split);
        is_whole.then(|| self.sections.get(SectionId::DebugInfo).len())
    }

    /// The described functions as a symbol table would have them. A part that was moved elsewhere is `NAME.cold`. Reads all
    /// there is.
    pub(crate) fn as_symbols(&self) -> Made {
        let dwarf = self.dwarf();
        let mut made = Made::default();
        for unit in self.with_code() {
            let Some((functions, split)) = self.functions(unit) else { continue };
            made.begin_file();
            let mut qualified = None;
            for code in functions.all_code() {
                let Some(name) = self.full_name(&dwarf, (unit, split), code.function, &mut qualified) else { continue };
                let suffix: &[u8] = if code.is_entry { b"" } else { b".cold" };
                let taken = self.budget.take(name.len() + SYMBOL_SIZE);
                if taken.and_then(|()| made.function(&name, suffix, code.start, code.end - code.start)).is_none() {
                    return made;
                }
            }
        }
        made
    }

    /// Units with code.
    fn with_code(&self) -> impl Iterator<Item = usize> + '_ {
        (0..self.units().all.len()).filter(|&unit| self.units().all.get(unit).is_some_and(|u| u.has_code))
    }

    /// The name of a function's entry, which may be in a split unit.
    fn name<'a>(&'a self, dwarf: &Dwarf<'a>, split: Option<&'a Split>, offset: usize) -> Option<Name<'a>> {
        let supplement = self.supplement().map(Supplement::units);
        split.map_or_else(|| Entries { dwarf, units: self.units(), supplement }.name(offset), |s| s.name(dwarf, offset))
    }

    /// The sections, and those of the supplementary file.
    fn dwarf(&self) -> Dwarf<'_> {
        let mut dwarf = self.sections.dwarf();
        if let Some(supplement) = self.supplement() {
            dwarf.set_sup(supplement.dwarf());
        }
        dwarf
    }

    fn supplement(&self) -> Option<&Supplement> {
        let find = || Supplement::find(&self.sections, self.split_files.as_deref()?);
        self.supplement.get_or_init(find).as_ref()
    }

    fn units(&self) -> &Units {
        self.units.get_or_init(|| Units::read(&self.dwarf(), &self.budget, &|v| self.is_code(v)))
    }

    fn is_code(&self, v: u64) -> bool {
        self.code.iter().any(|range| range.contains(&v))
    }

    fn lines(&self, unit: usize) -> Option<&Lines> {
        let table = self.units().tables.get(self.units().all.get(unit)?.table? as usize)?;
        let read = || {
            let dwarf = self.dwarf();
            let root = self.units().root(&dwarf, table.unit)?;
            Lines::read(&dwarf, &root.unit, &table.place, &self.budget, &|v| self.is_code(v))
        };
        table.lines.get_or_init(read).as_ref()
    }

    /// The paths of a line table's files, by number.
    fn files(&self, table: usize) -> &[Box<str>] {
        let Some(table) = self.units().tables.get(table) else { return &[] };
        table.files.get_or_init(|| {
            let dwarf = self.dwarf();
            let root = self.units().root(&dwarf, table.unit);
            root.map(|root| lines::files(&dwarf, &root.unit, &table.place, &self.budget)).unwrap_or_default()
        })
    }

    /// A unit's functions, and where their entries are if that is another file.
    fn functions(&self, unit: usize) -> Option<(&Functions, Option<&Split>)> {
        let data = self.units().all.get(unit)?;
        if let Some(split) = data.split.get_or_init(|| self.find_split(unit)) {
            let dwarf = self.dwarf();
            let functions =
                split.functions(&self.units().root(&dwarf, unit)?, &dwarf, &self.budget, &|v| self.is_code(v))?;
            return Some((functions, Some(split)));
        }
        let read = || self.read_functions(unit, &self.budget);
        data.functions.get_or_init(read).as_ref().map(|functions| (functions, None))
    }

    fn read_functions(&self, unit: usize, budget: &Budget) -> Option<Functions> {
        let dwarf = self.dwarf();
        let root = self.units().root(&dwarf, unit)?;
        Some(Functions::read(&dwarf, &root.unit, budget, &|v| self.is_code(v)))
    }

    fn find_split(&self, unit: usize) -> Option<Split> {
        let dwarf = self.dwarf();
        let root = self.units().root(&dwarf, unit)?;
        Split::find(&root, &dwarf, &self.package, self.split_files.as_deref()?, &self.budget)
    }

    fn file(&self, unit: usize, number: u32) -> Option<&str> {
        let table = self.units().all.get(unit)?.table?;
        self.files(table as usize)
            .get(usize::try_from(number).ok()?)
            .map(|path| &**path)
            .filter(|path| !path.is_empty())
    }
}
