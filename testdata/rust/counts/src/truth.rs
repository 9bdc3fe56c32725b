//! Counters, the one line of truth, options, a clock.
//!
//! The last line on stdout is JSON with whole numbers only: `"NAME"`: how often NAME was called (functions never called
//! are absent); keys with a leading `_` are no functions: `"_unwind:NAME"`, `"_exit:NAME"`, `"_exec:NAME"`,
//! `"_tailcall:NAME"` say how many calls of NAME end that way instead of returning, `"_ns:NAME"` how long all calls of
//! NAME took.

use std::arch::asm;
use std::io::{BufRead, Write};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Counts the calls of one function.
pub struct Counter {
    pub name: &'static str,
    pub calls: AtomicU64,
}

impl Counter {
    pub const fn new(name: &'static str) -> Self {
        Counter { name, calls: AtomicU64::new(0) }
    }

    /// Through an opaque pointer: else some functions would begin with `lock inc`, which the kernel refuses to probe.
    /// (`black_box` would do, but puts the pointer on the stack, and with that no call is a tail call.)
    #[inline(always)]
    pub fn here(&self) {
        let mut calls: *const AtomicU64 = &self.calls;
        // SAFETY: no instruction; the pointer comes out as it went in.
        unsafe { asm!("/* {0} */", inout(reg) calls, options(pure, nomem, nostack, preserves_flags)) };
        // SAFETY: points into `self`.
        unsafe { &*calls }.fetch_add(1, Relaxed);
    }
}

static NOTES: Mutex<Vec<(String, u64)>> = Mutex::new(Vec::new());

/// Adds a fact that is no count of calls.
pub fn note(kind: &str, name: &str, value: u64) {
    NOTES.lock().unwrap().push((format!("_{kind}:{name}"), value));
}

/// Writes the line of truth.
pub fn print(counters: &[&Counter]) {
    let notes = NOTES.lock().unwrap();
    let called = counters.iter().map(|c| (c.name, c.calls.load(Relaxed))).filter(|(_, calls)| *calls > 0);
    let entries: Vec<String> = called
        .chain(notes.iter().map(|(name, value)| (name.as_str(), *value)))
        .map(|(name, value)| format!("\"{name}\": {value}"))
        .collect();
    println!("{{{}}}", entries.join(", "));
    std::io::stdout().flush().unwrap();
}

/// `counts MODE [-n N] [-t THREADS] [--wait]`; 0: the mode's own default.
#[derive(Default)]
pub struct Options {
    pub mode: String,
    pub n: u64,
    pub threads: u64,
}

impl Options {
    /// `n`, or the default of a mode.
    pub fn or(&self, standard: u64) -> u64 {
        if self.n > 0 { self.n } else { standard }
    }
}

/// Reads the options; with `--wait` it says "ready" and waits for a line or the end of stdin.
pub fn start() -> Options {
    let mut options = Options::default();
    let mut wait = false;
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|n| n.parse().ok()).expect("a number after the option");
        match argument.as_str() {
            "--wait" => wait = true,
            "-n" => options.n = number(),
            "-t" => options.threads = number(),
            _ => options.mode = argument,
        }
    }
    if wait {
        println!("ready");
        std::io::stdout().flush().unwrap();
        let _ = std::io::stdin().lock().read_line(&mut String::new());
    }
    options
}

/// Burns CPU.
pub fn spin(duration: Duration) {
    let start = Instant::now();
    while start.elapsed() < duration {}
}
