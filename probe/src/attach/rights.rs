//! What we may do: the capabilities that tracing needs, what stands in their way, and the giving up of all others.
//!
//! Capabilities are a thread's: what is given up here is the calling thread's, and of threads that it starts from then on.

use std::{fs, io, path::PathBuf, thread};

use anyhow::{Context as _, Result};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, capability_is_in_bounding_set, set_capabilities, set_no_new_privs,
};

/// What loads programs and attaches them (Linux 5.8: include/uapi/linux/capability.h; before, it was `CAP_SYS_ADMIN`, which
/// suffices still).
const TO_TRACE: [(&str, CapabilitySet); 2] = [("CAP_BPF", CapabilitySet::BPF), ("CAP_PERFMON", CapabilitySet::PERFMON)];

/// What it takes to look into other users' processes.
pub const TO_LOOK: &str = "CAP_SYS_PTRACE";

/// What it takes to read files wherever they are: in other processes' roots, whoever may read them, and what is mapped and has
/// no name any more (`/proc/PID/map_files`).
const TO_READ: CapabilitySet =
    CapabilitySet::SYS_PTRACE.union(CapabilitySet::DAC_READ_SEARCH).union(CapabilitySet::CHECKPOINT_RESTORE);

/// What a running trace needs still: maps are read and written, processes and files come that are looked into. Not
/// `CAP_PERFMON`: perf events are open and mapped by then, and it is the holder that loads programs for files that come. But
/// without `CAP_SYS_PTRACE` it is what shows others' mappings (Linux 6.16: `may_access_mm` in kernel/fork.c).
const TO_GO_ON: CapabilitySet = TO_READ.union(CapabilitySet::BPF);

/// What the holder needs, which loads programs, attaches and removes probes.
const TO_HOLD: CapabilitySet = CapabilitySet::BPF.union(CapabilitySet::PERFMON);

fn effective() -> CapabilitySet {
    capabilities(None).map_or(CapabilitySet::empty(), |ours| ours.effective)
}

/// The effective capabilities without which nothing can be traced and that we lack; empty for root.
pub fn missing() -> Vec<&'static str> {
    missing_in(effective())
}

fn missing_in(effective: CapabilitySet) -> Vec<&'static str> {
    if effective.contains(CapabilitySet::SYS_ADMIN) {
        return Vec::new();
    }
    TO_TRACE.into_iter().filter(|(_, one)| !effective.contains(*one)).map(|(name, _)| name).collect()
}

/// Whether other users' processes can be looked into.
pub fn may_look_everywhere() -> bool {
    effective().contains(CapabilitySet::SYS_PTRACE)
}

/// What gives missing capabilities.
pub fn how_to_get(missing: &[&str]) -> String {
    let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("PATH/TO/probe"));
    let (missing, program) = (missing.join(" and "), crate::output::escape::escaped(&program.display().to_string()));
    if may_never_trace() {
        return format!(
            "{missing} missing, and out of reach for whoever is in this container or service: start it with them (Docker: \
             --cap-add BPF --cap-add PERFMON --cap-add SYS_PTRACE; systemd: CapabilityBoundingSet=)"
        );
    }
    format!("{missing} missing; run it with sudo, or once: sudo setcap cap_bpf,cap_perfmon,cap_sys_ptrace+ep {program}")
}

/// Whether not even root gets here what tracing needs.
fn may_never_trace() -> bool {
    let out_of_reach = |one| matches!(capability_is_in_bounding_set(one), Ok(false));
    out_of_reach(CapabilitySet::SYS_ADMIN) && TO_TRACE.into_iter().any(|(_, one)| out_of_reach(one))
}

/// Why the kernel's functions cannot be named, and what to do (Linux: kernel/ksyms_common.c, `kallsyms_show_value`).
pub fn why_kernel_has_no_names() -> String {
    let restrict = fs::read_to_string("/proc/sys/kernel/kptr_restrict").unwrap_or_default();
    no_names(restrict.trim(), effective().contains(CapabilitySet::SYSLOG))
}

fn no_names(restrict: &str, has_syslog: bool) -> String {
    let way = match restrict {
        "2" => "sudo sysctl kernel.kptr_restrict=1 shows them to root",
        _ if !has_syslog => "CAP_SYSLOG is missing: run it with sudo",
        _ => "this kernel may have been built without it (CONFIG_KALLSYMS)",
    };
    format!("the kernel's functions are shown as addresses, because /proc/kallsyms tells us none; {way}")
}

/// What may refuse us what our capabilities allow, a sentence each.
pub fn obstacles() -> Vec<String> {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    obstacles_of(&read("/proc/self/status"), &read("/proc/self/uid_map"), &read("/sys/kernel/security/lockdown"))
}

fn obstacles_of(status: &str, uid_map: &str, lockdown: &str) -> Vec<String> {
    let mut found = Vec::new();
    // proc_pid_status(5): 2 is a filter.
    if status.lines().any(|line| line.split_whitespace().eq(["Seccomp:", "2"])) {
        found.push(
            "a seccomp filter is on, which has to allow bpf and perf_event_open (Docker: --cap-add BPF --cap-add PERFMON, or \
             --security-opt seccomp=unconfined)"
                .to_owned(),
        );
    }
    // user_namespaces(7): the initial one maps everybody to himself.
    if !uid_map.is_empty() && !uid_map.split_whitespace().eq(["0", "0", "4294967295"]) {
        found.push(
            "this is a user namespace, outside of which its capabilities do not count: run it as root of the machine itself"
                .to_owned(),
        );
    }
    if lockdown.contains("[confidentiality]") {
        found.push(
            "kernel lockdown is on (confidentiality), which keeps BPF from reading memory: boot with lockdown=integrity or \
             without"
                .to_owned(),
        );
    }
    found
}

/// What reading takes; `fetches`: debug files are fetched into a folder which may be another user's.
fn to_read(fetches: bool) -> CapabilitySet {
    if fetches { TO_READ | CapabilitySet::DAC_OVERRIDE } else { TO_READ }
}

/// Gives up what a running trace does not need, for good. `fetches`: files that come later may need debug files that are
/// fetched into a folder which may be another user's.
///
/// # Errors
/// The kernel's: none are known.
pub fn keep_what_a_trace_needs(fetches: bool) -> io::Result<()> {
    let sees_mappings = capabilities(None)?.permitted.contains(CapabilitySet::SYS_PTRACE);
    let to_see_mappings = if sees_mappings { CapabilitySet::empty() } else { CapabilitySet::PERFMON };
    keep_of(TO_GO_ON | to_read(fetches) | to_see_mappings | admin_for(CapabilitySet::BPF)?)?;
    // Nothing that is executed from now on gets any of them back.
    Ok(set_no_new_privs(true)?)
}

/// Gives up what it does not take to attach probes and to remove them, for good. `one_by_one`: without links to many.
///
/// # Errors
/// The kernel's: none are known.
pub fn keep_what_holding_links_needs(one_by_one: bool) -> io::Result<()> {
    // Linux 6.18: perf_event_open of a uprobe is EACCES with CAP_PERFMON alone.
    let more = if one_by_one { CapabilitySet::SYS_ADMIN } else { admin_for(TO_HOLD)? };
    keep_of(TO_HOLD | more)?;
    Ok(set_no_new_privs(true)?)
}

/// Where some of these are had only as a part of `CAP_SYS_ADMIN`, that stays.
fn admin_for(needed: CapabilitySet) -> io::Result<CapabilitySet> {
    let has_them = capabilities(None)?.permitted.contains(needed);
    Ok(if has_them { CapabilitySet::empty() } else { CapabilitySet::SYS_ADMIN })
}

/// Does `work` in a thread that can only read: files that nobody vouches for are taken apart there. `fetches`: see
/// [`keep_what_reading_needs`].
///
/// # Errors
/// There can be no such thread.
pub fn only_reading<T: Send>(fetches: bool, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let confined = || -> io::Result<T> {
            keep_what_reading_needs(fetches)?;
            Ok(work())
        };
        let thread = thread::Builder::new().name("reading".to_owned()).stack_size(STACK).spawn_scoped(scope, confined);
        let done = thread.context("failed to start a thread")?.join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic)).context("failed to give up capabilities")
    })
}

/// As large as the first thread's.
const STACK: usize = 8 << 20;

/// Gives up what it does not take to read, for good. `fetches`: what is fetched is written into a folder which may be another
/// user's.
///
/// # Errors
/// The kernel's: none are known.
pub fn keep_what_reading_needs(fetches: bool) -> io::Result<()> {
    keep_of(to_read(fetches))
}

/// Gives up all that is left, for good.
///
/// # Errors
/// The kernel's: none are known.
pub fn keep_nothing() -> io::Result<()> {
    keep_of(CapabilitySet::empty())
}

/// Of these, those that we have.
fn keep_of(wanted: CapabilitySet) -> io::Result<()> {
    let kept = capabilities(None)?.permitted & wanted;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    Ok(set_capabilities(None, sets)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn admin_or_both_of_bpf_and_perfmon_suffice() {
        assert_eq!(missing_in(CapabilitySet::SYS_ADMIN), Vec::<&str>::new());
        assert_eq!(missing_in(CapabilitySet::BPF | CapabilitySet::PERFMON), Vec::<&str>::new());
        assert_eq!(missing_in(CapabilitySet::BPF), ["CAP_PERFMON"]);
        assert_eq!(missing_in(CapabilitySet::PERFMON), ["CAP_BPF"]);
        assert_eq!(missing_in(CapabilitySet::empty()), ["CAP_BPF", "CAP_PERFMON"]);
    }

    #[test]
    fn what_refuses_in_spite_of_capabilities_is_named() {
        let whole = "         0          0 4294967295\n";
        let named = |status, map, lockdown| -> Vec<String> {
            let found = obstacles_of(status, map, lockdown);
            found.iter().map(|sentence| sentence.split([',', '(']).next().unwrap_or("").trim().to_owned()).collect()
        };
        let off = "none [integrity] confidentiality\n";
        assert_eq!(named("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n", whole, off), Vec::<String>::new());
        assert_eq!(named("Seccomp:\t2\nSeccomp_filters:\t1\n", whole, ""), ["a seccomp filter is on"]);
        assert_eq!(named("", "0 1000 1\n", ""), ["this is a user namespace"]);
        assert_eq!(named("", "", "none integrity [confidentiality]\n"), ["kernel lockdown is on"]);
    }

    #[test]
    fn what_hides_the_kernels_names_is_named() {
        let way = |restrict, has_syslog| no_names(restrict, has_syslog).split("; ").nth(1).map(str::to_owned);
        for has_syslog in [false, true] {
            assert!(way("2", has_syslog).expect("a way").contains("kptr_restrict=1"));
        }
        assert!(way("0", false).expect("a way").contains("CAP_SYSLOG"));
        assert!(way("1", false).expect("a way").contains("CAP_SYSLOG"));
        assert!(way("1", true).expect("a way").contains("CONFIG_KALLSYMS"));
    }

    #[test]
    fn a_thread_gives_up_its_own_and_nobody_elses() {
        let before = effective();
        thread::spawn(move || {
            keep_what_a_trace_needs(false).expect("less is always allowed");
            assert_eq!(effective(), before & TO_GO_ON);
            let reading = only_reading(false, effective).expect("less is always allowed");
            assert_eq!((reading, effective()), (before & TO_READ, before & TO_GO_ON));
            keep_nothing().expect("less is always allowed");
            assert_eq!(effective(), CapabilitySet::empty());
        })
        .join()
        .expect("it does not panic");
        assert_eq!(effective(), before);
    }
}
