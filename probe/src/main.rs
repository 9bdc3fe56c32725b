//! The `probe` command: exit statuses and the last word on errors.

use std::process::ExitCode;

fn main() -> ExitCode {
    match probe::run(std::env::args_os()) {
        Ok(status) => ExitCode::from(status),
        Err(error) if probe::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("probe: {error:#}");
            ExitCode::from(probe::status_of(&error))
        }
    }
}
