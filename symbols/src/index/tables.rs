//! The symbol tables of an index: the file's own, and those of its debug files.

use super::Index;
use super::debug::Sources;
use super::name::{Name, Source};
use crate::addr::Vaddr;
use crate::binary::Binary;
use crate::bytes::name_at;
use crate::debugfile::AddressMap;
use crate::elf::{Sections, Symbol, SymbolTable};

/// A symbol table.
pub(super) struct Table {
    symbols: SymbolTable,
    /// Which debug file has it; none: the file itself.
    file: Option<usize>,
}

/// A symbol table, and what it takes to understand it.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) symbols: &'a SymbolTable,
    /// The file that runs.
    pub(super) binary: &'a Binary,
    /// The file that has the table.
    pub(super) data: &'a [u8],
    pub(super) sections: &'a Sections,
    /// None: they are the same file.
    map: Option<&'a AddressMap>,
}

impl Table {
    /// The tables of the file, then those of its debug files.
    pub(super) fn all(binary: &Binary, debug: &Sources) -> Vec<Self> {
        let own = binary.symbol_tables().map(|symbols| Self { symbols, file: None });
        let theirs = debug.files().iter().enumerate().filter_map(|(number, file)| {
            let symbols = file.sections.symtab.clone()?;
            Some(Self { symbols, file: Some(number) })
        });
        own.chain(theirs).collect()
    }

    pub(super) fn view<'a>(&'a self, binary: &'a Binary, debug: &'a Sources) -> Option<View<'a>> {
        let symbols = &self.symbols;
        let Some(number) = self.file else {
            return Some(View { symbols, binary, data: binary.data(), sections: binary.sections(), map: None });
        };
        let file = debug.files().get(number)?;
        Some(View { symbols, binary, data: &file.data, sections: &file.sections, map: Some(&file.map) })
    }
}

impl<'a> View<'a> {
    pub(super) fn symbols(&self) -> impl Iterator<Item = Symbol> + use<'a> {
        self.symbols.symbols(self.data)
    }

    /// The bytes of all names.
    pub(super) fn strings(&self) -> &'a [u8] {
        self.data.get(self.symbols.strings.clone()).unwrap_or_default()
    }

    /// Symbol number `position`.
    pub(super) fn symbol(&self, position: u32) -> Option<Symbol> {
        self.symbols.symbol(self.data, position)
    }

    /// A symbol's address in the file that runs.
    pub(super) fn address(&self, symbol: &Symbol) -> Option<Vaddr> {
        self.map.map_or(Some(symbol.value), |map| map.to_program(symbol.value)).map(Vaddr)
    }

    /// The bytes from where the name of symbol number `position` begins, in the file that has it.
    fn text(&self, position: u32) -> Option<&'a [u8]> {
        self.data.get(self.symbols.text(self.data, position)?..)
    }

    /// The name of symbol number `position`.
    pub(super) fn name(&self, position: u32) -> Option<&'a [u8]> {
        name_at(self.text(position)?, 0)
    }
}

impl Index {
    /// The table that a name is from.
    pub(super) fn table(&self, number: u8) -> Option<View<'_>> {
        self.tables.get(usize::from(number))?.view(&self.binary, &self.debug)
    }

    /// The tables by number.
    pub(super) fn numbered_tables(&self) -> impl Iterator<Item = (u8, View<'_>)> {
        // No file has more tables than a byte can count.
        (0..u8::MAX).take(self.tables.len()).filter_map(|number| Some((number, self.table(number)?)))
    }

    pub(super) fn symbol_of(&self, name: Name) -> Option<Symbol> {
        match name.source() {
            Source::Elf(table) => self.table(table)?.symbol(name.position()),
            Source::Go | Source::Nameless => None,
        }
    }

    /// What [`Self::raw`] says of many names, sooner: first where all of them begin, then where they end.
    pub(super) fn raws(&self, names: &[Name]) -> Vec<&[u8]> {
        let text = |name: &Name| match name.source() {
            Source::Elf(table) => self.table(table)?.text(name.position()),
            Source::Go => self.go_function(name)?.name_bytes(),
            Source::Nameless => None,
        };
        let texts: Vec<Option<&[u8]>> = names.iter().map(text).collect();
        let ended = |text: &Option<&'_ [u8]>, name: &Name| match name.source() {
            Source::Elf(_) => text.and_then(|text| name_at(text, 0).map(<[u8]>::len)),
            Source::Go | Source::Nameless => text.map(<[u8]>::len),
        };
        texts
            .iter()
            .zip(names)
            .map(|(t, name)| t.and_then(|text| text.get(..ended(t, name)?)).unwrap_or_default())
            .collect()
    }
}
