//! The command line from outside: exit statuses, and what goes to which stream. Needs no root.

mod usage;

use std::process::{Command, Output};

/// Runs `probe` with these arguments.
fn probe(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_probe")).args(args).output().expect("probe can be started")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
