//! All functions of a binary: look-up by address and by what a person types.
//!
//! In: a [`Binary`]. Out: an [`Index`] of functions in order of address, one for each address; other names at an address
//! are its aliases. In a Go program the function table is the source of Go's functions, the symbol tables of the rest.
//! Names stay in the file, as offsets; they are demangled when they are first asked for. Opening costs a sort of addresses;
//! a name is looked for in the string tables first, and only symbols in which it occurs are demangled. Functions that only
//! the unwind tables know come after those with names, and are sought when an address or everything is asked for.

mod address;
mod build;
mod coarse;
mod debug;
mod fit;
mod function;
mod hints;
mod inlined;
mod name;
mod occurrences;
mod places;
mod select;
mod sort;
mod tables;
mod text;

use std::fmt;
use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, OnceLock};

use rustc_hash::FxHashMap;

use crate::Error;
use crate::addr::Vaddr;
use crate::binary::Binary;
use crate::demangle;
use crate::go;
use crate::plt;

use name::{Name, Source};
use tables::Table;

pub use crate::go::SourceLine;
pub use debug::InlineFrame;
pub use function::{Function, FunctionId, Language, LeftOut, Outline};
pub use inlined::{Inlined, InlinedCopy};
pub use select::{Match, Matched, Selection};

/// The functions of one binary.
///
/// ```no_run
/// use std::sync::Arc;
/// use symbols::{binary::Binary, index::Index};
///
/// let binary = Binary::open("/usr/bin/server".as_ref())?;
/// let index = Index::new(Arc::new(binary))?;
/// let selection = index.select(&["main.(*Store).*".parse()?], false);
/// for found in &selection.matches {
///     println!("{}", found.name);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Index {
    binary: Arc<Binary>,
    names: Vec<Name>,
    /// Names of functions as a person writes them, made when asked for; those of functions without a name apart.
    texts: text::Texts,
    nameless_texts: text::Texts,
    /// The symbol tables that `names` refer to.
    tables: Vec<Table>,
    /// Where each function's names begin in `names`.
    functions: Vec<u32>,
    places: address::Places,
    /// Bytes that `texts` may still take.
    text_left: AtomicUsize,
    parts: OnceLock<FxHashMap<u32, Vec<u32>>>,
    /// The names that functions with many are shown by, as positions, by function.
    shown_of_many: OnceLock<FxHashMap<usize, usize>>,
    is_rust_program: OnceLock<bool>,
    /// What functions without a name are called after.
    own_name: OnceLock<String>,
    /// What IFUNC resolvers chose, by the resolver's address.
    chosen: FxHashMap<Vaddr, Vaddr>,
    debug: debug::Sources,
}

// Go: internal/abi/symtab.go, FuncFlag.
const GO_TOP_FRAME: u8 = 1;
const GO_ASM: u8 = 4;

/// Names of one function that are compared anew each time it is shown. A hostile file has any number of them.
const FEW_NAMES: usize = 8;

impl Index {
    /// Lists the functions of a file. [`Error::NoSymbols`] if it names none, [`Error::Truncated`] if that is
    /// because the file is cut off.
    pub fn new(binary: Arc<Binary>) -> Result<Self, Error> {
        Self::from_sources(binary, debug::Sources::default())
    }

    fn from_sources(binary: Arc<Binary>, debug: debug::Sources) -> Result<Self, Error> {
        let tables = Table::all(&binary, &debug);
        let views: Vec<_> = tables.iter().filter_map(|table| table.view(&binary, &debug)).collect();
        let names = build::names(&binary, &views);
        let functions = build::functions(&names);
        let text_left = AtomicUsize::new(binary.data().len().saturating_mul(8).saturating_add(text::MIN_TEXT));
        let index = Self {
            binary,
            names,
            texts: OnceLock::new(),
            nameless_texts: OnceLock::new(),
            tables,
            functions,
            places: address::Places::default(),
            text_left,
            parts: OnceLock::new(),
            shown_of_many: OnceLock::new(),
            is_rust_program: OnceLock::new(),
            own_name: OnceLock::new(),
            chosen: FxHashMap::default(),
            debug,
        };
        if index.names.is_empty() && index.nameless().is_empty() {
            return Err(match index.binary.go_error() {
                Some(Error::GoTable(why)) => Error::GoTable(why),
                _ => index.binary.cut_off().unwrap_or(Error::NoSymbols),
            });
        }
        Ok(index)
    }

    /// The file.
    pub fn binary(&self) -> &Arc<Binary> {
        &self.binary
    }

    /// How many functions (addresses) there are.
    pub fn len(&self) -> usize {
        self.functions.len() + self.nameless().len()
    }

    /// Whether there are none; never so after [`Self::new`].
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty() && self.nameless().is_empty()
    }

    /// The function with this id.
    ///
    /// # Panics
    /// If the id is not from this index.
    pub fn function(&self, id: FunctionId) -> Function<'_> {
        let at = self.shown(id.0 as usize).expect("the id is from this index");
        self.view(id, at)
    }

    /// The function with this id, without the name: that is not demangled.
    ///
    /// # Panics
    /// If the id is not from this index.
    pub fn outline(&self, id: FunctionId) -> Outline {
        let at = self.shown(id.0 as usize).expect("the id is from this index");
        let name = self.entry(at).expect("functions point to names");
        let go = name.is_go().then(|| self.go_function(&name)).flatten();
        Outline {
            address: name.address(),
            size: go.as_ref().map_or_else(|| self.size(&name), go::Function::size),
            is_go: go.as_ref().is_some_and(|f| !f.is_foreign()),
            go_asm: go.as_ref().is_some_and(|f| f.flags() & GO_ASM != 0),
        }
    }

    /// Bytes from the function's first address to its end: its size, or where the file does not say, as far as it may
    /// reach.
    pub fn extent(&self, id: FunctionId) -> u64 {
        self.end(id.0 as usize).0.saturating_sub(self.start(id.0 as usize).0)
    }

    /// The name of the function with this id as the file spells it.
    ///
    /// # Panics
    /// If the id is not from this index.
    pub fn symbol(&self, id: FunctionId) -> &str {
        let raw = self.first_name(id.0 as usize).map(|name| self.raw(&name)).expect("the id is from this index");
        std::str::from_utf8(raw).unwrap_or_else(|_| text::valid_beginning(raw))
    }

    /// All names of the function with this id as the file spells them, each as often as it stands there.
    pub fn symbols(&self, id: FunctionId) -> impl Iterator<Item = &str> {
        let names = self.names_of(id.0 as usize).filter_map(|at| self.entry(at));
        names.map(|name| text::valid_beginning(self.raw(&name)))
    }

    /// All functions, by address.
    pub fn functions(&self) -> impl Iterator<Item = Function<'_>> {
        self.by_address().into_iter().map(|function| self.function(FunctionId(function)))
    }

    /// The numbers of all functions, by address.
    fn by_address(&self) -> Vec<u32> {
        let (named, nameless) = (self.functions.len() as u32, self.nameless());
        let mut all = Vec::with_capacity(self.len());
        let mut next = 0;
        for (number, &(start, _)) in (named..).zip(nameless) {
            let before = next..named;
            next = before.clone().find(|&f| self.start(f as usize) > start).unwrap_or(named);
            all.extend(before.start..next);
            all.push(number);
        }
        all.extend(next..named);
        all
    }

    /// The other names at the same address, each once.
    pub fn aliases(&self, id: FunctionId) -> Vec<String> {
        let names = self.in_order(self.names_of(id.0 as usize));
        let texts = names.into_iter().filter_map(|at| self.entry(at)).map(|name| self.full(&name).into_owned());
        let mut seen = std::collections::HashSet::new();
        texts.filter(|text| seen.insert(text.clone())).skip(1).collect()
    }

    /// Whether there is anything that [`Self::learn_ifuncs`] could learn.
    pub fn has_ifuncs(&self) -> bool {
        !plt::resolved(&self.binary).is_empty()
    }

    /// Learns from a running process which implementations its IFUNC resolvers chose: `word` reads the address that a word
    /// of the file holds there, as an address of this file. Then the symbols select what was chosen.
    pub fn learn_ifuncs(&mut self, mut word: impl FnMut(Vaddr) -> Option<Vaddr>) {
        for (place, resolver) in plt::resolved(&self.binary) {
            self.chosen.extend(word(place).map(|chosen| (resolver, chosen)));
        }
    }

    /// The implementation that a function's resolver chose, if it is one and that is known.
    fn implementation(&self, function: usize) -> Option<FunctionId> {
        let chosen = self.chosen.get(&self.start(function))?;
        self.starting_at(*chosen).and_then(|function| u32::try_from(function).ok()).map(FunctionId)
    }

    /// The name of the function with this id, as in [`Function::name`]. Demangled once.
    ///
    /// # Panics
    /// If the id is not from this index.
    pub fn name(&self, id: FunctionId) -> &str {
        assert!((id.0 as usize) < self.functions.len() || (id.0 as usize) < self.len(), "the id is from this index");
        self.display(id.0 as usize)
    }

    /// The name of the function with this id without parameters, as in [`Match::name`].
    ///
    /// # Panics
    /// If the id is not from this index.
    pub fn short_name(&self, id: FunctionId) -> String {
        self.bare(&self.first_name(id.0 as usize).expect("the id is from this index"))
    }

    /// The name that a function is shown by.
    fn first_name(&self, function: usize) -> Option<Name> {
        self.entry(self.shown(function)?)
    }

    /// The position of the name that a function is shown by. What `.dynsym` calls it, `.symtab` does too.
    fn shown(&self, function: usize) -> Option<usize> {
        let range = self.names_of(function);
        if range.len() <= FEW_NAMES {
            return self.best_of(range);
        }
        let many = self.shown_of_many.get_or_init(|| {
            let of = |function| Some((function, self.names_of(function))).filter(|(_, names)| names.len() > FEW_NAMES);
            (0..self.functions.len()).filter_map(of).filter_map(|(f, names)| Some((f, self.best_of(names)?))).collect()
        });
        many.get(&function).copied()
    }

    /// Of the names of a function, the position of the one to show.
    fn best_of(&self, range: std::ops::Range<usize>) -> Option<usize> {
        let first = self.entry(range.start)?;
        let rival =
            |at: &usize| self.entry(*at).is_some_and(|n| (n.rank(), n.source()) == (first.rank(), first.source()));
        let rivals = range.clone().take_while(rival);
        if rivals.clone().nth(1).is_none() {
            return Some(range.start);
        }
        rivals.min_by(|&a, &b| self.compare(a, b))
    }

    /// Names of one function, the one to show first.
    fn in_order(&self, names: impl Iterator<Item = usize>) -> Vec<usize> {
        let mut names: Vec<usize> = names.collect();
        if names.len() > 1 {
            names.sort_by(|&a, &b| self.compare(a, b));
        }
        names
    }

    /// Of two names of one function, the one to show first: by rank, then the one that looks least internal.
    fn compare(&self, a: usize, b: usize) -> std::cmp::Ordering {
        let (Some(a), Some(b)) = (self.entry(a), self.entry(b)) else {
            return a.cmp(&b);
        };
        let look = |text: &[u8]| {
            let underscores = text.iter().take_while(|&&b| b == b'_').count();
            let mangled = text.starts_with(b"_Z") || text.starts_with(b"_R");
            (if mangled { 0 } else { underscores }, text.len())
        };
        a.rank().cmp(&b.rank()).then_with(|| {
            let (x, y) = (demangle::unversioned(self.raw(&a)), demangle::unversioned(self.raw(&b)));
            look(x).cmp(&look(y)).then_with(|| x.cmp(y)).then_with(|| self.size(&b).cmp(&self.size(&a)))
        })
    }

    /// Positions of the names of a function.
    fn names_of(&self, function: usize) -> std::ops::Range<usize> {
        if let Some(nameless) = function.checked_sub(self.functions.len()) {
            let at = self.names.len().saturating_add(nameless);
            return at..at.saturating_add(1);
        }
        let start = self.functions.get(function).map_or(self.names.len(), |&n| n as usize);
        start..self.functions.get(function + 1).map_or(self.names.len(), |&n| n as usize)
    }

    /// The function that has the name at a position.
    fn function_of(&self, name: u32) -> Option<u32> {
        let functions = match (name as usize).checked_sub(self.names.len()) {
            Some(nameless) => self.functions.len() + nameless,
            None => self.functions.partition_point(|&first| first <= name).checked_sub(1)?,
        };
        u32::try_from(functions).ok()
    }

    /// The name at a position: behind the last of `names` come those of functions without one.
    fn entry(&self, at: usize) -> Option<Name> {
        let Some(nameless) = at.checked_sub(self.names.len()) else {
            return self.names.get(at).copied();
        };
        let (address, _) = self.nameless().get(nameless)?;
        Some(Name::of_nameless(*address, u32::try_from(nameless).ok()?))
    }

    fn go_function(&self, name: &Name) -> Option<go::Function<'_>> {
        self.binary.go()?.function(&self.binary, name.position() as usize)
    }

    fn view(&self, id: FunctionId, at: usize) -> Function<'_> {
        let name = self.entry(at).expect("functions point to names");
        let go = name.is_go().then(|| self.go_function(&name)).flatten();
        let flags = go.as_ref().map_or(0, go::Function::flags);
        Function {
            id,
            address: name.address(),
            size: self.size(&name),
            name: self.display(id.0 as usize),
            symbol: std::str::from_utf8(self.raw(&name)).unwrap_or_else(|_| self.display(id.0 as usize)),
            language: self.language(&name),
            left_out: self.left_out(&name),
            go_asm: flags & GO_ASM != 0,
            go_top_frame: flags & GO_TOP_FRAME != 0,
        }
    }

    /// Whether the file is a Rust executable: its C `main` calls `std::rt::lang_start` with the crate's.
    fn is_rust_program(&self) -> bool {
        *self.is_rust_program.get_or_init(|| {
            // The former is often inlined into `main`, and the latter into nothing but a closure of it left.
            let finder = regex::bytes::Regex::new("^(_ZN3std2rt|_R.*2rt)(10lang_start|19lang_start_internal)");
            let finder = finder.expect("the pattern is ours");
            let starts = self.names_with(&["lang_start"]);
            starts.iter().filter_map(|&at| self.entry(at as usize)).any(|n| finder.is_match(self.raw(&n)))
        })
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("binary", &self.binary).field("functions", &self.len()).finish_non_exhaustive()
    }
}
