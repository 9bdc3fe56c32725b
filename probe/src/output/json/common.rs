//! What lines of calls have in common: from the process to the kind of end, all is the same for most calls of a thread or
//! goroutine that are as deep. It is rendered once, and kept until another takes its place.

use std::rc::Rc;

use crate::calls::{End, Home, Leave, Origin, Thread};

/// Texts kept.
const KEPT: usize = 256;

/// A text, and what it was rendered from.
struct Kept {
    thread: Thread,
    end_tid: u32,
    depth: u32,
    goroutine: Option<u64>,
    end: End,
    lost: bool,
    comm: Rc<str>,
    home: Rc<Home>,
    origin: Option<Rc<Origin>>,
    text: Vec<u8>,
}

impl Kept {
    fn new(leave: &Leave, text: Vec<u8>) -> Self {
        let call = &leave.call;
        Self {
            thread: call.thread,
            end_tid: leave.end_tid,
            depth: call.depth,
            goroutine: call.goroutine,
            end: leave.end,
            lost: leave.lost,
            comm: call.comm.clone(),
            home: call.home.clone(),
            origin: call.origin.clone(),
            text,
        }
    }

    fn is_of(&self, leave: &Leave) -> bool {
        let call = &leave.call;
        self.thread == call.thread
            && self.end_tid == leave.end_tid
            && self.depth == call.depth
            && self.goroutine == call.goroutine
            && self.end == leave.end
            && self.lost == leave.lost
            && Rc::ptr_eq(&self.comm, &call.comm)
            && self.home == call.home
            && self.origin == call.origin
    }
}

/// The texts.
pub(super) struct Common {
    kept: Box<[Option<Kept>]>,
}

impl Default for Common {
    fn default() -> Self {
        Self { kept: (0..KEPT).map(|_| None).collect() }
    }
}

impl Common {
    /// The text of such a call, if it is kept.
    pub(super) fn of(&self, leave: &Leave) -> Option<&[u8]> {
        self.kept[place(leave)].as_ref().filter(|kept| kept.is_of(leave)).map(|kept| kept.text.as_slice())
    }

    /// Keeps a text.
    pub(super) fn keep(&mut self, leave: &Leave, text: &[u8]) {
        let kept = &mut self.kept[place(leave)];
        let mut room = kept.take().map_or_default(|kept| kept.text);
        room.clear();
        room.extend_from_slice(text);
        *kept = Some(Kept::new(leave, room));
    }
}

/// Few of one program's threads or goroutines that call at the same time share a place: their numbers are neighbours.
fn place(leave: &Leave) -> usize {
    let lane = leave.call.goroutine.unwrap_or(leave.call.thread.tid.into());
    (lane as usize).wrapping_add(leave.call.depth as usize * 37) % KEPT
}
