//! How much of a file's code is read to plan its functions.
//!
//! Functions rarely share code, so that reading each to its end reads the file's code about once. A file that is made for
//! it has as many functions as bytes, each of which goes to the end of the file.

use std::sync::atomic::{AtomicU64, Ordering};

use symbols::binary::Binary;

/// How often each byte of code may be read. Parts, aliases of other lengths and jumps that are followed take a few times.
const TIMES: u64 = 16;

/// Bytes that may be read of the smallest file.
const LEAST: u64 = 4 << 20;

const TOO_MUCH: &str = "it shares its code with so many other functions that the file cannot be meant seriously";

/// What is left to read of one file.
pub struct Reading(AtomicU64);

impl Reading {
    /// All that may be read of a file.
    pub fn of(binary: &Binary) -> Self {
        let code = binary.segments().iter().filter(|segment| segment.executable);
        let bytes = code.fold(0, |bytes: u64, segment| bytes.saturating_add(segment.file_size));
        Self(AtomicU64::new(bytes.saturating_mul(TIMES).saturating_add(LEAST)))
    }

    /// Takes what is going to be read.
    ///
    /// # Errors
    /// Too much was read already; the reason for the user.
    pub(super) fn take(&self, bytes: usize) -> Result<(), String> {
        let take = |left: u64| left.checked_sub(bytes as u64);
        let taken = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take);
        taken.map(|_| ()).map_err(|_| TOO_MUCH.to_owned())
    }
}
