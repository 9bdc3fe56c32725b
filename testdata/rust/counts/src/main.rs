//! Counts its own calls. Usage and the form of the last line: truth.rs.
//!
//! A correct trace of `counts MODE` shows exactly the counts of that line, and:
//! - `calls`: 4 threads, `counts::Store::save` → `counts::leaf` for every fourth call; all return
//! - `recurse`: `counts::recurse` nested 200 deep
//! - `panic`: `counts::panic_middle` and `counts::panic_deep` end as unwound, `counts::panic_above` (which catches)
//!   returns; `<counts::Cleanup as core::ops::drop::Drop>::drop` runs in between
//! - `generics`: `counts::twice` has an instance for each type, all under one name; trait methods are
//!   `<counts::Square as counts::Shape>::area`, also through `dyn`
//! - `closure`: `counts::closures::{{closure}}`, called through a pointer
//! - `tail`: `counts::tail_from` ends at its jmp, `counts::tail_to` is its sibling
//! - `nested`: the durations of `counts::nested_a`, `_b` and `_c` nest in, and nearly sum to, `counts::nested_parent`'s
//! - `exit`, `exec`: the outer and inner function end so; exit status 3, or /bin/true's

mod truth;

use std::hint::black_box;
use std::os::unix::process::CommandExt;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use truth::{Counter, Options, note, spin};

macro_rules! counters {
    ($($id:ident = $name:literal;)*) => {
        $(static $id: Counter = Counter::new($name);)*
        static ALL: &[&Counter] = &[$(&$id),*];
    };
}

counters! {
    SAVE = "counts::Store::save";
    LEAF = "counts::leaf";
    RECURSE = "counts::recurse";
    PANIC_ABOVE = "counts::panic_above";
    PANIC_MIDDLE = "counts::panic_middle";
    PANIC_DEEP = "counts::panic_deep";
    CLEANUP = "<counts::Cleanup as core::ops::drop::Drop>::drop";
    TWICE = "counts::twice";
    SQUARE_AREA = "<counts::Square as counts::Shape>::area";
    DISC_AREA = "<counts::Disc as counts::Shape>::area";
    CLOSURE = "counts::closures::{{closure}}";
    TAIL_CALLER = "counts::tail_caller";
    TAIL_FROM = "counts::tail_from";
    TAIL_TO = "counts::tail_to";
    NESTED_PARENT = "counts::nested_parent";
    NESTED_A = "counts::nested_a";
    NESTED_B = "counts::nested_b";
    NESTED_C = "counts::nested_c";
    EXIT_OUTER = "counts::exit_outer";
    EXIT_INNER = "counts::exit_inner";
    EXEC_OUTER = "counts::exec_outer";
    EXEC_INNER = "counts::exec_inner";
}

fn main() {
    let options = truth::start();
    let mode = match options.mode.as_str() {
        "calls" => calls,
        "recurse" => recursion,
        "panic" => panics,
        "generics" => generics,
        "closure" => closures,
        "tail" => tail,
        "nested" => nested,
        "exit" => |_: &Options| exit_outer(),
        "exec" => |_: &Options| exec_outer(),
        _ => {
            eprintln!(
                "usage: counts calls|recurse|panic|generics|closure|tail|nested|exit|exec [-n N] [-t THREADS] [--wait]"
            );
            std::process::exit(2);
        }
    };
    mode(&options);
    truth::print(ALL);
}

/// A type with an inherent method.
#[derive(Default)]
pub struct Store {
    sum: u64,
}

#[inline(never)]
fn leaf(x: u64) -> u64 {
    LEAF.here();
    black_box(x) * 3
}

impl Store {
    #[inline(never)]
    fn save(&mut self, key: u64) -> u64 {
        SAVE.here();
        self.sum ^= black_box(key);
        if key.is_multiple_of(4) { black_box(leaf(key)) + 1 } else { self.sum }
    }
}

fn calls(options: &Options) {
    let threads = if options.threads > 0 { options.threads } else { 4 };
    let n = options.or(1_000_000) / threads;
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(move || {
                let mut store = Store::default();
                for i in 0..n {
                    black_box(store.save(i));
                }
            });
        }
    });
}

#[inline(never)]
fn recurse(depth: u64) -> u64 {
    RECURSE.here();
    if depth > 1 { black_box(recurse(black_box(depth - 1))) + 1 } else { 1 }
}

fn recursion(options: &Options) {
    for _ in 0..options.or(100) {
        assert_eq!(recurse(200), 200);
    }
}

struct Cleanup;

impl Drop for Cleanup {
    #[inline(never)]
    fn drop(&mut self) {
        CLEANUP.here();
        black_box(self);
    }
}

#[inline(never)]
fn panic_deep(x: u64) {
    PANIC_DEEP.here();
    if black_box(true) {
        std::panic::panic_any(x);
    }
}

#[inline(never)]
fn panic_middle(x: u64) {
    PANIC_MIDDLE.here();
    let cleanup = Cleanup;
    panic_deep(x);
    black_box(&cleanup);
}

#[inline(never)]
fn panic_above(x: u64) -> bool {
    PANIC_ABOVE.here();
    let caught = std::panic::catch_unwind(|| panic_middle(x));
    caught.is_err_and(|payload| payload.downcast_ref() == Some(&x))
}

fn panics(options: &Options) {
    std::panic::set_hook(Box::new(|_| {})); // quiet
    let n = options.or(10_000);
    for i in 0..n {
        assert!(panic_above(i));
    }
    note("unwind", "counts::panic_middle", n);
    note("unwind", "counts::panic_deep", n);
}

#[inline(never)]
fn twice<T: Copy + std::ops::Add<Output = T>>(x: T) -> T {
    TWICE.here();
    black_box(x) + x
}

/// A trait with two implementations.
pub trait Shape {
    /// Its area.
    fn area(&self) -> u64;
}

struct Square(u64);
struct Disc(u64);

impl Shape for Square {
    #[inline(never)]
    fn area(&self) -> u64 {
        SQUARE_AREA.here();
        black_box(self.0) * self.0
    }
}

impl Shape for Disc {
    #[inline(never)]
    fn area(&self) -> u64 {
        DISC_AREA.here();
        black_box(self.0) * self.0 * 3
    }
}

fn generics(options: &Options) {
    for i in 0..options.or(10_000) {
        black_box(twice(i));
        black_box(twice(i as f64));
        black_box(twice(i as u8 / 2));
        black_box(Square(i).area());
        let shapes: [Box<dyn Shape>; 2] = [Box::new(Square(i)), Box::new(Disc(i))];
        for shape in black_box(shapes) {
            black_box(shape.area());
        }
    }
}

fn closures(options: &Options) {
    let add = black_box(options.threads);
    // Behind a pointer it has a body of its own.
    let closure: Box<dyn Fn(u64) -> u64> = black_box(Box::new(move |x| {
        CLOSURE.here();
        black_box(x) + add
    }));
    for i in 0..options.or(10_000) {
        black_box(closure(i));
    }
}

#[inline(never)]
fn tail_to(x: u64) -> u64 {
    TAIL_TO.here();
    black_box(x) + 7
}

#[inline(never)]
fn tail_from(x: u64) -> u64 {
    TAIL_FROM.here();
    tail_to(x + 1)
}

#[inline(never)]
fn tail_caller(x: u64) -> u64 {
    TAIL_CALLER.here();
    black_box(tail_from(x)) + 1
}

fn tail(options: &Options) {
    let n = options.or(10_000);
    for i in 0..n {
        black_box(tail_caller(i));
    }
    // Not promised by the language: true of optimised builds.
    if cfg!(not(debug_assertions)) {
        note("tailcall", "counts::tail_from", n);
    }
}

#[inline(never)]
fn nested_a() {
    NESTED_A.here();
    spin(Duration::from_micros(300));
}

#[inline(never)]
fn nested_b() {
    NESTED_B.here();
    std::thread::sleep(Duration::from_micros(500));
    black_box(&NESTED_B); // no tail call to sleep
}

#[inline(never)]
fn nested_c() {
    NESTED_C.here();
    spin(Duration::from_micros(100));
}

static SPENT: Mutex<[Duration; 4]> = Mutex::new([Duration::ZERO; 4]);

fn timed(which: usize, function: fn()) {
    let start = Instant::now();
    black_box(function)();
    let spent = start.elapsed();
    SPENT.lock().unwrap()[which] += spent;
}

#[inline(never)]
fn nested_parent() {
    NESTED_PARENT.here();
    timed(0, nested_a);
    timed(1, nested_b);
    timed(2, nested_c);
    black_box(&NESTED_PARENT); // no tail call to timed
}

fn nested(options: &Options) {
    for _ in 0..options.or(50) {
        timed(3, nested_parent);
    }
    let spent = SPENT.lock().unwrap();
    for (counter, spent) in [&NESTED_A, &NESTED_B, &NESTED_C, &NESTED_PARENT].iter().zip(spent.iter()) {
        note("ns", counter.name, spent.as_nanos() as u64);
    }
}

#[inline(never)]
fn exit_inner() {
    EXIT_INNER.here();
    note("exit", EXIT_OUTER.name, 1);
    note("exit", EXIT_INNER.name, 1);
    truth::print(ALL);
    if black_box(true) {
        std::process::exit(3);
    }
}

#[inline(never)]
fn exit_outer() {
    EXIT_OUTER.here();
    exit_inner();
    black_box(&EXIT_OUTER);
}

#[inline(never)]
fn exec_inner() {
    EXEC_INNER.here();
    note("exec", EXEC_OUTER.name, 1);
    note("exec", EXEC_INNER.name, 1);
    truth::print(ALL);
    panic!("{}", std::process::Command::new("/bin/true").exec());
}

#[inline(never)]
fn exec_outer() {
    EXEC_OUTER.here();
    exec_inner();
    black_box(&EXEC_OUTER);
}
