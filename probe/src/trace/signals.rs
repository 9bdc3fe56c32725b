//! Signals: Ctrl-C and what else ends a trace.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::{SignalsInfo, exfiltrator::WithRawSiginfo},
};

use crate::attach::{self, rights};

/// Ctrl-C and its like: counted, since the second one is more urgent, and the third one does not wait for a write
/// that blocks (a pager that nobody scrolls).
pub(super) struct Signals {
    count: Arc<AtomicUsize>,
    /// Set by the handler itself, before anything that the signal interrupted goes on.
    any: Arc<AtomicBool>,
    /// The trace ends with this one.
    enough: usize,
}

/// Signals that come so soon after the one that ends the trace are the same wish: `timeout` sends its signal to its child, and then
/// to the child's group.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Exit status after Ctrl-C, as shells have it.
pub(super) const INTERRUPTED: u8 = 128 + SIGINT as u8;

impl Signals {
    /// Ctrl-C reaches a command that we started, too. What it does at its end is worth seeing: the first one is for
    /// it, the second one for us.
    pub(super) fn install(with_command: bool) -> Result<Self> {
        let enough = if with_command { 2 } else { 1 };
        let any = Arc::new(AtomicBool::new(false));
        let watched = [SIGINT, SIGTERM, SIGHUP];
        let watched = watched.into_iter().filter(|&signal| signal != SIGHUP || !is_ignored(SIGHUP));
        for signal in watched.clone() {
            signal_hook::flag::register(signal, any.clone()).context("failed to watch for signals")?;
        }
        // Each delivery is kept: of two that come before the thread runs, the plain iterator tells once.
        let mut signals = SignalsInfo::<WithRawSiginfo>::new(watched).context("failed to watch for signals")?;
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        thread::spawn(move || {
            // It counts, and needs no right for that.
            let _ = rights::keep_nothing();
            let mut ended: Option<Instant> = None;
            for info in signals.forever() {
                if ended.is_some_and(|ended| ended.elapsed() < AT_ONCE) {
                    continue;
                }
                // Only Ctrl-C reaches the command too; a supervisor's SIGTERM is for us alone.
                let weight = if info.si_signo == SIGINT { 1 } else { enough };
                let count = counted.fetch_add(weight, Ordering::Relaxed) + weight;
                if count == enough {
                    ended = Some(Instant::now());
                } else if count > enough {
                    // Everything else of ours in the kernel goes with our descriptors.
                    attach::remove_all();
                    std::process::exit(i32::from(INTERRUPTED));
                }
            }
        });
        Ok(Self { count, any, enough })
    }

    pub(super) fn any(&self) -> bool {
        self.any.load(Ordering::Relaxed)
    }

    pub(super) fn enough(&self) -> bool {
        self.count.load(Ordering::Relaxed) >= self.enough
    }
}

/// Whether a signal is ignored, as SIGHUP is under nohup.
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    ignored.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|set| set >> (signal - 1) & 1 != 0)
}
