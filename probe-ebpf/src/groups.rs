//! Whether the running thread is in a container that is meant: by its cgroup, or by its PID namespace.
//!
//! Probes sit on inodes, which containers of one image share, so the kernel half has to tell them apart. What a process is
//! nested in counts too: containers within containers, groups below a group.

use probe_ebpf::abi::{GROUPS_ALL, GROUPS_BY_NAMESPACE, GroupOffsets, NOT_THROUGH};

use crate::{
    maps::{GROUP_OFFSETS, GROUPS, GROUPS_BY},
    memory,
};

/// Levels that are looked at, from the process's own outwards. The kernel has at most 32 levels of PID namespaces
/// (include/linux/pid_namespace.h, `MAX_PID_NS_LEVEL`); cgroups of containers are rarely ten deep.
const MOST_LEVELS: u32 = 33;

/// Whether the running thread is in one of [`GROUPS`], or nothing is asked of it.
#[inline(always)]
pub(crate) fn hold_current() -> bool {
    holding_current().is_some()
}

/// The one of [`GROUPS`] that the running thread is in; 0 where nothing is asked of it.
#[inline(always)]
pub(crate) fn holding_current() -> Option<u64> {
    let by = GROUPS_BY.load();
    if by == GROUPS_ALL { Some(0) } else { Some(holding(by)).filter(|&group| group != 0) }
}

/// A function of its own in the kernel, too: it has a loop, and every program calls it.
#[inline(never)]
fn holding(by: u32) -> u64 {
    let offsets = GROUP_OFFSETS.load();
    let group = if by == GROUPS_BY_NAMESPACE { in_namespace(&offsets) } else { in_cgroup(&offsets) };
    group.unwrap_or(0)
}

#[inline(always)]
fn pointer(address: u64, offset: u32) -> Option<u64> {
    memory::kernel::<u64>(address.wrapping_add(u64::from(offset))).filter(|&pointer| pointer != 0)
}

#[inline(always)]
fn is_meant(id: u64) -> bool {
    GROUPS.get_ptr(&id).is_some()
}

/// Linux: include/linux/pid.h: a process has a number in each namespace from its own (at `level`) to the first (0).
#[inline(always)]
fn in_namespace(offsets: &GroupOffsets) -> Option<u64> {
    let pid = pointer(memory::current_task(), offsets.task_thread_pid)?;
    let mut level: u32 = memory::kernel(pid + u64::from(offsets.pid_level))?;
    for _ in 0..MOST_LEVELS {
        let number = u64::from(offsets.pid_numbers).wrapping_add(u64::from(level) * u64::from(offsets.upid_size));
        let namespace = pointer(pid.wrapping_add(number), offsets.upid_ns)?;
        let inode: u32 = memory::kernel(namespace.wrapping_add(u64::from(offsets.namespace_inum)))?;
        if is_meant(u64::from(inode)) {
            return Some(u64::from(inode));
        }
        level = level.checked_sub(1)?;
    }
    None
}

/// The running process's number in its own PID namespace; 0: not known.
#[inline(always)]
pub(crate) fn number_inside() -> u32 {
    let offsets = GROUP_OFFSETS.load();
    if offsets.upid_size == 0 {
        return 0;
    }
    own_number(&offsets).unwrap_or(0)
}

#[inline(always)]
fn own_number(offsets: &GroupOffsets) -> Option<u32> {
    let pid = pointer(memory::current_task(), offsets.task_thread_pid)?;
    let level: u32 = memory::kernel(pid + u64::from(offsets.pid_level))?;
    let number = u64::from(offsets.pid_numbers).wrapping_add(u64::from(level) * u64::from(offsets.upid_size));
    memory::kernel(pid.wrapping_add(number).wrapping_add(u64::from(offsets.upid_nr)))
}

/// Linux: include/linux/cgroup-defs.h: `css_set` names a process's group in every hierarchy; a group knows all that it is
/// below of, from the root (0) to itself (at `level`).
#[inline(always)]
fn in_cgroup(offsets: &GroupOffsets) -> Option<u64> {
    let set = pointer(memory::current_task(), offsets.task_cgroups)?;
    let mut group = pointer(set, offsets.set_group)?;
    if offsets.group_through != NOT_THROUGH {
        group = pointer(group, offsets.group_through)?;
    }
    let mut level: u32 = memory::kernel(group.wrapping_add(u64::from(offsets.cgroup_level)))?;
    for _ in 0..MOST_LEVELS {
        let ancestor = group.wrapping_add(u64::from(offsets.cgroup_ancestors)).wrapping_add(u64::from(level) * 8);
        let mut id: u64 = memory::kernel(ancestor)?;
        if offsets.ancestors_are_ids == 0 {
            let node = pointer(id, offsets.cgroup_kn)?;
            id = memory::kernel(node.wrapping_add(u64::from(offsets.node_id)))?;
        }
        if is_meant(id) {
            return Some(id);
        }
        level = level.checked_sub(1)?;
    }
    None
}
