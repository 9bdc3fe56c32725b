//! `probe doctor`: what works here, and what to do about what does not.

use std::{fs, io::Write};

use anyhow::Result;

use crate::attach::{
    features::{Feature, Features, missing_capabilities},
    how_to_be_permitted,
};

/// Examines the machine; the exit status is 0 when tracing works.
///
/// # Errors
/// Writing failed.
pub fn run(out: &mut dyn Write) -> Result<u8> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    writeln!(out, "kernel            Linux {} {}", kernel.trim(), std::env::consts::ARCH)?;
    let missing = missing_capabilities();
    if missing.is_empty() {
        writeln!(out, "permission        ok")?;
    } else {
        writeln!(out, "permission        NO: {}", how_to_be_permitted(&missing))?;
    }
    let works = match Features::detect() {
        Ok(features) => {
            features_table(&features, out)?;
            features.indispensable_missing().is_none() && missing.is_empty()
        }
        Err(error) => {
            writeln!(out, "features          cannot be asked for: {error}")?;
            false
        }
    };
    for note in notes() {
        writeln!(out, "note              {note}")?;
    }
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

/// Settings that get in the way.
fn notes() -> Vec<String> {
    let mut notes = Vec::new();
    if let Ok(lockdown) = fs::read_to_string("/sys/kernel/security/lockdown")
        && lockdown.contains("[confidentiality]")
    {
        notes.push("kernel lockdown is on (confidentiality): BPF cannot read memory".to_owned());
    }
    if let Ok(level) = fs::read_to_string("/proc/sys/kernel/perf_event_paranoid")
        && level.trim().parse::<i32>().is_ok_and(|level| level > 2)
    {
        notes.push(format!("perf_event_paranoid is {}: without CAP_PERFMON, nothing can be attached", level.trim()));
    }
    notes
}
