//! Names in order of address, then of rank.
//!
//! To sort is most of the work of opening a file, so it is done digit by digit of the address, from the lowest: three
//! passes for any usual file, where comparing would take seventeen for 100,000 names.

use super::name::Name;

/// Bits of an address that one pass looks at: as many counters as fit the nearest cache.
const DIGIT: u32 = 11;

/// Fewer names are compared before the counters are cleared.
const MIN_COUNTED: usize = 2 << 10;

type Counts = [u32; 1 << DIGIT];

/// Sorts; of equal names the order is not kept.
pub(super) fn sort(names: &mut Vec<Name>) {
    if names.is_sorted() {
        return;
    }
    // Positions are counted in 32 bits.
    if names.len() < MIN_COUNTED || u32::try_from(names.len()).is_err() {
        return names.sort_unstable();
    }
    by_address(names);
    for same in names.chunk_by_mut(|a, b| a.address() == b.address()).filter(|same| !same.is_sorted()) {
        same.sort_unstable();
    }
}

fn by_address(names: &mut Vec<Name>) {
    let lowest = names.iter().map(|name| name.address().0).min().unwrap_or(0);
    let highest = names.iter().map(|name| name.address().0).max().unwrap_or(0);
    let digit = |name: &Name, pass: u32| (name.address().0 - lowest) >> (pass * DIGIT) & ((1 << DIGIT) - 1);
    let bits = u64::BITS - (highest - lowest).leading_zeros();
    let mut counts: Vec<Counts> = vec![[0; 1 << DIGIT]; bits.div_ceil(DIGIT) as usize];
    for name in names.iter() {
        for (pass, counts) in (0..).zip(&mut counts) {
            counts[digit(name, pass) as usize] += 1;
        }
    }
    let mut sorted = names.clone();
    for (pass, counts) in (0..).zip(&mut counts) {
        let mut next = 0;
        for count in counts.iter_mut() {
            next += std::mem::replace(count, next);
        }
        for name in names.iter() {
            let place = &mut counts[digit(name, pass) as usize];
            sorted[*place as usize] = *name;
            *place += 1;
        }
        std::mem::swap(names, &mut sorted);
    }
}

#[cfg(test)]
mod tests {
    use super::super::name::Rank;
    use super::*;
    use crate::addr::Vaddr;

    /// Names at addresses of `bits` bits, some at the same.
    fn names(count: u32, bits: u32) -> Vec<Name> {
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut name = |position| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let rank = if state & 1 == 0 { Rank::Global } else { Rank::Local };
            Name::of_elf(Vaddr(state >> (u64::BITS - bits)), rank, false, false, 0, position)
        };
        (0..count).map(&mut name).collect()
    }

    #[test]
    fn names_are_sorted_by_address_and_rank_whatever_the_addresses() {
        for (count, bits) in [(0, 1), (1, 1), (100, 20), (10_000, 1), (10_000, 12), (50_000, 28), (10_000, 64)] {
            let mut ours = names(count, bits);
            let mut theirs = ours.clone();
            theirs.sort_unstable();
            sort(&mut ours);
            assert_eq!(ours, theirs, "{count} names of {bits} bits");
        }
    }
}
