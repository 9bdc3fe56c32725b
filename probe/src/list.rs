//! `probe list`: what can be probed, where, and what cannot and why.

use std::{collections::BTreeSet, io::Write, path::PathBuf};

use anyhow::{Result, bail};
use serde::Serialize;
use symbols::{
    index::{LeftOut, Matched},
    pattern::Pattern,
};

use crate::{
    output::{escape, talk::say},
    plan::{self, Probeable},
    request::List,
    target::{self, TracedFile},
};

#[derive(Serialize)]
struct Line<'a> {
    function: &'a str,
    mangled: Option<&'a str>,
    binary: &'a str,
    address: String,
    offset: Option<String>,
    size: u64,
    language: String,
    file: Option<String>,
    line: Option<u32>,
    probeable: bool,
    reason: Option<String>,
    inlined_at: Option<()>,
}

/// Lists.
///
/// # Errors
/// A file cannot be read, a pattern matches nothing, writing failed.
pub fn run(request: &List, out: &mut dyn Write) -> Result<u8> {
    let files = files(&request.binaries, &request.pids)?;
    let patterns: Vec<Pattern> = if request.patterns.is_empty() {
        vec!["*".parse()?]
    } else {
        request.patterns.iter().map(|p| p.parse()).collect::<Result<_, _>>()?
    };
    let mut out = std::io::BufWriter::with_capacity(1 << 16, out);
    let mut unmatched: Vec<usize> = (0..patterns.len()).collect();
    for file in &files {
        let selection = file.index.select(&patterns, request.all);
        unmatched.retain(|p| selection.unmatched.contains(p));
        for found in &selection.matches {
            print(file, found, request.json, &mut out)?;
        }
        if !selection.left_out.is_empty() {
            let reasons: BTreeSet<LeftOut> = selection.left_out.iter().map(|(_, reason)| *reason).collect();
            let reasons: Vec<String> = reasons.iter().map(LeftOut::to_string).collect();
            say(format_args!("{} left out ({}); --all takes them in", selection.left_out.len(), reasons.join(", ")));
        }
        for note in &selection.notes {
            say(note);
        }
    }
    out.flush()?;
    if let Some(&pattern) = unmatched.first()
        && !request.patterns.is_empty()
    {
        bail!(plan::no_match(&files, &patterns[pattern]));
    }
    Ok(0)
}

fn files(binaries: &[PathBuf], pids: &[u32]) -> Result<Vec<TracedFile>> {
    match (binaries, pids) {
        ([], pids) => pids.iter().map(|&pid| target::program_file(pid)).collect(),
        (binaries, [pid, ..]) => binaries.iter().map(|path| target::file_of(*pid, path)).collect(),
        (binaries, []) => binaries.iter().map(|path| TracedFile::open(path, &path.display().to_string())).collect(),
    }
}

fn print(file: &TracedFile, found: &symbols::index::Match, json: bool, out: &mut dyn Write) -> Result<()> {
    let binary = file.index.binary();
    let (address, function) = match found.what {
        Matched::Function(id) => (file.index.function(id).address, Some(file.index.function(id))),
        Matched::Point { address, function, .. } => (address, function.map(|id| file.index.function(id))),
    };
    let source = file.index.line(address);
    let probeable = plan::probeable(&file.index, &found.what);
    let reason = match &probeable {
        Probeable::Yes => None,
        Probeable::No(reason) => Some(reason.clone()),
    };
    let line = Line {
        function: &found.name,
        mangled: function.map(|f| f.symbol).filter(|symbol| *symbol != found.name),
        binary: &file.shown,
        address: address.to_string(),
        offset: binary.file_offset(address).map(|o| o.to_string()),
        size: function.map_or(0, |f| f.size),
        language: function.map_or_else(String::new, |f| f.language.to_string()),
        file: source.as_ref().map(|s| s.file.to_string()),
        line: source.as_ref().map(|s| s.line),
        probeable: reason.is_none(),
        reason,
        inlined_at: None,
    };
    if json {
        serde_json::to_writer(&mut *out, &line).map_err(std::io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    let mut name = String::new();
    escape::text(&mut name, line.function);
    write!(out, "{} {:>6} {:<4} {name}", line.address, line.size, line.language)?;
    if let Matched::Point { offset, .. } = found.what
        && offset != 0
    {
        write!(out, "+{offset:#x}")?;
    }
    if let (Some(path), Some(number)) = (&line.file, line.line) {
        let mut path_text = String::new();
        escape::text(&mut path_text, path);
        write!(out, " {path_text}:{number}")?;
    }
    if let Some(reason) = &line.reason {
        write!(out, " [not probeable: {reason}]")?;
    }
    writeln!(out)?;
    Ok(())
}
