//! Functions that Go's compiler inlined, as the function table has them.
//!
//! Source: src/runtime/symtabinl.go: a value for each address names a record of the function's inlining tree, and the
//! record an address in what it was inlined into, to go on from.

use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustc_hash::FxHashMap;

use super::pclntab::{Function, SourceLine, TableVersion};
use super::{Program, pclntab};
use crate::addr::Vaddr;
use crate::binary::Binary;
use crate::bytes::u32_at;
use crate::parallel;

/// `abi.PCDATA_InlTreeIndex`
const INLINE_INDEX: usize = 2;
/// `abi.FUNCDATA_InlTree`
const INLINE_TREE: usize = 3;
/// The compiler inlines some tens of levels; broken tables may lead in circles.
const MAX_DEPTH: usize = 256;
/// Functions whose trees one thread reads at a time.
const CHUNK: usize = 1024;

/// A place where a function was inlined.
pub(crate) struct InlinedPlace<'a> {
    /// The inlined function, as the table spells it.
    pub(crate) name: &'a str,
    /// The function that has the code.
    pub(crate) function: Function<'a>,
    /// Where the inlined code begins; `None` if nothing is left of it.
    pub(crate) address: Option<Vaddr>,
    /// Where it was called.
    pub(crate) call: Option<SourceLine<'a>>,
}

/// Where things are in one record of the tree, in bytes.
struct Record {
    size: u64,
    name: usize,
    parent: usize,
}

impl TableVersion {
    // Go 1.16 to 1.19: src/runtime/symtab.go, inlinedCall; Go 1.20+: src/runtime/symtabinl.go.
    fn inline_record(self) -> Record {
        match self {
            Self::Go1_16 | Self::Go1_18 => Record { size: 20, name: 12, parent: 16 },
            Self::Go1_20 => Record { size: 16, name: 4, parent: 8 },
        }
    }
}

impl Program {
    /// The functions at an address of `function`, innermost first: (name as the table spells it, where it is). The last is
    /// `function`.
    pub fn inlined<'a>(
        &'a self,
        binary: &'a Binary,
        function: &Function<'a>,
        v: Vaddr,
    ) -> Vec<(&'a str, Option<SourceLine<'a>>)> {
        let mut frames = Vec::new();
        let mut at = v;
        while frames.len() < MAX_DEPTH
            && let Some((name, parent)) = self.inlined_at(binary, function, at)
        {
            frames.push((name, function.line_at(at)));
            at = parent;
        }
        frames.push((function.name(), function.line_at(at)));
        frames
    }

    /// What was inlined at `v`, and an address in what it was inlined into.
    fn inlined_at<'a>(&'a self, binary: &'a Binary, function: &Function<'a>, v: Vaddr) -> Option<(&'a str, Vaddr)> {
        let number = u64::try_from(function.pcdata_at(INLINE_INDEX, v)?).ok()?;
        self.inline_record(binary, function, number)
    }

    /// Record `number` of a function's tree: the name, and an address in what it was inlined into.
    fn inline_record<'a>(
        &'a self,
        binary: &'a Binary,
        function: &Function<'a>,
        number: u64,
    ) -> Option<(&'a str, Vaddr)> {
        let (name, parent) = self.record(binary, self.inline_tree(binary, function)?, number)?;
        Some((function.text_at(name)?, function.address.checked_add(u64::from(parent))?))
    }

    /// Record `number` of a tree: the name's offset, and bytes from the function's start to where it was inlined.
    fn record(&self, binary: &Binary, tree: Vaddr, number: u64) -> Option<(u32, u32)> {
        let shape = self.table_version().inline_record();
        let record = binary.bytes_at(tree.checked_add(number.checked_mul(shape.size)?)?, shape.size)?;
        Some((u32_at(record, shape.name)?, u32_at(record, shape.parent)?))
    }

    fn inline_tree(&self, binary: &Binary, function: &Function<'_>) -> Option<Vaddr> {
        match function.funcdata(INLINE_TREE)? {
            pclntab::FuncData::Offset(into) => self.gofunc()?.checked_add(u64::from(into)),
            // Go 1.16 and 1.17 have pointers.
            pclntab::FuncData::Pointer(place) => binary.pointer_at(place).filter(|v| v.0 != 0),
        }
    }

    /// What functions' data is relative to (`moduledata.gofunc`).
    fn gofunc(&self) -> Option<Vaddr> {
        let minor = self.version().and_then(minor).unwrap_or(0);
        let word = match self.table_version() {
            TableVersion::Go1_16 => return None,
            TableVersion::Go1_18 => 38,
            TableVersion::Go1_20 if minor < 27 => 40,
            TableVersion::Go1_20 => 43,
        };
        self.module_word(word)
    }

    /// The places where functions were inlined whose names are `wanted`, in order of the functions that they are in, with
    /// what `wanted` said of the name.
    pub(crate) fn inlined_places<'a, T: Copy + Send>(
        &'a self,
        binary: &'a Binary,
        wanted: impl Fn(&'a str) -> Option<T> + Sync,
    ) -> Vec<(T, InlinedPlace<'a>)> {
        let functions: Vec<usize> = (0..self.addresses(binary).len()).collect();
        // Every record has bytes of its own in a real file.
        let left = AtomicUsize::new(binary.data().len());
        let places = parallel::map_chunks(&functions, CHUNK, |functions| {
            let mut found = Vec::new();
            let mut known = FxHashMap::default();
            for function in functions.iter().filter_map(|&position| self.function(binary, position)) {
                let mut wanted = |name: u32| {
                    *known.entry(name).or_insert_with(|| {
                        let text = function.text_at(name)?;
                        Some((wanted(text)?, text))
                    })
                };
                self.places_in(binary, function, &left, &mut wanted, &mut found);
            }
            found
        });
        places.into_iter().flatten().collect()
    }

    /// What was inlined into one function. `wanted` takes offsets of names.
    fn places_in<'a, T>(
        &'a self,
        binary: &'a Binary,
        function: Function<'a>,
        left: &AtomicUsize,
        wanted: &mut dyn FnMut(u32) -> Option<(T, &'a str)>,
        found: &mut Vec<(T, InlinedPlace<'a>)>,
    ) {
        // Every record stands for one place; those that only lead to others have no address of their own.
        let used = function.pcdata(INLINE_INDEX).filter_map(|(_, number)| u64::try_from(number).ok());
        let count = used.max().map_or(0, |most| most.saturating_add(1)).min(function.size());
        let Some(tree) = self.inline_tree(binary, &function).filter(|_| count > 0) else { return };
        let mut details = None;
        for number in 0..count {
            let is_left = left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            let Some((name, parent)) = self.record(binary, tree, number).filter(|_| is_left) else { return };
            let Some((what, name)) = wanted(name) else { continue };
            let details: &Details<'a> = details.get_or_insert_with(|| self.details(binary, &function, tree));
            let call = function.address.checked_add(u64::from(parent)).and_then(|v| details.line(v));
            let address = details.starts.get(&number).copied();
            found.push((what, InlinedPlace { name, function, address, call }));
        }
    }

    fn details<'a>(&self, binary: &Binary, function: &Function<'a>, tree: Vaddr) -> Details<'a> {
        let runs: Vec<(Vaddr, i32)> = function.pcdata(INLINE_INDEX).collect();
        let number_at = |v: Vaddr| {
            let run = runs.partition_point(|&(start, _)| start <= v).checked_sub(1).and_then(|at| runs.get(at));
            run.and_then(|&(_, number)| u64::try_from(number).ok())
        };
        let mut starts = FxHashMap::default();
        for &(start, _) in &runs {
            let mut next = number_at(start);
            // What was inlined into something inlined is part of it. Each number is entered once: the walk ends.
            while let Some(number) = next
                && let Entry::Vacant(place) = starts.entry(number)
            {
                place.insert(start);
                let parent = self.record(binary, tree, number).map(|(_, parent)| u64::from(parent));
                next = parent.and_then(|into| function.address.checked_add(into)).and_then(number_at);
            }
        }
        Details { starts, lines: function.lines().collect() }
    }
}

/// What takes a pass through a function's tables.
struct Details<'a> {
    /// Where the code of each record begins.
    starts: FxHashMap<u64, Vaddr>,
    lines: Vec<(Vaddr, Vaddr, SourceLine<'a>)>,
}

impl<'a> Details<'a> {
    fn line(&self, v: Vaddr) -> Option<SourceLine<'a>> {
        let at = self.lines.partition_point(|&(start, ..)| start <= v).checked_sub(1)?;
        self.lines.get(at).filter(|&&(_, end, _)| v < end).map(|&(.., line)| line)
    }
}

/// The 27 of `go1.27.3`, and of `devel go1.27-0123abc`.
fn minor(version: &str) -> Option<u32> {
    let (_, rest) = version.split_once("go1.")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest.get(..digits)?.parse().ok()
}
