//! The nearest names to a pattern that matched nothing.

use super::Index;
use super::name::{Name, Source};
use crate::demangle;
use crate::go::names as go_names;
use crate::parallel;
use crate::pattern::{Form, Pattern};

/// Names that are looked at; beyond, a hint is not worth the wait.
const MAX_LOOKED_AT: usize = 400_000;
/// Names that one thread looks at, at a time.
const CHUNK: usize = 512;
/// Words longer than this are compared by their beginning.
const MAX_WORD: usize = 64;

impl Index {
    /// At most `max` names that resemble `pattern`, the nearest first: same last element in other case, contained, or a
    /// few letters off.
    pub fn nearest(&self, pattern: &Pattern, max: usize) -> Vec<String> {
        let wanted = match &pattern.form {
            Form::Name(name) | Form::Offset(name, _) => name.literal.as_str(),
            Form::Regex(..) | Form::File { .. } | Form::Address(_) => return Vec::new(),
        };
        let wanted = wanted.to_lowercase();
        let word = last_element(&wanted).trim_matches(|c: char| !c.is_alphanumeric() && c != '_').to_owned();
        if word.is_empty() {
            return Vec::new();
        }
        let near = |entry: &Name| {
            let raw = self.raw(entry);
            let name = match entry.source() {
                Source::Go => String::from_utf8_lossy(raw),
                Source::Elf(_) => demangle::bare(raw),
                Source::Nameless => return None,
            };
            let score = score(&name.to_lowercase(), &wanted, &word)?;
            let shown = if entry.is_go() { go_names::unescaped(&name) } else { name.as_ref().into() };
            Some((score, shown.into_owned()))
        };
        let looked_at = self.names.get(..MAX_LOOKED_AT).unwrap_or(&self.names);
        let near_of = |names: &[Name]| names.iter().filter_map(near).collect::<Vec<_>>();
        let mut scored: Vec<(usize, String)> = parallel::map_chunks(looked_at, CHUNK, near_of).concat();
        scored.sort_unstable();
        scored.dedup();
        scored.into_iter().map(|(_, name)| name).take(max).collect()
    }
}

/// The part behind the last separator.
fn last_element(name: &str) -> &str {
    let name = name.trim_end_matches(['>', ']']);
    name.rfind(['.', ':', '/', '<', '[']).and_then(|at| name.get(at + 1..)).unwrap_or(name)
}

/// The lower, the nearer; `None` is too far.
fn score(name: &str, wanted: &str, word: &str) -> Option<usize> {
    let element = last_element(name);
    // Of equals the one whose path is more like what was typed.
    let path = usize::from(!name.ends_with(wanted)) + usize::from(name.len().abs_diff(wanted.len()) > 8);
    if element == word {
        return Some(path);
    }
    let allowed = (word.len() / 3).clamp(1, 4);
    if let Some(distance) = distance(element, word, allowed) {
        return Some(10 * distance + path);
    }
    if word.len() >= 3 && name.contains(word) {
        return Some(50 + path + element.len().abs_diff(word.len()).min(40));
    }
    None
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
}
