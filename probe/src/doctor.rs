//! `probe doctor`: what works here, and what to do about what does not.

use std::{fs, io::Write};

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
    notes
}
