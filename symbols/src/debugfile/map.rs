//! From a debug file's addresses to those of the file it describes.
//!
//! They are the same unless something moved the program's sections after the debug file was split off (prelink). A debug
//! file's segments say nothing: their contents are not in it. Its sections keep their names and addresses.

use std::ops::Range;

use crate::elf::Sections;

/// Sections whose addresses differ.
#[derive(Clone, Debug, Default)]
pub(crate) struct AddressMap {
    /// (addresses in the debug file, what to add to come to the program's; wrapping); empty: nothing differs.
    moved: Vec<(Range<u64>, u64)>,
}

impl AddressMap {
    pub(super) fn between(debug: (&[u8], &Sections), program: (&[u8], &Sections)) -> Self {
        let code = debug.1.sections.iter().filter(|s| s.executable && s.allocated);
        let moved = code.filter_map(|section| {
            let name = std::str::from_utf8(debug.0.get(section.name.clone())?).ok()?;
            let target = program.1.named(program.0, name).filter(|target| target.executable)?;
            Some((section.address.0..section.end().0, target.address.0.wrapping_sub(section.address.0)))
        });
        let moved: Vec<_> = moved.take(MAX_SECTIONS).collect();
        let same = moved.iter().all(|(_, by)| *by == 0);
        Self { moved: if same { Vec::new() } else { moved } }
    }

    /// Whether nothing differs.
    pub(crate) fn is_identity(&self) -> bool {
        self.moved.is_empty()
    }

    /// The program's address of one of the debug file's.
    pub(crate) fn to_program(&self, v: u64) -> Option<u64> {
        if self.moved.is_empty() {
            return Some(v);
        }
        self.moved.iter().find(|(range, _)| range.contains(&v)).map(|(_, by)| v.wrapping_add(*by))
    }

    /// The debug file's address of one of the program's.
    pub(crate) fn to_debug(&self, v: u64) -> Option<u64> {
        if self.moved.is_empty() {
            return Some(v);
        }
        self.moved.iter().map(|(range, by)| (range, v.wrapping_sub(*by))).find(|(r, v)| r.contains(v)).map(|(_, v)| v)
    }
}

/// Sections with code; real programs have ten, files of single functions in sections of their own are not linked.
const MAX_SECTIONS: usize = 256;
