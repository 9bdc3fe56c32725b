//! Events: records of the kernel half, decoded in place.
//!
//! In: the bytes of one ring buffer record. Out: a [`Record`] that borrows them. No allocation.

use probe_ebpf::abi::{
    Event, Origin, POINT_RESERVED, Registers, SECTION_FRAMES, SECTION_HIDDEN_RETURNS, SECTION_ORIGIN,
    SECTION_OUTER_STACK, SECTION_STACK, Section, WALK_UNREADABLE, generation, position,
};

use crate::{
    calls::overhead::Callers,
    stacks::{HiddenReturns, OuterStack, Region, StackCopy},
};

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// Who, where, when; of its point only the position.
    pub event: Event,
    /// Generation of the point's link.
    pub generation: u32,
    /// Who made the goroutine, where that was collected.
    pub origin: Option<Origin>,
    /// The callers, where they were collected.
    pub frames: Option<Frames<'a>>,
}

/// Callers as the kernel half collected them: return addresses that it walked, or a copy of the stack.
#[derive(Clone, Copy, Debug)]
pub struct Frames<'a> {
    bytes: &'a [u8],
    /// Why the walk ended: `WALK_…`.
    pub detail: u16,
    /// The stack, where it was not walked.
    pub stack: Option<StackCopy<'a>>,
}

impl Record<'_> {
    /// An event without sections, as the kernel half makes it.
    pub fn of(event: Event) -> Self {
        let point = event.point;
        let (point, generation) =
            if point < POINT_RESERVED { (position(point), generation(point)) } else { (point, 0) };
        Self { event: Event { point, ..event }, generation, origin: None, frames: None }
    }
}

impl Frames<'_> {
    /// The same, from bytes as they stand in a record: for tests and recordings.
    pub fn from_bytes(bytes: &[u8], detail: u16) -> Frames<'_> {
        Frames { bytes, detail, stack: None }
    }

    fn from_stack(stack: StackCopy<'_>) -> Frames<'_> {
        Frames { bytes: &[], detail: 0, stack: Some(stack) }
    }

    /// Return addresses, innermost first.
    pub fn addresses(&self) -> impl Iterator<Item = u64> + '_ {
        self.bytes.chunks_exact(8).map(|chunk| word(chunk, 0))
    }

    /// How they were collected, and how much that was.
    pub fn collected(&self) -> Callers {
        match &self.stack {
            Some(stack) => Callers::Copied(stack.bytes.len()),
            None => Callers::Walked { count: self.bytes.len() / 8, unreadable: self.detail == WALK_UNREADABLE },
        }
    }

    /// The addresses as they stand in the record: equal bytes are equal stacks.
    pub fn key(&self) -> &[u8] {
        self.bytes
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

fn quarter(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).and_then(|b| b.try_into().ok()).map_or(0, u16::from_ne_bytes)
}

/// Decodes a record; none when it is shorter than an [`Event`]. Sections of an unknown kind are passed over, and a
/// section that reaches beyond the record ends it.
pub fn decode(record: &[u8]) -> Option<Record<'_>> {
    let (head, mut rest) = record.split_at_checked(size_of::<Event>())?;
    let mut record = Record::of(Event {
        time_ns: word(head, 0),
        depth: word(head, 8),
        goid: word(head, 16),
        pid_tgid: word(head, 24),
        point: half(head, 32),
        lost: half(head, 36),
    });
    let (mut outer, mut hidden) = (OuterStack::default(), HiddenReturns::default());
    while let Some((head, data)) = rest.split_at_checked(size_of::<Section>()) {
        let section = Section { kind: quarter(head, 0), detail: quarter(head, 2), bytes: half(head, 4) };
        let Some((data, after)) = data.split_at_checked(section.bytes as usize) else { break };
        if section.kind == SECTION_FRAMES {
            record.frames = Some(Frames::from_bytes(data, section.detail));
            break;
        } else if section.kind == SECTION_ORIGIN && data.len() >= size_of::<Origin>() {
            record.origin = Some(Origin { parent: word(data, 0), go_statement: word(data, 8) });
        } else if section.kind == SECTION_OUTER_STACK {
            outer = outer_stack(data).unwrap_or_default();
        } else if section.kind == SECTION_HIDDEN_RETURNS {
            hidden = HiddenReturns::of(data, section.detail.into());
        } else if section.kind == SECTION_STACK {
            record.frames = stack(data, section.detail, (outer, hidden)).map(Frames::from_stack).or(record.frames);
            break;
        }
        let padding = data.len().next_multiple_of(8) - data.len();
        rest = after.get(padding..).unwrap_or_default();
    }
    Some(record)
}

fn outer_stack(data: &[u8]) -> Option<OuterStack<'_>> {
    let used = usize::try_from(word(data, 16)).ok()?;
    let copied = Region { start: word(data, 0), bytes: data.get(24..)?.get(..used)? };
    Some(OuterStack { copied, end: word(data, 8) })
}

fn stack<'a>(
    data: &'a [u8],
    detail: u16,
    (outer, hidden): (OuterStack<'a>, HiddenReturns<'a>),
) -> Option<StackCopy<'a>> {
    let (registers, bytes) = data.split_at_checked(size_of::<Registers>())?;
    let saved = [24, 32, 40, 48, 56].map(|at| word(registers, at));
    let registers = Registers { ip: word(registers, 0), sp: word(registers, 8), fp: word(registers, 16), saved };
    Some(StackCopy { registers, bytes, outer, hidden, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event_bytes(point: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [11_u64, 22, 33, 44 << 32 | 45] {
            bytes.extend(word.to_ne_bytes());
        }
        bytes.extend(point.to_ne_bytes());
        bytes.extend(7_u32.to_ne_bytes());
        bytes
    }

    fn section(kind: u16, detail: u16, data: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(detail.to_ne_bytes());
        bytes.extend((data.len() as u32).to_ne_bytes());
        bytes.extend(data);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn a_bare_event_has_every_field_and_no_frames() {
        let bytes = event_bytes(5);
        let record = decode(&bytes).expect("40 bytes are an event");
        let expected = Event { time_ns: 11, depth: 22, goid: 33, pid_tgid: 44 << 32 | 45, point: 5, lost: 7 };
        assert_eq!(record.event, expected);
        assert!(record.frames.is_none());
    }

    #[test]
    fn a_points_position_is_told_apart_from_its_links_generation() {
        let at = |point| decode(&event_bytes(point)).map(|r| (r.event.point, r.generation));
        assert_eq!(at(5 | (3 << 26)), Some((5, 3)));
        assert_eq!(at(((1 << 26) - 1) | (31 << 26)), Some(((1 << 26) - 1, 31)));
        assert_eq!(at(probe_ebpf::abi::POINT_EXEC), Some((probe_ebpf::abi::POINT_EXEC, 0)));
    }

    #[test]
    fn frames_are_found_behind_a_section_of_an_unknown_kind() {
        let mut bytes = event_bytes(5);
        bytes.extend(section(900, 0, b"thirteen byte"));
        bytes.extend(section(SECTION_FRAMES, 3, &[1_u64.to_ne_bytes(), 2_u64.to_ne_bytes()].concat()));
        let frames = decode(&bytes).and_then(|r| r.frames).expect("there are frames");
        assert_eq!(frames.addresses().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(frames.detail, 3);
    }

    #[test]
    fn who_made_the_goroutine_stands_before_the_callers_and_room_without_it_is_nothing() {
        let made = [7_u64.to_ne_bytes(), 0x47_u64.to_ne_bytes()].concat();
        for (kind, expected) in [(SECTION_ORIGIN, Some(Origin { parent: 7, go_statement: 0x47 })), (0, None)] {
            let mut bytes = event_bytes(5);
            bytes.extend(section(kind, 0, &made));
            bytes.extend(section(SECTION_FRAMES, 0, &1_u64.to_ne_bytes()));
            let record = decode(&bytes).expect("a record");
            assert_eq!((record.origin, record.frames.map(|f| f.addresses().count())), (expected, Some(1)));
        }
        let mut cut = event_bytes(5);
        cut.extend(section(SECTION_ORIGIN, 0, &made[..8]));
        assert_eq!(decode(&cut).and_then(|record| record.origin), None);
    }

    #[test]
    fn what_stands_behind_frames_is_what_was_in_the_buffer_before() {
        let mut bytes = event_bytes(5);
        bytes.extend(section(SECTION_FRAMES, 2, &1_u64.to_ne_bytes()));
        bytes.extend(section(SECTION_FRAMES, 3, &[2_u64.to_ne_bytes(), 3_u64.to_ne_bytes()].concat()));
        let frames = decode(&bytes).and_then(|r| r.frames).expect("there are frames");
        assert_eq!((frames.addresses().collect::<Vec<_>>(), frames.detail), (vec![1], 2));
    }

    #[test]
    fn a_copied_stack_ends_its_record_whatever_stands_behind_it() {
        let mut bytes = event_bytes(5);
        let words: Vec<u8> = (1..=10_u64).flat_map(u64::to_ne_bytes).collect();
        bytes.extend(section(SECTION_STACK, 0x101, &words));
        bytes.extend(section(SECTION_FRAMES, 0, &[9; 16]));
        let stack = decode(&bytes).and_then(|r| r.frames?.stack).expect("there is a stack");
        assert_eq!(stack.registers, Registers { ip: 1, sp: 2, fp: 3, saved: [4, 5, 6, 7, 8] });
        assert_eq!(stack.bytes, [9_u64.to_ne_bytes(), 10_u64.to_ne_bytes()].concat());
        assert_eq!(stack.detail, 0x101);
    }

    #[test]
    fn where_a_stack_goes_on_stands_before_it_and_only_as_much_counts_as_is_used() {
        let mut bytes = event_bytes(5);
        let words: Vec<u8> = [0xc000, 0xd000, 8, 77, 78].into_iter().flat_map(u64::to_ne_bytes).collect();
        bytes.extend(section(SECTION_OUTER_STACK, 0, &words));
        bytes.extend(section(SECTION_STACK, 0, &[0; 64]));
        let stack = decode(&bytes).and_then(|r| r.frames?.stack).expect("there is a stack");
        let outer = stack.outer.copied;
        assert_eq!((outer.start, outer.bytes, stack.outer.end), (0xc000, &77_u64.to_ne_bytes()[..], 0xd000));
    }

    #[test]
    fn of_hidden_returns_only_those_count_that_are_there() {
        let mut bytes = event_bytes(5);
        let words: Vec<u8> = [0x1000, 71, 0x2000, 72, 0x3000, 73].into_iter().flat_map(u64::to_ne_bytes).collect();
        bytes.extend(section(SECTION_HIDDEN_RETURNS, 2, &words));
        bytes.extend(section(SECTION_STACK, 0, &[0; 64]));
        let stack = decode(&bytes).and_then(|r| r.frames?.stack).expect("there is a stack");
        assert_eq!([0x1000, 0x2000, 0x3000].map(|place| stack.hidden.at(place)), [Some(71), Some(72), None]);
    }

    #[test]
    fn a_cut_record_gives_what_is_whole_and_never_panics() {
        let mut whole = event_bytes(5);
        whole.extend(section(SECTION_FRAMES, 0, &[9; 16]));
        for len in 0..whole.len() {
            let record = decode(&whole[..len]);
            assert_eq!(record.is_some(), len >= 40, "{len} bytes");
            assert!(record.is_none_or(|r| r.frames.is_none()), "{len} bytes");
        }
    }
}
