//! What is near a pattern that matched nothing, and why it matched nothing.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use regex::Regex;
use regex::bytes::Regex as BytesRegex;

use super::places::is_tail_of_path;
use super::{FunctionId, Index, Source};
use crate::addr::Vaddr;
use crate::demangle;
use crate::go::names as go_names;
use crate::parallel;
use crate::pattern::{Form, Name, Pattern, canonical};

/// Words longer than this are compared by their beginning.
const MAX_WORD: usize = 64;

/// Names that one thread looks at, at a time.
const CHUNK: usize = 4096;

/// Names that hold a piece of the wanted word are demangled up to this number; beyond, a hint is not worth the wait.
const MAX_LOOKED_AT: usize = 50_000;

impl Index {
    /// At most `max` patterns that resemble `pattern` and match something, the nearest first. For a name: names whose last
    /// element is the same in other case, a few letters off, or contains it. For a regular expression: names that it
    /// matches in other case. For `@FILE`: files of a similar name; for `@FILE:LINE`: the nearest lines with code. For an
    /// address: where the functions before and after it begin.
    pub fn nearest(&self, pattern: &Pattern, max: usize) -> Vec<String> {
        match &pattern.form {
            Form::Name(name) | Form::Offset(name, _) => self.nearest_names(&name.literal, max),
            Form::Regex(expression) => self.nearest_to_regex(&expression.regex, max),
            Form::File { path, line } => self.nearest_places(path, *line, max),
            Form::Address(address) => self.nearest_functions(*address, max),
        }
    }

    /// Why a pattern that names a place matched nothing, if more is known than that.
    pub fn why_no_match(&self, pattern: &Pattern) -> Option<String> {
        match &pattern.form {
            Form::Address(address) if !self.binary.is_executable(*address) => {
                let mut text = format!("{address} is not code, which is at");
                for segment in self.binary.segments().iter().filter(|s| s.executable) {
                    let _ = write!(text, " {}-{:#x}", segment.vaddr, segment.vaddr.0.saturating_add(segment.mem_size));
                }
                Some(text)
            }
            Form::Offset(name, _) => self.why_not_inside(name),
            Form::File { path, line: Some(line) } => {
                let has_file = self.files().any(|file| is_tail_of_path(file, path));
                has_file.then(|| format!("line {line} of {path} has no code"))
            }
            Form::Name(name) if name.glob.is_none() && name.literal.contains("::{") && name.literal.contains(',') => {
                Some(
                    "braces behind `::` are part of the name, as in `f::{closure#0}`: give each alternative in full"
                        .to_owned(),
                )
            }
            _ => None,
        }
    }

    fn why_not_inside(&self, name: &Name) -> Option<String> {
        let longest = self.find_named(name).0.into_iter().max_by_key(|hit| self.extent(FunctionId(hit.function)))?;
        let entry = self.entry(longest.name as usize)?;
        let length = self.extent(FunctionId(longest.function));
        Some(format!("{} ends at +{length:#x} ({length} bytes)", self.bare(&entry)))
    }

    fn nearest_names(&self, wanted: &str, max: usize) -> Vec<String> {
        let wanted = Wanted::new(wanted);
        let Some(pieces) = wanted.pieces() else { return Vec::new() };
        let numbers: Vec<u32> = (0..self.names.len() as u32).collect();
        let candidates = parallel::map_chunks(&numbers, CHUNK, |numbers| {
            let has_piece = |at: &&u32| self.names.get(**at as usize).is_some_and(|n| pieces.is_match(self.raw(n)));
            numbers.iter().filter(has_piece).copied().collect::<Vec<_>>()
        });
        let mut candidates = candidates.concat();
        candidates.truncate(MAX_LOOKED_AT);
        let scored = parallel::map_chunks(&candidates, CHUNK / 8, |candidates| {
            let entries = candidates.iter().filter_map(|&at| self.names.get(at as usize));
            let scored = entries.filter_map(|entry| {
                let raw = self.raw(entry);
                let name = match entry.source() {
                    Source::Go => go_names::unescaped(std::str::from_utf8(raw).ok()?),
                    Source::Elf(_) => demangle::bare(raw),
                    Source::Nameless => return None,
                };
                let score = if entry.is_go() { wanted.score(&name) } else { wanted.score(&without_arguments(&name)) };
                Some((score?, name.len(), name.into_owned()))
            });
            scored.collect::<Vec<_>>()
        });
        nearest_first(scored.concat(), max)
    }

    fn nearest_to_regex(&self, regex: &Regex, max: usize) -> Vec<String> {
        let source = regex.as_str();
        let Ok(regex) = Regex::new(&format!("(?i:{source})")) else { return Vec::new() };
        let hits = self.hits_by(&[], |index, entry| index.spellings(entry).iter().any(|s| regex.is_match(s)));
        let mut found: BTreeSet<String> = BTreeSet::new();
        for entry in hits.iter().filter_map(|hit| self.entry(hit.name as usize)).take(max) {
            found.insert(self.bare(&entry));
        }
        if found.is_empty() {
            let word = source.split(|c: char| !is_word(c)).max_by_key(|word| word.len()).unwrap_or_default();
            return self.nearest_names(word, max);
        }
        found.into_iter().collect()
    }

    fn nearest_places(&self, path: &str, line: Option<u32>, max: usize) -> Vec<String> {
        if let Some(line) = line {
            let lines = self.lines_with_code(path);
            let before = lines.range(..line).next_back();
            let near = before.into_iter().chain(lines.range(line..).next());
            let near: Vec<String> = near.take(max).map(|line| format!("@{path}:{line}")).collect();
            if !near.is_empty() {
                return near;
            }
        }
        let wanted = Wanted::new(path);
        let files: BTreeSet<&str> = self.files().collect();
        let scored =
            files.into_iter().filter_map(|file| Some((wanted.score_of_file(file)?, file.len(), format!("@{file}"))));
        nearest_first(scored.collect(), max)
    }

    /// The source files of all functions, some of them many times.
    fn files(&self) -> impl Iterator<Item = &str> {
        let go = self.binary.go().into_iter().flat_map(|go| go.functions(&self.binary));
        let of_go = go.filter_map(|function| function.line_at(function.address)).map(|line| line.file);
        of_go.chain(self.dwarf().into_iter().flat_map(|(debug, _)| debug.all_files()))
    }

    fn lines_with_code(&self, path: &str) -> BTreeSet<u32> {
        let wanted = |file: &str| is_tail_of_path(file, path);
        let go = self.binary.go().into_iter().flat_map(|go| go.functions(&self.binary));
        let of_go = go.flat_map(|function| function.lines()).filter(|(.., line)| wanted(line.file));
        let mut lines: BTreeSet<u32> = of_go.map(|(.., line)| line.line).collect();
        if let Some((debug, _)) = self.dwarf() {
            lines.extend(debug.lines_with_code(wanted));
        }
        lines
    }

    /// The functions that begin before and after an address.
    fn nearest_functions(&self, address: Vaddr, max: usize) -> Vec<String> {
        let after = self.starts().partition_point(|start| start.address < address);
        let near = after.checked_sub(1).into_iter().chain([after]).filter(|&at| at < self.starts().len());
        let shown =
            near.take(max).filter_map(|at| Some(format!("{} {}", self.start(at), self.bare(&self.first_name(at)?))));
        shown.collect()
    }
}

/// A name of C++ or Rust as a person would call it: `HashMap::insert` of `<HashMap<K, V> as Trait>::insert`.
fn without_arguments(name: &str) -> String {
    let key = canonical::key(name);
    let key = canonical::by_self_type(&key).unwrap_or(key);
    canonical::without_arguments(&key).unwrap_or(key)
}

fn nearest_first(mut scored: Vec<(usize, usize, String)>, max: usize) -> Vec<String> {
    scored.sort_unstable();
    scored.dedup();
    scored.into_iter().map(|(.., name)| name).take(max).collect()
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A name that nothing has.
struct Wanted {
    /// Its words in lower case, but for the last: packages, modules, classes.
    path: Vec<String>,
    /// The last word.
    word: String,
    /// Letters that may differ.
    allowed: usize,
}

impl Wanted {
    fn new(text: &str) -> Self {
        let lower = text.to_lowercase();
        let mut path: Vec<String> = without_last_arguments(&lower)
            .split(|c| !is_word(c))
            .filter(|w| !w.is_empty())
            .map(str::to_owned)
            .collect();
        let word = path.pop().unwrap_or_default();
        let allowed = (word.len() / 3).clamp(1, 4);
        Self { path, word, allowed }
    }

    /// Of so many pieces of a word one is left when it is mistyped; letters swapped at a border make a piece of their own.
    /// `None`: there is no word.
    fn pieces(&self) -> Option<BytesRegex> {
        let letters: Vec<char> = self.word.chars().take(MAX_WORD).collect();
        let count = self.allowed + 1;
        if letters.len() < count {
            // A word of one or two letters is only looked for as it is.
            return (!letters.is_empty())
                .then(|| BytesRegex::new(&format!("(?i){}", regex::escape(&self.word))).ok())?;
        }
        let mut pieces: Vec<String> = letters.chunks(letters.len().div_ceil(count)).map(String::from_iter).collect();
        for border in (1..count).map(|piece| piece * letters.len().div_ceil(count)) {
            if let (Some(before), Some(after)) = (letters.get(border - 1), letters.get(border)) {
                pieces.push(format!("{after}{before}"));
            }
        }
        let pieces: Vec<String> = pieces.iter().map(|piece| regex::escape(piece)).collect();
        BytesRegex::new(&format!("(?i){}", pieces.join("|"))).ok()
    }

    /// The lower, the nearer; `None` is too far.
    fn score(&self, name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        let element = last_element(&name);
        if let Some(distance) = distance(element, &self.word, self.allowed) {
            return Some(10 * distance + self.missing(&name));
        }
        if self.word.len() >= 3 && name.contains(&self.word) {
            return Some(50 + self.missing(&name) + element.len().abs_diff(self.word.len()).min(40));
        }
        None
    }

    /// How much of the path a name lacks. What stands before the last word, most often a type, counts most.
    fn missing(&self, name: &str) -> usize {
        let words: BTreeSet<&str> = name.split(|c| !is_word(c)).collect();
        let lacks = |word: &&String| !words.contains(word.as_str());
        let mut path = self.path.iter().rev();
        let owner = path.next().filter(lacks).map_or(0, |_| 4);
        owner + path.filter(lacks).count().min(3)
    }

    /// The last word is the file's extension.
    fn score_of_file(&self, file: &str) -> Option<usize> {
        let lower = file.to_lowercase();
        let stem = |name: &str| name.rsplit_once('.').map_or(name.to_owned(), |(stem, _)| stem.to_owned());
        let own = stem(lower.rsplit('/').next().unwrap_or_default());
        let wanted = self.path.last().unwrap_or(&self.word);
        let allowed = (wanted.len() / 3).clamp(1, 4);
        Some(10 * distance(&own, wanted, allowed)? + self.missing(&lower))
    }
}

/// The word behind the last separator, arguments left aside.
fn last_element(name: &str) -> &str {
    let name = without_last_arguments(name).trim_end_matches(|c: char| !is_word(c));
    name.rfind(|c: char| !is_word(c)).and_then(|at| name.get(at + 1..)).unwrap_or(name)
}

/// `scale` of `scale<int, 3>` and of `scale(int)`.
fn without_last_arguments(name: &str) -> &str {
    if !name.ends_with(['>', ']', ')']) {
        return name;
    }
    let mut depth = 0usize;
    for (at, c) in name.char_indices().rev() {
        match c {
            '>' | ']' | ')' => depth += 1,
            '<' | '[' | '(' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            // What is in front of nothing is the name itself: `[u8]`, `(*Store)`.
            return name.get(..at).filter(|rest| rest.ends_with(is_word)).unwrap_or(name);
        }
    }
    name
}

/// Letters to insert, remove, replace or swap with a neighbour; `None` if more than `allowed`.
fn distance(a: &str, b: &str, allowed: usize) -> Option<usize> {
    let a: Vec<u8> = a.bytes().take(MAX_WORD).collect();
    let b: Vec<u8> = b.bytes().take(MAX_WORD).collect();
    if a.len().abs_diff(b.len()) > allowed {
        return None;
    }
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let mut best = (row[j] + usize::from(x != y)).min(row[j + 1] + 1).min(next[j] + 1);
            if i > 0 && j > 0 && *x == b[j - 1] && a[i - 1] == *y {
                best = best.min(before[j - 1] + 1);
            }
            next.push(best);
        }
        (before, row) = (row, next);
    }
    row.last().copied().filter(|&d| d <= allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distance_counts_single_edits() {
        for (a, b, expected) in [("get", "gte", 1), ("handler", "handlr", 1), ("same", "same", 0), ("ab", "cd", 2)] {
            assert_eq!(distance(a, b, 4), Some(expected));
        }
        assert_eq!(distance("short", "muchlonger", 4), None);
    }

    #[test]
    fn a_name_with_a_typing_error_keeps_a_piece_of_the_word() {
        for (typed, meant) in [
            ("laef", "leaf"),
            ("main.(*Store).Gett", "main.(*Store).Get"),
            ("main.(*store).get", "main.(*Store).Get"),
            ("SaveNetworkLocatInfo", "storage.(*Process).SaveNetworkLocateInfo"),
            ("hanlder", "main.handler"),
            ("SEND", "net.send"),
            ("shop::scael", "shop::scale<int, 3>"),
            ("main.Gne", "main.Gen[go.shape.int]"),
        ] {
            let wanted = Wanted::new(typed);
            assert!(wanted.pieces().expect("it has a word").is_match(meant.as_bytes()), "{typed}");
            assert!(wanted.score(meant).is_some_and(|score| score < 50), "{typed}");
        }
    }

    #[test]
    fn of_equal_names_the_one_of_the_same_type_is_nearest() {
        let wanted = Wanted::new("std::collections::HashMap::insert");
        let score = |name: &str| wanted.score(&without_arguments(name)).expect("it is near");
        let near = score("<hashbrown::map::HashMap<K,V,S,A>>::insert");
        assert!(near < score("std::collections::BTreeMap::insert"));
        assert!(near < score("std::collections::Bag<std::collections::HashMap<u8,u8>>::insert"));
    }
}
