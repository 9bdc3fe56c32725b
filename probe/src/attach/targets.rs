//! Whom a trace is of: the kernel half keeps the set of traced processes, which grows with their children and shrinks with
//! their ends.

use aya::maps::{HashMap, MapData};

use super::{Attachment, Scope};
use crate::target::{self, containers::Selected};

impl Attachment {
    /// The kernel half's set of traced processes (or threads); none where everyone is traced.
    pub(super) fn traced_ids(&self) -> Option<HashMap<&MapData, u32, u32>> {
        let map = self.ebpf.map("PIDS").filter(|_| self.scope != Scope::Everyone)?;
        map.try_into().ok()
    }

    /// Who is in the containers that are traced; none where that is no matter.
    fn selected(&self) -> Option<&Selected> {
        self.groups.as_ref()?.selected.as_ref()
    }

    /// Whether a process is one that was chosen: never where everyone is traced.
    pub fn has_target(&self, pid: u32) -> bool {
        self.is_chosen(pid) && self.selected().is_none_or(|selected| selected.holds(pid))
    }

    fn is_chosen(&self, pid: u32) -> bool {
        match &self.scope {
            Scope::Everyone => self.selected().is_some(),
            Scope::Threads(_) => self.targets().contains(&pid),
            _ => self.traced_ids().is_some_and(|traced| traced.get(&pid, 0).is_ok()),
        }
    }

    /// The processes that were chosen and run: none where everyone is traced.
    pub fn targets(&self) -> Vec<u32> {
        let ids = self.traced_ids().map(|traced| traced.keys().flatten().collect::<Vec<u32>>()).unwrap_or_default();
        match &self.scope {
            Scope::Everyone => self.selected().map(Selected::processes).unwrap_or_default(),
            Scope::Threads(_) => ids.into_iter().filter_map(target::process_of_thread).collect(),
            _ => ids,
        }
    }

    /// Whether unwinders can be watched in files that programs which are not traced run too.
    pub fn watches_shared_files(&self) -> bool {
        self.shared_unwinders || self.scope != Scope::Everyone || self.groups.is_some()
    }

    /// A process has a new name, of its own will: who gets the name that is traced is traced from then on. False: it would be,
    /// if there were room for it.
    pub fn renamed(&mut self, pid: u32) -> bool {
        let Scope::Comm { comm, .. } = &self.scope else { return true };
        // It may be called otherwise by now, or be gone.
        let has_it = target::is_called(pid, comm) && target::runs(pid);
        let map = self.ebpf.map_mut("PIDS").and_then(|map| HashMap::<_, u32, u32>::try_from(map).ok());
        let Some(mut traced) = map else { return true };
        if has_it {
            return traced.insert(&pid, &1, 0).is_ok();
        }
        // It mostly was not in.
        let _ = traced.remove(&pid);
        true
    }

    /// Takes out of the set who ended before the kernel half could see it.
    pub fn forget_ended(&mut self) {
        let ids = self.traced_ids().map(|traced| traced.keys().flatten().collect::<Vec<u32>>()).unwrap_or_default();
        let ended: Vec<u32> = ids.into_iter().filter(|&id| !target::runs(id)).collect();
        let map = self.ebpf.map_mut("PIDS").and_then(|map| HashMap::<_, u32, u32>::try_from(map).ok());
        if let Some(mut traced) = map {
            for id in &ended {
                let _ = traced.remove(id);
            }
        }
    }
}
