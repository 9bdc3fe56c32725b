//! `probe doctor`: what works here, and what to do about what does not.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
};

use anyhow::Result;

use crate::attach::{
    features::{Feature, Features},
    recorder::Recorder,
    rights,
};

/// Examines the machine; the exit status is 0 when tracing works.
///
/// # Errors
/// Writing failed.
pub fn run(out: &mut dyn Write) -> Result<u8> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    writeln!(out, "kernel            Linux {} {}", kernel.trim(), std::env::consts::ARCH)?;
    let missing = rights::missing();
    if missing.is_empty() {
        writeln!(out, "permission        ok")?;
    } else {
        writeln!(out, "permission        NO: {}", rights::how_to_get(&missing))?;
    }
    let has_features = match Features::detect() {
        Ok(features) => {
            features_table(&features, out)?;
            features.indispensable_missing().is_none()
        }
        Err(error) => {
            writeln!(out, "features          cannot be asked for: {error}")?;
            false
        }
    };
    let records = match Recorder::start() {
        Ok(_) => {
            writeln!(out, "mapping records   ok")?;
            true
        }
        Err(error) => {
            writeln!(out, "mapping records   NO: {error:#}")?;
            false
        }
    };
    for note in notes() {
        writeln!(out, "note              {note}")?;
    }
    let works = missing.is_empty() && has_features && records;
    writeln!(out, "{}", if works { "tracing works here" } else { "tracing does not work here" })?;
    Ok(if works { 0 } else { crate::FAILED })
}

fn features_table(features: &Features, out: &mut dyn Write) -> Result<()> {
    for feature in Feature::ALL {
        let state = if features.has(feature) { "ok" } else { "NO" };
        write!(out, "{:<17} {state}", feature.name())?;
        if !features.has(feature) {
            let without = feature.without().unwrap_or("without it nothing can be traced");
            write!(out, ": needs {}; {without}", feature.since())?;
        }
        writeln!(out)?;
    }
    Ok(())
}

/// What gets in the way.
fn notes() -> Vec<String> {
    let mut notes = rights::obstacles();
    if rights::missing().is_empty() && !rights::may_look_everywhere() {
        notes.push(format!(
            "other users' processes cannot be looked into (-p): {}",
            rights::how_to_get(&[rights::TO_LOOK])
        ));
    }
    if !rights::missing().is_empty()
        && let Ok(level) = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")
    {
        notes.push(format!(
            "perf_event_paranoid is {}: whatever it is set to, tracing takes CAP_PERFMON, and with that it does not count",
            level.trim()
        ));
    }
    notes.extend(told_of_leaks(leaked_uprobes()));
    notes
}

fn told_of_leaks((leaks, read): (usize, io::Result<()>)) -> Option<String> {
    if leaks > 0 {
        return Some(format!(
            "the kernel's log tells of {leaks} uprobes that killed tracers left for ever (\"leaking uprobe\"): until this \
             machine starts anew, a probe at such a place of a file that was rewritten since can make its program fail"
        ));
    }
    read.err().map(|error| {
        format!(
            "whether killed tracers left uprobes for ever is not known, because /dev/kmsg cannot be read ({error}): as root of \
             the machine itself, dmesg | grep \"leaking uprobe\" shows them"
        )
    })
}

/// Uprobes that the kernel could not remove, as far as its log goes back: docs/uprobes.md.
fn leaked_uprobes() -> (usize, io::Result<()>) {
    let log = File::options().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
    log.map_or_else(|error| (0, Err(error)), leaks_in)
}

/// A read of the log is one record. One that fails with `EPIPE` is of a record that was overwritten, with `EAGAIN` of one that
/// is not there yet. A log has no end: what has one stands in its place, as in some containers.
fn leaks_in(mut log: impl Read) -> (usize, io::Result<()>) {
    // Linux: PRINTKRB_RECORD_MAX in kernel/printk/printk.c was CONSOLE_EXT_LOG_MAX, 8 KiB.
    let mut record = [0; 8 << 10];
    let mut leaks = 0;
    loop {
        match log.read(&mut record) {
            Ok(0) => return (leaks, Err(io::Error::other("it is not the kernel's log"))),
            Ok(length) => {
                let text = &record[..length];
                leaks += usize::from(String::from_utf8_lossy(text).contains("leaking uprobe"));
            }
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return (leaks, Ok(())),
            Err(error) => return (leaks, Err(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As /dev/kmsg reads: a record at a time, an error for those that were overwritten, and one at the end.
    struct Log(Vec<Result<&'static str, i32>>);

    impl Read for Log {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let record = if self.0.is_empty() { Err(libc::EAGAIN) } else { self.0.remove(0) };
            let record = record.map_err(io::Error::from_raw_os_error)?.as_bytes();
            into[..record.len()].copy_from_slice(record);
            Ok(record.len())
        }
    }

    #[test]
    fn uprobes_that_were_left_are_counted_also_behind_records_that_are_gone() {
        let leak = "4,1000,35213000000,-;uprobe: probe:19136 failed to unregister, leaking uprobe\n";
        let other = "6,1001,35213000001,-;Switching RCU Tasks Trace to per-CPU callback queuing.\n";
        let told = |log| told_of_leaks(leaks_in(Log(log)));
        assert_eq!(told(vec![]), None);
        assert_eq!(told(vec![Ok(other)]), None);
        let said = told(vec![Err(libc::EPIPE), Ok(leak), Ok(other), Err(libc::EPIPE), Ok(leak)]).expect("a note");
        assert!(said.contains("tells of 2 uprobes"), "{said}");
        let said = told(vec![Ok(leak), Err(libc::EIO)]).expect("a note");
        assert!(said.contains("tells of 1 uprobes"), "{said}");
    }

    #[test]
    fn a_log_that_cannot_be_read_is_named() {
        for (log, why) in [(vec![Err(libc::EPERM)], "Operation not permitted"), (vec![Ok("")], "not the kernel's log")]
        {
            let said = told_of_leaks(leaks_in(Log(log))).expect("a note");
            assert!(said.contains("/dev/kmsg cannot be read") && said.contains(why), "{said}");
        }
    }
}
