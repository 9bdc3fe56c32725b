//! Where unwinders land, and in whose processes that is of interest.

use aya_ebpf::{helpers::bpf_get_current_pid_tgid, programs::ProbeContext};
use probe_ebpf::abi::Cookie;

use crate::{
    lane::{self, Place},
    maps::{RUNS, SHARED_UNWINDERS},
    regs,
};

/// A traced function was entered: what an unwinder does in this process is of interest.
#[inline(always)]
pub(crate) fn note_process(place: &Place) {
    let pid = (place.pid_tgid >> 32) as u32;
    if SHARED_UNWINDERS.load() != 0 && RUNS.get_ptr(&pid).is_none() {
        // It makes room by itself: whom it forgets is noted again at the next entry.
        let _ = RUNS.insert(&pid, &1, 0);
    }
}

/// Whether a traced function was ever entered in this process.
#[inline(always)]
pub(crate) fn runs_traced_code() -> bool {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    SHARED_UNWINDERS.load() == 0 || RUNS.get_ptr(&pid).is_some()
}

/// The place that is left for: calls as deep and deeper are over. Native unwinders have loaded its stack pointer (at a
/// RET its word below, which is as good: what called the unwinder stands there). Go's runs on the system stack, and
/// has written down the goroutine's.
#[inline(always)]
pub(crate) fn landing(ctx: &ProbeContext, cookie: Cookie) -> Option<Place> {
    let pid_tgid = bpf_get_current_pid_tgid();
    if cookie.goid_offset() == 0 {
        return Some(Place { goid: 0, depth: !regs::sp(ctx), pid_tgid });
    }
    let (goid, depth) = lane::suspended(ctx, cookie)?;
    Some(Place { goid, depth, pid_tgid })
}
