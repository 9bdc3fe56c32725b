//! The command line from outside: exit statuses, what goes to which stream, what errors say. Needs no privilege, and
//! the programs under `testdata/build`.

mod debuginfod;
mod files;
mod list;
mod names;
mod rights;
mod usage;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;

/// Runs `probe` with these arguments.
fn probe(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_probe")).args(args).output().expect("probe can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A test program, such as `c/counts`.
fn program(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/build").join(name);
    assert!(path.exists(), "{} is missing: make programs", path.display());
    path
}

/// Files to spoil.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Writes a file; its path.
    fn file(&self, name: &str, bytes: &[u8]) -> String {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).expect("a file");
        path.to_str().expect("a path in UTF-8").to_owned()
    }
}

/// Runs `probe`, which fails with this status and says all of these words, and nothing on stdout.
#[track_caller]
fn fails(args: &[&str], status: i32, words: &[&str]) {
    let output = probe(args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{args:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{args:?}: no {word:?} in: {stderr}");
    }
    assert!(output.stdout.is_empty(), "{args:?}");
}
