//! Functions that the compiler put into their callers: what a probe on the function does not see.

use std::borrow::Cow;
use std::collections::BTreeMap;

use memchr::memmem;
use rustc_hash::FxHashMap;

use super::fit::{Fit, fit_elf, fit_go, glob_fits};
use super::function::elf_left_out;
use super::select::is_inside_left_out;
use super::{FunctionId, Index, Language, Matched, Selection, Source};
use crate::addr::Vaddr;
use crate::demangle::{self, Scheme};
use crate::go::{SourceLine, names as go_names};
use crate::pattern::{Form, Name, Pattern, everything};

/// A function that was inlined, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inlined<'a> {
    /// Its name without parameters, as in [`super::Match::name`].
    pub name: String,
    /// Its name as the debug information spells it: mangled, but for what C++ has in one file only.
    pub symbol: Cow<'a, str>,
    /// What it is written in, judged by its name.
    pub language: Language,
    /// The selected function of this name, which has code of its own too; `None`: there are only copies.
    pub function: Option<FunctionId>,
    /// The pattern that means it, as an index; `None` where there is a selected function.
    pub pattern: Option<usize>,
    /// Named exactly or by a tail, as in [`super::Match::exact`].
    pub exact: bool,
    /// The copies, by address.
    pub copies: Vec<InlinedCopy<'a>>,
}

/// One place where a function was inlined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InlinedCopy<'a> {
    /// The lowest address of the copied code; `None` if nothing is left of it.
    pub address: Option<Vaddr>,
    /// The function that has the code now.
    pub into: FunctionId,
    /// Where it was called.
    pub call: Option<SourceLine<'a>>,
}

/// How a pattern means a name, the strongest last. In one file a pattern's weaker meanings do not count.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Meaning {
    Set,
    Tail,
    Exact,
}

/// Why a name counts.
#[derive(Clone, Copy)]
enum Why {
    /// It is that of a selected function, which was perhaps named exactly.
    Has(FunctionId, bool),
    /// The pattern of this number means it.
    Meant(usize, Meaning),
}

impl Index {
    /// The copies of what `patterns` selected, and of the functions that they mean and that are *only* inlined. `all` takes
    /// in what is left out by default. From Go's tables, which all its programs have, and from DWARF.
    ///
    /// Reads all debug information: [`Self::inlining_bytes`] says how much there is.
    pub fn inlined_copies(&self, patterns: &[Pattern], selection: &Selection, all: bool) -> Vec<Inlined<'_>> {
        let wanted = Wanted::new(self, patterns, selection, all);
        let mut places: Vec<(Why, Cow<'_, [u8]>, InlinedCopy<'_>)> = Vec::new();
        if let Some(go) = self.binary.go() {
            let found = go.inlined_places(&self.binary, |name| wanted.go(name));
            places.extend(found.into_iter().filter_map(|(why, place)| {
                let into = self.id_at(place.function.address)?;
                let copy = InlinedCopy { address: place.address, into, call: place.call };
                Some((why, Cow::Borrowed(place.name.as_bytes()), copy))
            }));
        }
        if let Some((debug, map)) = self.dwarf() {
            let here = |there: u64| map.map_or(Some(there), |map| map.to_program(there)).map(Vaddr);
            let go_text = self.binary.go().map(|go| go.text_range(&self.binary));
            let found = debug.inlined_places(|name| wanted.elf(name));
            places.extend(found.into_iter().filter_map(|(why, place)| {
                let start = here(place.function)?;
                // Go's own code is done.
                if go_text.as_ref().is_some_and(|go| go.contains(&start)) {
                    return None;
                }
                let copy =
                    InlinedCopy { address: place.address.and_then(here), into: self.id_at(start)?, call: place.call };
                Some((why, place.name, copy))
            }));
        }
        wanted.grouped(places)
    }

    /// Bytes of debug information that [`Self::inlined_copies`] reads, besides Go's own tables; `None` if much of it is in
    /// other files (split DWARF), and nobody knows.
    pub fn inlining_bytes(&self) -> Option<usize> {
        self.dwarf().map_or(Some(0), |(debug, _)| debug.info_len())
    }
}

/// What names count.
struct Wanted<'a> {
    index: &'a Index,
    /// Those of selected functions.
    selected: FxHashMap<Cow<'a, [u8]>, (FunctionId, bool)>,
    /// With their numbers.
    patterns: Vec<(usize, Cow<'a, Pattern>)>,
    negations: Vec<&'a Pattern>,
    all: bool,
    /// What each pattern means at least, by its number.
    least: Vec<Meaning>,
}

impl<'a> Wanted<'a> {
    fn new(index: &'a Index, patterns: &'a [Pattern], selection: &Selection, all: bool) -> Self {
        let functions = selection.matches.iter().filter_map(|m| match m.what {
            Matched::Function(id) => Some((m, id)),
            Matched::Point { .. } => None,
        });
        let mut selected = FxHashMap::default();
        for (found, id) in functions.clone() {
            let names = index.names_of(id.0 as usize).filter_map(|at| index.names.get(at));
            for name in names {
                let raw = index.raw(name);
                selected.insert(identity(raw), (id, found.exact));
                // What C++ has in one file only, debug information does not mangle.
                if name.is_local() && demangle::scheme(raw) == Scheme::Itanium {
                    selected.insert(Cow::Owned(demangle::bare(raw).into_owned().into_bytes()), (id, found.exact));
                }
            }
        }
        let (negations, positive): (Vec<_>, Vec<_>) = patterns.iter().enumerate().partition(|(_, p)| p.is_negation());
        let mut wanted = Self {
            index,
            selected,
            patterns: positive.into_iter().map(|(number, p)| (number, Cow::Borrowed(p))).collect(),
            negations: negations.into_iter().map(|(_, p)| p).collect(),
            all,
            least: vec![Meaning::Set; patterns.len()],
        };
        if wanted.patterns.is_empty() && !patterns.is_empty() {
            wanted.patterns.push((0, Cow::Owned(everything())));
        }
        // Of what a pattern selected, one function tells how it was meant.
        let mut seen = vec![false; patterns.len()];
        for (found, id) in functions {
            if !std::mem::replace(&mut seen[found.pattern], true) {
                wanted.least[found.pattern] = wanted.meaning_of_function(found.pattern, id);
            }
        }
        wanted
    }

    fn meaning_of_function(&self, number: usize, id: FunctionId) -> Meaning {
        let Some((_, pattern)) = self.patterns.iter().find(|(of, _)| *of == number) else { return Meaning::Set };
        let names = self.index.names_of(id.0 as usize).filter_map(|at| self.index.names.get(at));
        let meanings = names.filter_map(|name| match name.source() {
            Source::Go => meaning_of_go(pattern, std::str::from_utf8(self.index.raw(name)).ok()?),
            Source::Elf(_) => meaning_of_elf(pattern, self.index.raw(name)),
            Source::Nameless => None,
        });
        meanings.max().unwrap_or(Meaning::Set)
    }

    fn go(&self, name: &str) -> Option<Why> {
        if let Some(&(id, exact)) = self.selected.get(name.as_bytes()) {
            return Some(Why::Has(id, exact));
        }
        let is_left_out = || go_names::kind(name) != go_names::Kind::Ordinary;
        self.why(|pattern| meaning_of_go(pattern, name), is_left_out)
    }

    fn elf(&self, symbol: &[u8]) -> Option<Why> {
        if let Some(&(id, exact)) = self.selected.get(&*identity(symbol)) {
            return Some(Why::Has(id, exact));
        }
        self.why(|pattern| meaning_of_elf(pattern, symbol), || elf_left_out(symbol).is_some())
    }

    /// The first pattern that means a name.
    fn why(&self, meaning: impl Fn(&Pattern) -> Option<Meaning>, is_left_out: impl Fn() -> bool) -> Option<Why> {
        let fitting = self.patterns.iter().find_map(|(number, pattern)| {
            let meaning = meaning(pattern).filter(|m| self.least.get(*number).is_some_and(|least| m >= least))?;
            let takes_all = self.all || meaning > Meaning::Set || is_inside_left_out(pattern.beginning());
            (takes_all || !is_left_out()).then_some(Why::Meant(*number, meaning))
        })?;
        let is_negated = self.negations.iter().any(|pattern| meaning(pattern).is_some());
        (!is_negated).then_some(fitting)
    }

    /// The places by function, without those that a pattern meant less than others.
    fn grouped<'i>(mut self, places: Vec<(Why, Cow<'i, [u8]>, InlinedCopy<'i>)>) -> Vec<Inlined<'i>> {
        for (why, ..) in &places {
            if let Why::Meant(number, meaning) = why {
                self.least[*number] = self.least[*number].max(*meaning);
            }
        }
        // Instances of one generic function count as one.
        let mut by_name: FxHashMap<Cow<'i, [u8]>, (String, Option<FunctionId>)> = FxHashMap::default();
        let mut groups: BTreeMap<(String, Option<FunctionId>), Inlined<'i>> = BTreeMap::new();
        for (why, symbol, copy) in places {
            let (function, pattern, exact) = match why {
                Why::Meant(number, meaning) if meaning < self.least[number] => continue,
                Why::Meant(number, meaning) => (None, Some(number), meaning > Meaning::Set),
                Why::Has(id, exact) => (Some(id), None, exact),
            };
            let is_go = self.index.outline(copy.into).is_go;
            let key = by_name.entry(symbol.clone()).or_insert_with(|| (bare(&symbol, is_go), function)).clone();
            let group = groups.entry(key).or_insert_with_key(|(name, function)| Inlined {
                name: name.clone(),
                language: language(&symbol, is_go),
                symbol: match symbol {
                    Cow::Borrowed(text) => Cow::Borrowed(super::text::valid_beginning(text)),
                    Cow::Owned(text) => Cow::Owned(String::from_utf8_lossy(&text).into_owned()),
                },
                function: *function,
                pattern,
                exact,
                copies: Vec::new(),
            });
            group.copies.push(copy);
        }
        let mut groups: Vec<Inlined<'i>> = groups.into_values().collect();
        for group in &mut groups {
            group.copies.sort_by_key(|copy| (copy.address, copy.into));
        }
        groups
    }
}

fn bare(symbol: &[u8], is_go: bool) -> String {
    match is_go {
        true => go_names::unescaped(&String::from_utf8_lossy(symbol)).into_owned(),
        false => demangle::bare(symbol).into_owned(),
    }
}

fn language(symbol: &[u8], is_go: bool) -> Language {
    match demangle::scheme(symbol) {
        _ if is_go => Language::Go,
        Scheme::Rust => Language::Rust,
        Scheme::Itanium => Language::Cpp,
        Scheme::Plain if demangle::is_qualified(symbol) => Language::Cpp,
        Scheme::Plain => Language::C,
    }
}

/// What a symbol and the name that DWARF has of the same function share. Constructors and destructors are several symbols,
/// and may be yet another one where they are inlined (`C4`, `D4`): they are compared by their names.
fn identity(symbol: &[u8]) -> Cow<'_, [u8]> {
    let base = demangle::base(symbol);
    let is_structor = |pair: &[u8]| matches!(pair, [b'C' | b'D', b'0'..=b'5', b'E' | b'I']);
    if demangle::scheme(base) == Scheme::Itanium && base.windows(3).any(is_structor) {
        return Cow::Owned(demangle::with_parameters(base).into_owned().into_bytes());
    }
    Cow::Borrowed(base)
}

fn named(pattern: &Pattern) -> Option<&Name> {
    match &pattern.form {
        Form::Name(name) | Form::Offset(name, _) => Some(name),
        Form::Regex(..) | Form::File { .. } | Form::Address(_) => None,
    }
}

fn meaning_of_go(pattern: &Pattern, symbol: &str) -> Option<Meaning> {
    if let Some(fit) = named(pattern).and_then(|name| fit_go(symbol, &name.literal)) {
        return Some(fit.into());
    }
    is_in_set(pattern, || go_names::spellings(symbol), false).then_some(Meaning::Set)
}

fn meaning_of_elf(pattern: &Pattern, symbol: &[u8]) -> Option<Meaning> {
    if let Some(name) = named(pattern) {
        if symbol == name.literal.as_bytes() {
            return Some(Meaning::Exact);
        }
        // Most names need not be demangled.
        if name.words.iter().all(|word| memmem::find(symbol, word.as_bytes()).is_some())
            && let Some(fit) = fit_elf(symbol, name)
        {
            return Some(fit.into());
        }
    }
    is_in_set(pattern, || vec![demangle::bare(symbol)], !demangle::is_of_c(symbol)).then_some(Meaning::Set)
}

/// Whether a name is in the set of a glob or regular expression.
fn is_in_set<'n>(pattern: &Pattern, spellings: impl Fn() -> Vec<Cow<'n, str>>, is_mangled: bool) -> bool {
    match &pattern.form {
        Form::Name(name) => {
            name.glob.as_ref().is_some_and(|glob| glob.is_everything || glob_fits(glob, &spellings(), || is_mangled))
        }
        Form::Regex(expression) => spellings().iter().any(|s| expression.regex.is_match(s)),
        Form::File { .. } | Form::Address(_) | Form::Offset(..) => false,
    }
}

impl From<Fit> for Meaning {
    fn from(fit: Fit) -> Self {
        match fit {
            Fit::Tail => Self::Tail,
            Fit::Exact => Self::Exact,
        }
    }
}
