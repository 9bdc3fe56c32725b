//! Containers and cgroups in the kernel half: the set of numbers that tells their processes from all others.

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, Pod,
    maps::{HashMap, MapData},
};
use probe_ebpf::abi::{self, GROUPS_ALL, GROUPS_BY_CGROUP, GROUPS_BY_NAMESPACE};

use super::{btf, features::Feature};
use crate::target::containers::{Kind, Selected};

/// Only processes in these containers or cgroups are traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Groups {
    /// What the numbers are.
    pub kind: Kind,
    /// One for each container that there is now.
    pub numbers: Vec<u64>,
    /// What they are, where it is to be known of a process whether it is in them.
    pub selected: Option<Selected>,
}

/// The globals that make the kernel half look.
pub(super) struct Globals {
    pub(super) by: u32,
    pub(super) offsets: Offsets,
}

#[repr(transparent)]
#[derive(Clone, Copy)]
pub(super) struct Offsets(abi::GroupOffsets);

// SAFETY: `repr(C)`, of fixed width, without hidden padding (asserted beside its definition).
#[expect(unsafe_code, reason = "aya wants it of globals")]
unsafe impl Pod for Offsets {}

/// What is to be set before the programs are loaded.
///
/// # Errors
/// The kernel's type information is missing, or has no such structure.
pub(super) fn globals(groups: Option<&Groups>, btf: Option<&[u8]>) -> Result<Globals> {
    let Some(groups) = groups else {
        let numbers = btf.and_then(btf::namespace_offsets).unwrap_or_default();
        return Ok(Globals { by: GROUPS_ALL, offsets: Offsets(numbers) });
    };
    let Some(btf) = btf else {
        bail!("failed to tell containers apart: the kernel's type information is missing ({})", Feature::Btf.since());
    };
    let offsets = btf::group_offsets(btf, &groups.kind).with_context(|| match &groups.kind {
        Kind::Cgroup1(controller) => {
            format!("failed to tell cgroups apart: this kernel has no controller {controller}")
        }
        _ => "failed to tell containers apart: the kernel's type information lacks what it takes".to_owned(),
    })?;
    let by = if groups.kind == Kind::PidNamespace { GROUPS_BY_NAMESPACE } else { GROUPS_BY_CGROUP };
    Ok(Globals { by, offsets: Offsets(offsets) })
}

/// Takes containers in, and others out, from the next event on.
///
/// # Errors
/// There are too many.
pub(super) fn change(ebpf: &mut Ebpf, gone: &[u64], new: &[u64]) -> Result<()> {
    let map = ebpf.map_mut("GROUPS").context("the kernel half has no GROUPS")?;
    let mut groups: HashMap<&mut MapData, u64, u32> = map.try_into()?;
    for number in gone {
        // It may be that it was never in.
        let _ = groups.remove(number);
    }
    for number in new {
        groups.insert(number, &1, 0).context("too many containers")?;
    }
    Ok(())
}
