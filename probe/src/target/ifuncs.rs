//! What IFUNC resolvers chose: read from a process that runs the file. The choice depends on the processor alone, unless
//! `GLIBC_TUNABLES` of a process says otherwise, so any process will do: the one that is traced, or else our own.

use std::{fs::File, os::unix::fs::FileExt as _};

use symbols::{
    addr::{FileOffset, LoadBias, RuntimeAddr},
    index::Index,
};

use super::{Identity, debugfiles, in_root_of, proc, processes};

/// Tells an index what a process (else we ourselves) chose, if it runs the file.
pub(super) fn learn(index: &mut Index, identity: Identity, process: Option<u32>) {
    // A process's mappings may take long to read.
    if !index.has_ifuncs() {
        return;
    }
    for pid in process.into_iter().chain([proc::own_pid()]) {
        let Some(bias) = bias_in(pid, index, identity) else { continue };
        let Ok(memory) = File::open(proc::of(pid).join("mem")) else { continue };
        index.learn_ifuncs(|place| {
            let mut word = [0; 8];
            memory.read_exact_at(&mut word, bias.to_runtime(place).0).ok()?;
            Some(bias.to_vaddr(RuntimeAddr(u64::from_le_bytes(word))))
        });
        return;
    }
}

/// Where a process has mapped a file.
fn bias_in(pid: u32, index: &Index, identity: Identity) -> Option<LoadBias> {
    let is_it = |mapping: &processes::Mapping| {
        // A process may have 60,000 mappings: few are worth a look at the file.
        let metadata = || debugfiles::metadata(&in_root_of(pid, &mapping.path));
        mapping.inode == identity.inode && metadata().is_ok_and(|metadata| Identity::of(&metadata) == identity)
    };
    let mapping = processes::mappings_of(pid).into_iter().find(is_it)?;
    Some(LoadBias::between(index.binary().vaddr(FileOffset(mapping.offset))?, RuntimeAddr(mapping.start)))
}
