//! Who made a goroutine.

use super::*;

/// An event of a goroutine that goroutine 7 made, at 0x700.
fn told(b: &mut Bench, goid: u64, time_ns: u64, depth: u64, point: u32) {
    let event = Event { time_ns, depth, goid, pid_tgid: 1 << 32 | 1, point, lost: 0 };
    let origin = Some(probe_ebpf::abi::Origin { parent: 7, go_statement: 0x700 });
    let record = Record { event, generation: 0, origin, frames: None };
    b.tracker.record(&record, &mut OneLoss, &mut b.told).expect("made-up sinks do not fail");
}

#[test]
fn every_call_of_a_goroutine_has_what_was_told_with_one() {
    let mut b = bench();
    told(&mut b, 8, 1, 100, entry(F));
    b.on_goroutine(8, 1, 2, 150, entry(G)).on_goroutine(8, 1, 3, 150, exit(G)).on_goroutine(8, 1, 4, 100, exit(F));
    b.on_goroutine(8, 2, 5, 100, entry(F)).on_goroutine(9, 1, 6, 100, entry(F));
    b.tells(&[
        "1 enter 0 in - at 1 made by 7 at 700",
        "2 enter 1 in 1 at 2 made by 7 at 700",
        "2 Return after 1 on 1",
        "1 Return after 3 on 1",
        "3 enter 0 in - at 5 made by 7 at 700",
        "4 enter 0 in - at 6",
    ]);
}

#[test]
fn nobody_made_the_goroutine_that_a_program_starts_with() {
    let mut b = bench();
    told(&mut b, 1, 1, 100, entry(F));
    b.tells(&["1 enter 0 in - at 1"]);
}

#[test]
fn what_was_told_of_a_goroutine_that_ended_is_not_told_of_the_next_in_its_place() {
    let mut b = bench();
    for goid in 2..=crate::calls::tracker::lanes::MANY_LANES as u64 + 2 {
        told(&mut b, goid, goid, 100, entry(F));
        b.on_goroutine(goid, 1, goid, 100, exit(F));
    }
    b.told.0.clear();
    b.on_goroutine(1 << 40, 1, 1 << 40, 100, entry(F));
    assert!(b.told.0[0].ends_with(&format!("enter 0 in - at {}", 1_u64 << 40)), "{:?}", b.told.0);
}
