//! How often each point is passed: counted by the kernel half, read here without a system call.

use std::ptr::NonNull;

use anyhow::{Context as _, Result};
use aya::{Ebpf, maps::Map};
use memmap2::{MmapOptions, MmapRaw};

/// Rows of counters at most. CPUs beyond share: that costs a little time and no count.
const MAX_ROWS: u32 = 16;

/// Rows that the kernel half counts in: a power of two.
pub(super) fn rows() -> u32 {
    // The numbers of CPUs may exceed how many there are, which costs some sharing.
    let cpus = std::thread::available_parallelism().map_or(1, |n| u32::try_from(n.get()).unwrap_or(MAX_ROWS));
    cpus.min(MAX_ROWS).next_power_of_two()
}

/// The kernel half's counters.
pub struct Counters {
    map: MmapRaw,
    /// Counters in a row.
    row: usize,
    points: usize,
}

impl Counters {
    /// `row`: for so many points there is room.
    pub(super) fn take(ebpf: &mut Ebpf, row: usize, points: usize) -> Result<Self> {
        // It stays with the programs, which are loaded later.
        let Some(Map::Array(data)) = ebpf.map("COUNTS") else {
            anyhow::bail!("the kernel half has no COUNTS");
        };
        let bytes = row.max(1) * rows() as usize * size_of::<u64>();
        let map = MmapOptions::new().len(bytes).map_raw_read_only(&std::os::fd::AsFd::as_fd(data.fd()));
        Ok(Self { map: map.context("failed to map the counters")?, row, points })
    }

    /// There are so many points now.
    pub(super) fn grow(&mut self, points: usize) {
        self.points = points.min(self.row);
    }

    /// By point, since the start.
    pub fn read(&self) -> Vec<u64> {
        let mut sums = vec![0_u64; self.points];
        for row in 0..rows() as usize {
            for (point, sum) in sums.iter_mut().enumerate() {
                *sum = sum.wrapping_add(self.counter(row * self.row + point));
            }
        }
        sums
    }

    #[expect(unsafe_code, reason = "memory that the kernel writes to")]
    fn counter(&self, index: usize) -> u64 {
        let offset = index * size_of::<u64>();
        let inside = offset + size_of::<u64>() <= self.map.len();
        let first = NonNull::new(self.map.as_mut_ptr()).filter(|_| inside);
        // SAFETY: inside the mapping, which starts at a page; a racy read of a counter: the value is one it had.
        first.map_or(0, |first| unsafe { first.cast::<u64>().as_ptr().add(index).read_volatile() })
    }
}
