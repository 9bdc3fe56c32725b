//! How often points are passed: what a budget goes by.
//!
//! Every trap counts, also one of a process that is not traced and one whose record is lost: the trap is the cost.

use aya_ebpf::helpers::bpf_get_smp_processor_id;
use probe_ebpf::abi::Cookie;

use crate::{
    emit::add,
    maps::{COUNTS, COUNTS_LAST_ROW, COUNTS_ROW},
};

/// Counts a point that shares in a budget.
#[inline(always)]
pub(crate) fn passed(cookie: Cookie) {
    let row = COUNTS_ROW.load();
    if row == 0 || !cookie.is_counted() {
        return;
    }
    // SAFETY: no arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() } as u32;
    let index = (cpu & COUNTS_LAST_ROW.load()).wrapping_mul(row).wrapping_add(cookie.point());
    add(COUNTS.get_ptr_mut(index));
}
