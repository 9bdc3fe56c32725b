//! All functions of a binary: look-up by address and by what a person types.
//!
//! In: a [`Binary`]. Out: an [`Index`] of functions in order of address, one for each address; other names at an address
//! are its aliases. In a Go program the function table is the source of Go's functions, the symbol tables of the rest.
//! Names stay in the file, as offsets; they are demangled when they are first asked for. Opening costs a sort of addresses;
//! a name is looked for in the string tables first, and only symbols in which it occurs are demangled.

mod build;
mod debug;
mod fit;
mod function;
mod hints;
mod inlined;
mod name;
mod occurrences;
mod places;
mod select;
mod tables;

use std::borrow::Cow;
use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rustc_hash::FxHashMap;

use crate::Error;
use crate::addr::Vaddr;
use crate::binary::Binary;
use crate::demangle::{self, Scheme};
use crate::go;
use crate::plt;

use name::{Name, Source};
use tables::Table;

pub use crate::go::SourceLine;
pub use debug::InlineFrame;
pub use function::{Function, FunctionId, Language, LeftOut, Outline};
pub use inlined::InlinedOnly;
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
    /// Demangled texts of `names`, made when asked for.
    texts: OnceLock<Box<[OnceLock<Box<str>>]>>,
    /// The symbol tables that `names` refer to.
    tables: Vec<Table>,
    /// Sizes of functions without a name, in bytes.
    nameless: Vec<u64>,
    /// Where each function begins, ascending. Made for the first look-up by address.
    starts: OnceLock<Vec<Vaddr>>,
    /// Where each function's names begin in `names`.
    functions: Vec<u32>,
    /// For each function the nearest earlier one that reaches beyond its start, or `u32::MAX`.
    enclosing: OnceLock<Vec<u32>>,
    /// Sizes of Go's functions plus one, by position in their table; 0 is not known yet. A size takes a walk of the line
    /// table, which a million addresses in some functions must not repeat.
    go_sizes: OnceLock<Box<[AtomicU32]>>,
    /// Bytes that `texts` may still take.
    text_left: AtomicUsize,
    parts: OnceLock<FxHashMap<u32, Vec<u32>>>,
    is_rust_program: OnceLock<bool>,
    /// What IFUNC resolvers chose, by the resolver's address.
    chosen: FxHashMap<Vaddr, FunctionId>,
    debug: debug::Sources,
}

// Go: internal/abi/symtab.go, FuncFlag.
const GO_TOP_FRAME: u8 = 1;
const GO_ASM: u8 = 4;

/// How far a function of unknown size may reach when there is nothing behind it in its section.
const MAX_UNSIZED: u64 = 16 << 10;

/// Functions within functions: entry points inside assembly have a few levels, hostile files any number.
const MAX_NESTING: usize = 256;

/// Bytes of demangled text that are kept, besides eight times the file's length. Beyond, names stay as the file has them.
const MIN_TEXT: usize = 64 << 20;

impl Index {
    /// Lists the functions of a file. [`Error::NoSymbols`] if it names none.
    pub fn new(binary: Arc<Binary>) -> Result<Self, Error> {
        Self::from_sources(binary, debug::Sources::default())
    }

    fn from_sources(binary: Arc<Binary>, debug: debug::Sources) -> Result<Self, Error> {
        let tables = Table::all(&binary, &debug);
        let views: Vec<_> = tables.iter().filter_map(|table| table.view(&binary, &debug)).collect();
        let build::Names { names, nameless } = build::names(&binary, &views, debug.adds_nameless(&binary))?;
        let functions = build::functions(&names);
        let text_left = AtomicUsize::new(binary.data().len().saturating_mul(8).saturating_add(MIN_TEXT));
        Ok(Self {
            binary,
            names,
            texts: OnceLock::new(),
            tables,
            nameless,
            starts: OnceLock::new(),
            functions,
            enclosing: OnceLock::new(),
            go_sizes: OnceLock::new(),
            text_left,
            parts: OnceLock::new(),
            is_rust_program: OnceLock::new(),
            chosen: FxHashMap::default(),
            debug,
        })
    }

    /// The file.
    pub fn binary(&self) -> &Arc<Binary> {
        &self.binary
    }

    /// How many functions (addresses) there are.
    pub fn len(&self) -> usize {
        self.functions.len()
    }

    /// Whether there are none; never so after [`Self::new`].
    pub fn is_empty(&self) -> bool {
        self.functions.is_empty()
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
        let name = self.names.get(at).expect("functions point to names");
        let go = name.is_go().then(|| self.go_function(name)).flatten();
        Outline {
            address: name.address(),
            size: go.as_ref().map_or_else(|| self.size(name), go::Function::size),
            is_go: name.is_go(),
            go_asm: go.as_ref().is_some_and(|f| f.flags() & GO_ASM != 0),
        }
    }

    /// The name of the function with this id as the file spells it.
    ///
    /// # Panics
    /// If the id is not from this index.
    pub fn symbol(&self, id: FunctionId) -> &str {
        let raw = self.first_name(id.0 as usize).map(|name| self.raw(name)).expect("the id is from this index");
        std::str::from_utf8(raw).unwrap_or_else(|_| valid_beginning(raw))
    }

    /// All names of the function with this id as the file spells them, each as often as it stands there.
    pub fn symbols(&self, id: FunctionId) -> impl Iterator<Item = &str> {
        let names = self.names_of(id.0 as usize).filter_map(|at| self.names.get(at));
        names.map(|name| valid_beginning(self.raw(name)))
    }

    /// All functions, by address.
    pub fn functions(&self) -> impl Iterator<Item = Function<'_>> {
        (0..self.functions.len()).map(|i| self.function(FunctionId(i as u32)))
    }

    /// The other names at the same address, each once.
    pub fn aliases(&self, id: FunctionId) -> Vec<String> {
        let names = self.in_order(self.names_of(id.0 as usize));
        let own = names.first().map_or("", |&at| self.display(at)).to_owned();
        let mut seen = std::collections::BTreeSet::from([own]);
        let mut others = Vec::new();
        for at in names {
            let text = self.display(at);
            if seen.insert(text.to_owned()) {
                others.push(text.to_owned());
            }
        }
        others
    }

    /// Learns from a running process which implementations its IFUNC resolvers chose: `word` reads the address that a word
    /// of the file holds there, as an address of this file. Then the symbols select what was chosen.
    pub fn learn_ifuncs(&mut self, mut word: impl FnMut(Vaddr) -> Option<Vaddr>) {
        for (place, resolver) in plt::resolved(&self.binary) {
            let chosen = word(place).and_then(|v| self.starting_at(v));
            if let Some(function) = chosen.and_then(|function| u32::try_from(function).ok()) {
                self.chosen.insert(resolver, FunctionId(function));
            }
        }
    }

    /// The implementation that a function's resolver chose, if it is one and that is known.
    fn implementation(&self, function: usize) -> Option<FunctionId> {
        self.chosen.get(&self.start(function)).copied()
    }

    /// The function whose code holds `v`.
    pub fn at(&self, v: Vaddr) -> Option<Function<'_>> {
        self.id_at(v).map(|id| self.function(id))
    }

    /// The id of the function whose code holds `v`.
    pub fn id_at(&self, v: Vaddr) -> Option<FunctionId> {
        let mut at = self.starts().partition_point(|&start| start <= v).checked_sub(1)?;
        for _ in 0..MAX_NESTING {
            if self.holds(at, v) {
                return Some(FunctionId(at as u32));
            }
            let enclosing = self.enclosing.get_or_init(|| build::enclosing(self));
            at = enclosing.get(at).copied().filter(|&e| e != u32::MAX)? as usize;
        }
        None
    }

    /// The name of the function with this id, as in [`Function::name`]. Demangled once.
    ///
    /// # Panics
    /// If the id is not from this index.
    pub fn name(&self, id: FunctionId) -> &str {
        self.display(self.shown(id.0 as usize).expect("the id is from this index"))
    }

    /// Whether a known function begins here. A `.cold` part is none, and what has no name may be one.
    pub fn starts_function(&self, v: Vaddr) -> bool {
        self.starting_at(v).is_some_and(|at| !self.is_part(at) && !self.is_nameless(at))
    }

    /// The parts of a function that were moved elsewhere: (address, bytes).
    pub fn parts(&self, id: FunctionId) -> Vec<(Vaddr, u64)> {
        let parts = self.parts.get_or_init(|| build::parts(self));
        let of = parts.get(&id.0).map(Vec::as_slice).unwrap_or_default();
        of.iter()
            .filter_map(|&part| self.first_name(part as usize))
            .map(|name| (name.address(), self.size(name)))
            .collect()
    }

    /// The position of the function that begins at `v`.
    fn starting_at(&self, v: Vaddr) -> Option<usize> {
        self.starts().binary_search(&v).ok()
    }

    fn starts(&self) -> &[Vaddr] {
        self.starts.get_or_init(|| (0..self.len()).map(|function| self.start(function)).collect())
    }

    /// Where a function begins; 0 if there is none such.
    fn start(&self, function: usize) -> Vaddr {
        let name = self.functions.get(function).and_then(|&at| self.names.get(at as usize));
        name.map_or(Vaddr(0), |name| name.address())
    }

    fn is_nameless(&self, function: usize) -> bool {
        self.first_name(function).is_some_and(|n| n.source() == Source::Nameless)
    }

    fn is_part(&self, function: usize) -> bool {
        self.first_name(function).is_some_and(|n| self.is_part_name(n))
    }

    /// Whether the symbol names a part (`f.cold`) of a function.
    fn is_part_name(&self, name: &Name) -> bool {
        matches!(name.source(), Source::Elf(_)) && demangle::whole_of_part(self.raw(name)).is_some()
    }

    /// The name that a function is shown by.
    fn first_name(&self, function: usize) -> Option<&Name> {
        self.names.get(self.shown(function)?)
    }

    /// The position of the name that a function is shown by. What `.dynsym` calls it, `.symtab` does too.
    fn shown(&self, function: usize) -> Option<usize> {
        let range = self.names_of(function);
        let first = self.names.get(range.start)?;
        let rival =
            |at: &usize| self.names.get(*at).is_some_and(|n| (n.rank(), n.source()) == (first.rank(), first.source()));
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
        let (Some(a), Some(b)) = (self.names.get(a), self.names.get(b)) else {
            return a.cmp(&b);
        };
        let look = |text: &[u8]| {
            let underscores = text.iter().take_while(|&&b| b == b'_').count();
            let mangled = text.starts_with(b"_Z") || text.starts_with(b"_R");
            (if mangled { 0 } else { underscores }, text.len())
        };
        a.rank().cmp(&b.rank()).then_with(|| {
            let (x, y) = (demangle::unversioned(self.raw(a)), demangle::unversioned(self.raw(b)));
            look(x).cmp(&look(y)).then_with(|| x.cmp(y)).then_with(|| self.size(b).cmp(&self.size(a)))
        })
    }

    /// Positions of the names of a function.
    fn names_of(&self, function: usize) -> std::ops::Range<usize> {
        let start = self.functions.get(function).map_or(self.names.len(), |&n| n as usize);
        start..self.functions.get(function + 1).map_or(self.names.len(), |&n| n as usize)
    }

    fn holds(&self, function: usize, v: Vaddr) -> bool {
        match self.names_of(function).next().and_then(|at| self.names.get(at)) {
            Some(name) if name.is_go() => v.0 - name.address().0.min(v.0) < self.size_of_go(name),
            _ => v < self.end(function),
        }
    }

    /// The address after a function's last byte, as far as it may be attributed to it.
    fn end(&self, function: usize) -> Vaddr {
        let Some(name) = self.first_name(function) else {
            return Vaddr(0);
        };
        match self.size(name) {
            0 => self.end_of_unsized(function, name),
            size => Vaddr(name.address().0.saturating_add(size)),
        }
    }

    /// Assembly without a size reaches to the next symbol of its section. Its padding goes with it.
    fn end_of_unsized(&self, function: usize, name: &Name) -> Vaddr {
        let start = name.address();
        let next = if function + 1 < self.len() { self.start(function + 1).0 } else { u64::MAX };
        let section = self.binary.sections().at(start).map_or(start, |s| s.end());
        let bound = if name.is_go() { start.0 } else { section.0.min(next) };
        Vaddr(bound.min(start.0.saturating_add(MAX_UNSIZED)))
    }

    fn size(&self, name: &Name) -> u64 {
        match name.source() {
            Source::Elf(_) => self.symbol_of(*name).map_or(0, |symbol| symbol.size),
            Source::Go => self.go_function(name).map_or(0, |f| f.size()),
            Source::Nameless => self.nameless.get(name.position() as usize).copied().unwrap_or(0),
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

    fn go_function(&self, name: &Name) -> Option<go::Function<'_>> {
        self.binary.go()?.function(&self.binary, name.position() as usize)
    }

    fn view(&self, id: FunctionId, at: usize) -> Function<'_> {
        let name = self.names.get(at).expect("functions point to names");
        let go = name.is_go().then(|| self.go_function(name)).flatten();
        let flags = go.as_ref().map_or(0, go::Function::flags);
        Function {
            id,
            address: name.address(),
            size: self.size(name),
            name: self.display(at),
            symbol: std::str::from_utf8(self.raw(name)).unwrap_or_else(|_| self.display(at)),
            language: self.language(name),
            left_out: self.left_out(name),
            go_asm: flags & GO_ASM != 0,
            go_top_frame: flags & GO_TOP_FRAME != 0,
        }
    }

    /// A name as the file has it.
    fn raw(&self, name: &Name) -> &[u8] {
        let found = match name.source() {
            Source::Elf(table) => self.table(table).and_then(|table| table.name(name.position())),
            Source::Go => self.go_function(name).and_then(|f| f.name_bytes()),
            Source::Nameless => None,
        };
        found.unwrap_or_default()
    }

    fn language(&self, name: &Name) -> Language {
        self.language_of(name, self.raw(name))
    }

    fn language_of(&self, name: &Name, raw: &[u8]) -> Language {
        match name.source() {
            Source::Go => Language::Go,
            Source::Nameless => Language::C,
            Source::Elf(_) => match demangle::scheme(demangle::base(raw)) {
                Scheme::Rust => Language::Rust,
                Scheme::Itanium => Language::Cpp,
                Scheme::Plain => Language::C,
            },
        }
    }

    /// The name as a person writes it, parameters included.
    fn display(&self, at: usize) -> &str {
        let texts = self.texts.get_or_init(|| self.names.iter().map(|_| OnceLock::new()).collect());
        let Some((name, text)) = self.names.get(at).zip(texts.get(at)) else {
            return "";
        };
        if let Some(text) = text.get() {
            return text;
        }
        let raw = self.raw(name);
        let made = match name.source() {
            Source::Go => std::str::from_utf8(raw).map_or_else(|_| String::from_utf8_lossy(raw), go::names::unescaped),
            Source::Elf(_) => demangle::full(raw),
            Source::Nameless => Cow::Owned(self.name_of_nameless(name)),
        };
        match made {
            Cow::Borrowed(plain) => plain,
            Cow::Owned(made) => self.keep(text, made).unwrap_or_else(|| valid_beginning(raw)),
        }
    }

    /// Stores a demangled name, unless a hostile file's names fill the memory.
    fn keep<'a>(&self, place: &'a OnceLock<Box<str>>, made: String) -> Option<&'a str> {
        let take = |left: usize| left.checked_sub(made.len());
        self.text_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok()?;
        Some(place.get_or_init(|| made.into_boxed_str()))
    }

    /// Why globs leave a name out.
    fn left_out(&self, name: &Name) -> Option<LeftOut> {
        self.left_out_by(name, self.raw(name))
    }

    fn left_out_by(&self, name: &Name, raw: &[u8]) -> Option<LeftOut> {
        if name.is_ifunc() {
            return Some(LeftOut::Ifunc);
        }
        match name.source() {
            Source::Nameless => Some(LeftOut::Nameless),
            _ if raw.is_empty() => Some(LeftOut::Nameless),
            Source::Go => self.go_left_out(name, std::str::from_utf8(raw).unwrap_or_default()),
            Source::Elf(_) if demangle::whole_of_part(raw).is_some() => Some(LeftOut::Part),
            Source::Elf(_) => function::elf_left_out(demangle::unversioned(raw)),
        }
    }

    fn go_left_out(&self, name: &Name, text: &str) -> Option<LeftOut> {
        let wrapper = || {
            let program = self.binary.go()?;
            program.is_wrapper(&program.function(&self.binary, name.position() as usize)?).then_some(LeftOut::GoWrapper)
        };
        match go::names::kind(text) {
            go::names::Kind::Runtime => Some(LeftOut::GoRuntime),
            go::names::Kind::Internal => Some(LeftOut::GoInternal),
            go::names::Kind::Vendor => Some(LeftOut::GoVendor),
            go::names::Kind::Generated => Some(LeftOut::GoWrapper),
            go::names::Kind::Ordinary if go::names::has_no_package(text) => Some(LeftOut::GoRuntime),
            go::names::Kind::Ordinary => wrapper(),
        }
    }

    /// Whether the file is a Rust executable: its C `main` calls `std::rt::lang_start` with the crate's.
    fn is_rust_program(&self) -> bool {
        *self.is_rust_program.get_or_init(|| {
            // The former is often inlined into `main`, and the latter into nothing but a closure of it left.
            let finder = regex::bytes::Regex::new("^(_ZN3std2rt|_R.*2rt)(10lang_start|19lang_start_internal)");
            let finder = finder.expect("the pattern is ours");
            let starts = self.names_with(&["lang_start"]);
            starts.iter().filter_map(|&at| self.names.get(at as usize)).any(|n| finder.is_match(self.raw(n)))
        })
    }
}

impl fmt::Debug for Index {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Index").field("binary", &self.binary).field("functions", &self.len()).finish_non_exhaustive()
    }
}

/// The part of a name before its first byte that is no UTF-8.
fn valid_beginning(raw: &[u8]) -> &str {
    raw.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}
