//! Callers by frame pointers.
//!
//! At a function's entry the frame pointer is still the caller's, so the chain alone misses the immediate caller: the
//! walk starts with the return address on the stack.

use aya_ebpf::programs::ProbeContext;
use probe_ebpf::abi::{WALK_DEPTH, WALK_END, WALK_NO_CHAIN, WALK_UNREADABLE};

use crate::{maps::STACK_DEPTH, memory, regs};

/// Where a walk is.
pub(crate) struct Walk {
    /// The first address to tell, before the walk begins.
    first: Option<u64>,
    frame: u64,
}

impl Walk {
    /// At a function's entry.
    #[inline(always)]
    pub(crate) fn from_entry(ctx: &ProbeContext) -> Self {
        Self { first: regs::return_address(ctx), frame: regs::frame_pointer(ctx) }
    }

    /// Amid a function: its own frame's return address is the chain's first.
    #[inline(always)]
    pub(crate) fn from_point(ctx: &ProbeContext) -> Self {
        Self { first: Some(regs::ip(ctx) + 1), frame: regs::frame_pointer(ctx) }
    }

    /// Writes return addresses, innermost first, behind the `count` that `frames` has already: where the walk is then, how
    /// many there are, and why the walk ended (`WALK_…`); none: because there is no more room.
    ///
    /// # Safety
    /// `frames` can be written.
    #[inline(always)]
    pub(crate) unsafe fn into<const N: usize>(self, frames: *mut [u64; N], count: usize) -> (Self, usize, Option<u16>) {
        let frames = frames.cast::<u64>();
        let (mut frame, mut count) = (self.frame, count);
        if count == 0 {
            let Some(first) = self.first else { return (self, 0, Some(WALK_UNREADABLE)) };
            // SAFETY: the caller's; there is room for `N`.
            unsafe { frames.write(first) };
            count = 1;
        }
        // A bound that only the verifier knows keeps the compiler from unrolling the loop.
        let wanted = STACK_DEPTH.load() as usize;
        while count < wanted && count < N {
            if frame == 0 {
                return (self, count, Some(WALK_END));
            }
            let Some([mut next, mut address]) = memory::user::<[u64; 2]>(frame) else {
                return (self, count, Some(WALK_UNREADABLE));
            };
            // Go's `crosscall2` pushes rbp twice: of two pairs of words that overlap, the outer one is the frame.
            if next == frame + 8 {
                let Some(pair) = memory::user::<[u64; 2]>(next) else {
                    return (self, count, Some(WALK_UNREADABLE));
                };
                frame = next;
                [next, address] = pair;
            }
            if address == 0 {
                return (self, count, Some(WALK_END));
            }
            // SAFETY: the caller's; there is room for `N`.
            unsafe { frames.add(count).write(address) };
            count += 1;
            if next != 0 && next <= frame {
                return (self, count, Some(WALK_NO_CHAIN));
            }
            frame = next;
        }
        (Self { frame, ..self }, count, if count < wanted { None } else { Some(WALK_DEPTH) })
    }
}
