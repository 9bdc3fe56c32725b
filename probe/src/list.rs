//! `probe list`: what can be probed, where, and what cannot and why.

use std::{collections::BTreeSet, fmt::Write as _, io::Write};

use anyhow::{Result, bail};
use serde::Serialize;
use symbols::{
    addr::Vaddr,
    index::{FunctionId, LeftOut, Match, Matched},
    parallel,
    pattern::Pattern,
};

use crate::{
    output::{escape, talk::say},
    plan::{self, Probeable},
    request::List,
    target::{self, TracedFile, debuginfod::Debuginfod},
};

/// Functions that one thread describes at a time.
const CHUNK: usize = 512;
/// Functions whose lines are held in memory.
const BATCH: usize = 32 * CHUNK;

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
    let files = files(request)?;
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
        for batch in selection.matches.chunks(BATCH) {
            for lines in parallel::map_chunks(batch, CHUNK, |found| lines(file, found, request.json)) {
                out.write_all(&lines?)?;
            }
        }
        say_left_out(&selection.left_out);
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

fn say_left_out(left_out: &[(FunctionId, LeftOut)]) {
    let (ifuncs, others): (Vec<LeftOut>, Vec<LeftOut>) =
        left_out.iter().map(|(_, reason)| *reason).partition(|reason| *reason == LeftOut::Ifunc);
    if !others.is_empty() {
        let reasons: BTreeSet<&LeftOut> = others.iter().collect();
        let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
        say(format_args!("{} left out ({}); --all takes them in", others.len(), reasons.join(", ")));
    }
    if !ifuncs.is_empty() {
        say(format_args!("{} left out: {}, and no process shows what it chose", ifuncs.len(), LeftOut::Ifunc));
    }
}

fn files(request: &List) -> Result<Vec<TracedFile>> {
    let debuginfod = request.debuginfod.as_deref().map(|given| Debuginfod::new(given, false)).transpose()?;
    let debuginfod = debuginfod.as_ref();
    let binaries = request.binaries.iter();
    match (request.binaries.as_slice(), request.pids.as_slice()) {
        ([], pids) => pids.iter().map(|&pid| target::program_file(pid, debuginfod)).collect(),
        (_, [pid, ..]) => binaries.map(|path| target::file_of(*pid, path, debuginfod)).collect(),
        (_, []) => binaries.map(|path| target::file_here(path, debuginfod)).collect(),
    }
}

fn lines(file: &TracedFile, found: &[Match], json: bool) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(128 * found.len());
    for found in found {
        print(file, found, json, &mut out)?;
    }
    Ok(out)
}

fn print(file: &TracedFile, found: &Match, json: bool, out: &mut Vec<u8>) -> Result<()> {
    let binary = file.index.binary();
    let (id, point) = match found.what {
        Matched::Function(id) => (Some(id), None),
        Matched::Point { address, function, .. } => (function, Some(address)),
    };
    let function = id.map(|id| file.index.outline(id));
    let address = point.or(function.map(|f| f.address)).unwrap_or(Vaddr(0));
    let source = file.index.line(address);
    let reason = match plan::probeable(&file.index, &found.what) {
        Probeable::Yes => None,
        Probeable::No(reason) => Some(reason),
    };
    let size = function.map_or(0, |f| f.size);
    let language = found.language.map_or_else(String::new, |language| language.to_string());
    if json {
        let line = Line {
            function: &found.name,
            mangled: id.map(|id| file.index.symbol(id)).filter(|symbol| *symbol != found.name),
            binary: &file.shown,
            address: address.to_string(),
            offset: binary.file_offset(address).map(|o| o.to_string()),
            size,
            language,
            file: source.as_ref().map(|s| s.file.to_string()),
            line: source.as_ref().map(|s| s.line),
            probeable: reason.is_none(),
            reason,
            inlined_at: None,
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.push(b'\n');
        return Ok(());
    }
    write!(out, "{address} {size:>6} {language:<4} ")?;
    let mut text = String::with_capacity(found.name.len() + 64);
    escape::text(&mut text, &found.name);
    if let Some(source) = source {
        text.push(' ');
        escape::text(&mut text, source.file);
        write!(text, ":{}", source.line)?;
    }
    if let Some(reason) = reason {
        write!(text, " [not probeable: {reason}]")?;
    }
    text.push('\n');
    out.extend_from_slice(text.as_bytes());
    Ok(())
}
