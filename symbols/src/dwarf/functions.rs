//! A compilation unit's functions, and what was inlined into each.

use gimli::{Attribute, AttributeValue, constants};

use super::budget::Budget;
use super::units::{bounded, target};
use super::{Dwarf, Reader, Unit};

/// Functions with code, and the functions inlined into them.
#[derive(Default)]
pub(super) struct Functions {
    ranges: Vec<CodeRange>,
    functions: Vec<Described>,
    inlined: Vec<Inlined>,
    /// By function and address.
    inlined_ranges: Vec<CodeRange>,
}

/// A function with code.
struct Described {
    /// Offset in `.debug_info` of its entry.
    offset: usize,
    /// Where its first range begins, which is where it is entered. (DWARF 5, section 2.18)
    start: u64,
}

/// Code of number `of`: a function, or something inlined into function `function`.
struct CodeRange {
    function: u32,
    start: u64,
    end: u64,
    of: u32,
}

/// One place where a function was inlined.
pub(super) struct Inlined {
    /// Offset in `.debug_info` of the entry that names it.
    pub(super) origin: usize,
    /// The function that it is in, as a position.
    function: u32,
    /// What it was inlined into, unless that is the function.
    parent: Option<u32>,
    depth: u32,
    pub(super) call_file: u32,
    /// 0: not known.
    pub(super) call_line: u32,
}

/// Where in the tree of entries one is.
#[derive(Clone, Copy)]
struct Inside {
    depth: isize,
    function: Option<u32>,
    inlined: Option<u32>,
}

/// Deeper inlining is only found in hostile files.
const MAX_DEPTH: u32 = 1024;

impl Functions {
    pub(super) fn read(dwarf: &Dwarf<'_>, unit: &Unit<'_>, budget: &Budget, is_code: &dyn Fn(u64) -> bool) -> Self {
        let mut functions = Self::default();
        // What was read before the broken place serves.
        let _ = functions.walk(dwarf, unit, budget, is_code);
        functions.ranges.sort_unstable_by_key(|r| (r.start, r.end));
        functions.inlined_ranges.sort_unstable_by_key(|r| (r.function, r.start));
        functions
    }

    fn walk(
        &mut self,
        dwarf: &Dwarf<'_>,
        unit: &Unit<'_>,
        budget: &Budget,
        is_code: &dyn Fn(u64) -> bool,
    ) -> Option<()> {
        let mut entries = unit.entries_raw(None).ok()?;
        let mut attributes = Vec::new();
        let mut inside: Vec<Inside> = Vec::new();
        while !entries.is_empty() {
            let depth = entries.next_depth();
            let at = entries.next_offset();
            let Some(abbreviation) = entries.read_abbreviation().ok()? else { continue };
            let abbreviation = bounded(abbreviation)?;
            let tag = abbreviation.tag();
            // Entries of all kinds end what is not around them.
            while inside.last().is_some_and(|i| i.depth >= depth) {
                inside.pop();
            }
            if !matches!(tag, constants::DW_TAG_subprogram | constants::DW_TAG_inlined_subroutine) {
                entries.skip_attributes(abbreviation.attributes()).ok()?;
                continue;
            }
            entries.read_attributes(abbreviation.attributes(), &mut attributes).ok()?;
            let entry = Entry { dwarf, unit, attributes: &attributes };
            let around = inside.last().copied();
            let (function, inlined) = if tag == constants::DW_TAG_subprogram {
                let offset = at.to_unit_section_offset(&unit.header).0;
                (self.add_function(&entry, offset, budget, is_code), None)
            } else {
                (around.and_then(|a| a.function), around.and_then(|a| self.add_inlined(&entry, a, budget)))
            };
            inside.push(Inside { depth, function, inlined });
        }
        Some(())
    }

    fn add_function(
        &mut self,
        entry: &Entry<'_, '_>,
        offset: usize,
        budget: &Budget,
        is_code: &dyn Fn(u64) -> bool,
    ) -> Option<u32> {
        let number = u32::try_from(self.functions.len()).ok()?;
        let before = self.ranges.len();
        entry.ranges(|start, end| {
            budget.take_one::<CodeRange>()?;
            if is_code(start) {
                self.ranges.push(CodeRange { function: number, start, end, of: number });
            }
            Some(())
        });
        let start = self.ranges.get(before)?.start;
        budget.take_one::<Described>()?;
        self.functions.push(Described { offset, start });
        Some(number)
    }

    fn add_inlined(&mut self, entry: &Entry<'_, '_>, around: Inside, budget: &Budget) -> Option<u32> {
        let (function, number) = (around.function?, u32::try_from(self.inlined.len()).ok()?);
        let depth = around.inlined.and_then(|i| self.inlined.get(i as usize)).map_or(0, |i| i.depth + 1);
        if depth > MAX_DEPTH {
            return None;
        }
        budget.take_one::<Inlined>()?;
        self.inlined.push(Inlined {
            origin: target(entry.dwarf, entry.unit, entry.value(constants::DW_AT_abstract_origin)?)?,
            function,
            parent: around.inlined,
            depth,
            call_file: entry.number(constants::DW_AT_call_file),
            call_line: entry.number(constants::DW_AT_call_line),
        });
        entry.ranges(|start, end| {
            budget.take_one::<CodeRange>()?;
            self.inlined_ranges.push(CodeRange { function, start, end, of: number });
            Some(())
        });
        Some(number)
    }

    /// The function with code at `v`, and what was inlined there, innermost first.
    pub(super) fn at(&self, v: u64) -> Option<(usize, Vec<&Inlined>)> {
        let after = self.ranges.partition_point(|r| r.start <= v);
        let before = self.ranges.get(..after)?.iter().rev().take(MAX_OVERLAP);
        let function = before.into_iter().find(|r| v < r.end)?.of;
        let from = self.inlined_ranges.partition_point(|r| r.function < function);
        let here = self.inlined_ranges.get(from..)?.iter().take_while(|r| r.function == function && r.start <= v);
        let covering = here.filter(|r| v < r.end).filter_map(|r| self.inlined.get(r.of as usize));
        let mut chain = Vec::new();
        let mut next = covering.max_by_key(|i| i.depth);
        while let Some(inlined) = next {
            chain.push(inlined);
            // A parent comes before its children: the walk ends.
            next = inlined.parent.and_then(|p| self.inlined.get(p as usize));
        }
        Some((self.functions.get(function as usize)?.offset, chain))
    }

    /// Every place where something was inlined: (it, the lowest address of its code if any is left, where the
    /// function begins that it is in).
    pub(super) fn places(&self) -> impl Iterator<Item = (&Inlined, Option<u64>, u64)> {
        let starts = lowest(&self.inlined_ranges, self.inlined.len());
        self.inlined
            .iter()
            .zip(starts)
            .filter_map(|(place, start)| Some((place, start, self.functions.get(place.function as usize)?.start)))
    }

    /// Where all functions have code, by address.
    pub(super) fn all_code(&self) -> impl Iterator<Item = Code> + '_ {
        self.ranges.iter().filter_map(|range| {
            let function = self.functions.get(range.of as usize)?;
            let (start, end) = (range.start, range.end);
            Some(Code { function: function.offset, start, end, is_entry: start == function.start })
        })
    }
}

/// A function's code, or a part of it that was moved elsewhere.
pub(super) struct Code {
    /// Offset in `.debug_info` of the function's entry.
    pub(super) function: usize,
    pub(super) start: u64,
    pub(super) end: u64,
    /// The function begins here.
    pub(super) is_entry: bool,
}

/// The lowest address of each number.
fn lowest(ranges: &[CodeRange], count: usize) -> Vec<Option<u64>> {
    let mut starts: Vec<Option<u64>> = vec![None; count];
    for range in ranges {
        if let Some(start) = starts.get_mut(range.of as usize) {
            *start = Some(start.map_or(range.start, |known| known.min(range.start)));
        }
    }
    starts
}

/// Functions that share an address; only broken files have many.
const MAX_OVERLAP: usize = 16;

/// An entry of the tree with its attributes.
pub(super) struct Entry<'e, 'a> {
    pub(super) dwarf: &'e Dwarf<'a>,
    pub(super) unit: &'e Unit<'a>,
    pub(super) attributes: &'e [Attribute<Reader<'a>>],
}

impl<'a> Entry<'_, 'a> {
    fn value(&self, name: constants::DwAt) -> Option<AttributeValue<Reader<'a>>> {
        self.attributes.iter().find(|a| a.name() == name).map(Attribute::value)
    }

    fn number(&self, name: constants::DwAt) -> u32 {
        match self.value(name) {
            Some(AttributeValue::FileIndex(n)) => u32::try_from(n).unwrap_or(0),
            Some(value) => value.udata_value().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            None => 0,
        }
    }

    /// Calls `each` with (start, end) of the entry's code until that says stop. (gimli's own adds start and length without
    /// a check.)
    pub(super) fn ranges(&self, mut each: impl FnMut(u64, u64) -> Option<()>) -> Option<()> {
        if let Some(value) = self.value(constants::DW_AT_ranges) {
            let mut ranges = self.dwarf.attr_ranges(self.unit, value).ok()??;
            while let Some(range) = ranges.next().ok()? {
                if range.begin < range.end {
                    each(range.begin, range.end)?;
                }
            }
            return Some(());
        }
        let address = |value| self.dwarf.attr_address(self.unit, value).ok().flatten();
        let start = address(self.value(constants::DW_AT_low_pc)?)?;
        let high = self.value(constants::DW_AT_high_pc)?;
        let end = match address(high) {
            Some(end) => end,
            None => start.checked_add(high.udata_value()?)?,
        };
        if start < end { each(start, end) } else { None }
    }
}
