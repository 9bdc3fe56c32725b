//! What is left in the kernel: by the ids that a running `probe` holds, so that other tracers do not disturb.

use std::{collections::BTreeSet, fs, process::Command};

use super::until;

/// Links, programs and maps in the kernel: kind and id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InKernel(BTreeSet<(&'static str, u64)>);

const KINDS: [(&str, &str); 3] = [("link", "link_id:"), ("prog", "prog_id:"), ("map", "map_id:")];

impl InKernel {
    /// What a process holds.
    pub(super) fn of(pid: i64) -> Self {
        let mut found = BTreeSet::new();
        for info in fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten() {
            let Ok(text) = fs::read_to_string(info.path()) else { continue };
            // A link's description names its program too.
            let held = KINDS.iter().find_map(|&(kind, key)| {
                let line = text.lines().find_map(|line| line.strip_prefix(key))?;
                Some((kind, line.trim().parse().ok()?))
            });
            found.extend(held);
        }
        Self(found)
    }

    /// Of which some are uprobes' links.
    pub(super) fn links(&self) -> usize {
        self.0.iter().filter(|(kind, _)| *kind == "link").count()
    }

    /// Both.
    pub(super) fn and(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    fn still_there(&self) -> Vec<(&'static str, u64)> {
        let now = kernel_objects();
        self.0.iter().copied().filter(|held| now.contains(held)).collect()
    }

    /// The kernel frees in the background: waits until all of it is gone.
    #[track_caller]
    pub(super) fn is_gone(&self) {
        assert!(!self.0.is_empty(), "nothing was held");
        self.is_gone_if_any();
    }

    /// The same of a `probe` that may have come to its end before it was looked at.
    #[track_caller]
    pub(super) fn is_gone_if_any(&self) {
        until(&format!("{self:?} to be freed"), || self.still_there().is_empty().then_some(()));
    }
}

/// All there are, whoever made them.
pub(super) fn kernel_objects() -> BTreeSet<(&'static str, u64)> {
    KINDS.iter().flat_map(|&(kind, _)| listed(kind)).collect()
}

fn listed(kind: &'static str) -> Vec<(&'static str, u64)> {
    let output = Command::new("bpftool").args(["-j", kind]).output().expect("bpftool runs");
    let values: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON of bpftool");
    let ids = values.as_array().expect("a list").iter().filter_map(|value| value["id"].as_u64());
    ids.map(|id| (kind, id)).collect()
}
