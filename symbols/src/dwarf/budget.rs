//! How much memory the tables of one file may take: a few hostile bytes can describe any amount.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that may still be taken. What real debug information needs, in memory, is below four times the file.
pub(super) struct Budget(AtomicUsize);

/// Small files get this much in any case.
const LEAST: usize = 16 << 20;
/// Times the file's length. Compressed sections are seldom a tenth of what is in them.
const TIMES: usize = 32;

impl Budget {
    pub(super) fn for_file(len: usize) -> Self {
        Self(AtomicUsize::new(len.saturating_mul(TIMES).saturating_add(LEAST)))
    }

    /// Takes `bytes`; `None` if that much is not left.
    pub(super) fn take(&self, bytes: usize) -> Option<()> {
        let take = |left: usize| left.checked_sub(bytes);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).ok().map(|_| ())
    }

    /// Takes room for one more `T`.
    pub(super) fn take_one<T>(&self) -> Option<()> {
        self.take(size_of::<T>())
    }
}
