//! The units of `.debug_info`: which addresses each covers, and what is needed to read on in it.

use std::ops::Range;
use std::sync::{Arc, OnceLock};

use gimli::{
    Abbreviation, Abbreviations, Attribute, AttributeValue, DebugAbbrev, DebugInfoOffset, DebugLineOffset,
    DwarfFileType, LittleEndian, Section as _, UnitHeader, UnitSectionOffset, UnitType, constants,
};

use super::budget::Budget;
use super::functions::{Entry, Functions};
use super::lines::Lines;
use super::names::Qualified;
use super::split::Split;
use super::{Dwarf, Reader, Unit};

/// One unit, with its tables as far as they were asked for.
pub(super) struct UnitData {
    /// Where its header is in `.debug_info`.
    pub(super) offset: usize,
    /// The line table: position in [`Units::tables`].
    pub(super) table: Option<u32>,
    pub(super) functions: OnceLock<Option<Functions>>,
    /// Split DWARF: the rest of the unit.
    pub(super) split: OnceLock<Option<Split>>,
    /// See [`super::names::qualified`].
    pub(super) qualified: OnceLock<Box<Qualified>>,
    pub(super) has_code: bool,
}

/// A line table, which units may share.
pub(super) struct Table {
    /// In `.debug_line`: where it is, and where the next begins.
    pub(super) place: Range<usize>,
    /// The first unit that has it.
    pub(super) unit: usize,
    pub(super) files: OnceLock<Vec<Box<str>>>,
    pub(super) lines: OnceLock<Option<Lines>>,
}

/// Abbreviations, which units may share.
struct Shared {
    /// In `.debug_abbrev`: where they are, and where the next begins.
    place: Range<usize>,
    read: OnceLock<Option<Arc<Abbreviations>>>,
}

/// All units of a file. Tables that compilers write do not overlap: each is read once, and not beyond the next one's
/// beginning, which bounds the time to that of one pass through the file.
pub(super) struct Units {
    /// By offset.
    pub(super) all: Vec<UnitData>,
    /// By place.
    pub(super) tables: Vec<Table>,
    abbreviations: Vec<Shared>,
    ranges: Vec<UnitRange>,
}

struct UnitRange {
    start: u64,
    end: u64,
    /// The furthest end of this and all earlier ranges.
    reach: u64,
    unit: u32,
}

/// The root entry of a unit.
pub(super) struct Root<'a> {
    pub(super) unit: Unit<'a>,
    pub(super) lines: Option<DebugLineOffset>,
    /// Split DWARF: the file that has the rest.
    pub(super) split: Option<Reader<'a>>,
    attributes: Vec<Attribute<Reader<'a>>>,
    /// It has code, and does not say where: its functions do.
    is_vague: bool,
}

/// Attributes of one entry; compilers write about twenty. They may take no bytes in it, and then its length bounds nothing.
const MAX_ATTRIBUTES: usize = 64;

/// An abbreviation, unless it has too many attributes to be read for each entry.
pub(super) fn bounded(abbreviation: &Abbreviation) -> Option<&Abbreviation> {
    (abbreviation.attributes().len() <= MAX_ATTRIBUTES).then_some(abbreviation)
}

/// Bytes that abbreviations take in memory, times those in the file: the shortest has 5, and becomes 176.
const ABBREVIATION_TIMES: usize = 36;

/// Ranges that hold an address; more overlap in broken files only.
const MAX_OVERLAP: usize = 64;

impl Units {
    pub(super) fn read(dwarf: &Dwarf<'_>, budget: &Budget, is_code: &dyn Fn(u64) -> bool) -> Self {
        let mut headers = Vec::new();
        let mut next = dwarf.units();
        while let Ok(Some(header)) = next.next() {
            if budget.take(size_of::<UnitData>() + size_of::<UnitHeader<Reader<'_>>>()).is_none() {
                break;
            }
            headers.push(header);
        }
        let offsets = headers.iter().map(|h| h.debug_abbrev_offset().0).collect();
        let shared = places(offsets, dwarf.debug_abbrev.reader().slice().len());
        // What they take in memory is taken from the budget, whether they are read or not.
        let shared = shared.take_while(|place| budget.take(place.len().saturating_mul(ABBREVIATION_TIMES)).is_some());
        let shared = shared.map(|place| Shared { place, read: OnceLock::new() });
        let mut units =
            Self { all: Vec::new(), tables: Vec::new(), abbreviations: shared.collect(), ranges: Vec::new() };
        let mut tables = Vec::new();
        for header in headers {
            let Some(offset) = header.debug_info_offset() else { continue };
            let (split, functions, qualified) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
            units.all.push(UnitData { offset: offset.0, table: None, functions, split, qualified, has_code: false });
            if matches!(header.type_(), UnitType::Compilation | UnitType::Skeleton(_)) {
                tables.extend(units.add_ranges(dwarf, header, budget, is_code).flatten());
            }
        }
        units.set_tables(&tables, dwarf.debug_line.reader().slice().len());
        units.ranges.sort_unstable_by_key(|r| (r.start, r.end));
        let mut reach = 0;
        for range in &mut units.ranges {
            reach = reach.max(range.end);
            range.reach = reach;
        }
        units
    }

    /// Adds what the last unit covers; where its line table is, and the unit.
    fn add_ranges(
        &mut self,
        dwarf: &Dwarf<'_>,
        header: UnitHeader<Reader<'_>>,
        budget: &Budget,
        is_code: &dyn Fn(u64) -> bool,
    ) -> Option<Option<(usize, usize)>> {
        let root = Root::read(dwarf, header, self.abbreviations(dwarf, &header)?)?;
        let number = self.all.len().checked_sub(1)?;
        let unit = u32::try_from(number).ok()?;
        let entry = Entry { dwarf, unit: &root.unit, attributes: &root.attributes };
        entry.ranges(|start, end| {
            budget.take_one::<UnitRange>()?;
            if is_code(start) {
                self.ranges.push(UnitRange { start, end, reach: 0, unit });
                self.all.last_mut()?.has_code = true;
            }
            Some(())
        });
        if root.is_vague && root.split.is_none() {
            self.add_functions(dwarf, &root.unit, unit, budget, is_code);
        }
        Some(root.lines.map(|lines| (lines.0, number)))
    }

    /// Adds what the functions of a unit cover that does not say so itself.
    fn add_functions(
        &mut self,
        dwarf: &Dwarf<'_>,
        unit: &Unit<'_>,
        number: u32,
        budget: &Budget,
        is_code: &dyn Fn(u64) -> bool,
    ) -> Option<()> {
        let functions = Functions::read(dwarf, unit, budget, is_code);
        let data = self.all.last_mut()?;
        for code in functions.all_code() {
            budget.take_one::<UnitRange>()?;
            self.ranges.push(UnitRange { start: code.start, end: code.end, reach: 0, unit: number });
            data.has_code = true;
        }
        data.functions.get_or_init(|| Some(functions));
        Some(())
    }

    /// Gives units their line tables: (place, unit).
    fn set_tables(&mut self, of_units: &[(usize, usize)], len: usize) {
        let places = places(of_units.iter().map(|(place, _)| *place).collect(), len);
        self.tables = places
            .map(|place| Table { place, unit: usize::MAX, files: OnceLock::new(), lines: OnceLock::new() })
            .collect();
        for &(place, unit) in of_units {
            let Ok(table) = self.tables.binary_search_by_key(&place, |t| t.place.start) else { continue };
            if let Some((data, found)) = self.all.get_mut(unit).zip(self.tables.get_mut(table)) {
                data.table = u32::try_from(table).ok();
                found.unit = found.unit.min(unit);
            }
        }
    }

    fn abbreviations(&self, dwarf: &Dwarf<'_>, header: &UnitHeader<Reader<'_>>) -> Option<Arc<Abbreviations>> {
        let offset = header.debug_abbrev_offset();
        let at = self.abbreviations.binary_search_by_key(&offset.0, |shared| shared.place.start).ok()?;
        let shared = self.abbreviations.get(at)?;
        let read = || {
            let bytes = dwarf.debug_abbrev.reader().slice().get(..shared.place.end)?;
            DebugAbbrev::new(bytes, LittleEndian).abbreviations(offset).ok().map(Arc::new)
        };
        shared.read.get_or_init(read).clone()
    }

    /// A unit's root, read anew: that is cheaper than to keep it.
    pub(super) fn root<'a>(&self, dwarf: &Dwarf<'a>, unit: usize) -> Option<Root<'a>> {
        let header = dwarf.unit_header(DebugInfoOffset(self.all.get(unit)?.offset)).ok()?;
        Root::read(dwarf, header, self.abbreviations(dwarf, &header)?)
    }

    /// Positions of the units with code at `v`.
    pub(super) fn at(&self, v: u64) -> impl Iterator<Item = usize> + '_ {
        let after = self.ranges.partition_point(|r| r.start <= v);
        let before = self.ranges.get(..after).unwrap_or_default().iter().rev();
        let near = before.take_while(move |r| v < r.reach).take(MAX_OVERLAP);
        near.filter(move |r| v < r.end).map(|r| r.unit as usize)
    }

    /// The unit that holds an offset of `.debug_info`.
    pub(super) fn holding(&self, offset: usize) -> Option<(usize, &UnitData)> {
        let at = self.all.partition_point(|u| u.offset <= offset).checked_sub(1)?;
        Some((at, self.all.get(at)?))
    }
}

/// Where each table is, from its offset to the next one's.
fn places(mut offsets: Vec<usize>, len: usize) -> impl Iterator<Item = Range<usize>> {
    offsets.retain(|&offset| offset < len);
    offsets.sort_unstable();
    offsets.dedup();
    let ends: Vec<usize> = offsets.iter().copied().skip(1).chain([len]).collect();
    offsets.into_iter().zip(ends).map(|(start, end)| start..end)
}

impl<'a> Root<'a> {
    /// Like [`gimli::Unit::new`], which would parse the header of the line program too, with the names of all files.
    pub(super) fn read(
        dwarf: &Dwarf<'a>,
        header: UnitHeader<Reader<'a>>,
        abbreviations: Arc<Abbreviations>,
    ) -> Option<Self> {
        let file = dwarf.file_type;
        let encoding = header.encoding();
        let dwo_id = match header.type_() {
            UnitType::Skeleton(id) | UnitType::SplitCompilation(id) => Some(id),
            _ => None,
        };
        let mut unit = Unit {
            abbreviations,
            name: None,
            comp_dir: None,
            low_pc: 0,
            str_offsets_base: gimli::DebugStrOffsetsBase::default_for_encoding_and_file(encoding, file),
            addr_base: gimli::DebugAddrBase(0),
            loclists_base: gimli::DebugLocListsBase::default_for_encoding_and_file(encoding, file),
            rnglists_base: gimli::DebugRngListsBase::default_for_encoding_and_file(encoding, file),
            line_program: None,
            dwo_id,
            header,
        };
        let mut entries = unit.header.entries_raw(&unit.abbreviations, None).ok()?;
        let abbreviation = bounded(entries.read_abbreviation().ok()??)?;
        let mut attributes: Vec<Attribute<Reader<'a>>> = Vec::new();
        entries.read_attributes(abbreviation.attributes(), &mut attributes).ok()?;
        // Partial units have no code.
        let is_whole = abbreviation.tag() == constants::DW_TAG_compile_unit && file == DwarfFileType::Main;
        // Bases come behind what is read through them.
        attributes.iter().for_each(|a| set_base(&mut unit, a));
        let says_where = |a: &Attribute<_>| matches!(a.name(), constants::DW_AT_ranges | constants::DW_AT_high_pc);
        let is_vague = is_whole && !attributes.iter().any(says_where);
        let mut root = Self { unit, lines: None, split: None, attributes: Vec::new(), is_vague };
        attributes.iter().for_each(|a| root.set(dwarf, a));
        root.attributes = attributes;
        Some(root)
    }

    fn set(&mut self, dwarf: &Dwarf<'a>, attribute: &Attribute<Reader<'a>>) {
        let text = |unit: &Unit<'a>| dwarf.attr_string(unit, attribute.value()).ok();
        match attribute.name() {
            constants::DW_AT_name => self.unit.name = text(&self.unit),
            constants::DW_AT_comp_dir => self.unit.comp_dir = text(&self.unit),
            constants::DW_AT_dwo_name | constants::DW_AT_GNU_dwo_name => self.split = text(&self.unit),
            constants::DW_AT_low_pc => {
                let address = dwarf.attr_address(&self.unit, attribute.value());
                self.unit.low_pc = address.ok().flatten().unwrap_or(0);
            }
            constants::DW_AT_stmt_list => {
                if let AttributeValue::DebugLineRef(offset) = attribute.value() {
                    self.lines = Some(offset);
                }
            }
            _ => {}
        }
    }
}

fn set_base<'a>(unit: &mut Unit<'a>, attribute: &Attribute<Reader<'a>>) {
    match (attribute.name(), attribute.value()) {
        (_, AttributeValue::DebugStrOffsetsBase(base)) => unit.str_offsets_base = base,
        (_, AttributeValue::DebugAddrBase(base)) => unit.addr_base = base,
        (_, AttributeValue::DebugLocListsBase(base)) => unit.loclists_base = base,
        (_, AttributeValue::DebugRngListsBase(base)) => unit.rnglists_base = base,
        (constants::DW_AT_GNU_dwo_id, AttributeValue::DwoId(id)) => unit.dwo_id = unit.dwo_id.or(Some(id)),
        _ => {}
    }
}

/// The offset in `.debug_info` that a reference from `unit` means. The supplementary file's begins where the file's own
/// ends.
pub(super) fn target(dwarf: &Dwarf<'_>, unit: &Unit<'_>, value: AttributeValue<Reader<'_>>) -> Option<usize> {
    match value {
        AttributeValue::UnitRef(into) => match into.to_unit_section_offset(&unit.header) {
            UnitSectionOffset(offset) => Some(offset),
        },
        AttributeValue::DebugInfoRef(DebugInfoOffset(offset)) => Some(offset),
        AttributeValue::DebugInfoRefSup(DebugInfoOffset(offset)) => own_info(dwarf).checked_add(offset),
        _ => None,
    }
}

/// Bytes of the file's own `.debug_info`.
pub(super) fn own_info(dwarf: &Dwarf<'_>) -> usize {
    dwarf.debug_info.reader().slice().len()
}
