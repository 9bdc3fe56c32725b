//! Functions by address: where each begins and ends, and which holds a place.
//!
//! Those that only the unwind tables know are apart, and sought only when an address or everything is asked for: of a
//! stripped library they are most, and no name is theirs. They are numbered after those with names.

use std::sync::atomic::{AtomicU32, Ordering};

use super::name::{Name, Source};
use super::{Function, FunctionId, Index, build};
use crate::addr::Vaddr;
use crate::demangle;
use crate::unwind;

/// How far a function of unknown size may reach when there is nothing behind it in its section.
const MAX_UNSIZED: u64 = 16 << 10;

/// Functions within functions: entry points inside assembly have a few levels, hostile files any number.
const MAX_NESTING: usize = 256;

/// Parts of one function. Compilers make one or two; each may be as long as the code.
const MAX_PARTS: usize = 64;

impl Index {
    /// The function whose code holds `v`.
    pub fn at(&self, v: Vaddr) -> Option<Function<'_>> {
        self.id_at(v).map(|id| self.function(id))
    }

    /// The id of the function whose code holds `v`.
    pub fn id_at(&self, v: Vaddr) -> Option<FunctionId> {
        let before = self.starts().partition_point(|&start| start <= v).checked_sub(1);
        let named = || self.named_at(before?, v);
        let found = match self.nameless_at(v) {
            // Of two that hold it, the one that begins later: inside an assembly function without a size there may be more.
            Some(nameless) if before.is_none_or(|at| self.start(at) < self.start(nameless)) => Some(nameless),
            nameless => named().or(nameless),
        };
        found.map(|function| FunctionId(function as u32))
    }

    /// The innermost function that holds `v`, of `at`, which begins nearest before it, and those around that one.
    fn named_at(&self, mut at: usize, v: Vaddr) -> Option<usize> {
        for _ in 0..MAX_NESTING {
            if self.holds(at, v) {
                return Some(at);
            }
            let enclosing = self.enclosing.get_or_init(|| build::enclosing(self));
            at = enclosing.get(at).copied().filter(|&e| e != u32::MAX)? as usize;
        }
        None
    }

    fn nameless_at(&self, v: Vaddr) -> Option<usize> {
        let nameless = self.nameless();
        let at = nameless.partition_point(|&(start, _)| start <= v).checked_sub(1)?;
        let &(start, size) = nameless.get(at)?;
        (v.0 - start.0 < size).then_some(self.functions.len() + at)
    }

    /// Whether a known function begins here. A `.cold` part is none, and what has no name may be one.
    pub fn starts_function(&self, v: Vaddr) -> bool {
        self.starts().binary_search(&v).is_ok_and(|at| !self.is_part(at))
    }

    /// The parts of a function that were moved elsewhere: (address, bytes).
    pub fn parts(&self, id: FunctionId) -> Vec<(Vaddr, u64)> {
        let parts = self.parts.get_or_init(|| build::parts(self));
        let of = parts.get(&id.0).map(Vec::as_slice).unwrap_or_default();
        of.iter()
            .take(MAX_PARTS)
            .filter_map(|&part| self.first_name(part as usize))
            .map(|name| (name.address(), self.size(&name)))
            .collect()
    }

    /// The number of the function that begins at `v`.
    pub(super) fn starting_at(&self, v: Vaddr) -> Option<usize> {
        let nameless = || self.nameless().binary_search_by_key(&v, |&(start, _)| start).ok();
        let named = self.starts().binary_search(&v).ok();
        named.or_else(|| Some(self.functions.len() + nameless()?))
    }

    /// Where functions with a name begin.
    pub(super) fn starts(&self) -> &[Vaddr] {
        self.starts.get_or_init(|| (0..self.functions.len()).map(|function| self.start(function)).collect())
    }

    /// Where a function begins; 0 if there is none such.
    pub(super) fn start(&self, function: usize) -> Vaddr {
        let name = self.names_of(function).next().and_then(|at| self.entry(at));
        name.map_or(Vaddr(0), Name::address)
    }

    /// Functions that only the unwind tables know, where no named one is, by address: where each begins, and its bytes.
    pub(super) fn nameless(&self) -> &[(Vaddr, u64)] {
        self.nameless.get_or_init(|| {
            let wanted = self.debug.adds_nameless(&self.binary);
            if wanted { self.find_nameless() } else { Vec::new() }
        })
    }

    fn find_nameless(&self) -> Vec<(Vaddr, u64)> {
        let mut named = self.names.iter().peekable();
        let mut covered = 0;
        let mut is_known = |&(address, size): &(Vaddr, u64)| {
            while let Some(name) = named.next_if(|n| n.address() <= address) {
                covered = covered.max(name.address().0.saturating_add(self.size(name).max(1)));
            }
            let known = address.0 < covered || self.binary.in_plt(address);
            if !known {
                covered = address.0.saturating_add(size);
            }
            known
        };
        let mut found = unwind::code_ranges(&self.binary);
        found.retain(|range| !is_known(range));
        // Numbers of functions and names have 32 bits.
        found.truncate((u32::MAX as usize).saturating_sub(self.names.len()));
        found.shrink_to_fit();
        found
    }

    fn is_part(&self, function: usize) -> bool {
        self.first_name(function).is_some_and(|n| self.is_part_name(&n))
    }

    /// Whether the symbol names a part (`f.cold`) of a function.
    pub(super) fn is_part_name(&self, name: &Name) -> bool {
        matches!(name.source(), Source::Elf(_)) && demangle::whole_of_part(self.raw(name)).is_some()
    }

    fn holds(&self, function: usize, v: Vaddr) -> bool {
        match self.names_of(function).next().and_then(|at| self.entry(at)) {
            Some(name) if name.is_go() => v.0 - name.address().0.min(v.0) < self.size_of_go(&name),
            _ => v < self.end(function),
        }
    }

    /// The address after a function's last byte, as far as it may be attributed to it.
    pub(super) fn end(&self, function: usize) -> Vaddr {
        let Some(name) = self.first_name(function) else {
            return Vaddr(0);
        };
        match self.size(&name) {
            0 => self.end_of_unsized(function, &name),
            size => Vaddr(name.address().0.saturating_add(size)),
        }
    }

    /// Assembly without a size reaches to the next function of its section. Its padding goes with it.
    fn end_of_unsized(&self, function: usize, name: &Name) -> Vaddr {
        let start = name.address();
        let nameless = self.nameless();
        let after = nameless.partition_point(|&(other, _)| other <= start);
        let named = self.starts().get(function + 1).map_or(u64::MAX, |next| next.0);
        let next = nameless.get(after).map_or(named, |&(next, _)| next.0.min(named));
        let section = self.binary.sections().at(start).map_or(start, |s| s.end());
        let bound = if name.is_go() { start.0 } else { section.0.min(next) };
        Vaddr(bound.min(start.0.saturating_add(MAX_UNSIZED)))
    }

    pub(super) fn size(&self, name: &Name) -> u64 {
        match name.source() {
            Source::Elf(_) => self.symbol_of(*name).map_or(0, |symbol| symbol.size),
            Source::Go => self.go_function(name).map_or(0, |f| f.size()),
            Source::Nameless => self.nameless().get(name.position() as usize).map_or(0, |&(_, size)| size),
        }
    }

    fn size_of_go(&self, name: &Name) -> u64 {
        let count = || self.binary.go().map_or(0, |program| program.addresses(&self.binary).len());
        let sizes = self.go_sizes.get_or_init(|| (0..count()).map(|_| AtomicU32::new(0)).collect());
        let size = || self.go_function(name).map_or(0, |f| f.size());
        let Some(place) = sizes.get(name.position() as usize) else {
            return size();
        };
        match place.load(Ordering::Relaxed) {
            0 => {
                let size = size();
                // What does not fit is looked up each time.
                place.store(u32::try_from(size.saturating_add(1)).unwrap_or(0), Ordering::Relaxed);
                size
            }
            known => u64::from(known - 1),
        }
    }
}
