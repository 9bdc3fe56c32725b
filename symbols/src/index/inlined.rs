//! Functions that have no code of their own: the compiler put it into their callers.

use std::collections::BTreeMap;
use std::fmt;

use rustc_hash::FxHashMap;

use super::Index;
use super::fit::{Fit, fit_elf, fit_go};
use crate::addr::Vaddr;
use crate::pattern::{Form, Pattern};

/// Where a function was inlined that cannot be found by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlinedOnly {
    /// How many copies there are.
    pub places: usize,
    /// The functions that have them, those with most first.
    pub into: Vec<String>,
}

/// Functions that a message names.
const NAMED: usize = 3;

impl fmt::Display for InlinedOnly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = self.into.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        write!(f, "{} inlined into {named}", self.places)?;
        match self.into.len().saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// Copies of what fits exactly, and of what fits by its tail, by the address of the function that has them.
#[derive(Default)]
struct Copies {
    exact: BTreeMap<Vaddr, usize>,
    tail: BTreeMap<Vaddr, usize>,
}

impl Copies {
    fn add(&mut self, fit: Option<Fit>, into: Vaddr) {
        let of = match fit {
            Some(Fit::Exact) => &mut self.exact,
            Some(Fit::Tail) => &mut self.tail,
            None => return,
        };
        *of.entry(into).or_default() += 1;
    }
}

impl Index {
    /// Where functions of a name that no function has are inlined. `None` if nowhere, or for other patterns than names.
    /// Reads all debug information: worth its time only where there is nothing else to say.
    pub fn inlined_only(&self, pattern: &Pattern) -> Option<InlinedOnly> {
        let (Form::Name(name) | Form::Offset(name, _)) = &pattern.form else { return None };
        let mut copies = Copies::default();
        if let Some(go) = self.binary.go() {
            let mut known: FxHashMap<&str, Option<Fit>> = FxHashMap::default();
            go.each_inlined(&self.binary, |inlined, function| {
                let fit = *known.entry(inlined).or_insert_with(|| fit_go(inlined, &name.literal));
                copies.add(fit, function.address);
            });
        }
        if let Some((debug, map)) = self.dwarf() {
            let mut known: FxHashMap<&[u8], Option<Fit>> = FxHashMap::default();
            let go_text = self.binary.go().map(|go| go.text_range(&self.binary));
            debug.each_inlined(|inlined, start| {
                let into = map.map_or(Some(start), |map| map.to_program(start)).map(Vaddr);
                // Go's own code is done.
                if let Some(into) = into.filter(|v| go_text.as_ref().is_none_or(|go| !go.contains(v))) {
                    copies.add(*known.entry(inlined).or_insert_with(|| fit_elf(inlined, name)), into);
                }
            });
        }
        let found = if copies.exact.is_empty() { copies.tail } else { copies.exact };
        let mut found: Vec<(usize, Vaddr)> = found.into_iter().map(|(into, count)| (count, into)).collect();
        found.sort_by_key(|&(count, into)| (std::cmp::Reverse(count), into));
        let places = found.iter().map(|(count, _)| count).sum();
        let into = found.iter().map(|&(_, into)| self.name_at(into)).collect();
        (places > 0).then_some(InlinedOnly { places, into })
    }

    fn name_at(&self, v: Vaddr) -> String {
        let function = self.at(v).and_then(|f| self.first_name(f.id.0 as usize));
        function.map_or_else(|| v.to_string(), |name| self.bare(&name))
    }
}
