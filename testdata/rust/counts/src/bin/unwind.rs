//! Calls that a panic takes away, and when they ended. Usage and the file's form: ../../../../c/windows.h.
//!
//! - `catch`: `unwind::catcher` → `panic_a` → `panic_b` → `panic_c` panics, `catcher` catches; `panic_b` has a value to
//!   drop
//! - `nested`: `unwind::outer` → `middle` → `deep` panics; what `middle` drops catches a panic of its own, in
//!   `unwind::in_drop`, while the first one unwinds; `outer` catches that one

use std::cell::RefCell;
use std::hint::black_box;
use std::io::Write;
use std::panic::catch_unwind;

struct Window {
    name: &'static str,
    end: &'static str,
    times: [u64; 4],
}

#[derive(Default)]
struct Windows {
    all: Vec<Window>,
    open: Vec<usize>,
    leave: u64,
}

thread_local!(static WINDOWS: RefCell<Windows> = RefCell::default());

/// `CLOCK_MONOTONIC`, ns: what `Instant` reads too, but does not tell.
fn now_ns() -> u64 {
    #[repr(C)]
    struct Timespec {
        seconds: i64,
        nanoseconds: i64,
    }
    unsafe extern "C" {
        fn clock_gettime(clock: i32, time: *mut Timespec) -> i32;
    }
    let mut time = Timespec { seconds: 0, nanoseconds: 0 };
    // SAFETY: a struct timespec of 64-bit Linux; 1 is CLOCK_MONOTONIC.
    unsafe { clock_gettime(1, &mut time) };
    time.seconds as u64 * 1_000_000_000 + time.nanoseconds as u64
}

fn enter(name: &'static str, before: u64) {
    WINDOWS.with_borrow_mut(|windows| {
        windows.open.push(windows.all.len());
        windows.all.push(Window { name, end: "open", times: [before, now_ns(), 0, 0] });
    });
}

fn leave() {
    WINDOWS.with_borrow_mut(|windows| windows.leave = now_ns());
}

/// The innermost so many open calls are over.
fn over(calls: usize, end: &'static str) {
    let after = now_ns();
    WINDOWS.with_borrow_mut(|windows| {
        for _ in 0..calls {
            let window = windows.open.pop().expect("a call is open");
            let leave = windows.leave;
            let window = &mut windows.all[window];
            (window.end, window.times[2], window.times[3]) = (end, leave, after);
        }
    });
}

struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        black_box(1);
    }
}

#[inline(never)]
fn panic_c(before: u64) {
    enter("unwind::panic_c", before);
    leave();
    panic!("c");
}

#[inline(never)]
fn panic_b(before: u64) {
    enter("unwind::panic_b", before);
    let guard = Guard;
    black_box(panic_c)(now_ns());
    black_box(&guard);
}

#[inline(never)]
fn panic_a(before: u64) {
    enter("unwind::panic_a", before);
    black_box(panic_b)(now_ns());
    black_box(1);
}

#[inline(never)]
fn catcher(before: u64) {
    enter("unwind::catcher", before);
    assert!(catch_unwind(|| black_box(panic_a)(now_ns())).is_err());
    over(3, "unwind");
    leave();
}

#[inline(never)]
fn in_drop(before: u64) {
    enter("unwind::in_drop", before);
    leave();
    panic!("in drop");
}

struct Catches;

impl Drop for Catches {
    fn drop(&mut self) {
        // The frame of `deep` is gone.
        over(1, "unwind");
        assert!(catch_unwind(|| black_box(in_drop)(now_ns())).is_err());
        over(1, "unwind");
        leave();
    }
}

#[inline(never)]
fn deep(before: u64) {
    enter("unwind::deep", before);
    leave();
    panic!("deep");
}

#[inline(never)]
fn middle(before: u64) {
    enter("unwind::middle", before);
    let catches = Catches;
    black_box(deep)(now_ns());
    black_box(&catches);
}

#[inline(never)]
fn outer(before: u64) {
    enter("unwind::outer", before);
    assert!(catch_unwind(|| black_box(middle)(now_ns())).is_err());
    over(1, "unwind");
    leave();
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, kind, n, path] = &arguments[..] else { std::process::exit(2) };
    std::panic::set_hook(Box::new(|_| {}));
    for _ in 0..n.parse().expect("a number") {
        if kind == "catch" {
            black_box(catcher)(now_ns())
        } else {
            black_box(outer)(now_ns())
        }
        over(1, "return");
    }
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).expect("a file"));
    WINDOWS.with_borrow(|windows| {
        for Window { name, end, times: [before, inside, leave, after] } in &windows.all {
            writeln!(file, "{name} {end} {before} {inside} {leave} {after}").expect("written");
        }
    });
}
