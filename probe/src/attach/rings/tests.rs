//! The tests write as the kernel does: `__bpf_ringbuf_reserve` and `bpf_ringbuf_commit` in kernel/bpf/ringbuf.c.

use std::collections::VecDeque;

use super::*;

/// The kernel's end of a ring buffer, in memory that it shares with a [`Ring`].
struct Writer {
    consumer: *mut u8,
    producer: *mut u8,
    bytes: u64,
    position: u64,
}

#[expect(unsafe_code, reason = "the tests are the kernel")]
impl Writer {
    fn new(bytes: u64) -> (Self, Ring) {
        let page = rustix::param::page_size();
        let memory = |len| MmapRaw::from(MmapOptions::new().len(len).map_anon().expect("memory"));
        let (consumer, producer) = (memory(page), memory(page + 2 * bytes as usize));
        let writer = Self { consumer: consumer.as_mut_ptr(), producer: producer.as_mut_ptr(), bytes, position: 0 };
        (writer, Ring::of(consumer, producer, bytes))
    }

    /// All data is there twice.
    fn put(&self, at: u64, word: u64) {
        for copy in 0..2 {
            let offset = rustix::param::page_size() as u64 + at % self.bytes + copy * self.bytes;
            // SAFETY: inside the memory, which the ring keeps.
            unsafe { self.producer.add(offset as usize).cast::<u64>().write_volatile(word) };
        }
    }

    fn read_position(&self) -> u64 {
        // SAFETY: as above.
        unsafe { self.consumer.cast::<u64>().read_volatile() }
    }

    /// Room for a record of so many words; none where what was not read yet would be overwritten.
    fn reserve(&mut self, words: u32) -> Option<u64> {
        let (at, end) = (self.position, self.position + HEADER + u64::from(words) * 8);
        if end - self.read_position() > self.bytes {
            return None;
        }
        self.put(at, u64::from((words * 8) | BUSY));
        self.position = end;
        // SAFETY: as above.
        unsafe { self.producer.cast::<u64>().write_volatile(end) };
        Some(at)
    }

    fn submit(&self, at: u64, words: &[u64]) {
        for (number, word) in words.iter().enumerate() {
            self.put(at + HEADER + number as u64 * 8, *word);
        }
        self.put(at, words.len() as u64 * 8);
    }

    fn discard(&self, at: u64, words: u32) {
        self.put(at, u64::from((words * 8) | DISCARDED));
    }

    fn write(&mut self, words: &[u64]) {
        let at = self.reserve(words.len() as u32).expect("room");
        self.submit(at, words);
    }
}

fn rings<const N: usize>(bytes: u64) -> ([Writer; N], Rings) {
    let (writers, rings): (Vec<_>, Vec<_>) = (0..N).map(|_| Writer::new(bytes)).unzip();
    (writers.try_into().unwrap_or_else(|_| unreachable!("as many")), Rings::of(rings))
}

fn words(record: &[u8]) -> Vec<u64> {
    record.chunks_exact(8).map(|word| u64::from_ne_bytes(word.try_into().expect("8 bytes"))).collect()
}

/// The times of all that is given out.
fn times(rings: &mut Rings) -> Vec<u64> {
    std::iter::from_fn(|| rings.next().map(|record| words(record)[0])).collect()
}

#[test]
fn each_cpu_has_a_buffer_as_long_as_there_is_enough_for_all() {
    let mib = 1 << 20;
    for (common_bytes, cpus, of_cpus, cpus_bytes) in [
        (64 * mib, 1, 0, 0),
        (64 * mib, 2, 2, 4 * mib),
        (64 * mib, 6, 8, 2 * mib),
        (64 * mib, 500, 16, mib),
        (8 * mib, 2, 2, mib),
        (8 * mib, 64, 0, 0), // 128 KiB each
        (2 * mib, 2, 2, mib / 4),
        (mib, 2, 0, 0),
        (4096, 64, 0, 0),
    ] {
        assert_eq!(Sizes::with(common_bytes, cpus), Sizes { of_cpus, cpus_bytes, common_bytes }, "{cpus}");
    }
}

#[test]
fn records_of_several_buffers_come_in_the_order_of_their_times() {
    let ([mut a, mut b, mut c], mut rings) = rings(4096);
    [1, 4, 6].into_iter().for_each(|time| a.write(&[time, 0]));
    [2, 3, 7].into_iter().for_each(|time| b.write(&[time, 0, 0]));
    c.write(&[5]);
    rings.look_at(10);
    assert_eq!(times(&mut rings), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(rings.new_ones(), 7);
    rings.look_at(11);
    assert_eq!((times(&mut rings), rings.new_ones()), (vec![], 0));
}

#[test]
fn what_was_written_after_the_look_began_waits_for_the_next() {
    let ([mut a, mut b], mut rings) = rings(4096);
    a.write(&[12]);
    b.write(&[9]);
    // A record before the 12 in its lane may have come to b since that was read.
    rings.look_at(10);
    assert_eq!(times(&mut rings), [9]);
    b.write(&[11]);
    rings.look_at(20);
    assert_eq!(times(&mut rings), [11, 12]);
}

#[test]
fn behind_a_record_that_is_not_complete_nothing_is_told_of_from_any_buffer() {
    let ([mut a, mut b], mut rings) = rings(4096);
    a.write(&[1]);
    rings.look_at(2);
    let late = a.reserve(1).expect("room");
    a.write(&[4]);
    b.write(&[5]);
    rings.look_at(10);
    assert_eq!(times(&mut rings), [1]);
    assert_eq!(rings.complete_ns(), 2);
    a.submit(late, &[3]);
    rings.look_at(11);
    assert_eq!(times(&mut rings), [3, 4, 5]);
}

#[test]
fn at_the_end_everything_comes_but_what_will_never_be_complete() {
    let ([mut a, mut b], mut rings) = rings(4096);
    a.write(&[30]);
    a.reserve(1).expect("room");
    a.write(&[31]);
    b.write(&[40]);
    rings.end();
    rings.look_at(10);
    assert_eq!(times(&mut rings), [30, 40]);
}

#[test]
fn records_of_one_time_keep_the_order_of_their_buffer() {
    let ([mut a], mut rings) = rings(4096);
    [[5, 1], [5, 2], [4, 3], [5, 4]].iter().for_each(|record| a.write(record));
    rings.look_at(10);
    let mut seconds = Vec::new();
    while let Some(record) = rings.next() {
        seconds.push(words(record)[1]);
    }
    assert_eq!(seconds, [3, 1, 2, 4]);
}

#[test]
fn room_is_given_back_only_up_to_the_first_record_that_was_not_read() {
    let ([mut a], mut rings) = rings(4096);
    // 255 records of 16 bytes fill the buffer but for one; the second has the latest time.
    for number in 0..255 {
        a.write(&[if number == 1 { 1000 } else { number }]);
    }
    rings.look_at(2000);
    for read in 0..254 {
        assert_ne!(rings.next().map(|record| words(record)[0]), Some(1000));
        assert!(a.read_position() <= 16, "{read}");
    }
    assert_eq!(rings.next().map(words), Some(vec![1000]));
    assert_eq!(rings.next(), None);
    assert_eq!(a.read_position(), 255 * 16);
}

#[test]
fn discarded_records_are_passed_over_and_their_room_is_given_back() {
    let ([mut a], mut rings) = rings(4096);
    for round in 0..1000 {
        let at = a.reserve(7).expect("room");
        a.discard(at, 7);
        if round % 3 == 0 {
            a.write(&[round]);
        }
        rings.look_at(u64::MAX);
        assert_eq!(times(&mut rings), if round % 3 == 0 { vec![round] } else { vec![] });
        assert_eq!(a.read_position(), a.position);
    }
}

#[test]
fn a_buffer_of_nothing_but_discarded_records_is_given_back() {
    let ([mut a], mut rings) = rings(4096);
    for _ in 0..1000 {
        let at = a.reserve(127).expect("room");
        a.discard(at, 127);
        rings.look_at(u64::MAX);
        assert_eq!((rings.next(), a.read_position()), (None, a.position));
    }
}

#[test]
fn records_come_whole_where_the_buffer_goes_around() {
    let ([mut a], mut rings) = rings(4096);
    let mut expected = VecDeque::new();
    for number in 0..10_000_u64 {
        let record: Vec<u64> = (0..number % 37 + 1).map(|word| number * 100 + word).collect();
        let Some(at) = a.reserve(record.len() as u32) else {
            rings.look_at(u64::MAX);
            while let Some(record) = rings.next() {
                assert_eq!(Some(words(record)), expected.pop_front());
            }
            assert!(expected.is_empty());
            continue;
        };
        a.submit(at, &record);
        expected.push_back(record);
    }
    assert!(a.position > 100 * 4096);
}

/// A lane's program, step by step, as the kernel half has them: an exit's time is taken before there is room for its record,
/// an entry's after. Between any two others may run, on the same CPU too.
enum Program {
    Idle,
    /// An exit's time was taken, if it is one.
    Started {
        ring: usize,
        exit: Option<u64>,
    },
    Reserved {
        ring: usize,
        at: u64,
        exit: Option<u64>,
    },
    Timed {
        ring: usize,
        at: u64,
        time: u64,
    },
}

#[test]
fn every_lanes_records_keep_their_order_whatever_interrupts_and_moves_them() {
    const LANES: usize = 7;
    let ([a, b, c], mut rings) = rings(8192);
    let mut writers = [a, b, c];
    let mut random: u64 = 7;
    let mut next = move |below: usize| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) as usize % below
    };
    let (mut clock, mut written, mut read) = (0, [0; LANES], [0; LANES]);
    let mut lanes: [Program; LANES] = std::array::from_fn(|_| Program::Idle);
    for _ in 0..400_000 {
        clock += 1;
        if next(40) == 0 {
            rings.look_at(clock);
            while let Some(record) = rings.next() {
                let [_, lane, number] = words(record)[..] else { panic!("three words") };
                assert_eq!(number, read[lane as usize], "lane {lane}");
                read[lane as usize] += 1;
            }
            continue;
        }
        // One of them waits long.
        let lane = if next(30) == 0 { 0 } else { next(LANES - 1) + 1 };
        lanes[lane] = match lanes[lane] {
            Program::Idle => Program::Started { ring: next(3), exit: (next(2) == 0).then_some(clock) },
            Program::Started { ring, exit } => match writers[ring].reserve(3) {
                Some(at) => Program::Reserved { ring, at, exit },
                None => Program::Started { ring, exit },
            },
            Program::Reserved { ring, at, exit } => Program::Timed { ring, at, time: exit.unwrap_or(clock) },
            Program::Timed { ring, at, time } => {
                writers[ring].submit(at, &[time, lane as u64, written[lane]]);
                written[lane] += 1;
                Program::Idle
            }
        };
    }
    for (lane, program) in lanes.iter().enumerate() {
        if let Program::Reserved { ring, at, .. } | Program::Timed { ring, at, .. } = program {
            clock += 1;
            writers[*ring].submit(*at, &[clock, lane as u64, written[lane]]);
            written[lane] += 1;
        }
    }
    rings.look_at(clock + 1);
    while let Some(record) = rings.next() {
        let [_, lane, number] = words(record)[..] else { panic!("three words") };
        assert_eq!(number, read[lane as usize], "lane {lane}");
        read[lane as usize] += 1;
    }
    assert_eq!(read, written);
    assert!(read[0] > 1000 && read.iter().sum::<u64>() > 50_000, "{read:?}");
}
