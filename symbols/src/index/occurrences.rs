//! Names in whose symbols given words occur: found by one search through the string tables, before a name is looked at.

use memchr::memmem::Finder;

use super::name::Name;
use super::{Index, build};
use crate::parallel;

/// Bytes of a string table that share a mark.
const BLOCK: usize = 32;

/// Bytes of string table that one thread searches at a time.
const PIECE: usize = 1 << 20;

impl Index {
    /// Positions of the names that contain all `words`, ascending. Without words: of all names.
    pub(super) fn names_with(&self, words: &[&str]) -> Vec<u32> {
        let Some(longest) = words.iter().max_by_key(|word| word.len()) else {
            return (0..(self.names.len() + self.nameless().len()) as u32).collect();
        };
        let finders: Vec<Finder<'_>> = words.iter().map(|word| Finder::new(word.as_bytes())).collect();
        let holds_all = |at: &usize| {
            let raw = self.entry(*at).map(|name| self.raw(&name)).unwrap_or_default();
            finders.iter().all(|finder| finder.find(raw).is_some())
        };
        let candidates = self.names_marked(&Finder::new(longest.as_bytes()));
        let mut found: Vec<u32> = candidates.into_iter().filter(holds_all).map(|at| at as u32).collect();
        found.sort_unstable();
        if words.iter().all(|word| self.may_name_nameless(word)) {
            found.extend((0..self.nameless().len()).map(|nameless| (self.names.len() + nameless) as u32));
        }
        found
    }

    /// Positions of names that may contain what `finder` seeks. The tables are read from end to end: the names lie in the
    /// order of addresses, in which to follow them would be a walk all over the file.
    fn names_marked(&self, finder: &Finder<'_>) -> Vec<usize> {
        let mut found = Vec::new();
        for (number, table) in self.numbered_tables() {
            let bits = mark(table.strings(), finder);
            let mut code = build::CodeSegment::default();
            for (position, symbol) in (0..).zip(table.symbols()) {
                if is_marked(&bits, symbol.name as usize)
                    && let Some(name) = build::elf_name(&table, &symbol, number, position, &mut code)
                {
                    found.extend(self.names.binary_search(&name));
                }
            }
        }
        if let Some(program) = self.binary.go() {
            let range = program.names();
            let bits = mark(self.binary.data().get(range.clone()).unwrap_or_default(), finder);
            let place = |name: &Name| self.go_function(name)?.name_place()?.checked_sub(range.start);
            let go = self.names.iter().enumerate().filter(|(_, name)| name.is_go());
            found.extend(go.filter(|(_, name)| place(name).is_some_and(|at| is_marked(&bits, at))).map(|(at, _)| at));
        }
        found
    }
}

/// Whether a name that begins at `place` of the searched text may contain the word.
fn is_marked(bits: &[u64], place: usize) -> bool {
    let block = place / BLOCK;
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
        assert!(expected.iter().all(|at| is_marked(&bits, *at)));
        let marked: u32 = bits.iter().map(|word| word.count_ones()).sum();
        assert!((marked as usize) < text.len() / BLOCK / 50, "{marked}");
    }
}
