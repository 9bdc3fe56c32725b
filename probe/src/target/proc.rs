//! The `/proc` in which targets are looked up: this machine's, or with `--proc` the one of a host that is mounted elsewhere.
//!
//! What is our own (`/proc/self/…`) is no target's and stays where it is. The folder is the same for a whole run and asked for
//! in many places, so it is set once and not handed through.

use std::{
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use anyhow::{Context as _, Result, bail};
use rustix::fs::PROC_SUPER_MAGIC;

static ROOT: OnceLock<PathBuf> = OnceLock::new();

/// Inode of the first PID namespace of a machine. Linux: include/linux/proc_ns.h, `PROC_PID_INIT_INO`.
const FIRST_PID_NAMESPACE: u64 = 0xEFFF_FFFC;

/// Looks targets up in this folder from now on.
///
/// # Errors
/// It is no `/proc`.
pub fn set(folder: &Path) -> Result<()> {
    let shown = folder.display();
    let real = fs::canonicalize(folder).with_context(|| format!("failed to use --proc {shown}"))?;
    let kind = rustix::fs::statfs(&real).with_context(|| format!("failed to use --proc {shown}"))?;
    if kind.f_type != PROC_SUPER_MAGIC {
        bail!(
            "failed to use --proc {shown}: no proc file system; mount the host's /proc there \
             (docker run -v /proc:/host/proc:ro)"
        );
    }
    let _ = ROOT.set(real);
    Ok(())
}

/// The folder.
pub fn root() -> &'static Path {
    ROOT.get().map_or(Path::new("/proc"), PathBuf::as_path)
}

/// The folder of a process or thread.
pub fn of(pid: u32) -> PathBuf {
    root().join(pid.to_string())
}

/// Where the root of the machine is, from here: `/`, or of another `/proc` the root of its first process.
pub fn host_root() -> PathBuf {
    if is_own() { PathBuf::from("/") } else { of(1).join("root") }
}

/// Where the machine's own files may be: in our root, and where we are in a container ourselves and see the machine's processes, in
/// that of its first one.
pub fn host_roots() -> Vec<PathBuf> {
    let first = of(1).join("root");
    let place = |path: &Path| fs::metadata(path).ok().map(|root| (root.dev(), root.ino()));
    let (own, machines) = (place(Path::new("/")), place(&first));
    let elsewhere = (machines.is_some() && machines != own).then_some(first);
    [PathBuf::from("/")].into_iter().chain(elsewhere).collect()
}

/// Whether it is our own `/proc`.
pub fn is_own() -> bool {
    root() == Path::new("/proc")
}

/// Our own process, by the number that it has there.
pub fn own_pid() -> u32 {
    let link = fs::read_link(root().join("self")).ok();
    link.and_then(|link| link.to_str()?.parse().ok()).unwrap_or_else(std::process::id)
}

/// Whether the numbers there are those that the kernel calls our process and its children by: not so from a container that has
/// a PID namespace of its own.
pub fn has_our_numbers() -> bool {
    own_pid() == std::process::id()
}

/// Whether the kernel tells us, in records of what processes do, the numbers by which the kernel half knows them: it writes
/// those of our own PID namespace.
pub fn has_machines_records() -> bool {
    namespace_in(Path::new("/proc/self")).is_none_or(|own| own == FIRST_PID_NAMESPACE)
}

/// Whether it shows all processes of the machine, by the numbers that the kernel half knows them by; none where that cannot
/// be told.
pub fn is_the_machines() -> Option<bool> {
    // Not even root may look at every machine's first process.
    let first = pid_namespace(1).map(|namespace| namespace == FIRST_PID_NAMESPACE);
    let own = || pid_namespace(own_pid()).filter(|&namespace| namespace == FIRST_PID_NAMESPACE).map(|_| true);
    first.or_else(own)
}

/// The PID namespace that a process is in: its inode.
pub fn pid_namespace(pid: u32) -> Option<u64> {
    namespace_in(&of(pid))
}

fn namespace_in(process: &Path) -> Option<u64> {
    let link = fs::read_link(process.join("ns/pid")).ok()?;
    link.to_str()?.strip_prefix("pid:[")?.strip_suffix(']')?.parse().ok()
}

/// When a process started, in ticks since the machine did: with its number this names it for good.
pub fn start_time(pid: u32) -> Option<u64> {
    stat(pid, 22)?.parse().ok()
}

/// The state of a process or thread: `R`, `S`, `Z`…
pub fn state(id: u32) -> Option<char> {
    stat(id, 3)?.chars().next()
}

/// Whether a process has ended, or is about to. Control groups of the first version do not have it any more then (Linux:
/// kernel/cgroup/cgroup.c, `proc_cgroup_show`).
pub fn is_ending(pid: u32) -> bool {
    // Linux: include/linux/sched.h
    const PF_EXITING: u64 = 4;
    flags(pid).is_none_or(|flags| flags & PF_EXITING != 0)
}

/// Whether a process has not executed a program since it was forked: it still runs its parent's.
pub fn runs_its_parents_program(pid: u32) -> bool {
    // Linux: include/linux/sched.h
    const PF_FORKNOEXEC: u64 = 0x40;
    flags(pid).is_some_and(|flags| flags & PF_FORKNOEXEC != 0)
}

/// Whether it is a thread of the kernel's own.
pub fn is_kernel_thread(pid: u32) -> bool {
    // Linux: include/linux/sched.h
    const PF_KTHREAD: u64 = 0x20_0000;
    flags(pid).is_some_and(|flags| flags & PF_KTHREAD != 0)
}

fn flags(pid: u32) -> Option<u64> {
    stat(pid, 9)?.parse().ok()
}

/// A field of `stat`, as proc_pid_stat(5) numbers them, from the third on.
fn stat(id: u32, field: usize) -> Option<String> {
    let stat = fs::read(of(id).join("stat")).ok()?;
    // The name in parentheses may hold anything, also what is no text.
    let after = stat.iter().rposition(|&byte| byte == b')')? + 1;
    let fields = String::from_utf8_lossy(stat.get(after..)?);
    fields.split_whitespace().nth(field.checked_sub(3)?).map(str::to_owned)
}

/// A line of a process's `status`, without its name.
pub fn status(pid: u32, name: &str) -> Option<String> {
    let status = fs::read(of(pid).join("status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let found = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(found.trim().to_owned())
}

/// The numbers that a process has, from the outermost namespace that is seen to its own.
pub fn numbers(pid: u32) -> Vec<u32> {
    let numbers = status(pid, "NSpid").unwrap_or_default();
    numbers.split_whitespace().filter_map(|number| number.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_own_process_is_known_by_its_number_and_its_start() {
        assert_eq!(own_pid(), std::process::id());
        assert!(has_our_numbers());
        assert_eq!(numbers(own_pid()).last(), Some(&std::process::id()));
        let ticks = start_time(own_pid()).expect("we run");
        let up = fs::read_to_string("/proc/uptime").expect("it is there");
        let up: f64 = up.split(' ').next().and_then(|up| up.parse().ok()).expect("a number");
        // USER_HZ is 100 on x86-64 and arm64.
        assert!((0.0..3600.0).contains(&(up - ticks as f64 / 100.0)), "{ticks} {up}");
    }

    #[test]
    fn what_is_no_proc_is_refused_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let said = set(folder.path()).expect_err("not a /proc").to_string();
        assert!(said.contains("no proc file system") && said.contains("/host/proc"), "{said}");
        assert!(set(&folder.path().join("nothing")).is_err());
    }
}
