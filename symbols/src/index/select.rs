//! Which functions a person's patterns mean.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use regex::bytes;

use super::{FLAG_IFUNC, FLAG_PART, FunctionId, Index, LeftOut, Name as Entry, Source};
use crate::addr::Vaddr;
use crate::demangle::{self, Scheme};
use crate::go::names as go_names;
use crate::pattern::canonical;
use crate::pattern::{Form, Glob, Name, Pattern, everything};

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
struct Hit {
    function: u32,
    name: u32,
}

/// What one pattern matched.
#[derive(Default)]
struct Found {
    hits: Vec<Hit>,
    points: Vec<(Vaddr, Option<Hit>, u64)>,
    /// Hits are taken even if they are of a kind that is left out.
    takes_left_out: bool,
    exact: bool,
    note: Option<String>,
}

/// How well a name fits a pattern.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Tail,
    Exact,
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
        let positive = patterns.iter().enumerate().filter(|(_, p)| !p.is_negation()).chain(whole.iter().map(|p| (0, p)));
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
            let Some(entry) = self.names.get(hit.name as usize) else { continue };
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

    fn start(&self, function: u32) -> Vaddr {
        self.first_name(function as usize).map_or(Vaddr(0), |n| n.address)
    }

    fn find(&self, pattern: &Pattern) -> Found {
        match &pattern.form {
            Form::Name(name) => self.find_name(name),
            Form::Regex(regex, beginning) => {
                let hits = self.hits_by(None, |index, entry| {
                    index.spellings(entry).iter().any(|s| regex.is_match(s))
                });
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
        let Some(glob) = &name.glob else { return Found::default() };
        let hits = self.hits_by(glob.needle.as_deref(), |index, entry| index.fits_glob(entry, glob));
        Found { hits, takes_left_out: is_inside_left_out(&glob.beginning), ..Found::default() }
    }

    /// Functions of exactly this name, else of this tail.
    fn find_named(&self, name: &Name) -> (Vec<Hit>, Fit) {
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
        let keep = |t: &Option<(String, bool)>| t.as_ref().is_none_or(|(t, wrapper)| !wrapper || !real.contains(t.as_str()));
        hits.iter().zip(&texts).filter(|(_, t)| keep(t)).map(|(hit, _)| *hit).collect()
    }

    fn find_address(&self, address: Vaddr) -> Found {
        let mut found = Found { takes_left_out: true, exact: true, ..Found::default() };
        if !self.binary.is_executable(address) {
            return found;
        }
        let holder = self.at(address).map(|f| f.id.0).or_else(|| self.starting_at(address).map(|i| i as u32));
        let hit = holder.and_then(|f| Some(Hit { function: f, name: *self.functions.get(f as usize)? }));
        match hit {
            Some(hit) if self.start(hit.function) == address => found.hits.push(hit),
            Some(hit) => {
                let offset = address.0.saturating_sub(self.start(hit.function).0);
                found.points.push((address, Some(hit), offset));
            }
            None => found.points.push((address, None, 0)),
        }
        found
    }

    fn find_offset(&self, name: &Name, offset: u64) -> Found {
        let (hits, _) = self.find_named(name);
        let mut found = Found { takes_left_out: true, exact: true, ..Found::default() };
        for hit in hits {
            let start = self.start(hit.function);
            let Some(address) = start.checked_add(offset).filter(|&a| a < self.end(hit.function as usize)) else {
                found.note = Some(format!("`{}` ends before {offset:#x}", name.literal));
                continue;
            };
            if offset == 0 {
                found.hits.push(hit);
            } else {
                found.points.push((address, Some(hit), offset));
            }
        }
        found
    }

    /// Functions defined in a file, or the first address of a line in each function that has code from it. Go only.
    fn find_file(&self, path: &str, line: Option<u32>) -> Found {
        let mut found = Found { exact: line.is_some(), takes_left_out: line.is_some(), ..Found::default() };
        let Some(program) = self.binary.go() else { return found };
        for (function, &name) in self.functions.iter().enumerate() {
            let hit = Hit { function: function as u32, name };
            let entry = self.names.get(name as usize).filter(|n| n.source == Source::Go);
            let Some(code) = entry.and_then(|n| program.function(&self.binary, n.extra as usize)) else { continue };
            let Some(wanted) = line else {
                if code.line_at(code.address).is_some_and(|l| is_tail_of_path(l.file, path)) {
                    found.hits.push(hit);
                }
                continue;
            };
            let at = code.lines().find(|(_, _, l)| l.line == wanted && is_tail_of_path(l.file, path));
            match at {
                Some((start, ..)) if start == code.address => found.hits.push(hit),
                Some((start, ..)) => found.points.push((start, Some(hit), start.0 - code.address.0)),
                None => {}
            }
        }
        found
    }

    /// Calls `visit` for every name in whose symbol `needle` occurs.
    fn for_each_name<'a>(&'a self, needle: Option<&str>, mut visit: impl FnMut(Hit, &'a Entry)) {
        let finder = needle.map(|n| bytes::Regex::new(&regex::escape(n)).expect("an escaped word is an expression"));
        for function in 0..self.functions.len() {
            for at in self.names_of(function) {
                let Some(entry) = self.names.get(at) else { continue };
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

    /// All spellings of a name that globs and regular expressions are tried on.
    fn spellings(&self, entry: &Entry) -> Vec<Cow<'_, str>> {
        let raw = self.raw(entry);
        match entry.source {
            Source::Go => std::str::from_utf8(raw).map(go_names::spellings).unwrap_or_default(),
            Source::Elf => vec![demangle::bare(raw)],
        }
    }

    fn fits_glob(&self, entry: &Entry, glob: &Glob) -> bool {
        let spellings = self.spellings(entry);
        if spellings.iter().any(|s| glob.plain.is_match(s)) {
            return true;
        }
        if !self.is_mangled(entry) {
            return false;
        }
        let key = spellings.first().map(|s| canonical::key(s)).unwrap_or_default();
        let by_type = canonical::by_self_type(&key);
        [Some(&key), by_type.as_ref()].into_iter().flatten().any(|key| {
            glob.key.is_match(key) || canonical::without_arguments(key).is_some_and(|k| glob.key.is_match(&k))
        })
    }

    fn is_mangled(&self, entry: &Entry) -> bool {
        entry.source == Source::Elf && demangle::scheme(demangle::base(self.raw(entry))) != Scheme::Plain
    }

    fn fit(&self, entry: &Entry, name: &Name) -> Option<Fit> {
        let raw = self.raw(entry);
        match entry.source {
            Source::Go => fit_go(std::str::from_utf8(raw).ok()?, &name.literal),
            Source::Elf => match demangle::scheme(demangle::base(raw)) {
                Scheme::Plain => (demangle::base(raw) == name.literal.as_bytes()).then_some(Fit::Exact),
                Scheme::Rust => fit_key(&canonical::key(&demangle::bare(raw)), &name.key),
                Scheme::Itanium => {
                    let full = name.with_parameters;
                    let text = if full { demangle::with_parameters(raw) } else { demangle::bare(raw) };
                    fit_key(&canonical::key(&text), &name.key)
                }
            },
        }
    }

    /// A name as it is shown: no parameters, hash, version or escapes.
    fn bare(&self, entry: &Entry) -> String {
        let raw = self.raw(entry);
        match entry.source {
            Source::Go => go_names::unescaped(&String::from_utf8_lossy(raw)).into_owned(),
            Source::Elf if entry.flags & FLAG_IFUNC != 0 => String::from_utf8_lossy(demangle::unversioned(raw)).into_owned(),
            Source::Elf => demangle::bare(raw).into_owned(),
        }
    }
}

fn fit_go(name: &str, wanted: &str) -> Option<Fit> {
    let spellings = go_names::spellings(name);
    if spellings.iter().any(|s| s == wanted) {
        return Some(Fit::Exact);
    }
    let is_tail = |s: &str| go_names::element_starts(s).any(|at| s.get(at..) == Some(wanted));
    let fits = spellings.iter().any(|s| {
        // `Store.Get` finds `(*Store).Get` too.
        let flat = go_names::without_receiver_marks(s);
        is_tail(s) || flat.is_some_and(|flat| flat == wanted || is_tail(&flat))
    });
    fits.then_some(Fit::Tail)
}

fn fit_key(name: &str, wanted: &str) -> Option<Fit> {
    if canonical::same(wanted, name) {
        return Some(Fit::Exact);
    }
    let is_tail = |key: &str| {
        canonical::element_starts(key).any(|at| key.get(at..).is_some_and(|tail| canonical::same(wanted, tail)))
    };
    let by_type = || canonical::by_self_type(name).is_some_and(|key| canonical::same(wanted, &key) || is_tail(&key));
    (is_tail(name) || by_type()).then_some(Fit::Tail)
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

/// `http/server.go` is a tail of `/go/src/net/http/server.go`; `rver.go` is not.
fn is_tail_of_path(path: &str, tail: &str) -> bool {
    path.strip_suffix(tail).is_some_and(|before| before.is_empty() || before.ends_with('/') || tail.starts_with('/'))
}
