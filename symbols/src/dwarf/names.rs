//! Names of functions as DWARF has them.

use gimli::{AttributeValue, UnitOffset, constants};

use super::units::{Units, bounded, own_info, target};
use super::{Dwarf, Reader};

/// From a concrete function to its abstract one, to its declaration: three steps in real files.
const MAX_STEPS: usize = 16;

/// Where entries that have names are: a file's own units, and those of its supplementary file.
#[derive(Clone, Copy)]
pub(super) struct Entries<'d, 'a> {
    pub(super) dwarf: &'d Dwarf<'a>,
    pub(super) units: &'d Units,
    /// The supplementary file's units; its sections are in `dwarf`.
    pub(super) supplement: Option<&'d Units>,
}

impl<'d, 'a> Entries<'d, 'a> {
    /// The name of the function whose entry is at `offset` of `.debug_info`: as the linker would spell it if that is
    /// stated, else as the source does.
    pub(super) fn name(mut self, offset: usize) -> Option<&'a [u8]> {
        let mut plain = None;
        let mut next = Some(offset);
        for _ in 0..MAX_STEPS {
            let Some(mut offset) = next.take() else { break };
            if let Some(into) = offset.checked_sub(own_info(self.dwarf)) {
                // No way leads back.
                self = Self { dwarf: self.dwarf.sup()?, units: self.supplement?, supplement: None };
                offset = into;
            }
            let (unit, data) = self.units.holding(offset)?;
            let root = self.units.root(self.dwarf, unit)?;
            let into = UnitOffset(offset.checked_sub(data.offset)?);
            let mut entries = root.unit.entries_raw(Some(into)).ok()?;
            let abbreviation = bounded(entries.read_abbreviation().ok()??)?;
            for &specification in abbreviation.attributes() {
                let attribute = entries.read_attribute(specification).ok()?;
                let text = |value: AttributeValue<Reader<'a>>| {
                    self.dwarf.attr_string(&root.unit, value).ok().map(|s| s.slice())
                };
                match attribute.name() {
                    constants::DW_AT_linkage_name | constants::DW_AT_MIPS_linkage_name => {
                        if let Some(text) = text(attribute.value()) {
                            return Some(text);
                        }
                    }
                    constants::DW_AT_name => plain = plain.or_else(|| text(attribute.value())),
                    constants::DW_AT_abstract_origin | constants::DW_AT_specification => {
                        next = target(self.dwarf, &root.unit, attribute.value());
                    }
                    _ => {}
                }
            }
        }
        plain
    }
}
