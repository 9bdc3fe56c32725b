//! Which functions a person's patterns mean.

use std::collections::{BTreeMap, BTreeSet};

use regex::bytes;

use super::fit::Fit;
use super::{FLAG_PART, FunctionId, Index, LeftOut, Name as Entry, Source};
use crate::addr::Vaddr;
use crate::demangle;
use crate::go::names as go_names;
use crate::pattern::{Form, Name, Pattern, everything};

/// A tail with more matches than this is remarked on.
const MANY: usize = 100;

/// What patterns matched in one file.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// By address, one for each address.
    pub matches: Vec<Match>,
    /// Matched, but left out by default.
    pub left_out: Vec<(FunctionId, LeftOut)>,
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
        let mut chosen = BTreeMap::new();
        let mut left_out = BTreeMap::new();
        let whole = (!patterns.is_empty() && patterns.iter().all(Pattern::is_negation)).then(everything);
        let positive =
            patterns.iter().enumerate().filter(|(_, p)| !p.is_negation()).chain(whole.iter().map(|p| (0, p)));
        for (number, pattern) in positive {
            let found = self.find(pattern);
            if found.hits.is_empty() && found.points.is_empty() {
                selection.unmatched.push(number);
            }
            selection.notes.extend(found.note.clone());
            self.choose(number, &found, all, &removed, &mut chosen, &mut left_out);
        }
        left_out.retain(|&function, _| !chosen.contains_key(&self.start(function)));
        selection.left_out = left_out.into_iter().map(|(function, why)| (FunctionId(function), why)).collect();
        selection.matches = chosen.into_values().collect();
        selection
    }

    fn choose(
        &self,
        pattern: usize,
        found: &Found,
        all: bool,
        removed: &BTreeSet<u32>,
        chosen: &mut BTreeMap<Vaddr, Match>,
        left_out: &mut BTreeMap<u32, LeftOut>,
    ) {
        for hit in found.hits.iter().filter(|hit| !removed.contains(&hit.function)) {
            let Some(entry) = self.names.get(hit.name as usize) else {
                continue;
            };
            let why = self.left_out(entry);
            match why {
                Some(why) if why == LeftOut::Ifunc || !(all || found.takes_left_out) => {
                    left_out.entry(hit.function).or_insert(why);
                }
                _ => {
                    let what = Matched::Function(FunctionId(hit.function));
                    let new = Match { what, pattern, name: self.bare(entry), exact: found.exact };
                    let held = chosen.entry(entry.address).or_insert(new);
                    held.exact |= found.exact;
                }
            }
        }
        for &(address, function, offset) in &found.points {
            let name = function.and_then(|hit| self.names.get(hit.name as usize)).map(|n| self.bare(n));
            let name = name.map_or_else(|| address.to_string(), |name| format!("{name}+{offset:#x}"));
            let function = function.map(|hit| FunctionId(hit.function));
            let what = Matched::Point { address, function, offset };
            chosen.entry(address).or_insert(Match { what, pattern, name, exact: true });
        }
    }

    pub(super) fn start(&self, function: u32) -> Vaddr {
        self.first_name(function as usize).map_or(Vaddr(0), |n| n.address)
    }

    fn find(&self, pattern: &Pattern) -> Found {
        match &pattern.form {
            Form::Name(name) => self.find_name(name),
            Form::Regex(regex, beginning) => {
                let hits = self.hits_by(None, |index, entry| index.spellings(entry).iter().any(|s| regex.is_match(s)));
                Found { hits, takes_left_out: is_inside_left_out(beginning), ..Found::default() }
            }
            Form::File { path, line } => self.find_file(path, *line),
            Form::Address(address) => self.find_address(*address),
            Form::Offset(name, offset) => self.find_offset(name, *offset),
        }
    }

    fn find_name(&self, name: &Name) -> Found {
        let (hits, fit) = self.find_named(name);
        if !hits.is_empty() {
            let many = fit == Fit::Tail && hits.len() > MANY;
            let note = many.then(|| format!("the tail `{}` matches {} functions", name.literal, hits.len()));
            return Found { hits, takes_left_out: true, exact: true, note, ..Found::default() };
        }
        let Some(glob) = &name.glob else {
            return Found::default();
        };
        let hits = self.hits_by(glob.needle.as_deref(), |index, entry| index.fits_glob(entry, glob));
        Found { hits, takes_left_out: is_inside_left_out(&glob.beginning), ..Found::default() }
    }

    /// Functions of exactly this name, else of this tail.
    pub(super) fn find_named(&self, name: &Name) -> (Vec<Hit>, Fit) {
        let mut exact = Vec::new();
        let mut tail = Vec::new();
        let wanted = name.literal.as_bytes();
        self.for_each_name(name.needle.as_deref(), |hit, entry| {
            let raw = self.raw(entry);
            if raw == wanted || demangle::unversioned(raw) == wanted {
                exact.push(hit);
            } else if entry.flags & FLAG_PART == 0 {
                // A part is meant only by its own symbol.
                match self.fit(entry, name) {
                    Some(Fit::Exact) => exact.push(hit),
                    Some(Fit::Tail) => tail.push(hit),
                    None => {}
                }
            }
        });
        if name.literal == "main"
            && let Some(main) = self.main_of_program(&tail)
        {
            return (main, Fit::Tail);
        }
        let (hits, fit) = if exact.is_empty() { (tail, Fit::Tail) } else { (exact, Fit::Exact) };
        (self.without_wrappers_of_others(one_per_function(hits)), fit)
    }

    /// In a Go program `main` is `main.main`, in a Rust program the crate's, not the C function that calls it.
    fn main_of_program(&self, tails: &[Hit]) -> Option<Vec<Hit>> {
        let is_go = self.binary.go().is_some();
        if !is_go && !self.is_rust_program() {
            return None;
        }
        let is_main = |hit: &&Hit| {
            self.names.get(hit.name as usize).is_some_and(|n| match n.source {
                Source::Go => self.raw(n) == b"main.main",
                Source::Elf => !is_go && self.bare(n).matches("::").count() == 1,
            })
        };
        let found: Vec<Hit> = tails.iter().filter(is_main).copied().collect();
        (!found.is_empty()).then_some(found)
    }

    /// In Go, a wrapper often has the name of what it wraps (assembly, value receivers): one call would count twice.
    fn without_wrappers_of_others(&self, hits: Vec<Hit>) -> Vec<Hit> {
        let text = |hit: &Hit| -> Option<(String, bool)> {
            let entry = self.names.get(hit.name as usize).filter(|e| e.source == Source::Go)?;
            let raw = String::from_utf8_lossy(self.raw(entry));
            let plain = go_names::without_receiver_marks(&raw).unwrap_or_else(|| raw.into_owned());
            let program = self.binary.go()?;
            Some((plain, program.is_wrapper(&program.function(&self.binary, entry.extra as usize)?)))
        };
        let texts: Vec<_> = hits.iter().map(text).collect();
        let real: BTreeSet<&str> =
            texts.iter().flatten().filter(|(_, wrapper)| !wrapper).map(|(text, _)| text.as_str()).collect();
        let keep =
            |t: &Option<(String, bool)>| t.as_ref().is_none_or(|(t, wrapper)| !wrapper || !real.contains(t.as_str()));
        hits.iter().zip(&texts).filter(|(_, t)| keep(t)).map(|(hit, _)| *hit).collect()
    }

    /// Calls `visit` for every name in whose symbol `needle` occurs.
    fn for_each_name<'a>(&'a self, needle: Option<&str>, mut visit: impl FnMut(Hit, &'a Entry)) {
        let finder = needle.map(|n| bytes::Regex::new(&regex::escape(n)).expect("an escaped word is an expression"));
        for function in 0..self.functions.len() {
            for at in self.names_of(function) {
                let Some(entry) = self.names.get(at) else {
                    continue;
                };
                if finder.as_ref().is_none_or(|f| f.is_match(self.raw(entry))) {
                    visit(Hit { function: function as u32, name: at as u32 }, entry);
                }
            }
        }
    }

    /// The first name of each function that `fits`.
    fn hits_by(&self, needle: Option<&str>, fits: impl Fn(&Self, &Entry) -> bool) -> Vec<Hit> {
        let mut hits: Vec<Hit> = Vec::new();
        self.for_each_name(needle, |hit, entry| {
            let known = hits.last().is_some_and(|last| last.function == hit.function);
            if !known && fits(self, entry) {
                hits.push(hit);
            }
        });
        hits
    }
}

/// The first of each function's names, in order of address.
fn one_per_function(mut hits: Vec<Hit>) -> Vec<Hit> {
    hits.sort_unstable_by_key(|hit| (hit.function, hit.name));
    hits.dedup_by_key(|hit| hit.function);
    hits
}

/// Whether a pattern that begins so can only mean what is left out by default.
fn is_inside_left_out(beginning: &str) -> bool {
    go_names::kind(beginning) != go_names::Kind::Ordinary
}
