//! Names of functions as DWARF has them.

use gimli::{AttributeValue, UnitOffset, constants};

use super::units::{Units, target};
use super::{Dwarf, MAX_ATTRIBUTES, Reader};

/// From a concrete function to its abstract one, to its declaration: three steps in real files.
const MAX_STEPS: usize = 16;

/// The name of the function whose entry is at `offset` of `.debug_info`: as the linker would spell it if that is stated,
/// else as the source does.
pub(super) fn name<'a>(dwarf: &Dwarf<'a>, units: &Units, offset: usize) -> Option<&'a [u8]> {
    let mut plain = None;
    let mut next = Some(offset);
    for _ in 0..MAX_STEPS {
        let Some(offset) = next.take() else { break };
        let (unit, data) = units.holding(offset)?;
        let root = units.root(dwarf, unit)?;
        let into = UnitOffset(offset.checked_sub(data.offset)?);
        let mut entries = root.unit.entries_raw(Some(into)).ok()?;
        let abbreviation = entries.read_abbreviation().ok()??;
        for &specification in abbreviation.attributes().iter().take(MAX_ATTRIBUTES) {
            let attribute = entries.read_attribute(specification).ok()?;
            let text = |value: AttributeValue<Reader<'a>>| dwarf.attr_string(&root.unit, value).ok().map(|s| s.slice());
            match attribute.name() {
                constants::DW_AT_linkage_name | constants::DW_AT_MIPS_linkage_name => {
                    if let Some(text) = text(attribute.value()) {
                        return Some(text);
                    }
                }
                constants::DW_AT_name => plain = plain.or_else(|| text(attribute.value())),
                constants::DW_AT_abstract_origin | constants::DW_AT_specification => {
                    next = target(&root.unit, attribute.value());
                }
                _ => {}
            }
        }
    }
    plain
}
