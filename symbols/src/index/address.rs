//! Functions by address: where each begins and ends, and which holds a place.
//!
//! Those that only the unwind tables know are apart, and sought only when an address or everything is asked for: of a
//! stripped library they are most, and no name is theirs. They are numbered after those with names.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use super::coarse::{self, Coarse};
use super::name::{Name, Source};
use super::{Function, FunctionId, Index, build};
use crate::addr::Vaddr;
use crate::demangle;
use crate::parallel;
use crate::unwind;

/// How far a function of unknown size may reach when there is nothing behind it in its section.
const MAX_UNSIZED: u64 = 16 << 10;

/// Functions within functions: entry points inside assembly have a few levels, hostile files any number.
const MAX_NESTING: usize = 256;

/// Parts of one function. Compilers make one or two; each may be as long as the code.
const MAX_PARTS: usize = 64;

/// Names whose sizes one thread reads at a time.
const CHUNK: usize = 8192;

/// What look-ups by address need, made by the first ones.
#[derive(Default)]
pub(super) struct Places {
    /// Functions without a name: where each begins, ascending, and its bytes. Numbered after those with names.
    nameless: OnceLock<Vec<(Vaddr, u64)>>,
    near_nameless: OnceLock<Coarse>,
    /// Functions with a name, by address.
    starts: OnceLock<Vec<Start>>,
    near_starts: OnceLock<Coarse>,
    /// For each function the nearest earlier one that reaches beyond its start, or `u32::MAX`.
    enclosing: OnceLock<Vec<u32>>,
}

/// Where a function begins.
pub(super) struct Start {
    pub(super) address: Vaddr,
    /// The address where it ends; 0 is not known yet. A Go function's takes a walk of its line table, which a million
    /// addresses in some functions must not repeat.
    end: AtomicU64,
}

impl Index {
    /// The function whose code holds `v`.
    pub fn at(&self, v: Vaddr) -> Option<Function<'_>> {
        self.id_at(v).map(|id| self.function(id))
    }

    /// The id of the function whose code holds `v`.
    pub fn id_at(&self, v: Vaddr) -> Option<FunctionId> {
        let before = self.before(v);
        // Where a function with a name begins and reaches, none without one begins.
        if let Some(at) = before.filter(|&at| self.holds(at, v)) {
            return Some(FunctionId(at as u32));
        }
        let enclosing = || self.enclosing_at(before?, v);
        let found = match self.nameless_at(v) {
            // Of two that hold it, the one that begins later.
            Some(nameless) if before.is_none_or(|at| self.start(at) < self.start(nameless)) => Some(nameless),
            nameless => enclosing().or(nameless),
        };
        found.map(|function| FunctionId(function as u32))
    }

    /// The last function with a name that begins at `v` or before.
    fn before(&self, v: Vaddr) -> Option<usize> {
        let starts = self.starts();
        let near = self.places.near_starts.get_or_init(|| Coarse::new(starts.iter().map(|start| start.address)));
        coarse::until(starts, near, v, |start| start.address).checked_sub(1)
    }

    /// The innermost function that holds `v`, of those around `at`, which begins nearest before it.
    fn enclosing_at(&self, mut at: usize, v: Vaddr) -> Option<usize> {
        let enclosing = self.places.enclosing.get_or_init(|| build::enclosing(self));
        for _ in 0..MAX_NESTING {
            at = enclosing.get(at).copied().filter(|&e| e != u32::MAX)? as usize;
            if self.holds(at, v) {
                return Some(at);
            }
        }
        None
    }

    fn nameless_at(&self, v: Vaddr) -> Option<usize> {
        let nameless = self.nameless();
        let starts = || nameless.iter().map(|&(start, _)| start);
        let near = self.places.near_nameless.get_or_init(|| Coarse::new(starts()));
        let at = coarse::until(nameless, near, v, |&(start, _)| start).checked_sub(1)?;
        let &(start, size) = nameless.get(at)?;
        (v.0 - start.0 < size).then_some(self.functions.len() + at)
    }

    /// Whether a known function begins here. A `.cold` part is none, and what has no name may be one.
    pub fn starts_function(&self, v: Vaddr) -> bool {
        self.starts().binary_search_by_key(&v, |start| start.address).is_ok_and(|at| !self.is_part(at))
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
        let named = self.starts().binary_search_by_key(&v, |start| start.address).ok();
        named.or_else(|| Some(self.functions.len() + nameless()?))
    }

    /// Where functions with a name begin, by address.
    pub(super) fn starts(&self) -> &[Start] {
        let start = |function| Start { address: self.start(function), end: AtomicU64::new(0) };
        self.places.starts.get_or_init(|| (0..self.functions.len()).map(start).collect())
    }

    /// Where a function begins; 0 if there is none such.
    pub(super) fn start(&self, function: usize) -> Vaddr {
        let name = self.names_of(function).next().and_then(|at| self.entry(at));
        name.map_or(Vaddr(0), Name::address)
    }

    /// Functions that only the unwind tables know, where no named one is, by address: where each begins, and its bytes.
    pub(super) fn nameless(&self) -> &[(Vaddr, u64)] {
        self.places.nameless.get_or_init(|| {
            let wanted = self.debug.adds_nameless(&self.binary);
            if wanted { self.find_nameless() } else { Vec::new() }
        })
    }

    fn find_nameless(&self) -> Vec<(Vaddr, u64)> {
        // Most of the time goes by until the sizes are there.
        let end = |name: &Name| name.address().0.saturating_add(self.size(name).max(1));
        let ends = parallel::map_chunks(&self.names, CHUNK, |names| names.iter().map(end).collect::<Vec<_>>());
        let mut named = self.names.iter().zip(ends.into_iter().flatten()).peekable();
        let mut covered = 0;
        let mut is_known = |&(address, size): &(Vaddr, u64)| {
            while let Some((_, end)) = named.next_if(|(name, _)| name.address() <= address) {
                covered = covered.max(end);
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
        v < self.end(function)
    }

    /// The address after a function's last byte, as far as it may be attributed to it.
    pub(super) fn end(&self, function: usize) -> Vaddr {
        let Some(start) = self.starts().get(function) else {
            return self.find_end(function);
        };
        match start.end.load(Ordering::Relaxed) {
            0 => {
                let end = self.find_end(function);
                start.end.store(end.0, Ordering::Relaxed);
                end
            }
            known => Vaddr(known),
        }
    }

    fn find_end(&self, function: usize) -> Vaddr {
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
        let named = self.starts().get(function + 1).map_or(u64::MAX, |next| next.address.0);
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
}
