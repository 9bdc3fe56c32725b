//! What the compiler inlined: calls that no probe sees.

use std::{cmp::Reverse, collections::BTreeMap};

use symbols::index::{FunctionId, Index, Inlined};

/// Bytes of debug information that are read unasked: see `docs/architecture.md`.
const CHEAP: usize = 32 << 20;

/// Functions that a message names.
const NAMED: usize = 3;

/// Whether to look for inlined copies takes no time that anybody notices.
pub fn is_cheap(index: &Index) -> bool {
    index.inlining_bytes().is_some_and(|bytes| bytes <= CHEAP)
}

/// Inlined copies of what the patterns mean, in all files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InlinedAway {
    /// Copies of functions that have code of their own too.
    pub copies: u64,
    /// How many functions that are.
    pub functions: u64,
    /// Functions that are only inlined.
    pub only: u64,
    /// A sentence for each function that was named exactly.
    pub named: Vec<String>,
    /// A sentence for each of the others.
    pub others: Vec<String>,
}

impl InlinedAway {
    pub(super) fn add(&mut self, index: &Index, inlined: &[Inlined<'_>]) {
        for one in inlined {
            let places = where_inlined(index, std::slice::from_ref(one));
            let sentence = if one.function.is_some() {
                self.copies += one.copies.len() as u64;
                self.functions += 1;
                format!("not seen of {}: {places}", one.name)
            } else {
                self.only += 1;
                format!("not probeable: {}: {places}", one.name)
            };
            if one.exact { &mut self.named } else { &mut self.others }.push(sentence);
        }
    }
}

/// `37 inlined into X, Y, Z and 5 more`: those with most copies first.
pub fn where_inlined(index: &Index, inlined: &[Inlined<'_>]) -> String {
    let mut counts: BTreeMap<FunctionId, usize> = BTreeMap::new();
    for copy in inlined.iter().flat_map(|one| &one.copies) {
        *counts.entry(copy.into).or_default() += 1;
    }
    let count: usize = counts.values().sum();
    let mut into: Vec<(usize, FunctionId)> = counts.into_iter().map(|(id, count)| (count, id)).collect();
    into.sort_by_key(|&(count, id)| (Reverse(count), id));
    let named = into.iter().take(NAMED).map(|&(_, id)| index.short_name(id)).collect::<Vec<_>>().join(", ");
    match into.len().saturating_sub(NAMED) {
        0 => format!("{count} inlined into {named}"),
        more => format!("{count} inlined into {named} and {more} more"),
    }
}
