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

fn look(rings: &mut Rings) {
    rings.look_while(u64::MAX, || ());
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
    rings.look_while(10, || ());
    assert_eq!(times(&mut rings), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!((rings.new_ones(), rings.complete_ns()), (7, 10));
    rings.look_while(11, || ());
    assert_eq!((times(&mut rings), rings.new_ones(), rings.complete_ns()), (vec![], 0, 11));
}

/// Looks, and lets something happen when the first of two buffers was read once, and the second was not.
fn look_meanwhile(rings: &mut Rings, happens: impl FnOnce()) {
    let (mut number, mut happens) = (0, Some(happens));
    rings.look_while(10, || {
        number += 1;
        // Before that both were asked how far they are written.
        if number == 4
            && let Some(happens) = happens.take()
        {
            happens();
        }
    });
    assert!(happens.is_none());
}

#[test]
fn of_one_program_that_fills_up_a_buffer_and_goes_on_in_another_both_records_come_in_order() {
    let ([mut a, mut b], mut rings) = rings(4096);
    a.write(&[1]);
    // Held back until now.
    look_meanwhile(&mut rings, || {
        a.write(&[2]);
        b.write(&[3]);
    });
    assert_eq!(times(&mut rings), [1]);
    assert_eq!((rings.new_ones(), rings.complete_ns()), (3, 1));
    look(&mut rings);
    assert_eq!(times(&mut rings), [2, 3]);
}

#[test]
fn what_is_newer_than_what_was_found_last_does_not_come_before_it() {
    let ([mut a, mut b], mut rings) = rings(4096);
    b.write(&[7]);
    look_meanwhile(&mut rings, || {
        b.write(&[8]);
        a.write(&[4]);
    });
    assert_eq!(times(&mut rings), [0; 0]);
    look(&mut rings);
    assert_eq!(times(&mut rings), [4, 7, 8]);
}

#[test]
fn behind_a_record_that_is_not_complete_nothing_is_told_of_from_any_buffer() {
    let ([mut a, mut b], mut rings) = rings(4096);
    a.write(&[1]);
    rings.look_while(2, || ());
    assert_eq!(times(&mut rings), [1]);
    let late = a.reserve(1).expect("room");
    a.write(&[4]);
    b.write(&[5]);
    rings.look_while(10, || ());
    assert_eq!(times(&mut rings), [0; 0]);
    assert_eq!(rings.complete_ns(), 2);
    a.submit(late, &[3]);
    rings.look_while(11, || ());
    assert_eq!(rings.complete_ns(), 2, "nothing was given out");
    assert_eq!(times(&mut rings), [3, 4, 5]);
    assert_eq!(rings.complete_ns(), 11);
}

#[test]
fn time_stands_still_while_nothing_is_found_but_a_record_that_is_not_complete() {
    let ([mut a], mut rings) = rings(4096);
    rings.look_while(2, || ());
    let late = a.reserve(1).expect("room");
    a.write(&[4]);
    rings.look_while(10, || ());
    assert_eq!((times(&mut rings), rings.complete_ns()), (vec![], 2));
    // What is awaited is complete now, what comes then is not.
    a.submit(late, &[3]);
    let later = a.reserve(1).expect("room");
    rings.look_while(20, || ());
    assert_eq!(rings.complete_ns(), 2);
    assert_eq!((times(&mut rings), rings.complete_ns()), (vec![], 2));
    a.submit(later, &[5]);
    rings.look_while(30, || ());
    assert_eq!(times(&mut rings), [3, 4, 5]);
    assert_eq!(rings.complete_ns(), 30);
}

#[test]
fn records_come_though_one_is_always_being_written() {
    let ([mut a, mut b], mut rings) = rings(4096);
    let (mut time, mut came) = (0, 0);
    for _ in 0..1000 {
        let late = a.reserve(1).expect("room");
        b.write(&[time + 1]);
        look(&mut rings);
        came += times(&mut rings).len();
        // The next one is begun before this one is complete.
        let later = a.reserve(1).expect("room");
        a.submit(late, &[time + 2]);
        look(&mut rings);
        came += times(&mut rings).len();
        a.submit(later, &[time + 3]);
        time += 3;
        assert!(came as u64 + 3 >= time, "{came} of {time}");
    }
}

#[test]
fn at_the_end_everything_comes_but_what_will_never_be_complete() {
    let ([mut a, mut b], mut rings) = rings(4096);
    a.write(&[30]);
    a.reserve(1).expect("room");
    a.write(&[31]);
    b.write(&[40]);
    look(&mut rings);
    assert_eq!(times(&mut rings), [0; 0]);
    rings.end();
    look(&mut rings);
    assert_eq!(times(&mut rings), [30, 40]);
}

#[test]
fn records_of_one_time_keep_the_order_of_their_buffer() {
    let ([mut a], mut rings) = rings(4096);
    [[5, 1], [5, 2], [4, 3], [5, 4]].iter().for_each(|record| a.write(record));
    look(&mut rings);
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
    look(&mut rings);
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
        look(&mut rings);
        assert_eq!(times(&mut rings), if round % 3 == 0 { vec![round] } else { vec![] });
        assert_eq!(a.read_position(), a.position);
    }
}

#[test]
fn room_is_given_back_while_records_between_discarded_ones_are_read() {
    let ([mut a], mut rings) = rings(65536);
    for time in 0..100 {
        let at = a.reserve(40).expect("room");
        a.discard(at, 40);
        a.write(&[time; 20]);
    }
    look(&mut rings);
    for time in 0..100 {
        assert_eq!(rings.next().map(|record| words(record)[0]), Some(time));
        // Of the last 4096 bytes, and of the record that is being looked at, it is not.
        assert!(a.position * time / 100 <= a.read_position() + 4096 + 496, "{time}");
    }
    assert_eq!((rings.next(), a.read_position()), (None, a.position));
}

#[test]
fn a_buffer_of_nothing_but_discarded_records_is_given_back() {
    let ([mut a], mut rings) = rings(4096);
    for _ in 0..1000 {
        let at = a.reserve(127).expect("room");
        a.discard(at, 127);
        look(&mut rings);
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
            look(&mut rings);
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

/// Lanes as the kernel half has them: an exit's time is taken before there is room for its record, an entry's after, and
/// some entries are held back until the next event is told of. Between any two steps others may run, on the same CPU too.
struct Lanes {
    writers: [Writer; 3],
    lanes: [Lane; Self::COUNT],
    clock: u64,
    random: u64,
    /// Records for which the buffer of all was taken.
    beyond: u64,
}

#[derive(Default)]
struct Lane {
    held: Vec<u64>,
    program: Option<Program>,
    written: u64,
}

/// What a program does on its CPU.
struct Program {
    cpu: usize,
    /// Records to be written, last one first: their times, or none, which is taken when there is room.
    times: Vec<Option<u64>>,
    /// Where there is room for the next.
    room: Option<(usize, u64)>,
}

impl Lanes {
    const COUNT: usize = 7;
    const WORDS: u32 = 3;

    fn any(&mut self, below: u64) -> u64 {
        self.random = self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.random >> 33) % below
    }

    fn step(&mut self) {
        self.clock += 1;
        // The first one waits long.
        let number = if self.any(30) == 0 { 0 } else { self.any(Self::COUNT as u64 - 1) as usize + 1 };
        let (kind, cpu) = (self.any(4), self.any(2) as usize);
        let lane = &mut self.lanes[number];
        if lane.program.is_some() {
            self.go_on(number);
        } else if kind == 0 && lane.held.len() < 7 {
            lane.held.push(self.clock);
        } else {
            let own = (kind == 1).then_some(self.clock);
            let times = std::iter::once(own).chain(lane.held.drain(..).rev().map(Some)).collect();
            lane.program = Some(Program { cpu, times, room: None });
        }
    }

    /// A step of the programs that run.
    fn finish(&mut self) {
        self.clock += 1;
        (0..Self::COUNT).for_each(|number| self.go_on(number));
    }

    fn go_on(&mut self, number: usize) {
        let lane = &mut self.lanes[number];
        let Some(program) = &mut lane.program else { return };
        let Some((ring, at)) = program.room else {
            program.room =
                [program.cpu, 2].into_iter().find_map(|ring| Some((ring, self.writers[ring].reserve(Self::WORDS)?)));
            self.beyond += u64::from(program.room.is_some_and(|(ring, _)| ring == 2));
            return;
        };
        program.room = None;
        let time = program.times.pop().flatten().unwrap_or(self.clock);
        self.writers[ring].submit(at, &[time, number as u64, lane.written]);
        lane.written += 1;
        if program.times.is_empty() {
            lane.program = None;
        }
    }
}

#[test]
fn every_lanes_records_keep_their_order_whatever_interrupts_and_moves_them() {
    let (writers, rings): (Vec<_>, Vec<_>) = [2048, 2048, 8192].into_iter().map(Writer::new).unzip();
    let mut rings = Rings::of(rings);
    let writers = writers.try_into().unwrap_or_else(|_| unreachable!("three"));
    let mut lanes = Lanes { writers, lanes: Default::default(), clock: 0, random: 7, beyond: 0 };
    let mut read = [0; Lanes::COUNT];
    let mut check = |rings: &mut Rings| {
        while let Some(record) = rings.next() {
            let [_, lane, number] = words(record)[..] else { panic!("three words") };
            assert_eq!(number, read[lane as usize], "lane {lane}");
            read[lane as usize] += 1;
        }
        read
    };
    for round in 0..20_000 {
        // So many that the small buffers overflow, or none.
        for _ in 0..lanes.any(if round % 8 == 0 { 400 } else { 40 }) {
            lanes.step();
        }
        let (now, at_once) = (lanes.clock, lanes.any(20));
        rings.look_while(now, || (0..at_once).for_each(|_| lanes.step()));
        check(&mut rings);
    }
    while lanes.lanes.iter().any(|lane| lane.program.is_some()) {
        (0..10).for_each(|_| lanes.finish());
        look(&mut rings);
        check(&mut rings);
    }
    rings.end();
    look(&mut rings);
    let read = check(&mut rings);
    assert_eq!(read, lanes.lanes.map(|lane| lane.written));
    assert!(read[0] > 1000 && read.iter().sum::<u64>() > 50_000 && lanes.beyond > 5000, "{read:?}, {}", lanes.beyond);
}
