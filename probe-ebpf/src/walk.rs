//! Callers by frame pointers.
//!
//! At a function's entry the frame pointer is still the caller's, so the chain alone misses the immediate caller: the
//! walk starts with the return address on the stack.

use aya_ebpf::programs::ProbeContext;
use probe_ebpf::abi::{MAX_FRAMES, WALK_DEPTH, WALK_END, WALK_NO_CHAIN, WALK_UNREADABLE};

use crate::{maps::STACK_DEPTH, memory, regs};

/// Where a walk starts.
pub(crate) struct Walk {
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

    /// Writes return addresses, innermost first: how many, and why the walk ended (`WALK_…`).
    #[inline(always)]
    pub(crate) fn into(self, frames: &mut [u64; MAX_FRAMES]) -> (u32, u16) {
        let Some(first) = self.first else { return (0, WALK_UNREADABLE) };
        frames[0] = first;
        // A bound that only the verifier knows keeps the compiler from unrolling the loop.
        let wanted = STACK_DEPTH.load() as usize;
        let mut frame = self.frame;
        let mut count = 1;
        while count < wanted && count < MAX_FRAMES {
            if frame == 0 {
                return (count as u32, WALK_END);
            }
            let Some([mut next, mut address]) = memory::user::<[u64; 2]>(frame) else {
                return (count as u32, WALK_UNREADABLE);
            };
            // Go's `crosscall2` pushes rbp twice: of two pairs of words that overlap, the outer one is the frame.
            if next == frame + 8 {
                let Some(pair) = memory::user::<[u64; 2]>(next) else { return (count as u32, WALK_UNREADABLE) };
                frame = next;
                [next, address] = pair;
            }
            if address == 0 {
                return (count as u32, WALK_END);
            }
            frames[count] = address;
            count += 1;
            if next != 0 && next <= frame {
                return (count as u32, WALK_NO_CHAIN);
            }
            frame = next;
        }
        (count as u32, WALK_DEPTH)
    }
}
