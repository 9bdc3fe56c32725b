//! The units of `.debug_info`: which addresses each covers, and what is needed to read on in it.

use std::sync::{Arc, OnceLock};

use gimli::{
    Abbreviations, Attribute, AttributeValue, DebugInfoOffset, DebugLineOffset, UnitHeader, UnitSectionOffset,
    UnitType, constants,
};

use super::budget::Budget;
use super::functions::Functions;
use super::lines::Lines;
use super::split::Split;
use super::{Dwarf, Reader, Unit};

/// One unit, with its tables as far as they were asked for.
pub(super) struct UnitData {
    /// Where its header is in `.debug_info`.
    pub(super) offset: usize,
    pub(super) abbreviations: OnceLock<Option<Arc<Abbreviations>>>,
    pub(super) lines: OnceLock<Option<Lines>>,
    pub(super) functions: OnceLock<Option<Functions>>,
    /// Split DWARF: the rest of the unit.
    pub(super) split: OnceLock<Option<Split>>,
    pub(super) has_code: bool,
}

/// All units of a file.
pub(super) struct Units {
    /// By offset.
    pub(super) all: Vec<UnitData>,
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
}

/// Ranges that hold an address; more overlap in broken files only.
const MAX_OVERLAP: usize = 64;

impl Units {
    pub(super) fn read(dwarf: &Dwarf<'_>, budget: &Budget, is_code: &dyn Fn(u64) -> bool) -> Self {
        let mut units = Self { all: Vec::new(), ranges: Vec::new() };
        let mut headers = dwarf.units();
        while let Ok(Some(header)) = headers.next() {
            let Some(offset) = header.debug_info_offset() else { continue };
            // Also the time that abbreviations shared by very many units take is bounded so.
            if budget.take(size_of::<UnitData>()).is_none() {
                break;
            }
            units.all.push(UnitData {
                offset: offset.0,
                abbreviations: OnceLock::new(),
                lines: OnceLock::new(),
                functions: OnceLock::new(),
                split: OnceLock::new(),
                has_code: false,
            });
            if matches!(header.type_(), UnitType::Compilation | UnitType::Skeleton(_)) {
                units.add_ranges(dwarf, header, budget, is_code);
            }
        }
        units.ranges.sort_unstable_by_key(|r| (r.start, r.end));
        let mut reach = 0;
        for range in &mut units.ranges {
            reach = reach.max(range.end);
            range.reach = reach;
        }
        units
    }

    fn add_ranges(
        &mut self,
        dwarf: &Dwarf<'_>,
        header: UnitHeader<Reader<'_>>,
        budget: &Budget,
        is_code: &dyn Fn(u64) -> bool,
    ) -> Option<()> {
        let abbreviations = dwarf.abbreviations(&header).ok()?;
        let root = Root::read(dwarf, header, abbreviations)?;
        let number = u32::try_from(self.all.len().checked_sub(1)?).ok()?;
        let mut ranges = dwarf.unit_ranges(&root.unit).ok()?;
        while let Ok(Some(range)) = ranges.next() {
            budget.take_one::<UnitRange>()?;
            if range.begin < range.end && is_code(range.begin) {
                self.ranges.push(UnitRange { start: range.begin, end: range.end, reach: 0, unit: number });
                self.all.last_mut()?.has_code = true;
            }
        }
        Some(())
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

impl UnitData {
    /// The unit's root, read anew: that is cheaper than to keep it.
    pub(super) fn root<'a>(&self, dwarf: &Dwarf<'a>) -> Option<Root<'a>> {
        let header = dwarf.unit_header(DebugInfoOffset(self.offset)).ok()?;
        let abbreviations = self.abbreviations.get_or_init(|| dwarf.abbreviations(&header).ok());
        Root::read(dwarf, header, abbreviations.clone()?)
    }
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
        let mut cursor = unit.header.entries(&unit.abbreviations);
        cursor.next_dfs().ok()?;
        let attributes: Vec<Attribute<Reader<'a>>> = cursor.current()?.attrs().to_vec();
        // Bases come behind what is read through them.
        attributes.iter().for_each(|a| set_base(&mut unit, a));
        let mut root = Self { unit, lines: None, split: None };
        attributes.iter().for_each(|a| root.set(dwarf, a));
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

/// The offset in `.debug_info` that a reference from `unit` means.
pub(super) fn target(unit: &Unit<'_>, value: AttributeValue<Reader<'_>>) -> Option<usize> {
    match value {
        AttributeValue::UnitRef(into) => match into.to_unit_section_offset(&unit.header) {
            UnitSectionOffset(offset) => Some(offset),
        },
        AttributeValue::DebugInfoRef(DebugInfoOffset(offset)) => Some(offset),
        _ => None,
    }
}
