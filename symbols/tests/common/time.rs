//! What work takes, whatever else the machine does.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

/// The processor time that this thread takes for it.
pub(crate) fn took(work: impl FnOnce()) -> Duration {
    let before = processor_time();
    work();
    processor_time() - before
}
