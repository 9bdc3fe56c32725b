//! Reading the target's and the kernel's memory. Every read can fail, and says so.

use aya_ebpf::helpers::{bpf_get_current_task, bpf_probe_read_kernel, bpf_probe_read_user};

/// A value in the target's memory.
#[inline(always)]
pub(crate) fn user<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address and reports a fault as an error.
    unsafe { bpf_probe_read_user(address as *const T) }.ok()
}

/// A value in the kernel's memory.
#[inline(always)]
pub(crate) fn kernel<T: Copy>(address: u64) -> Option<T> {
    // SAFETY: the helper checks the address and reports a fault as an error.
    unsafe { bpf_probe_read_kernel(address as *const T) }.ok()
}

/// Address of the running thread's `struct task_struct`.
#[inline(always)]
pub(crate) fn current_task() -> u64 {
    // SAFETY: no arguments; only the number is used.
    unsafe { bpf_get_current_task() }
}
