//! `testdata/cpp/counts`: -O2 without frame pointers, -O0 with.

use super::{ROOM, assert_durations, assert_inside, assert_recursion, check};

const ALL: [&str; 2] = ["cpp/counts", "cpp/counts-O0"];

#[test]
fn a_million_calls_in_four_threads() {
    let (traced, _) = check("cpp/counts", &["calls"], &ROOM);
    assert_inside(&traced, "shop::twice", "shop::Store::put");
}

#[test]
fn calls_in_threads_at_o0() {
    let (traced, _) = check("cpp/counts-O0", &["calls", "-n", "30000"], &ROOM);
    assert_inside(&traced, "shop::twice", "shop::Store::put");
}

#[test]
fn recursion_nests_200_deep() {
    for program in ALL {
        let (traced, _) = check(program, &["recurse", "-n", "20"], &[]);
        assert_recursion(&traced, "shop::recurse", 20);
    }
}

#[test]
fn a_caught_exception_unwinds_what_it_passed() {
    for program in ALL {
        let (traced, _) = check(program, &["exception", "-n", "2000"], &[]);
        assert_inside(&traced, "shop::between", "shop::catches");
        assert_inside(&traced, "shop::throws", "shop::between");
    }
}

#[test]
fn constructors_and_destructors_are_counted_once_an_object() {
    for program in ALL {
        check(program, &["objects", "-n", "2000"], &[]);
    }
}

#[test]
fn tail_calls_through_a_vtable_and_direct() {
    for program in ALL {
        check(program, &["virtual", "-n", "2000"], &[]);
        check(program, &["tail", "-n", "2000"], &[]);
    }
}

#[test]
fn durations_agree_with_the_programs_own_clock() {
    let least = [("shop::nested_a", 300_000), ("shop::nested_b", 500_000), ("shop::nested_parent", 800_000)];
    for program in ALL {
        let (traced, truth) = check(program, &["nested"], &[]);
        assert_durations(&traced, &truth, &least);
    }
}

#[test]
fn exit_ends_open_calls_as_exit() {
    for program in ALL {
        let (traced, _) = check(program, &["exit"], &[]);
        assert_eq!(traced.ended.code(), 3, "{program}");
        assert_inside(&traced, "shop::exits_inner", "shop::exits_outer");
    }
}
