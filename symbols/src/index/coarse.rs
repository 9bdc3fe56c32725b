//! A table beside a sorted list of addresses that tells about where to look: the binary search of a hundred thousand
//! functions waits for memory at most of its seventeen steps, this for two reads.

use crate::addr::Vaddr;

/// Where each of as many equal parts of the range of addresses as there are addresses begins in the list.
pub(super) struct Coarse {
    base: u64,
    /// Binary logarithm of a part's bytes.
    shift: u32,
    /// By part: addresses before it. One more than there are parts: the last is the number of all.
    before: Vec<u32>,
}

impl Coarse {
    /// `addresses` are sorted, and fewer than 2³².
    pub(super) fn new(addresses: impl ExactSizeIterator<Item = Vaddr> + Clone) -> Self {
        let count = addresses.len();
        let base = addresses.clone().next().map_or(0, |first| first.0);
        let span = addresses.clone().last().map_or(0, |last| last.0.saturating_sub(base));
        // The least shift that makes no more parts than addresses.
        let fits = |shift: &u32| (span >> shift) < (count as u64).max(1);
        let shift = (0..u64::BITS).find(fits).unwrap_or(u64::BITS - 1);
        let mut before = vec![0; usize::try_from(span >> shift).map_or(1, |parts| parts + 2)];
        for address in addresses {
            let part = (address.0.saturating_sub(base) >> shift) as usize;
            if let Some(of_next) = before.get_mut(part + 1) {
                *of_next += 1;
            }
        }
        let mut sum: u32 = 0;
        for count in &mut before {
            sum = sum.saturating_add(*count);
            *count = sum;
        }
        Self { base, shift, before }
    }

    /// Which of the addresses may be the first beyond `v`: from the start of `v`'s part of the range to that of the next.
    pub(super) fn near(&self, v: Vaddr) -> std::ops::Range<usize> {
        let Some(into) = v.0.checked_sub(self.base) else {
            return 0..0;
        };
        let all = self.before.last().map_or(0, |&all| all as usize);
        let part = usize::try_from(into >> self.shift).unwrap_or(usize::MAX);
        let start = |part: Option<usize>| part.and_then(|part| self.before.get(part)).map_or(all, |&at| at as usize);
        start(Some(part))..start(part.checked_add(1))
    }
}

/// How many of the `sorted` are not beyond `v`.
pub(super) fn until<T>(sorted: &[T], coarse: &Coarse, v: Vaddr, address: impl Fn(&T) -> Vaddr) -> usize {
    let near = coarse.near(v);
    let part = sorted.get(near.clone()).unwrap_or_default();
    near.start + part.partition_point(|one| address(one) <= v)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The standard library's binary search says the same of every list and place.
    #[test]
    fn it_finds_what_a_binary_search_finds() {
        let lists: [&[u64]; 7] = [
            &[],
            &[0],
            &[u64::MAX],
            &[0, u64::MAX],
            &[5, 5, 5, 6],
            &[1, 2, 3, 4, 5, 6, 7, 1 << 40],
            &[0x1000, 0x1010, 0x1020, 0x5000, 0x5001, 0x9000],
        ];
        for list in lists {
            let coarse = Coarse::new(list.iter().map(|&v| Vaddr(v)));
            let around = list.iter().flat_map(|&v| [v.saturating_sub(1), v, v.saturating_add(1)]);
            for v in around.chain([0, 1 << 20, 1 << 50, u64::MAX]) {
                let found = until(list, &coarse, Vaddr(v), |&one| Vaddr(one));
                assert_eq!(found, list.partition_point(|&one| one <= v), "{v:#x} in {list:x?}");
            }
        }
    }

    #[test]
    fn its_table_is_no_longer_than_the_list() {
        let addresses: Vec<Vaddr> = (0..1000).map(|i: u64| Vaddr(i * i * i)).collect();
        assert!(Coarse::new(addresses.iter().copied()).before.len() <= addresses.len() + 1);
    }
}
