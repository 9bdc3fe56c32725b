//! Symbol tables made from other sources than symbols, so that one way of looking for names serves them all.

use std::borrow::Cow;
use std::collections::hash_map::Entry;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::{AddressMap, DebugFile, Origin};
use crate::elf::{STB_LOCAL, STT_FILE, STT_FUNC, Sections, SymbolTable};
use crate::mmap::Data;

/// Any section: neither undefined nor absolute.
const SOME_SECTION: u16 = 1;

/// A symbol table in the making.
#[derive(Default)]
pub(crate) struct Made {
    entries: Vec<u8>,
    strings: Vec<u8>,
    /// Where names stand in `strings`, by where they were read.
    known: FxHashMap<(usize, usize, usize), u32>,
}

impl Made {
    /// What follows comes from another source file.
    pub(crate) fn begin_file(&mut self) {
        self.push(0, STT_FILE, 0, 0);
    }

    /// A function, local to its file. `name` followed by `suffix` is its name. `None`: there are too many names.
    #[expect(clippy::ptr_arg, reason = "what was read is known by its place, what was made is not")]
    pub(crate) fn function(&mut self, name: &Cow<'_, [u8]>, suffix: &[u8], address: u64, size: u64) -> Option<()> {
        let text = self.text(name, suffix)?;
        self.push(text, STT_FUNC, address, size);
        Some(())
    }

    /// The table, if it has functions.
    pub(crate) fn finish(self, map: AddressMap, origin: Origin) -> Option<DebugFile> {
        if self.strings.is_empty() {
            return None;
        }
        let mut bytes = self.entries;
        let entries = bytes.len();
        let strings = entries..entries.checked_add(self.strings.len())?;
        bytes.extend(self.strings);
        let sections = Sections::of_symbols(SymbolTable { entries: 0..entries, strings, dynamic: false });
        Some(DebugFile { data: Arc::new(Data::Owned(bytes)), sections, map, origin })
    }

    /// Where a name stands among the strings; one that was read at the same place before stands there already.
    #[expect(clippy::ptr_arg, reason = "what was read is known by its place, what was made is not")]
    fn text(&mut self, name: &Cow<'_, [u8]>, suffix: &[u8]) -> Option<u32> {
        if name.is_empty() {
            return None;
        }
        if self.strings.is_empty() {
            // Offset 0 means no name.
            self.strings.push(0);
        }
        let strings = &mut self.strings;
        let mut add = || {
            let at = u32::try_from(strings.len()).ok()?;
            strings.extend([name, suffix, &[0]].concat());
            Some(at)
        };
        let Cow::Borrowed(read) = name else { return add() };
        match self.known.entry((read.as_ptr() as usize, read.len(), suffix.len())) {
            Entry::Occupied(known) => Some(*known.get()),
            Entry::Vacant(new) => Some(*new.insert(add()?)),
        }
    }

    /// Elf64_Sym: name, info, other, section, value, size.
    fn push(&mut self, name: u32, kind: u8, value: u64, size: u64) {
        self.entries.extend(name.to_le_bytes());
        self.entries.extend([STB_LOCAL << 4 | kind, 0]);
        self.entries.extend(SOME_SECTION.to_le_bytes());
        self.entries.extend(value.to_le_bytes());
        self.entries.extend(size.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let names = [&b"one"[..], b"two"];
        let mut made = Made::default();
        made.begin_file();
        for (name, suffix, address) in [(names[0], &b""[..], 1), (names[1], b".cold", 2), (names[0], b"", 3)] {
            assert_eq!(made.function(&Cow::Borrowed(name), suffix, address, address * 10), Some(()));
        }
        assert_eq!(made.function(&Cow::Borrowed(b""), b"", 4, 4), None);
        let file = made.finish(AddressMap::default(), Origin::Dwarf).expect("it has functions");
        let table = file.sections.symtab.as_ref().expect("it has symbols");
        let name = |symbol: &crate::elf::Symbol| {
            let text = crate::bytes::c_bytes(&file.data, table.place_of(symbol)?)?;
            std::str::from_utf8(text).ok()
        };
        let read: Vec<_> = table.symbols(&file.data).map(|s| (s.kind, name(&s), s.value, s.size)).collect();
        let function = |text, address| (STT_FUNC, Some(text), address, address * 10);
        let expected = [(STT_FILE, Some(""), 0, 0), function("one", 1), function("two.cold", 2), function("one", 3)];
        assert_eq!(read, expected);
        assert_eq!(table.strings.len(), "\0one\0two.cold\0".len());
        assert!(Made::default().finish(AddressMap::default(), Origin::Dwarf).is_none());
    }
}
