//! Names of functions as DWARF has them.

use gimli::{AttributeValue, UnitOffset, constants};
use rustc_hash::FxHashMap;

use super::budget::Budget;
use super::units::{Units, bounded, own_info, target};
use super::{Dwarf, Reader, Unit};

/// From a concrete function to its abstract one, to its declaration: three steps in real files.
const MAX_STEPS: usize = 16;

/// A function's name.
pub(super) struct Name<'a> {
    pub(super) text: &'a [u8],
    /// The offset in the file's own `.debug_info` of the entry that has it, if it is only the last element of what the source
    /// calls the function; `None`: as the linker spells it, or the entry is in the supplementary file.
    pub(super) element_at: Option<usize>,
}

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
    pub(super) fn name(mut self, offset: usize) -> Option<Name<'a>> {
        let (mut plain, mut is_own) = (None, true);
        let mut next = Some(offset);
        for _ in 0..MAX_STEPS {
            let Some(mut offset) = next.take() else { break };
            if let Some(into) = offset.checked_sub(own_info(self.dwarf)) {
                // No way leads back.
                self = Self { dwarf: self.dwarf.sup()?, units: self.supplement?, supplement: None };
                (offset, is_own) = (into, false);
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
                            return Some(Name { text, element_at: None });
                        }
                    }
                    constants::DW_AT_name => {
                        let named = |text| Name { text, element_at: is_own.then_some(offset) };
                        plain = plain.or_else(|| text(attribute.value()).map(named));
                    }
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

/// Namespaces, classes and functions around a function; deeper nesting is only found in hostile files.
const MAX_SCOPES: usize = 64;
/// Bytes of a name.
const MAX_NAME: usize = 4096;

/// Names by the offsets of the entries that have their last elements.
pub(super) type Qualified = FxHashMap<usize, Box<[u8]>>;

/// The names of a unit's functions with the namespaces, classes and functions that they are in, by the offset of their entries. Empty
/// unless the unit is of C++, where compilers state no linkage name of what is of one file.
pub(super) fn qualified(dwarf: &Dwarf<'_>, unit: &Unit<'_>, budget: &Budget) -> Qualified {
    let mut names = Qualified::default();
    // What was read before a broken place serves.
    let _ = add_qualified(dwarf, unit, budget, &mut names);
    names
}

fn add_qualified(dwarf: &Dwarf<'_>, unit: &Unit<'_>, budget: &Budget, names: &mut Qualified) -> Option<()> {
    let mut entries = unit.entries_raw(None).ok()?;
    let mut attributes = Vec::new();
    let mut scopes: Vec<(isize, Vec<u8>)> = Vec::new();
    while !entries.is_empty() {
        let (depth, at) = (entries.next_depth(), entries.next_offset());
        let Some(abbreviation) = entries.read_abbreviation().ok()? else { continue };
        let abbreviation = bounded(abbreviation)?;
        let tag = abbreviation.tag();
        while scopes.last().is_some_and(|(around, _)| *around >= depth) {
            scopes.pop();
        }
        let is_scope = matches!(
            tag,
            constants::DW_TAG_namespace
                | constants::DW_TAG_class_type
                | constants::DW_TAG_structure_type
                | constants::DW_TAG_union_type
        );
        if !is_scope && !matches!(tag, constants::DW_TAG_subprogram | constants::DW_TAG_compile_unit) {
            entries.skip_attributes(abbreviation.attributes()).ok()?;
            continue;
        }
        entries.read_attributes(abbreviation.attributes(), &mut attributes).ok()?;
        let value = |wanted| attributes.iter().find(|a| a.name() == wanted).map(|a| a.value());
        if tag == constants::DW_TAG_compile_unit {
            match value(constants::DW_AT_language) {
                Some(AttributeValue::Language(language)) if is_cpp(language) => continue,
                _ => return None,
            }
        }
        let own = value(constants::DW_AT_name).and_then(|v| dwarf.attr_string(unit, v).ok()).map(|text| text.slice());
        let around = scopes.last().map_or(&[][..], |(_, around)| around);
        let (around, own) = match (own, tag) {
            (Some(own), _) => (around, own),
            (None, constants::DW_TAG_namespace) => (around, &b"(anonymous namespace)"[..]),
            // The declaration has the name; it stands before.
            (None, constants::DW_TAG_subprogram) => {
                let of = [constants::DW_AT_specification, constants::DW_AT_abstract_origin].into_iter().find_map(value);
                let declared = of.and_then(|of| names.get(&target(dwarf, unit, of)?));
                let Some(declared) = declared else { continue };
                (&[][..], &**declared)
            }
            (None, _) => continue,
        };
        if scopes.len() >= MAX_SCOPES || around.len() + own.len() > MAX_NAME {
            continue;
        }
        let mut name = Vec::with_capacity(around.len() + own.len() + 2);
        name.extend_from_slice(around);
        name.extend_from_slice(own);
        if !is_scope {
            budget.take(name.len() + size_of::<(usize, Box<[u8]>)>())?;
            names.insert(at.to_unit_section_offset(&unit.header).0, name.clone().into_boxed_slice());
        }
        // What is around a class may be a function.
        name.extend_from_slice(b"::");
        scopes.push((depth, name));
    }
    Some(())
}

fn is_cpp(language: constants::DwLang) -> bool {
    use constants::{
        DW_LANG_C_plus_plus, DW_LANG_C_plus_plus_03, DW_LANG_C_plus_plus_11, DW_LANG_C_plus_plus_14,
        DW_LANG_C_plus_plus_17, DW_LANG_C_plus_plus_20,
    };
    [
        DW_LANG_C_plus_plus,
        DW_LANG_C_plus_plus_03,
        DW_LANG_C_plus_plus_11,
        DW_LANG_C_plus_plus_14,
        DW_LANG_C_plus_plus_17,
        DW_LANG_C_plus_plus_20,
    ]
    .contains(&language)
}
