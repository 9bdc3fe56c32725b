//! The account of records that found no room in the ring buffers.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData},
};
use probe_ebpf::abi;
use rustc_hash::FxHashMap;

use super::Lane;

/// Reads what the kernel half wrote down of its losses.
pub struct Losses {
    total: Array<MapData, u64>,
    by_point: Array<MapData, u64>,
    unknown: Array<MapData, u64>,
    by_lane: HashMap<MapData, Lane, u64>,
    /// When each lane last lost a record, as of when the total was [`Self::known`].
    snapshot: FxHashMap<abi::Lane, u64>,
    known: u64,
    /// Some losses could not be told apart: every lane is in doubt.
    blurred: bool,
}

impl Losses {
    /// Takes the maps out of the loaded kernel half.
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self> {
        let mut map = |name: &str| ebpf.take_map(name).with_context(|| format!("the kernel half has no {name}"));
        Ok(Self {
            total: map("LOST")?.try_into()?,
            by_point: map("LOST_AT")?.try_into()?,
            unknown: map("LOST_UNKNOWN")?.try_into()?,
            by_lane: map("LOST_IN")?.try_into()?,
            snapshot: FxHashMap::default(),
            known: 0,
            blurred: false,
        })
    }

    /// When a lane last lost a record (`CLOCK_MONOTONIC`, ns), told for an event that was made when `lost` records
    /// had been lost; `u64::MAX` where it is not known.
    ///
    /// The kernel half writes a loss down before it counts it, so what is read after a count holds all it counted.
    /// Events wait in the ring buffers: one reading serves many.
    pub fn last_loss(&mut self, lane: abi::Lane, lost: u32) -> Option<u64> {
        // Counts wrap at 2^32 in events.
        let behind = lost.wrapping_sub(self.known as u32);
        if behind != 0 && behind < u32::MAX / 2 {
            self.read();
        }
        if self.blurred { Some(u64::MAX) } else { self.snapshot.get(&lane).copied() }
    }

    fn read(&mut self) {
        self.known = self.total.get(&0, 0).unwrap_or(self.known);
        self.blurred |= self.unknown.get(&0, 0).is_ok_and(|n| n > 0);
        self.snapshot.extend(self.by_lane.iter().flatten().map(|(lane, at)| (lane.0, at)));
    }

    /// Records lost, by point, of so many: only where any were.
    pub fn by_point(&self, points: usize) -> Vec<(u32, u64)> {
        let numbered = (0_u32..).zip(self.by_point.iter().take(points));
        numbered.filter_map(|(point, n)| Some((point, n.ok()?))).filter(|&(_, n)| n > 0).collect()
    }

    /// Records lost, all together: of points and of ends of threads and processes.
    pub fn total(&self) -> u64 {
        self.total.get(&0, 0).unwrap_or(0)
    }
}
