//! What is left: in the kernel, by the ids that a running `probe` and the holder of its links hold, so that other tracers do
//! not disturb; and in the code of those that were traced.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    process::Command,
};

use super::{children::holder_of, until};

/// Links, programs and maps in the kernel: kind and id.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct InKernel(BTreeSet<(&'static str, u64)>);

const KINDS: [(&str, &str); 3] = [("link", "link_id:"), ("prog", "prog_id:"), ("map", "map_id:")];

impl InKernel {
    /// What a `probe` holds, and the holder of its links.
    pub(super) fn of(pid: i64) -> Self {
        let mut found = BTreeSet::new();
        let folders = holder_of(pid).into_iter().chain([pid]).map(|pid| fs::read_dir(format!("/proc/{pid}/fdinfo")));
        for info in folders.flatten().flatten().flatten() {
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

/// How many bytes of a process's code are not what its program's file has: breakpoints.
pub(super) fn changed_code(pid: &str, path: &str) -> usize {
    let file = fs::read(path).expect("the program");
    let memory = File::open(format!("/proc/{pid}/mem")).expect("it runs");
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("it runs");
    let of_it = maps.lines().filter(|line| line.contains(" r-xp ") && line.ends_with(path));
    let mut changed = None;
    for line in of_it {
        let mut fields = line.split_whitespace();
        let hex = |text: Option<&str>| u64::from_str_radix(text.expect("a field"), 16).expect("a number");
        let (start, end) = fields.next().expect("a range").split_once('-').expect("a range");
        let (start, end) = (hex(Some(start)), hex(Some(end)));
        let offset = hex(fields.nth(1)) as usize;
        let mut code = vec![0; (end - start) as usize];
        memory.read_exact_at(&mut code, start).expect("its code");
        let differ = code.iter().zip(&file[offset..]).filter(|(now, then)| now != then).count();
        changed = Some(changed.unwrap_or(0) + differ);
    }
    changed.expect("its code is mapped")
}

/// What the kernel says from now on of uprobes that it could not remove.
pub(super) struct KernelLog(File);

impl KernelLog {
    pub(super) fn from_now() -> Self {
        let log = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
        let mut log = log.expect("the kernel's log");
        log.seek(SeekFrom::End(0)).expect("its end");
        Self(log)
    }

    /// Uprobes that `probe`s left for ever. Linux 6.12: `uprobe_unregister_nosync` tells of them, each by the thread's name.
    pub(super) fn leaks(&mut self) -> usize {
        let mut record = [0; 8192];
        let mut leaks = 0;
        loop {
            match self.0.read(&mut record) {
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]);
                    let ours = ["uprobe: probe:", "uprobe: links-holder:"].iter().any(|name| text.contains(name));
                    leaks += usize::from(ours && text.contains("leaking uprobe"));
                }
                // Older records were overwritten before they were read: the next read is of those that are there.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return leaks,
                Err(error) => panic!("/dev/kmsg: {error}"),
            }
        }
    }
}
