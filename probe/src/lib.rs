//! The `probe` command as a library.
//!
//! Data flows one way; each stage knows only what stands before it:
//!
//! ```text
//! args → request → target → symbols::Index → plan → attach → events → calls → output
//! ```

pub mod args;
pub mod attach;
pub mod calls;
pub mod doctor;
pub mod events;
pub mod list;
pub mod output;
pub mod plan;
pub mod request;
pub mod stacks;
pub mod target;
pub mod trace;

use std::{
    ffi::OsString,
    io::{self, Write as _},
};

use anyhow::{Context as _, Result};

use request::Command;

/// Exit status: something failed.
pub const FAILED: u8 = 1;
/// Exit status: wrong usage.
pub const USAGE: u8 = 2;
/// Exit status: no such program, as shells have it.
pub const NOT_FOUND: u8 = 127;

/// The exit status for an error.
pub fn status_of(error: &anyhow::Error) -> u8 {
    if error.is::<target::NoSuchProgram>() {
        NOT_FOUND
    } else if error.is::<symbols::pattern::PatternError>() {
        USAGE
    } else {
        FAILED
    }
}

/// Does what the command line asks for; the exit status.
///
/// # Errors
/// Whatever failed, with what to do next.
pub fn run(argv: impl IntoIterator<Item = OsString>) -> Result<u8> {
    let command = match request::parse(argv) {
        Ok(command) => command,
        Err(error) => {
            error.print()?;
            return Ok(if error.use_stderr() { USAGE } else { 0 });
        }
    };
    symbols::truncation::survive().context("failed to watch for files that become shorter")?;
    match command {
        Command::Trace(trace) => {
            say_warnings(trace.verbose);
            trace::run(&trace)
        }
        Command::List(list) => {
            say_warnings(0);
            let fetches = list.debuginfod.is_some();
            attach::rights::keep_what_reading_needs(fetches).context("failed to give up capabilities")?;
            let listed = list::run(&list, &mut io::stdout().lock());
            // What was listed, or could not be found, is not to be trusted then.
            target::whole_files().and(listed)
        }
        Command::Doctor => doctor::run(&mut io::stdout().lock()),
        Command::Completions(shell) => {
            request::completions(shell, &mut io::stdout().lock())?;
            Ok(0)
        }
        Command::Man(subcommand) => {
            request::man(subcommand.as_deref(), &mut io::stdout().lock())?;
            Ok(0)
        }
    }
}

/// What is logged is said: warnings, and with `-vv` what helps to find an error of ours.
fn say_warnings(verbose: u8) {
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .filter_module("probe", if verbose > 1 { log::LevelFilter::Debug } else { log::LevelFilter::Warn })
        .format(|out, record| writeln!(out, "probe: {}", record.args()))
        .init();
}

/// Whether an error is a reader that went away, which is no failure.
pub fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.chain().filter_map(|e| e.downcast_ref::<io::Error>()).any(|e| e.kind() == io::ErrorKind::BrokenPipe)
}
