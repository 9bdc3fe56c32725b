//! Names in whose symbols given words occur: found by one search through the string tables, before a name is looked at.

use std::ops::Range;

use memchr::memmem::Finder;

use super::{Index, Name, Source};
use crate::parallel;

/// Bytes of a string table that share a mark.
const BLOCK: usize = 32;

/// Bytes of string table that one thread searches at a time.
const PIECE: usize = 1 << 20;

/// Where names that contain a word may begin.
struct Marks {
    tables: Vec<(Range<usize>, Vec<u64>)>,
}

impl Index {
    /// Positions of the names that contain all `words`, ascending. Without words: of all names.
    pub(super) fn names_with(&self, words: &[&str]) -> Vec<u32> {
        let Some(longest) = words.iter().max_by_key(|word| word.len()) else {
            return (0..self.names.len() as u32).collect();
        };
        let finders: Vec<Finder<'_>> = words.iter().map(|word| Finder::new(word.as_bytes())).collect();
        let marks = self.marks(&Finder::new(longest.as_bytes()));
        let may_begin = |name: &Name| self.place_of_text(name).is_none_or(|at| marks.may_begin(at));
        let holds_all = |name: &Name| finders.iter().all(|finder| finder.find(self.raw(name)).is_some());
        let names = self.names.iter().enumerate();
        names.filter(|(_, name)| may_begin(name) && holds_all(name)).map(|(at, _)| at as u32).collect()
    }

    /// Where a name's text begins in the file.
    fn place_of_text(&self, name: &Name) -> Option<usize> {
        match name.source {
            Source::Elf => usize::try_from(name.text).ok(),
            Source::Go => self.go_function(name)?.name_place(),
            Source::Nameless => None,
        }
    }

    fn marks(&self, finder: &Finder<'_>) -> Marks {
        let strings = self.binary.symbol_tables().map(|table| table.strings);
        let ranges = strings.chain(self.binary.go().map(|program| program.names()));
        let tables = ranges.map(|range| {
            let text = self.binary.data().get(range.clone()).unwrap_or_default();
            (range, mark(text, finder))
        });
        Marks { tables: tables.collect() }
    }
}

impl Marks {
    /// Whether a name that begins at `place` may contain the word. Where nothing was searched it may.
    fn may_begin(&self, place: usize) -> bool {
        let mut holding = self.tables.iter().filter(|(range, _)| range.contains(&place)).peekable();
        holding.peek().is_none() || holding.any(|(range, bits)| is_marked(bits, (place - range.start) / BLOCK))
    }
}

fn is_marked(bits: &[u64], block: usize) -> bool {
    bits.get(block / 64).is_some_and(|word| word >> (block % 64) & 1 != 0)
}

/// For each block of `text`, whether a string that begins there may contain the word: linkers let a string end another
/// one, so all places from the string's beginning to the word count.
fn mark(text: &[u8], finder: &Finder<'_>) -> Vec<u64> {
    let len = finder.needle().len();
    let pieces = parallel::map(text.len().div_ceil(PIECE), |piece| {
        let start = piece * PIECE;
        let end = (start + PIECE + len).min(text.len());
        let mut found: Vec<usize> = Vec::new();
        for at in finder.find_iter(text.get(start..end).unwrap_or_default()).map(|at| start + at) {
            // One for each block is enough, and bounds the memory.
            if found.last().is_none_or(|last| last / BLOCK != at / BLOCK) {
                found.push(at);
            }
        }
        found
    });
    let mut bits = vec![0u64; text.len().div_ceil(BLOCK * 64)];
    let mut marked = 0;
    for at in pieces.into_iter().flatten() {
        let since = marked.min(at);
        let start = memchr::memrchr(0, text.get(since..at).unwrap_or_default()).map_or(since, |nul| since + nul + 1);
        let end = at.next_multiple_of(BLOCK) + len;
        for block in start / BLOCK..=end / BLOCK {
            if let Some(word) = bits.get_mut(block / 64) {
                *word |= 1 << (block % 64);
            }
        }
        marked = end.max(marked);
    }
    bits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_string_with_the_word_is_marked() {
        let mut text = Vec::new();
        let mut expected = Vec::new();
        for i in 0..50_000 {
            let start = text.len();
            text.extend(format!("{}{}", "x".repeat(i % 97), if i % 701 == 0 { "needle" } else { "hay" }).bytes());
            if i % 701 == 0 {
                // The string, and those that are its end.
                expected.extend(start..text.len() - 5);
            }
            text.push(0);
        }
        assert!(text.len() > 2 * PIECE, "the search is divided");
        let bits = mark(&text, &Finder::new("needle"));
        assert!(expected.iter().all(|at| is_marked(&bits, at / BLOCK)));
        let marked: u32 = bits.iter().map(|word| word.count_ones()).sum();
        assert!((marked as usize) < text.len() / BLOCK / 50, "{marked}");
    }
}
