//! The ring buffers that records come in: read as one, in the order of the records' times.
//!
//! Each CPU has one of its own, or shares it with few. There is a larger one for all, for what finds no room in these.
//!
//! In a buffer records stand in the order in which room was taken for them, which is not that of their times: an exit's is
//! taken before, an entry's after, one that was held back is old, and between all of these a thread may have to wait for its CPU.
//! What has to hold is that a lane's records stay in its order, also where it changes its CPU, or one program fills up one buffer
//! and goes on in another. So what was found is sorted by time, and told of once nothing can be missing before it:
//!
//! - A lane's earlier record is complete before there is room for its later one, and has no later time. So what was found is in a
//!   lane's order when it is in that of times.
//! - When a record was found, room had been taken for all that its lane had told before. So it is certain, and may be told of, when
//!   everything was found that the buffers held at one moment after that: which may take longer where a record is not complete
//!   yet, as what is behind it is not known. What is not certain holds up what is not older.
//!
//! Source: `Documentation/bpf/ringbuf.rst` and `kernel/bpf/ringbuf.c` of Linux. aya's reader shows one record at a time.

use std::{
    collections::VecDeque,
    os::fd::AsFd as _,
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    maps::{ArrayOfMaps, MapData},
};
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_RINGBUF;
use memmap2::{MmapOptions, MmapRaw};

use super::{monotonic_ns, recorder::online_cpus};

/// Ring buffers of CPUs at most: more share.
const MOST: usize = 16;
/// The least in each that is worth it, bytes: more than the longest record.
const LEAST_BYTES: u32 = 1 << 18;
/// The most in each, bytes: an entry a quarter of a microsecond fills it in 20 ms. What is more lies idle where others are busy.
const MOST_BYTES: u32 = 1 << 22;
/// In all of them together, bytes.
const CPUS_BYTES: u32 = 1 << 24;
/// A header: how long the record is, with two flags (Linux: `struct bpf_ringbuf_hdr`).
const HEADER: u64 = 8;
const BUSY: u32 = 1 << 31;
const DISCARDED: u32 = 1 << 30;
/// The writers hear where they may write anew when so much was read, bytes, or an eighth of a small buffer. Each time costs
/// them, and the reader, the way of a cache line.
const TOLD_EVERY: u64 = 4096;
/// How often a look reads the buffers to become certain of what it found: twice, unless a record is being written just then.
const READINGS: usize = 4;

/// What there is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sizes {
    /// Buffers of CPUs: a power of two, or 0.
    of_cpus: u32,
    /// The length of each, bytes.
    cpus_bytes: u32,
    /// The length of the one of all, bytes.
    common_bytes: u32,
}

impl Sizes {
    /// In the common one is room for `bytes`, a power of two; in those of CPUs together for a quarter of that at most.
    pub(super) fn of(bytes: u32) -> Self {
        // Not those that we may run on. Their numbers may exceed how many there are, which costs some sharing.
        Self::with(bytes, online_cpus().map_or(1, |cpus| cpus.len()))
    }

    fn with(bytes: u32, cpus: usize) -> Self {
        let of_cpus = cpus.min(MOST).next_power_of_two() as u32;
        let cpus_bytes = (CPUS_BYTES.min(bytes / 4) / of_cpus).min(MOST_BYTES);
        if of_cpus == 1 || cpus_bytes < LEAST_BYTES {
            return Self { of_cpus: 0, cpus_bytes: 0, common_bytes: bytes };
        }
        Self { of_cpus, cpus_bytes, common_bytes: bytes }
    }

    /// All together.
    pub(super) fn rings(self) -> u32 {
        self.of_cpus + 1
    }

    /// Those of CPUs, which come first.
    pub(super) fn of_cpus(self) -> u32 {
        self.of_cpus
    }
}

/// All of them.
pub struct Rings {
    rings: Vec<Ring>,
    /// What was found and is certain, by time from [`Self::next`] on; before it, what was read.
    found: Vec<Found>,
    next: usize,
    /// What was found after that, in this order.
    fresh: Vec<Found>,
    /// The oldest time in it, or none (`CLOCK_MONOTONIC`, ns).
    fresh_since_ns: u64,
    /// What is being waited for.
    awaiting: Option<Moment>,
    /// All was found that had come until then (`CLOCK_MONOTONIC`, ns).
    found_until_ns: u64,
    /// So many came with the last look.
    new: usize,
    /// The record that was given out last.
    given: Option<Found>,
    /// Nothing comes any more.
    ended: bool,
}

/// A moment at which it was asked how far the buffers are written: [`Ring::awaited`].
#[derive(Clone, Copy)]
struct Moment {
    /// No later (`CLOCK_MONOTONIC`, ns).
    time_ns: u64,
    /// How much of [`Rings::fresh`] was found before. It is certain when all is found.
    before: usize,
}

/// A record that waits to be read.
#[derive(Clone, Copy)]
struct Found {
    time_ns: u64,
    /// Where its bytes are, from the start of the data.
    offset: u32,
    /// Their length in words of 8 bytes, and the ring's number in the lowest byte.
    words_ring: u32,
}

impl Found {
    fn ring(self) -> usize {
        (self.words_ring & 0xff) as usize
    }

    /// Of its bytes: a record is made of whole words.
    fn length(self) -> u32 {
        self.words_ring >> 8 << 3
    }
}

impl Rings {
    /// Makes them, and gives them to the kernel half.
    ///
    /// # Errors
    /// The kernel refuses, or has no memory.
    pub(super) fn make(ebpf: &mut Ebpf, sizes: Sizes) -> Result<Self> {
        let map = ebpf.map_mut("RINGS").context("the kernel half has no RINGS")?;
        let mut array: ArrayOfMaps<_> = map.try_into()?;
        let mut rings = Vec::new();
        for number in 0..sizes.rings() {
            let bytes = if number < sizes.of_cpus { sizes.cpus_bytes } else { sizes.common_bytes };
            let of_ring = aya_obj::Map::new_from_params(BPF_MAP_TYPE_RINGBUF as u32, 0, 0, bytes, 0);
            let ring = MapData::create(of_ring, "RING", None).context("failed to make a ring buffer")?;
            array.set(number, &ring, 0).context("failed to give the kernel half a ring buffer")?;
            rings.push(Ring::new(&ring, bytes.into()).context("failed to map a ring buffer")?);
        }
        Ok(Self::of(rings))
    }

    fn of(rings: Vec<Ring>) -> Self {
        Self {
            rings,
            found: Vec::new(),
            next: 0,
            fresh: Vec::new(),
            fresh_since_ns: u64::MAX,
            awaiting: None,
            found_until_ns: 0,
            new: 0,
            given: None,
            ended: false,
        }
    }

    /// Finds what came, once [`Self::next`] has given out what was found before. All of it, where no program is running.
    pub fn look(&mut self) {
        self.look_while(monotonic_ns(), || ());
    }

    /// `happens` before any buffer is read.
    fn look_while(&mut self, now_ns: u64, mut happens: impl FnMut()) {
        self.give_back();
        if self.upcoming().is_some() {
            return;
        }
        self.found.drain(..self.next);
        self.next = 0;
        let known = self.fresh.len();
        self.new = 0;
        let mut certain = self.read(now_ns, &mut happens);
        let first = self.fresh.len() + certain;
        for _ in 1..READINGS {
            if certain >= first {
                break;
            }
            certain += self.read(now_ns, &mut happens);
        }
        self.new = certain + self.fresh.len() - known;
        if self.ended {
            self.found.append(&mut self.fresh);
        }
        self.fresh_since_ns = self.fresh.iter().map(|found| found.time_ns).min().unwrap_or(u64::MAX);
        if !self.found.is_sorted_by_key(|found| found.time_ns) {
            // Those of the same time keep their order: a trap's record has its event's.
            self.found.sort_by_key(|found| found.time_ns);
        }
    }

    /// Reads the buffers once; how many records are certain now.
    fn read(&mut self, now_ns: u64, happens: &mut impl FnMut()) -> usize {
        if self.awaiting.is_none() {
            self.awaiting = Some(Moment { time_ns: now_ns, before: self.fresh.len() });
            for ring in &mut self.rings {
                happens();
                ring.awaited = ring.written();
            }
        }
        for (number, ring) in self.rings.iter_mut().enumerate() {
            happens();
            ring.find(number as u32, &mut self.fresh);
        }
        let all_came = self.rings.iter().all(|ring| ring.found >= ring.awaited);
        let Some(moment) = self.awaiting.take_if(|_| all_came) else { return 0 };
        self.found_until_ns = moment.time_ns;
        self.found.extend(self.fresh.drain(..moment.before));
        moment.before
    }

    /// The next record of those that were found, if there is one that nothing can come before.
    #[expect(clippy::should_implement_trait, reason = "what it gives out is borrowed")]
    pub fn next(&mut self) -> Option<&[u8]> {
        self.give_back();
        let found = self.upcoming()?;
        self.next += 1;
        self.given = Some(found);
        Some(self.rings[found.ring()].record(found))
    }

    /// How many records the last look found.
    pub fn new_ones(&self) -> usize {
        self.new
    }

    /// What came until then was given out up to this time (`CLOCK_MONOTONIC`, ns).
    pub fn complete_ns(&self) -> u64 {
        let left_ns = self.found.get(self.next).map_or(u64::MAX, |found| found.time_ns).min(self.fresh_since_ns);
        self.found_until_ns.min(left_ns.saturating_sub(1))
    }

    /// The programs are gone: the next look finds the last records.
    pub fn end(&mut self) {
        self.ended = true;
    }

    fn upcoming(&self) -> Option<Found> {
        self.found.get(self.next).copied().filter(|found| found.time_ns < self.fresh_since_ns)
    }

    fn give_back(&mut self) {
        if let Some(given) = self.given.take() {
            self.rings[given.ring()].was_read(given);
        }
    }
}

/// One of them. Positions count all bytes since the start, as the kernel's do.
struct Ring {
    /// A page that says how far it was read.
    consumer: MmapRaw,
    /// A page that says how far it was written, and behind it the data, twice: what goes beyond its end goes on there.
    producer: MmapRaw,
    page: usize,
    /// Its length, a power of two.
    bytes: u64,
    /// Records before this position were found.
    found: u64,
    /// Bytes of those that were read, or have nothing to read, from the start on: as many as [`Self::last_read`] if there are no
    /// others between.
    read: u64,
    /// Position behind the last of these.
    last_read: u64,
    /// Where there is nothing to read, behind something that was not read yet: positions and lengths, in bytes.
    discarded: VecDeque<(u64, u64)>,
    /// The position that the kernel was told.
    told: u64,
    /// It is waited until what was written up to here was found.
    awaited: u64,
}

impl Ring {
    fn new(ring: &MapData, bytes: u64) -> Result<Self> {
        let (fd, page) = (ring.fd().as_fd(), rustix::param::page_size());
        let consumer = MmapOptions::new().len(page).map_raw(&fd)?;
        let length = page + 2 * usize::try_from(bytes)?;
        let producer = MmapOptions::new().offset(page as u64).len(length).map_raw_read_only(&fd)?;
        Ok(Self::of(consumer, producer, bytes))
    }

    fn of(consumer: MmapRaw, producer: MmapRaw, bytes: u64) -> Self {
        let page = rustix::param::page_size();
        Self {
            consumer,
            producer,
            page,
            bytes,
            found: 0,
            read: 0,
            last_read: 0,
            discarded: VecDeque::new(),
            told: 0,
            awaited: 0,
        }
    }

    /// Adds the complete records up to the first that is not.
    fn find(&mut self, number: u32, into: &mut Vec<Found>) {
        let end = self.written();
        while self.found != end {
            let at = self.found & (self.bytes - 1);
            let header = self.header(at);
            if header & BUSY != 0 {
                break;
            }
            let length = header & !(BUSY | DISCARDED);
            let bytes = HEADER + u64::from(length).next_multiple_of(8);
            if header & DISCARDED != 0 {
                match self.discarded.back_mut().filter(|(start, bytes)| start + *bytes == self.found) {
                    Some((_, before)) => *before += bytes,
                    None => self.discarded.push_back((self.found, bytes)),
                }
            } else {
                let found =
                    Found { time_ns: 0, offset: at as u32 + HEADER as u32, words_ring: length >> 3 << 8 | number };
                let time_ns = self.record(found).first_chunk().map_or(0, |time| u64::from_ne_bytes(*time));
                into.push(Found { time_ns, ..found });
            }
            self.found += bytes;
        }
        if !self.discarded.is_empty() {
            self.give_back();
        }
    }

    /// A record was read.
    fn was_read(&mut self, record: Found) {
        // It is before what was found last, by less than the buffer's length.
        let behind = self.found.wrapping_sub(u64::from(record.offset + record.length())) & (self.bytes - 1);
        self.read += HEADER + u64::from(record.length());
        self.last_read = self.last_read.max(self.found - behind);
        self.give_back();
    }

    /// Tells the kernel how far all was read, if that is worth it.
    fn give_back(&mut self) {
        while let Some((start, bytes)) = self.discarded.pop_front_if(|(start, _)| *start <= self.last_read) {
            self.read += bytes;
            self.last_read = self.last_read.max(start + bytes);
        }
        let is_whole = self.read == self.last_read;
        if is_whole && (self.read - self.told >= TOLD_EVERY.min(self.bytes / 8) || self.read == self.found) {
            self.told = self.read;
            self.tell();
        }
    }

    /// A complete record, to which the kernel does not write before it was told that it was read.
    #[expect(unsafe_code, reason = "memory that the kernel writes to")]
    fn record(&self, record: Found) -> &[u8] {
        let (start, length) = (self.page + record.offset as usize, record.length() as usize);
        assert!(start + length <= self.producer.len(), "a ring buffer's record of {length} bytes reaches beyond it");
        // SAFETY: inside the mapping, which lives as long as this.
        unsafe { std::slice::from_raw_parts(self.producer.as_ptr().add(start), length) }
    }

    #[expect(unsafe_code, reason = "memory that the kernel writes to")]
    fn header(&self, at: u64) -> u32 {
        debug_assert!(at < self.bytes && at.is_multiple_of(HEADER));
        // SAFETY: inside the mapping, where every record begins at a multiple of 8.
        let header = unsafe { &*self.producer.as_ptr().add(self.page + at as usize).cast::<AtomicU32>() };
        header.load(Ordering::Acquire)
    }

    /// The position that the kernel wrote to.
    #[expect(unsafe_code, reason = "memory that the kernel writes to")]
    fn written(&self) -> u64 {
        // SAFETY: the mapping starts with it.
        unsafe { &*self.producer.as_ptr().cast::<AtomicU64>() }.load(Ordering::Acquire)
    }

    /// The kernel may write before [`Self::told`].
    #[expect(unsafe_code, reason = "memory that the kernel reads")]
    fn tell(&self) {
        // SAFETY: the mapping starts with it.
        unsafe { &*self.consumer.as_ptr().cast::<AtomicU64>() }.store(self.told, Ordering::Release);
    }
}

#[cfg(test)]
mod tests;
