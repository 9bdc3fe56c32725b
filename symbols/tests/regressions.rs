//! Inputs on which a fuzz target once failed, given to the same function again. A file in `regressions/TARGET/` is one.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

#[path = "common/fuzz.rs"]
mod fuzz;

use std::path::Path;
use std::time::{Duration, Instant};

use fuzz::targets;

/// Twice what a target may take under the fuzzer, since this is a debug build.
const LIMIT: Duration = Duration::from_secs(20);

#[test]
fn what_a_fuzzer_found_is_found_no_more() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/regressions");
    let mut replayed = 0;
    for (name, target) in targets::TARGETS {
        let Ok(inputs) = folder.join(name).read_dir() else { continue };
        for path in inputs.map(|input| input.unwrap().path()) {
            let started = Instant::now();
            target(&std::fs::read(&path).unwrap());
            assert!(started.elapsed() < LIMIT, "{}: {:?}", path.display(), started.elapsed());
            replayed += 1;
        }
    }
    assert!(replayed > 0, "no input in {}", folder.display());
}

/// Each target takes any bytes, and has a program of its own under `fuzz/fuzz_targets`.
#[test]
fn every_target_takes_nothing_and_anything() {
    for (name, target) in targets::TARGETS {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("fuzz/fuzz_targets/{name}.rs"));
        assert!(program.exists(), "{}", program.display());
        [&[][..], &[0], &[0xff; 100], b"main\nmain", b"\x7fELF"].into_iter().for_each(target);
    }
}
