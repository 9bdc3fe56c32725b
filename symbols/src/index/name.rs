//! One name of a function, in sixteen bytes: there may be hundreds of thousands, and to write and sort them is most of the
//! work of opening a file. Text and size stay in the file, and are read when somebody asks.

use crate::addr::Vaddr;

/// A name as a number that sorts by address, then by rank. From the highest bit: address (64), rank (8), flags (8), table
/// (8), unused (8), position (32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name(u128);

/// Where a name comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// Go's function table.
    Go,
    /// A symbol table, by its number in `Index::tables`.
    Elf(u8),
    /// The unwind tables: bounds, and no name.
    Nameless,
}

/// What decides between the names of one address: the lowest is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(super) enum Rank {
    Go = 0,
    Global = 1,
    Weak = 2,
    Local = 3,
    Untyped = 4,
    Unnamed = 5,
}

/// The number of Go's function table among the tables.
const GO_TABLE: u8 = u8::MAX;
/// That of functions without a name.
const NAMELESS: u8 = u8::MAX - 1;

const IFUNC: u8 = 1;
const LOCAL: u8 = 2;

impl Name {
    pub(super) fn of_go(address: Vaddr, position: u32) -> Self {
        Self::new(address, Rank::Go, 0, GO_TABLE, position)
    }

    /// `position` in symbol table number `table`.
    pub(super) fn of_elf(address: Vaddr, rank: Rank, ifunc: bool, local: bool, table: u8, position: u32) -> Self {
        let flags = if ifunc { IFUNC } else { 0 } | if local { LOCAL } else { 0 };
        Self::new(address, rank, flags, table, position)
    }

    /// Number `position` of `Index::nameless`.
    pub(super) fn of_nameless(address: Vaddr, position: u32) -> Self {
        Self::new(address, Rank::Unnamed, 0, NAMELESS, position)
    }

    fn new(address: Vaddr, rank: Rank, flags: u8, table: u8, position: u32) -> Self {
        let low = u64::from(rank as u8) << 56 | u64::from(flags) << 48 | u64::from(table) << 40 | u64::from(position);
        Self(u128::from(address.0) << 64 | u128::from(low))
    }

    pub(super) fn address(self) -> Vaddr {
        Vaddr((self.0 >> 64) as u64)
    }

    pub(super) fn rank(self) -> u8 {
        (self.0 >> 56) as u8
    }

    pub(super) fn is_untyped(self) -> bool {
        self.rank() == Rank::Untyped as u8
    }

    pub(super) fn is_ifunc(self) -> bool {
        (self.0 >> 48) as u8 & IFUNC != 0
    }

    pub(super) fn is_local(self) -> bool {
        (self.0 >> 48) as u8 & LOCAL != 0
    }

    pub(super) fn source(self) -> Source {
        match (self.0 >> 40) as u8 {
            GO_TABLE => Source::Go,
            NAMELESS => Source::Nameless,
            table => Source::Elf(table),
        }
    }

    pub(super) fn is_go(self) -> bool {
        self.source() == Source::Go
    }

    /// Position in the table that it comes from.
    pub(super) fn position(self) -> u32 {
        self.0 as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_address_then_rank_and_keep_what_they_are_given() {
        let a = Name::of_elf(Vaddr(u64::MAX), Rank::Weak, true, false, 1, u32::MAX);
        let b = Name::of_elf(Vaddr(u64::MAX), Rank::Local, false, true, 0, 0);
        let c = Name::of_go(Vaddr(7), 3);
        assert!(c < a && a < b);
        assert_eq!((a.address(), a.source(), a.position()), (Vaddr(u64::MAX), Source::Elf(1), u32::MAX));
        assert!(a.is_ifunc() && !a.is_local() && b.is_local() && !b.is_ifunc() && !b.is_untyped());
        assert_eq!((c.address(), c.source(), c.position(), c.rank()), (Vaddr(7), Source::Go, 3, Rank::Go as u8));
    }
}
