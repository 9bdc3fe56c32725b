//! The `probe` command: exit statuses and the last word on errors.

use std::process::ExitCode;

fn main() -> ExitCode {
    match probe::run(std::env::args_os()) {
        Ok(status) => ExitCode::from(status),
        Err(error) if probe::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            probe::output::talk::say_error(&error);
            ExitCode::from(probe::status_of(&error))
        }
    }
}
