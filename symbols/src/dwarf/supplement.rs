//! The supplementary file: what `dwz` moved out of the debug information of several files, because they all have it.
//!
//! Names and abstract functions are there; a reference to it is a form of its own. Sources: DWARF 5, section 7.3.6, and
//! for `.gnu_debugaltlink` the GDB manual, "Index Section Format" ff., and dwz(1).

use std::sync::Arc;

use super::Dwarf;
use super::budget::Budget;
use super::sections::Sections;
use super::split::Files;
use super::units::Units;
use crate::bytes::c_bytes;
use crate::debugfile;
use crate::elf;
use crate::mmap::Data;

/// What a file shares with others.
pub(super) struct Supplement {
    sections: Sections,
    units: Units,
}

impl Supplement {
    /// The supplementary file of a file, if it has one that can be found.
    pub(super) fn find(of: &Sections, files: &dyn Files) -> Option<Self> {
        let (name, id) = link(of)?;
        let is_right = |data: &[u8]| debugfile::build_id_in(data) == Some(id) || own_checksum(data) == Some(id);
        let data: Arc<Data> = Arc::new(files.supplement(name, id, &is_right)?);
        // It is shared by many: its size says nothing of the file's.
        let budget = Budget::for_file(data.len());
        let sections = Sections::of(&data, &budget)?;
        let units = Units::read(&sections.dwarf(), &budget, &|_| false);
        Some(Self { sections, units })
    }

    pub(super) fn units(&self) -> &Units {
        &self.units
    }

    pub(super) fn dwarf(&self) -> Dwarf<'_> {
        self.sections.dwarf()
    }
}

/// Path and build id of the supplementary file; in DWARF 5 a checksum that it states itself.
fn link(of: &Sections) -> Option<(&str, &[u8])> {
    let (name, id) = match of.raw(".gnu_debugaltlink") {
        Some(link) => {
            let name = c_bytes(link, 0)?;
            (name, link.get(name.len() + 1..)?)
        }
        None => standard_link(of.raw(".debug_sup")?, false)?,
    };
    Some((std::str::from_utf8(name).ok()?, id))
}

/// What a supplementary file in the manner of DWARF 5 says of itself.
fn own_checksum(data: &[u8]) -> Option<&[u8]> {
    let sections = elf::Sections::parse(data);
    let link = data.get(sections.named(data, ".debug_sup")?.file.clone())?;
    standard_link(link, true).map(|(_, checksum)| checksum)
}

/// Name and checksum: version (2 bytes), whether it is the supplementary file itself (1), name, length, checksum.
fn standard_link(link: &[u8], is_supplement: bool) -> Option<(&[u8], &[u8])> {
    let name = c_bytes(link, 3).filter(|_| link.get(2) == Some(&u8::from(is_supplement)))?;
    let (length, checksum) = link.get(name.len() + 4..)?.split_first()?;
    // LEB128 of one byte: checksums are short.
    Some((name, checksum.get(..usize::from(*length))?))
}
