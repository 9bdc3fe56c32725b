//! Talk: what is said on stderr beside the data. Nobody may be listening: that ends nothing.

use std::{
    fmt::Display,
    io::{self, Write as _},
};

use super::escape;

/// Says a line.
pub fn say(text: impl Display) {
    let _ = writeln!(io::stderr().lock(), "probe: {text}");
}

/// Says what failed. It may quote names of files and functions: whatever they hold, a line stays a line of text.
pub fn say_error(error: &anyhow::Error) {
    let lines: Vec<String> = format!("{error:#}").lines().map(escape::escaped).collect();
    say(lines.join("\n"));
}
