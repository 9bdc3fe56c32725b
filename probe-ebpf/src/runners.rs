//! In whose processes unwinders are of interest. A library's unwinder fires in every process of the machine; without
//! a filter by process, only those are told of in which a traced function was entered before.

use aya_ebpf::helpers::bpf_get_current_pid_tgid;

use crate::{
    lane::Place,
    maps::{RUNS, SHARED_UNWINDERS},
};

/// A traced function was entered in this process.
#[inline(always)]
pub(crate) fn note(place: &Place) {
    let pid = (place.pid_tgid >> 32) as u32;
    if SHARED_UNWINDERS.load() != 0 && RUNS.get_ptr(&pid).is_none() {
        // It makes room by itself: whom it forgets is noted again at the next entry.
        let _ = RUNS.insert(&pid, &1, 0);
    }
}

/// Whether a traced function was ever entered in this process.
#[inline(always)]
pub(crate) fn has_current() -> bool {
    let pid = (bpf_get_current_pid_tgid() >> 32) as u32;
    SHARED_UNWINDERS.load() == 0 || RUNS.get_ptr(&pid).is_some()
}

/// The process ended.
#[inline(always)]
pub(crate) fn forget(pid: u32) {
    if SHARED_UNWINDERS.load() != 0 {
        let _ = RUNS.remove(&pid);
    }
}
