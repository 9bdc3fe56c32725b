//! Split DWARF: what a unit left in a `.dwo` file, or in the `.dwp` package of the program.
//!
//! The program keeps a skeleton of each unit, with its addresses and its line table; the functions are elsewhere.

use std::sync::{Arc, OnceLock};

use gimli::{DwarfFileType, DwarfPackage, DwoId, EndianSlice, LittleEndian};

use super::Dwarf;
use super::budget::Budget;
use super::functions::Functions;
use super::names::{self, Entries, Name, Qualified};
use super::sections::Sections;
use super::units::{Root, Units};
use crate::mmap::Data;

/// Reads files that the debug information names.
pub(crate) trait Files: Send + Sync {
    /// The `.dwo` file `name`, as the unit has it: relative to `folder`, where the compiler ran.
    fn object(&self, folder: &str, name: &str) -> Option<Data>;
    /// The `.dwp` package of the program.
    fn package(&self) -> Option<Data>;
    /// The supplementary file of this path or build id, if it is the right one.
    fn supplement(&self, name: &str, id: &[u8], is_right: &dyn Fn(&[u8]) -> bool) -> Option<Data>;
}

/// The rest of one unit.
pub(super) struct Split {
    sections: Arc<Sections>,
    /// Which unit of a package it is.
    id: Option<DwoId>,
    units: Units,
    functions: OnceLock<Option<Functions>>,
}

/// The program's package, once looked for.
#[derive(Default)]
pub(super) struct Package(OnceLock<Option<Arc<Sections>>>);

impl Split {
    /// What belongs to the skeleton `root`.
    pub(super) fn find(
        root: &Root<'_>,
        dwarf: &Dwarf<'_>,
        package: &Package,
        files: &dyn Files,
        budget: &Budget,
    ) -> Option<Self> {
        let (name, id) = (root.split?.slice(), root.unit.dwo_id?);
        let read = |data: Data| Some(Arc::new(Sections::of_split(&Arc::new(data), budget)));
        if let Some(package) = package.0.get_or_init(|| read(files.package()?))
            && let Some(split) = Self::of(package.clone(), Some(id), id, dwarf, budget)
        {
            return Some(split);
        }
        let folder = root.unit.comp_dir.map(|dir| dir.slice()).unwrap_or_default();
        let data = files.object(std::str::from_utf8(folder).ok()?, std::str::from_utf8(name).ok()?)?;
        Self::of(read(data)?, None, id, dwarf, budget)
    }

    fn of(
        sections: Arc<Sections>,
        in_package: Option<DwoId>,
        wanted: DwoId,
        dwarf: &Dwarf<'_>,
        budget: &Budget,
    ) -> Option<Self> {
        let units = Units::read(&view(&sections, in_package, dwarf)?, budget, &|_| false);
        let split = Self { sections: sections.clone(), id: in_package, units, functions: OnceLock::new() };
        // A file of another build has another id.
        split.unit(&view(&sections, in_package, dwarf)?, wanted).is_some().then_some(split)
    }

    /// The functions of the unit whose skeleton is `root`.
    pub(super) fn functions(
        &self,
        root: &Root<'_>,
        dwarf: &Dwarf<'_>,
        budget: &Budget,
        is_code: &dyn Fn(u64) -> bool,
    ) -> Option<&Functions> {
        let read = || {
            let dwarf = view(&self.sections, self.id, dwarf)?;
            let mut own = self.unit(&dwarf, root.unit.dwo_id?)?;
            own.unit.low_pc = root.unit.low_pc;
            own.unit.addr_base = root.unit.addr_base;
            if own.unit.header.version() < 5 {
                own.unit.rnglists_base = root.unit.rnglists_base;
            }
            Some(Functions::read(&dwarf, &own.unit, budget, is_code))
        };
        self.functions.get_or_init(read).as_ref()
    }

    /// The name of the function whose entry is at `offset`.
    pub(super) fn name<'a>(&'a self, dwarf: &Dwarf<'a>, offset: usize) -> Option<Name<'a>> {
        let dwarf = view(&self.sections, self.id, dwarf)?;
        Entries { dwarf: &dwarf, units: &self.units, supplement: None }.name(offset)
    }

    /// The full names of the functions of the unit whose skeleton is `root`.
    pub(super) fn qualified(&self, root: &Root<'_>, dwarf: &Dwarf<'_>, budget: &Budget) -> Option<Qualified> {
        let dwarf = view(&self.sections, self.id, dwarf)?;
        let own = self.unit(&dwarf, root.unit.dwo_id?)?;
        Some(names::qualified(&dwarf, &own.unit, budget))
    }

    fn unit<'a>(&self, dwarf: &Dwarf<'a>, id: DwoId) -> Option<Root<'a>> {
        (0..self.units.all.len())
            .filter_map(|unit| self.units.root(dwarf, unit))
            .find(|root| root.unit.dwo_id == Some(id))
    }
}

/// The sections as gimli wants them; those of addresses are the program's.
fn view<'a>(sections: &'a Sections, in_package: Option<DwoId>, program: &Dwarf<'a>) -> Option<Dwarf<'a>> {
    let Some(id) = in_package else {
        let mut dwarf = sections.dwarf();
        dwarf.file_type = DwarfFileType::Dwo;
        dwarf.make_dwo(program);
        return Some(dwarf);
    };
    let load = |id| Ok::<_, gimli::Error>(EndianSlice::new(sections.get(id), LittleEndian));
    DwarfPackage::load(load, EndianSlice::new(&[], LittleEndian)).ok()?.find_cu(id, program).ok()?
}
