//! Who made a goroutine: told with its outermost calls, kept for all of them.

use std::rc::Rc;

use probe_ebpf::abi::{self, WALK_DEPTH};

use super::{OpenCalls, Step};
use crate::{calls::Origin, events::Frames};

/// The goroutine that a program starts with. Its `go` statement is the start-up code's call of runtime.newproc
/// (src/runtime/asm_amd64.s, rt0_go), which is none that anybody wrote.
const FIRST: u64 = 1;

impl Step<'_> {
    /// Takes in what a record tells of the lane's goroutine. It never changes, so that it is looked up once.
    pub(super) fn learn(&mut self, lane: &mut OpenCalls, told: Option<abi::Origin>) {
        let Some(told) = told.filter(|_| lane.origin.is_none() && self.event.goid != FIRST) else { return };
        let place = told.go_statement.to_ne_bytes();
        let pid = self.thread().pid;
        let mut named = || self.world.callers(pid, Frames::from_bytes(&place, WALK_DEPTH), false);
        let go_statement = if told.go_statement == 0 { None } else { named().frames.first().cloned() };
        let parent = (told.parent != 0).then_some(told.parent);
        lane.origin = Some(Rc::new(Origin { parent, go_statement }));
    }
}
