//! Which functions a person's patterns mean.

use std::cell::OnceCell;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::fit::Fit;
use super::{FunctionId, Index, Language, LeftOut, Name as Entry, Source};
use crate::addr::Vaddr;
use crate::demangle;
use crate::go::names as go_names;
use crate::parallel;
use crate::pattern::{Expression, Form, Name, Pattern, everything};
use crate::plt;
use crate::versions;

/// Names that one thread looks at, at a time.
const CHUNK: usize = 512;

/// Names of one address among which a version is looked for.
const MAX_ALIASES: usize = 100;

/// Bytes of names that matches may have, besides this many times the file's length. Further names are shortened.
const MIN_TEXT: usize = 64 << 20;
const TEXT_TIMES: usize = 8;
/// To this many bytes.
const SHORTENED: usize = 64;

/// A tail with more matches than this is remarked on.
const MANY: usize = 100;

/// What patterns matched in one file.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// By address, one for each address.
    pub matches: Vec<Match>,
    /// Matched, but left out by default.
    pub left_out: Vec<(FunctionId, LeftOut)>,
    /// Functions that a pattern matched and a negation took away.
    pub taken_away: usize,
    /// Patterns that matched nothing, as indices; negations are not among them.
    pub unmatched: Vec<usize>,
    /// Remarks for the user.
    pub notes: Vec<String>,
}

/// One thing to probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The function or point.
    pub what: Matched,
    /// The first pattern that matched it, as an index.
    pub pattern: usize,
    /// The name that matched, without parameters: what the user is shown.
    pub name: String,
    /// What the function is written in; `None` for a place in no known function.
    pub language: Option<Language>,
    /// Named exactly or by a tail: a budget never sheds it.
    pub exact: bool,
}

/// A function from its first address to its exits, or a single place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matched {
    /// A function.
    Function(FunctionId),
    /// A place that is no function's first address.
    Point {
        /// Where it is.
        address: Vaddr,
        /// The function that holds it.
        function: Option<FunctionId>,
        /// Bytes from that function's start; 0 without a function.
        offset: u64,
    },
}

/// A function that a pattern matched, and by which of its names.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hit {
    pub(super) function: u32,
    pub(super) name: u32,
}

/// A match and where it is.
struct Chosen {
    address: Vaddr,
    found: Match,
}

/// What one pattern matched.
#[derive(Default)]
pub(super) struct Found {
    pub(super) hits: Vec<Hit>,
    pub(super) points: Vec<(Vaddr, Option<Hit>, u64)>,
    /// Hits are taken even if they are of a kind that is left out.
    pub(super) takes_left_out: bool,
    pub(super) exact: bool,
    pub(super) note: Option<String>,
}

impl Index {
    /// The functions and points that `patterns` mean. `all` takes in what is left out by default.
    pub fn select(&self, patterns: &[Pattern], all: bool) -> Selection {
        let mut selection = Selection::default();
        let mut removed = BTreeSet::new();
        for pattern in patterns.iter().filter(|p| p.is_negation()) {
            removed.extend(self.find(pattern).hits.iter().map(|hit| hit.function));
        }
        let mut chosen = Vec::new();
        let mut left_out: Vec<(u32, LeftOut)> = Vec::new();
        let mut taken_away = BTreeSet::new();
        let whole = (!patterns.is_empty() && patterns.iter().all(Pattern::is_negation)).then(everything);
        let positive =
            patterns.iter().enumerate().filter(|(_, p)| !p.is_negation()).chain(whole.iter().map(|p| (0, p)));
        for (number, pattern) in positive {
            let mut found = self.find(pattern);
            if found.hits.is_empty() && found.points.is_empty() {
                selection.unmatched.push(number);
            }
            selection.notes.extend(found.note.take());
            found.hits.retain(|hit| {
                let is_removed = removed.contains(&hit.function);
                if is_removed {
                    taken_away.insert(hit.function);
                }
                !is_removed
            });
            self.choose(number, &found, all, &mut chosen, &mut left_out);
        }
        // Of what several patterns matched, the first one's name, and the strongest wish.
        chosen.sort_by_key(|c: &Chosen| c.address);
        chosen.dedup_by(|later, kept| {
            let same = later.address == kept.address;
            kept.found.exact |= same && later.found.exact;
            same
        });
        left_out.sort_by_key(|&(function, _)| function);
        left_out.dedup_by_key(|(function, _)| *function);
        left_out.retain(|&(function, _)| {
            let start = self.start(function as usize);
            chosen.binary_search_by_key(&start, |c| c.address).is_err()
        });
        selection.left_out = left_out.into_iter().map(|(function, why)| (FunctionId(function), why)).collect();
        selection.taken_away = taken_away.len();
        selection.matches = chosen.into_iter().map(|c| c.found).collect();
        selection
    }

    fn choose(
        &self,
        pattern: usize,
        found: &Found,
        all: bool,
        chosen: &mut Vec<Chosen>,
        left_out: &mut Vec<(u32, LeftOut)>,
    ) {
        let takes = |why: Option<LeftOut>| match why {
            Some(why) => !why.is_final() && (all || found.takes_left_out),
            None => true,
        };
        // Whether the file has a word for what a resolver chose.
        let resolvers = OnceCell::new();
        let is_called = |function: u32| {
            let called = resolvers.get_or_init(|| plt::resolved(&self.binary));
            called.iter().any(|(_, resolver)| *resolver == self.start(function as usize))
        };
        let left = AtomicUsize::new(self.binary.data().len().saturating_mul(TEXT_TIMES).saturating_add(MIN_TEXT));
        // Both questions in one go: most of the time is spent on fetching the names from memory.
        let described = parallel::map_chunks(&found.hits, CHUNK, |hits| {
            let entries: Vec<Entry> = hits.iter().filter_map(|hit| self.entry(hit.name as usize)).collect();
            // On their own, these reads overlap; between demanglings each would be waited for.
            let raws: Vec<&[u8]> = self.raws(&entries);
            let describe = |(entry, raw): (&Entry, &&[u8])| {
                let why = self.left_out_by(entry, raw);
                let name = if takes(why) { Ok(within(&left, self.bare_of(entry, raw))) } else { Err(why?) };
                Some((name, self.language_of(entry, raw)))
            };
            entries.iter().zip(&raws).map(describe).collect::<Vec<_>>()
        });
        chosen.reserve(found.hits.len());
        for (hit, described) in found.hits.iter().zip(described.into_iter().flatten()) {
            match described {
                Some((Ok(name), language)) => {
                    let what = Matched::Function(FunctionId(hit.function));
                    let found = Match { what, pattern, name, language: Some(language), exact: found.exact };
                    chosen.push(Chosen { address: self.start(hit.function as usize), found });
                }
                Some((Err(why), language)) => match self.chosen_by(hit) {
                    Some((address, what, name)) => {
                        let found = Match { what, pattern, name, language: Some(language), exact: found.exact };
                        chosen.push(Chosen { address, found });
                    }
                    None if why == LeftOut::Ifunc && !is_called(hit.function) => {
                        left_out.push((hit.function, LeftOut::UncalledIfunc));
                    }
                    None => left_out.push((hit.function, why)),
                },
                None => {}
            }
        }
        chosen.extend(found.points.iter().map(|&(address, function, offset)| {
            let entry = function.and_then(|hit| self.entry(hit.name as usize));
            let (name, language) = (entry.map(|n| self.bare(&n)), entry.map(|n| self.language(&n)));
            let name = name.map_or_else(|| address.to_string(), |name| format!("{name}+{offset:#x}"));
            let what = Matched::Point { address, function: function.map(|hit| FunctionId(hit.function)), offset };
            Chosen { address, found: Match { what, pattern, name, language, exact: true } }
        }));
    }

    /// What an IFUNC's resolver chose: where it is, itself, and what to call it.
    fn chosen_by(&self, hit: &Hit) -> Option<(Vaddr, Matched, String)> {
        let entry = self.entry(hit.name as usize).filter(|entry| entry.is_ifunc())?;
        let id = self.implementation(hit.function as usize)?;
        let implementation = self.first_name(id.0 as usize)?;
        let name = format!("{} (IFUNC: {})", self.bare(&entry), self.bare(&implementation));
        Some((implementation.address(), Matched::Function(id), name))
    }

    fn find(&self, pattern: &Pattern) -> Found {
        match &pattern.form {
            Form::Name(name) => self.find_name(name),
            Form::Regex(Expression { regex, beginning, words }) => {
                let fits = |index: &Self, entry: &Entry| index.spellings(entry).iter().any(|s| regex.is_match(s));
                let hits = self.hits_by(words, fits);
                Found { hits, takes_left_out: is_inside_left_out(beginning), ..Found::default() }
            }
            Form::File { path, line } => self.find_file(path, *line),
            Form::Address(address) => self.find_address(*address),
            Form::Offset(name, offset) => self.find_offset(name, *offset),
        }
    }

    fn find_name(&self, name: &Name) -> Found {
        if name.glob.as_ref().is_some_and(|glob| glob.is_everything) {
            return Found { hits: self.all_functions(), ..Found::default() };
        }
        let (hits, fit) = self.find_named(name);
        if !hits.is_empty() {
            let many = fit == Fit::Tail && hits.len() > MANY;
            let note = many.then(|| format!("the tail `{}` matches {} functions", name.literal, hits.len()));
            return Found { hits, takes_left_out: true, exact: true, note, ..Found::default() };
        }
        let Some(glob) = &name.glob else {
            return Found::default();
        };
        let hits = self.hits_by(&glob.words, |index, entry| index.fits_glob(entry, glob));
        Found { hits, takes_left_out: is_inside_left_out(&glob.beginning), ..Found::default() }
    }

    /// Functions of exactly this name, else of this tail.
    pub(super) fn find_named(&self, name: &Name) -> (Vec<Hit>, Fit) {
        let wanted = name.literal.as_bytes();
        let fit = |entry: &Entry| {
            let raw = self.raw(entry);
            if raw == wanted || demangle::unversioned(raw) == wanted {
                return Some(Fit::Exact);
            }
            // A part is meant only by its own symbol.
            if self.is_part_name(entry) { None } else { self.fit(entry, name) }
        };
        let fits = self.candidates(&name.words, fit);
        let of = |wanted: Fit| fits.iter().filter(move |(_, fit)| *fit == wanted).map(|(hit, _)| *hit);
        let (exact, tail): (Vec<Hit>, Vec<Hit>) = (of(Fit::Exact).collect(), of(Fit::Tail).collect());
        if name.literal == "main"
            && let Some(main) = self.main_of_program(&tail)
        {
            return (main, Fit::Tail);
        }
        let (hits, fit) = if exact.is_empty() { (tail, Fit::Tail) } else { (exact, Fit::Exact) };
        let hits = self.of_version(name.version.as_deref(), hits);
        (self.without_wrappers_of_others(self.one_per_function(hits)), fit)
    }

    /// Of names with versions those of the wanted one; where no name has any, all.
    fn of_version(&self, wanted: Option<&str>, hits: Vec<Hit>) -> Vec<Hit> {
        let Some(wanted) = wanted else {
            return hits;
        };
        let has = |hit: &Hit, fits: &dyn Fn(&str) -> bool| {
            let own = self.entry(hit.name as usize).map(|name| self.raw(&name)).unwrap_or_default();
            let names = self.names_of(hit.function as usize).take(MAX_ALIASES).filter_map(|at| self.entry(at));
            let mut same = names.filter(|name| demangle::unversioned(self.raw(name)) == demangle::unversioned(own));
            same.any(|name| self.version(&name).is_some_and(fits))
        };
        if !hits.iter().any(|hit| has(hit, &|_| true)) {
            return hits;
        }
        hits.into_iter().filter(|hit| has(hit, &|version| version == wanted)).collect()
    }

    /// A symbol's version: `.symtab` has it in the name, if at all, `.dynsym` in a table of its own.
    fn version(&self, name: &Entry) -> Option<&str> {
        let Source::Elf(table) = name.source() else {
            return None;
        };
        let raw = self.raw(name);
        let written = raw.get(demangle::unversioned(raw).len()..).and_then(|rest| std::str::from_utf8(rest).ok());
        match written.map(|rest| rest.trim_start_matches('@')).filter(|version| !version.is_empty()) {
            None if self.table(table)?.symbols.dynamic => versions::of_dynamic_symbol(&self.binary, name.position()),
            written => written,
        }
    }

    /// In a Go program `main` is `main.main`, in a Rust program the crate's, not the C function that calls it.
    fn main_of_program(&self, tails: &[Hit]) -> Option<Vec<Hit>> {
        let is_go = self.binary.go().is_some();
        if !is_go && !self.is_rust_program() {
            return None;
        }
        let is_main = |hit: &&Hit| {
            self.entry(hit.name as usize).is_some_and(|n| match n.source() {
                Source::Go => self.raw(&n) == b"main.main",
                Source::Nameless => false,
                Source::Elf(_) => !is_go && self.bare(&n).matches("::").count() == 1,
            })
        };
        let found: Vec<Hit> = tails.iter().filter(is_main).copied().collect();
        (!found.is_empty()).then_some(found)
    }

    /// In Go, a wrapper often has the name of what it wraps (assembly, value receivers): one call would count twice.
    fn without_wrappers_of_others(&self, hits: Vec<Hit>) -> Vec<Hit> {
        let text = |hit: &Hit| -> Option<(String, bool)> {
            let entry = self.entry(hit.name as usize).filter(|e| e.is_go())?;
            let raw = String::from_utf8_lossy(self.raw(&entry));
            let plain = go_names::without_receiver_marks(&raw).unwrap_or_else(|| raw.into_owned());
            let program = self.binary.go()?;
            Some((plain, program.is_wrapper(&program.function(&self.binary, entry.position() as usize)?)))
        };
        let texts: Vec<_> = hits.iter().map(text).collect();
        let real: BTreeSet<&str> =
            texts.iter().flatten().filter(|(_, wrapper)| !wrapper).map(|(text, _)| text.as_str()).collect();
        let keep =
            |t: &Option<(String, bool)>| t.as_ref().is_none_or(|(t, wrapper)| !wrapper || !real.contains(t.as_str()));
        hits.iter().zip(&texts).filter(|(_, t)| keep(t)).map(|(hit, _)| *hit).collect()
    }

    /// What `fit` says of the names that contain `words`, where it says something.
    fn candidates<T: Send>(&self, words: &[String], fit: impl Fn(&Entry) -> Option<T> + Sync) -> Vec<(Hit, T)> {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let names = self.names_with(&words);
        let fits = parallel::map_chunks(&names, CHUNK, |names| {
            let fitting = names.iter().filter_map(|&name| Some((name, fit(&self.entry(name as usize)?)?)));
            fitting.collect::<Vec<_>>()
        });
        let hit = |name: u32| Some(Hit { function: self.function_of(name)?, name });
        fits.into_iter().flatten().filter_map(|(name, fit)| Some((hit(name)?, fit))).collect()
    }

    /// The first name of each function that `fits`.
    pub(super) fn hits_by(&self, words: &[String], fits: impl Fn(&Self, &Entry) -> bool + Sync) -> Vec<Hit> {
        let hits = self.candidates(words, |entry| fits(self, entry).then_some(()));
        self.one_per_function(hits.into_iter().map(|(hit, ())| hit).collect())
    }

    fn all_functions(&self) -> Vec<Hit> {
        let numbers = self.by_address();
        let hits = parallel::map_chunks(&numbers, CHUNK, |functions| {
            let hit = |&function: &u32| Some(Hit { function, name: self.shown(function as usize)? as u32 });
            functions.iter().filter_map(hit).collect::<Vec<_>>()
        });
        hits.concat()
    }

    /// Of each function's names the one to show first, in order of address.
    fn one_per_function(&self, mut hits: Vec<Hit>) -> Vec<Hit> {
        hits.sort_unstable_by_key(|hit| (hit.function, hit.name));
        let best = |of: &[Hit]| of.iter().copied().min_by(|a, b| self.compare(a.name as usize, b.name as usize));
        hits.chunk_by(|a, b| a.function == b.function).filter_map(best).collect()
    }
}

/// A name as long as there is room for all: a few bytes of a file can be a part of any number of names.
fn within(left: &AtomicUsize, mut name: String) -> String {
    let take = |left: usize| left.checked_sub(name.len());
    if left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
        name.truncate(name.floor_char_boundary(SHORTENED));
        name.shrink_to_fit();
    }
    name
}

/// Whether a pattern that begins so can only mean what is left out by default.
pub(super) fn is_inside_left_out(beginning: &str) -> bool {
    go_names::kind(beginning) != go_names::Kind::Ordinary
}
