//! `probe list`: what can be probed, where, and what cannot and why.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::Write,
    mem::ManuallyDrop,
};

use anyhow::{Result, bail};
use serde::Serialize;
use symbols::{
    addr::Vaddr,
    index::{FunctionId, Inlined, InlinedCopy, LeftOut, Match, Matched, Selection},
    parallel,
    pattern::Pattern,
};

use crate::{
    output::{escape, talk::say},
    plan::{self, Probeable, Reading},
    request::List,
    target::{
        self, TracedFile,
        containers::{self, Selected},
        debuginfod::Debuginfod,
    },
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
    address: Option<String>,
    offset: Option<String>,
    size: Option<u64>,
    language: Option<String>,
    file: Option<&'a str>,
    line: Option<u32>,
    probeable: bool,
    reason: Option<String>,
    inlined_at: Option<Vec<Place<'a>>>,
}

/// Where a function was inlined.
#[derive(Serialize)]
struct Place<'a> {
    function: String,
    file: Option<&'a str>,
    line: Option<u32>,
    address: Option<String>,
}

/// What is listed: a match, a copy of a function (text), or a function that has nothing but copies (JSON).
enum Row<'a> {
    Match(&'a Match),
    Copy(&'a Inlined<'a>, &'a InlinedCopy<'a>),
    Only(&'a Inlined<'a>),
}

/// Lists.
///
/// # Errors
/// A file cannot be read, a pattern matches nothing, writing failed.
pub fn run(request: &List, out: &mut dyn Write) -> Result<u8> {
    let patterns: Vec<Pattern> = if request.patterns.is_empty() {
        vec!["*".parse()?]
    } else {
        request.patterns.iter().map(|p| p.parse()).collect::<Result<_, _>>()?
    };
    let files = ManuallyDrop::new(files(request)?);
    let mut out = std::io::BufWriter::with_capacity(1 << 16, out);
    let mut unmatched: Vec<usize> = (0..patterns.len()).collect();
    for file in files.iter() {
        // Freed with the process: string by string it takes a tenth of the whole time.
        let selection = ManuallyDrop::new(file.index.select(&patterns, request.all));
        unmatched.retain(|p| selection.unmatched.contains(p));
        let listing = Listing::new(file, request, &patterns, &selection);
        // A pattern's only matches may be inlined.
        unmatched.retain(|&p| !listing.shows(p));
        let refused = listing.write(&selection, &mut out)?;
        out.flush()?;
        listing.say_what_is_missing(&selection, refused);
    }
    if let Some(&pattern) = unmatched.first()
        && !request.patterns.is_empty()
    {
        bail!(plan::no_match(&files, &patterns[pattern]));
    }
    Ok(0)
}

fn files(request: &List) -> Result<Vec<TracedFile>> {
    let debuginfod = request.debuginfod.as_deref().map(|given| Debuginfod::new(given, false)).transpose()?;
    let debuginfod = debuginfod.as_ref();
    request.proc.as_deref().map_or(Ok(()), target::proc::set)?;
    let mut pids = request.pids.clone();
    if let Some(within) = &request.within {
        let selected = Selected::find(within)?;
        if pids.is_empty() {
            return containers::files::all(&selected, &request.binaries, debuginfod);
        }
        let said;
        (pids, said) = selected.pids(&pids)?;
        said.iter().for_each(say);
    }
    let binaries = request.binaries.iter();
    match (request.binaries.as_slice(), pids.as_slice()) {
        ([], pids) => pids.iter().map(|&pid| target::program_file(pid, debuginfod)).collect(),
        (_, [pid, ..]) => binaries.map(|path| target::file_of(*pid, path, debuginfod)).collect(),
        (_, []) => binaries.map(|path| target::file_here(path, None, debuginfod)).collect(),
    }
}

/// The listing of one file.
struct Listing<'a> {
    file: &'a TracedFile,
    json: bool,
    /// Show every copy, not only those of functions that have nothing else.
    every_copy: bool,
    /// What was inlined; `None`: not looked for.
    inlined: Option<Vec<Inlined<'a>>>,
    /// Positions in `inlined` of what has code of its own.
    copied: BTreeMap<FunctionId, usize>,
    reading: Reading,
}

impl<'a> Listing<'a> {
    fn new(file: &'a TracedFile, request: &List, patterns: &[Pattern], selection: &Selection) -> Self {
        let every_copy = request.verbose > 0;
        // Of all functions, or from much debug information, copies are only looked for on request.
        let looks = every_copy || !request.patterns.is_empty() && plan::is_cheap(&file.index);
        let inlined = looks.then(|| file.index.inlined_copies(patterns, selection, request.all));
        let with_function = inlined.iter().flatten().enumerate().filter_map(|(at, one)| Some((one.function?, at)));
        let copied = with_function.collect();
        let reading = Reading::of(file.index.binary());
        Self { file, json: request.json, every_copy, inlined, copied, reading }
    }

    fn inlined(&self) -> impl Iterator<Item = &Inlined<'a>> {
        self.inlined.iter().flatten()
    }

    /// Functions without code of their own that are listed: those that a glob happens to match only on request.
    fn only_inlined(&self) -> impl Iterator<Item = &Inlined<'a>> {
        self.inlined().filter(|one| one.function.is_none() && (one.exact || self.every_copy))
    }

    /// Whether what is only inlined and listed is there because of pattern `number`.
    fn shows(&self, number: usize) -> bool {
        self.only_inlined().any(|one| one.pattern == Some(number))
    }

    fn rows<'s>(&'s self, selection: &'s Selection) -> Vec<Row<'s>> {
        let mut rows: Vec<Row<'s>> = selection.matches.iter().map(Row::Match).collect();
        if self.json {
            rows.extend(self.only_inlined().map(Row::Only));
        } else {
            let shown = self.inlined().filter(|one| self.every_copy || one.function.is_none() && one.exact);
            rows.extend(shown.flat_map(|one| one.copies.iter().map(move |copy| Row::Copy(one, copy))));
        }
        if rows.len() > selection.matches.len() {
            rows.sort_by_key(|row| self.address(row));
        }
        rows
    }

    /// Of what has no address, as high as can be: it comes last.
    fn address(&self, row: &Row<'_>) -> Vaddr {
        let address = match row {
            Row::Match(found) => return self.address_of(found),
            Row::Copy(_, copy) => copy.address,
            Row::Only(one) => one.copies.first().and_then(|copy| copy.address),
        };
        address.unwrap_or(Vaddr(u64::MAX))
    }

    fn address_of(&self, found: &Match) -> Vaddr {
        match found.what {
            Matched::Function(id) => self.file.index.outline(id).address,
            Matched::Point { address, .. } => address,
        }
    }

    /// Writes all rows; how many matches cannot be probed.
    fn write(&self, selection: &Selection, out: &mut dyn Write) -> Result<usize> {
        let rows = self.rows(selection);
        let mut refused = 0;
        for batch in rows.chunks(BATCH) {
            let lines = parallel::map_chunks(batch, CHUNK, |rows| {
                let (mut out, mut refused) = (String::with_capacity(128 * rows.len()), 0);
                for row in rows {
                    refused += usize::from(self.row(row, &mut out)?);
                }
                anyhow::Ok((out, refused))
            });
            for lines in lines {
                let (lines, of_them) = lines?;
                out.write_all(lines.as_bytes())?;
                refused += of_them;
            }
            // Of each function the first instruction was read.
            if let [first, .., last] = batch {
                self.file.index.binary().release(self.address(first), self.address(last));
            }
        }
        Ok(refused)
    }

    /// Writes a row; whether it is a match that cannot be probed.
    fn row(&self, row: &Row<'_>, out: &mut String) -> Result<bool> {
        match row {
            Row::Match(found) => return self.found(found, out),
            Row::Copy(one, copy) => self.copy(one, copy, out),
            Row::Only(one) => json(
                &Line {
                    function: &one.name,
                    mangled: Some(&*one.symbol).filter(|symbol| *symbol != one.name),
                    binary: &self.file.shown,
                    address: None,
                    offset: None,
                    size: None,
                    language: Some(one.language.to_string()),
                    file: None,
                    line: None,
                    probeable: false,
                    reason: Some("only inlined".to_owned()),
                    inlined_at: Some(self.places(one)),
                },
                out,
            )?,
        }
        Ok(false)
    }

    /// Writes a match; whether it cannot be probed.
    fn found(&self, found: &Match, out: &mut String) -> Result<bool> {
        let index = &self.file.index;
        let (address, id, size) = match found.what {
            Matched::Function(id) => {
                let outline = index.outline(id);
                (outline.address, Some(id), Some(outline.size))
            }
            Matched::Point { address, function, .. } => (address, function, function.map(|id| index.outline(id).size)),
        };
        let size = size.filter(|&size| size > 0);
        let source = index.line(address);
        let reason = match plan::probeable(index, &found.what, &self.reading) {
            Probeable::Yes => None,
            Probeable::No(reason) => Some(reason),
        };
        let is_refused = reason.is_some();
        let copied = self.copied.get(&id.unwrap_or(FunctionId(u32::MAX)));
        let inlined = copied.and_then(|&at| self.inlined.as_ref()?.get(at));
        if self.json {
            let line = Line {
                function: &found.name,
                mangled: id.map(|id| index.symbol(id)).filter(|symbol| *symbol != found.name),
                binary: &self.file.shown,
                address: Some(address.to_string()),
                offset: index.binary().file_offset(address).map(|o| o.to_string()),
                size,
                language: found.language.map(|language| language.to_string()),
                file: source.map(|s| s.file),
                line: source.map(|s| s.line),
                probeable: reason.is_none(),
                reason,
                inlined_at: self.inlined.is_some().then(|| inlined.map_or_else(Vec::new, |one| self.places(one))),
            };
            json(&line, out)?;
            return Ok(is_refused);
        }
        start_line(out, Some(address), size, found.language, &found.name);
        push_source(out, source.map(|s| (s.file, s.line)));
        if let Some(reason) = reason {
            push(out, format_args!(" [not probeable: {reason}]"));
        }
        if let Some(one) = inlined {
            push(out, format_args!(" [{} inlined too]", copies(one.copies.len())));
        }
        out.push('\n');
        Ok(is_refused)
    }

    fn copy(&self, one: &Inlined<'_>, copy: &InlinedCopy<'_>, out: &mut String) {
        start_line(out, copy.address, None, Some(one.language), &one.name);
        push_source(out, copy.call.map(|s| (s.file, s.line)));
        out.push_str(" [not probeable: inlined into ");
        escape::text(out, &self.file.index.short_name(copy.into));
        out.push_str("]\n");
    }

    fn places<'s>(&'s self, one: &'s Inlined<'_>) -> Vec<Place<'s>> {
        let place = |copy: &'s InlinedCopy<'_>| Place {
            function: self.file.index.short_name(copy.into),
            file: copy.call.map(|call| call.file),
            line: copy.call.map(|call| call.line),
            address: copy.address.map(|address| address.to_string()),
        };
        one.copies.iter().map(place).collect()
    }

    /// How much matched, and what of it the listing does not show.
    fn say_what_is_missing(&self, selection: &Selection, refused: usize) {
        let only = self.inlined().filter(|one| one.function.is_none()).count();
        if selection.matches.len() + selection.left_out.len() + selection.taken_away + only == 0 {
            // The error says it.
            return;
        }
        let mut text = format!("{} matched in {}", selection.matches.len(), self.file.shown);
        if refused > 0 {
            push(&mut text, format_args!("; {refused} cannot be probed"));
        }
        if selection.taken_away > 0 {
            push(&mut text, format_args!("; {} taken away by `!` patterns", selection.taken_away));
        }
        let (never, by_default): (Vec<LeftOut>, Vec<LeftOut>) =
            selection.left_out.iter().map(|(_, why)| *why).partition(|why| why.is_final());
        for (left_out, remedy) in [(never, "no process shows what it chose"), (by_default, "--all takes them in")] {
            let reasons: BTreeSet<LeftOut> = left_out.iter().copied().collect();
            let reasons: Vec<String> = reasons.iter().map(LeftOut::to_string).collect();
            if !left_out.is_empty() {
                push(&mut text, format_args!("; {} left out ({}; {remedy})", left_out.len(), reasons.join(", ")));
            }
        }
        if only > 0 {
            let more = if self.every_copy || only == self.only_inlined().count() { "" } else { " (-v lists them)" };
            push(&mut text, format_args!("; {only} only inlined{more}"));
        }
        for line in std::iter::once(&text).chain(&selection.notes) {
            say(escape::escaped(line));
        }
        if selection.matches.is_empty() && selection.left_out.iter().any(|(_, why)| *why == LeftOut::Nameless) {
            plan::why_nameless(self.file).iter().for_each(say);
        }
    }
}

fn copies(count: usize) -> String {
    if count == 1 { "1 copy".to_owned() } else { format!("{count} copies") }
}

fn json(line: &Line<'_>, out: &mut String) -> Result<()> {
    out.push_str(&serde_json::to_string(line)?);
    out.push('\n');
    Ok(())
}

/// `ADDRESS SIZE LANGUAGE NAME`; what is unknown is a dash.
fn start_line(
    out: &mut String,
    address: Option<Vaddr>,
    size: Option<u64>,
    language: Option<symbols::index::Language>,
    name: &str,
) {
    match address {
        Some(address) => push(out, format_args!("{address}")),
        None => out.push('-'),
    }
    // Padded by hand: of a hundred thousand lines half the time would be `fmt`'s.
    let mut number = itoa::Buffer::new();
    let size = size.map_or("-", |size| number.format(size));
    let language = language.map_or("", symbols::index::Language::name);
    let spaces = |used: usize, width: usize| "       ".get(..width.saturating_sub(used) + 1).unwrap_or(" ");
    for part in [spaces(size.len(), 6), size, " ", language, spaces(language.len(), 4)] {
        out.push_str(part);
    }
    escape::text(out, name);
}

fn push_source(text: &mut String, source: Option<(&str, u32)>) {
    if let Some((file, line)) = source {
        text.push(' ');
        escape::text(text, file);
        push(text, format_args!(":{line}"));
    }
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    // A string takes everything.
    let _ = text.write_fmt(what);
}
