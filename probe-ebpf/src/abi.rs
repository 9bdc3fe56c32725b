//! What crosses from the kernel half to the reading half, and back.
//!
//! A ring buffer record is an [`Event`], followed by any number of sections, each a [`Section`] and its data, padded
//! to 8 bytes: [`SECTION_ORIGIN`], [`SECTION_OUTER_STACK`], [`SECTION_FRAMES`], [`SECTION_STACK`]; arguments and kernel
//! events are to be further kinds. A reader passes over kinds it does not know. The last two end their record: how long a
//! record is must be known before what it holds, so what stands behind them is not to be read.

/// Callers walked at most, for one event.
pub const MAX_FRAMES: usize = 127;
/// `Event::point` of records that no probe point made: a process executed a program. `Event::depth` says where it is: see
/// [`exec_place`].
pub const POINT_EXEC: u32 = 0xffff_ff01;
/// A thread ended, others of its process live on.
pub const POINT_THREAD_EXIT: u32 = 0xffff_ff02;
/// The last thread of a process ended.
pub const POINT_PROCESS_EXIT: u32 = 0xffff_ff03;
/// A program made a stack of its own, for a coroutine: `Event::depth` is its lowest address, `Event::goid` its bytes.
pub const POINT_STACK: u32 = 0xffff_ff04;
/// The kernel's frames below the next event of the thread, innermost first, as a [`SECTION_FRAMES`]: `Event::depth` is that
/// event's, `Event::goid` its `Event::point`.
pub const POINT_KERNEL_STACK: u32 = 0xffff_ff05;
/// Where traps are timed, before each record of one: the thread is in a trap since `Event::time_ns` (`Event::lost` 1: that is
/// not known, and it is a time no later than that record's). Until then it had made `Event::goid` steps; these took
/// `Event::depth` ns, each counted from its breakpoint, with what it waited for a processor at the ends of traps.
pub const POINT_TRAP: u32 = 0xffff_ff06;
/// First of the values of `Event::point` that are not positions in the plan's table.
pub const POINT_RESERVED: u32 = 0xffff_0000;
/// Bits of a point's position in the plan's table. In a cookie and in `Event::point` the generation of the point's link
/// stands above them: while links are exchanged two see the same point, and each event comes twice.
pub const POINT_BITS: u32 = 26;
/// Points there can be.
pub const MAX_POINTS: u32 = 1 << POINT_BITS;
/// Generations after which their numbers begin anew.
pub const GENERATIONS: u32 = 32;

/// Head of every record: who, where, when.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// `CLOCK_MONOTONIC`, ns: at an entry taken last, at an exit taken first, so that the kernel half's own time is
    /// outside of the call.
    pub time_ns: u64,
    /// How deep the stack is: grows with every frame, equal at a function's entry and at its exits. On a goroutine
    /// [`goroutine_depth`], which survives a move of the stack; elsewhere [`thread_depth`].
    pub depth: u64,
    /// Goroutine id; 0 outside goroutines.
    pub goid: u64,
    /// `tgid << 32 | tid`.
    pub pid_tgid: u64,
    /// Position in the plan's table of points, its link's generation above it ([`POINT_BITS`]); or one of the `POINT_`
    /// constants.
    pub point: u32,
    /// Records lost until then in the whole trace (wrapping): where it grows, something is missing.
    pub lost: u32,
}

/// Frames of the kernel's at most, for one event. Those of a trap are some fifteen.
pub const MAX_KERNEL_FRAMES: usize = 64;

/// Set in the depth of frames on a thread's alternate signal stack: what a handler calls is deeper than what it
/// interrupted, wherever the two stacks lie.
pub const DEPTH_ALTERNATE: u64 = 1 << 63;

/// Where a process executes a program: its number in its own PID namespace (0: not known), and the lower half of the number of the
/// group that is traced and that it is in (0: none is asked for). Of a cgroup's id that half is no other's at the same time.
pub const fn exec_place(number_inside: u32, group: u64) -> u64 {
    group << 32 | number_inside as u64
}

/// The number inside and the group's half behind an [`exec_place`].
pub const fn exec_numbers(place: u64) -> (u32, u32) {
    (place as u32, (place >> 32) as u32)
}

/// Depth of a frame outside goroutines. Addresses of user space have no bit 63.
pub const fn thread_depth(sp: u64, alternate: bool) -> u64 {
    let depth = !sp & !DEPTH_ALTERNATE;
    if alternate { depth | DEPTH_ALTERNATE } else { depth }
}

/// The stack pointer behind a [`thread_depth`].
pub const fn thread_sp(depth: u64) -> u64 {
    !depth & !DEPTH_ALTERNATE
}

/// Bits for what C code that Go called has on the thread's own stack: 256 MiB.
const C_BITS: u32 = 28;

/// Depth of a frame of a goroutine, or of C code that it called. `go`: bytes between the stack's upper end and the
/// frame, for C the one from which Go called it; `c`: bytes of the thread's own stack, 0 in Go. So what C calls back is
/// deeper than C, and C deeper than its caller.
pub const fn goroutine_depth(go: u64, c: u64) -> u64 {
    let most = (1 << C_BITS) - 1;
    go << C_BITS | if c < most { c } else { most }
}

/// Whether a [`goroutine_depth`] is that of a frame on the goroutine's own stack.
pub const fn is_gos_own(depth: u64) -> bool {
    depth & ((1 << C_BITS) - 1) == 0
}

/// Head of a section behind an [`Event`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Section {
    /// `SECTION_…`.
    pub kind: u16,
    /// For frames: why the walk ended, `WALK_…`; for a stack: `COPY_…`.
    pub detail: u16,
    /// Bytes of data behind this head.
    pub bytes: u32,
}

/// Room that nothing was written to.
pub const SECTION_NONE: u16 = 0;

/// Who made the goroutine, and where: [`Origin`]. Where origins are asked for, with every outermost call of a goroutine.
pub const SECTION_ORIGIN: u16 = 5;

/// See [`SECTION_ORIGIN`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Origin {
    /// Id of the goroutine that made it; 0: not known, or none did.
    pub parent: u64,
    /// Return address behind the `go` statement; 0: not known.
    pub go_statement: u64,
}

/// Return addresses (`u64` each), innermost caller first. It ends its record.
pub const SECTION_FRAMES: u16 = 1;

/// The frame pointer chain ended with 0.
pub const WALK_END: u16 = 0;
/// The wanted depth was reached.
pub const WALK_DEPTH: u16 = 1;
/// A frame could not be read.
pub const WALK_UNREADABLE: u16 = 2;
/// The chain did not go outwards: it is none.
pub const WALK_NO_CHAIN: u16 = 3;

/// A copy of the stack: [`Registers`], then the bytes from the stack pointer on. It ends its record. Its detail is one of
/// `COPY_…`, and [`COPY_AT_ENTRY`].
pub const SECTION_STACK: u16 = 2;

/// The copy reaches the stack's base.
pub const COPY_WHOLE: u16 = 0;
/// As many bytes as were asked for; the stack goes on.
pub const COPY_LIMIT: u16 = 1;
/// What lies behind the copy could not be read.
pub const COPY_UNREADABLE: u16 = 2;
/// A bit beside the others: the registers are those of a function's entry, so the word at the stack pointer is the
/// return address.
pub const COPY_AT_ENTRY: u16 = 1 << 8;

/// A part of another stack, on which this one goes on: that of the goroutine which called C, or the one that a signal
/// handler on an alternate stack interrupted. [`OuterStack`]; before a [`SECTION_STACK`].
pub const SECTION_OUTER_STACK: u16 = 3;

/// Return addresses that return probes have replaced by their own: [`HiddenReturn`]s, the detail says how many; before a
/// [`SECTION_STACK`].
pub const SECTION_HIDDEN_RETURNS: u16 = 6;

/// [`HiddenReturn`]s of one record at most.
pub const MAX_HIDDEN_RETURNS: usize = 16;

/// A return address that is not on the stack any more.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HiddenReturn {
    /// Where on the stack it was.
    pub place: u64,
    /// What it was.
    pub address: u64,
}

/// See [`SECTION_OUTER_STACK`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct OuterStack<const M: usize> {
    /// Address of the first byte.
    pub start: u64,
    /// Where that stack ends: Go writes places down as distances from it.
    pub end: u64,
    /// How many bytes are used.
    pub used: u64,
    /// Those bytes, and room.
    pub bytes: [u8; M],
}

/// A record with a copy of at most `N` bytes of the stack, of `M` bytes of another one, and with what the stack does not
/// say any more.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct EventWithOuterStack<const N: usize, const M: usize> {
    /// The event.
    pub head: EventWithOrigin,
    /// Of what return probes have replaced.
    pub hidden_section: Section,
    /// What they have replaced.
    pub hidden: [HiddenReturn; MAX_HIDDEN_RETURNS],
    /// Of the outer stack.
    pub outer_section: Section,
    /// Where the stack goes on.
    pub outer: OuterStack<M>,
    /// The copy.
    pub stack: StackSection<N>,
}

/// Bytes of a stack that are copied at most.
pub const MAX_COPY: u32 = 128 << 10;

/// What unwinding starts from: the registers that a caller finds unchanged, and where it is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Registers {
    /// Instruction pointer.
    pub ip: u64,
    /// Stack pointer: the address of the first byte copied.
    pub sp: u64,
    /// Frame pointer (rbp, x29).
    pub fp: u64,
    /// x86-64: rbx, r12, r13, r14, r15. arm64: x30, x19, x20, x21, x22.
    pub saved: [u64; 5],
}

/// A record with a copy of at most `N` bytes of the stack.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct EventWithStack<const N: usize> {
    /// The event.
    pub head: EventWithOrigin,
    /// The copy.
    pub stack: StackSection<N>,
}

/// A [`SECTION_STACK`] with room for `N` bytes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct StackSection<const N: usize> {
    /// Says how many bytes of what follows are used.
    pub section: Section,
    /// At the event.
    pub registers: Registers,
    /// The stack, from the stack pointer on.
    pub bytes: [u8; N],
}

/// A record with an origin. The head of larger ones, where its section may be [`SECTION_NONE`].
#[repr(C)]
#[derive(Clone, Copy)]
pub struct EventWithOrigin {
    /// The event.
    pub event: Event,
    /// Of the origin.
    pub section: Section,
    /// The goroutine's.
    pub origin: Origin,
}

/// A record with at most `N` callers.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct EventWithFrames<const N: usize> {
    /// The event.
    pub head: EventWithOrigin,
    /// Says how many frames are used.
    pub section: Section,
    /// Return addresses.
    pub frames: [u64; N],
}

/// The 64-bit cookie of a probe point.
///
/// Bits 0–25: position in the plan's table. 26–30: generation of the link. 32–47: offset of `goid` in `runtime.g`, 0
/// outside Go. 48–55: position in `GO_PROGRAMS`. 56–59: x86 condition code. 60: conditional. 61: indirect (look into
/// `JUMPS`). 62: R14 may not hold g. 63: counted in `COUNTS`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cookie(pub u64);

impl Cookie {
    const CONDITIONAL: u64 = 1 << 60;
    const INDIRECT: u64 = 1 << 61;
    const FOREIGN_G: u64 = 1 << 62;
    const COUNTED: u64 = 1 << 63;

    /// A point of native code.
    pub const fn native(point: u32) -> Self {
        Self(point as u64)
    }

    /// A point of Go code: offset of `goid` in `runtime.g`, and the program's position in `GO_PROGRAMS`.
    pub const fn go(point: u32, goid_offset: u16, program: u8) -> Self {
        Self(point as u64 | (goid_offset as u64) << 32 | (program as u64) << 48)
    }

    /// The jump is taken only under this x86 condition code (0–15).
    #[must_use]
    pub const fn conditional(self, code: u8) -> Self {
        Self(self.0 | Self::CONDITIONAL | ((code & 15) as u64) << 56)
    }

    /// Where the jump goes is computed at run time, from `JUMPS`.
    #[must_use]
    pub const fn indirect(self) -> Self {
        Self(self.0 | Self::INDIRECT)
    }

    /// The function does not keep Go's ABIInternal: g is read from thread-local storage.
    #[must_use]
    pub const fn foreign_g(self) -> Self {
        Self(self.0 | Self::FOREIGN_G)
    }

    /// How often the point is passed is counted.
    #[must_use]
    pub const fn counted(self) -> Self {
        Self(self.0 | Self::COUNTED)
    }

    /// The same point under another number.
    #[must_use]
    pub const fn renumbered(self, point: u32) -> Self {
        Self(self.0 & !0xffff_ffff | point as u64)
    }

    /// The same point in a link of this generation.
    #[must_use]
    pub const fn of_generation(self, generation: u32) -> Self {
        self.renumbered(self.point() | ((generation % GENERATIONS) << POINT_BITS))
    }

    /// Position in the plan's table of points.
    pub const fn point(self) -> u32 {
        position(self.numbers())
    }

    /// The position and the generation, as `Event::point` has them.
    pub const fn numbers(self) -> u32 {
        self.0 as u32
    }

    /// See [`Self::counted`].
    pub const fn is_counted(self) -> bool {
        self.0 & Self::COUNTED != 0
    }

    /// Offset of `goid` in `runtime.g`; 0 outside Go.
    pub const fn goid_offset(self) -> u64 {
        self.0 >> 32 & 0xffff
    }

    /// Position in `GO_PROGRAMS`.
    pub const fn program(self) -> u32 {
        (self.0 >> 48 & 0xff) as u32
    }

    /// The condition code, if the jump has one.
    pub const fn condition(self) -> Option<u8> {
        if self.0 & Self::CONDITIONAL == 0 { None } else { Some((self.0 >> 56 & 15) as u8) }
    }

    /// See [`Self::indirect`].
    pub const fn is_indirect(self) -> bool {
        self.0 & Self::INDIRECT != 0
    }

    /// See [`Self::foreign_g`].
    pub const fn has_foreign_g(self) -> bool {
        self.0 & Self::FOREIGN_G != 0
    }
}

/// The position in an `Event::point` that is none of the `POINT_` constants.
pub const fn position(point: u32) -> u32 {
    point & (MAX_POINTS - 1)
}

/// The generation in an `Event::point` that is none of the `POINT_` constants.
pub const fn generation(point: u32) -> u32 {
    point >> POINT_BITS & (GENERATIONS - 1)
}

/// Where g is found when R14 does not hold it, and the goroutine that called C. One for each Go program that is traced.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GoProgram {
    /// g is at `*(thread pointer + tls)`.
    pub tls: i64,
    /// Offset of `m` in `runtime.g`, bytes.
    pub m: u32,
    /// Offset of `curg` in `runtime.m`, bytes.
    pub curg: u32,
    /// Offset of `sched.sp` in `runtime.g`, bytes.
    pub sched_sp: u32,
    /// Offset of `syscallsp` in `runtime.g`, bytes; 0: not known.
    pub syscall_sp: u32,
    /// Offset of `parentGoid` in `runtime.g`, bytes; 0: there is none (before Go 1.21).
    pub parent_goid: u32,
    /// Offset of `gopc` in `runtime.g`, bytes; 0: not known.
    pub gopc: u32,
}

/// No register.
pub const NO_REGISTER: u32 = u32::MAX;

/// An indirect jump: how to compute its target, and what counts as inside the function (all relative to the jump).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Jump {
    /// Offset in `struct pt_regs` of the base register, or [`NO_REGISTER`]. Of a register jump: the target itself.
    pub base: u32,
    /// The same for the index register.
    pub index: u32,
    /// 1, 2, 4 or 8.
    pub scale: u32,
    /// 1: the target is read from memory; 0: it is the base register.
    pub memory: u32,
    /// Added to base and index; with `ip_relative` an offset from the jump's own address.
    pub displacement: i64,
    /// 1: the displacement counts from the jump's own address.
    pub ip_relative: u32,
    /// Explicit padding.
    pub pad: u32,
    /// Ranges that are the function's own: `[start, end)` as distances from the jump. Empty ones are 0, 0.
    pub own: [[i64; 2]; 2],
}

/// A thread or goroutine, as a key of `LOST_IN` and `OUTERMOST`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lane {
    /// `tgid << 32 | tid`, the lower half 0 on a goroutine.
    pub thread: u64,
    /// Goroutine id, or 0.
    pub goid: u64,
}

/// Values of the global `PID_FILTER`.
pub const FILTER_NONE: u32 = 0;
/// Only processes in `PIDS`.
pub const FILTER_PIDS: u32 = 1;
/// Only threads in `PIDS`.
pub const FILTER_TIDS: u32 = 2;

/// Values of the global `GROUPS_BY`, which holds beside `PID_FILTER`.
pub const GROUPS_ALL: u32 = 0;
/// Only processes whose PID namespace, or one that it is nested in, has its inode in `GROUPS`.
pub const GROUPS_BY_NAMESPACE: u32 = 1;
/// Only processes whose cgroup, or one that it is below of, has its id in `GROUPS`.
pub const GROUPS_BY_CGROUP: u32 = 2;

/// Of [`GroupOffsets::group_through`]: nothing stands between.
pub const NOT_THROUGH: u32 = u32::MAX;

/// Offsets in kernel structures, bytes, by which a process's groups are found. Those that are not known are 0.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupOffsets {
    /// `task_struct.thread_pid`
    pub task_thread_pid: u32,
    /// `pid.level`
    pub pid_level: u32,
    /// `pid.numbers`
    pub pid_numbers: u32,
    /// Bytes of a `struct upid`.
    pub upid_size: u32,
    /// `upid.nr`
    pub upid_nr: u32,
    /// `upid.ns`
    pub upid_ns: u32,
    /// `pid_namespace.ns.inum`
    pub namespace_inum: u32,
    /// `task_struct.cgroups`
    pub task_cgroups: u32,
    /// `css_set.dfl_cgrp`; in the first version a place of `css_set.subsys`.
    pub set_group: u32,
    /// In the first version `cgroup_subsys_state.cgroup`: what `set_group` leads to has the group; else [`NOT_THROUGH`].
    pub group_through: u32,
    /// `cgroup.level`
    pub cgroup_level: u32,
    /// `cgroup.ancestors`, before Linux 6.1 `cgroup.ancestor_ids`
    pub cgroup_ancestors: u32,
    /// 1: these are ids, 0: pointers.
    pub ancestors_are_ids: u32,
    /// `cgroup.kn`
    pub cgroup_kn: u32,
    /// `kernfs_node.id`
    pub node_id: u32,
}

/// Offsets in kernel structures, bytes, by which traps are timed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrapOffsets {
    /// `task_struct.utask`
    pub task_utask: u32,
    /// `uprobe_task.active_uprobe`: the probe whose instruction the thread is stepping through.
    pub utask_active: u32,
    /// `task_struct.pid`
    pub task_pid: u32,
}

/// Bytes of a `comm`, the terminating 0 included.
pub const COMM_LEN: usize = 16;

const _: () = assert!(size_of::<Event>() == 40);
const _: () = assert!(size_of::<Section>() == 8);
const _: () = assert!(size_of::<Registers>() == 64);
const _: () = assert!(size_of::<EventWithOrigin>() == 40 + 8 + 16);
const _: () = assert!(size_of::<EventWithStack<1024>>() == 64 + 8 + 64 + 1024);
const _: () = assert!(
    size_of::<EventWithOuterStack<1024, 2048>>() == 64 + 8 + 16 * MAX_HIDDEN_RETURNS + 8 + 24 + 2048 + 8 + 64 + 1024
);
const _: () = assert!(size_of::<EventWithFrames<24>>() == 64 + 8 + 8 * 24);
const _: () = assert!(size_of::<GoProgram>() == 32);
const _: () = assert!(size_of::<Jump>() == 64);
const _: () = assert!(size_of::<Lane>() == 16);
const _: () = assert!(size_of::<GroupOffsets>() == 60);
const _: () = assert!(size_of::<TrapOffsets>() == 12);
