//! The `probe` command: exit statuses and the last word on errors.

use std::process::ExitCode;

fn main() -> ExitCode {
    match probe::run(std::env::args_os()) {
        Ok(status) => ExitCode::from(status),
        Err(error) if probe::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // It may quote names of files and functions: whatever they hold, a line stays a line of text.
            let text: Vec<String> = format!("{error:#}").lines().map(probe::output::escape::escaped).collect();
            eprintln!("probe: {}", text.join("\n"));
            ExitCode::from(probe::status_of(&error))
        }
    }
}
