//! Names and lines for code that a process made at run time, from the dump that its runtime wrote for perf.
//!
//! In: `jit-PID.dump`, which the runtime also maps, executable, so that it is found among what a process has mapped. Out: names
//! by address. The file grows while the process runs; the target writes it, and may write anything.
//!
//! Source: Linux, tools/perf/Documentation/jitdump-specification.txt, tools/perf/util/jitdump.h.

use std::{collections::BTreeMap, fs::File, os::unix::fs::FileExt as _, path::Path, rc::Rc};

use rustc_hash::FxHashMap;

use super::jit::Generated;

/// `JiTD`, as a number in our byte order. What another machine wrote is not read.
const MAGIC: u32 = 0x4A69_5444;
/// Bytes of the head that every version has.
const HEAD: usize = 40;
/// Bytes before each record's own: id, size, time.
const PREFIX: usize = 16;

const CODE_LOAD: u32 = 0;
const CODE_MOVE: u32 = 1;
const CODE_DEBUG_INFO: u32 = 2;
const CODE_CLOSE: u32 = 3;

/// Bytes read at once.
const PIECE: usize = 256 << 10;
/// Of one record: more is not looked at. The code itself, which stands last, never is.
const MOST_OF_RECORD: usize = 4 << 20;
/// A function's name at most, bytes.
const LONGEST_NAME: usize = 4096;
/// Functions of one process at most.
const MOST_FUNCTIONS: usize = 1 << 20;
/// Lines of one process at most.
const MOST_LINES: usize = 1 << 22;

/// Whether a file of this name is such a dump.
pub(super) fn is_its_name(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with("jit-") && name.ends_with(".dump"))
}

struct Code {
    bytes: u64,
    name: Rc<str>,
    lines: Lines,
}

/// From which address on which line of which file, in order of address.
type Lines = Rc<[(u64, u32, Rc<str>)]>;

/// The dump of one process.
pub(super) struct JitDump {
    file: Option<File>,
    /// What was read of the file last: from where on, and the bytes.
    window: (u64, Vec<u8>),
    /// The next record; 0: nothing was read yet.
    at: u64,
    /// By start.
    codes: BTreeMap<u64, Code>,
    /// Lines of the code that is to be loaded next, and where it will be.
    awaited: Option<(u64, Lines)>,
    lines_kept: usize,
    /// Names of source files.
    sources: FxHashMap<Rc<str>, ()>,
}

impl JitDump {
    /// The dump in this file.
    pub(super) fn new(file: Option<File>) -> Self {
        Self {
            file,
            window: (0, Vec::new()),
            at: 0,
            codes: BTreeMap::new(),
            awaited: None,
            lines_kept: 0,
            sources: FxHashMap::default(),
        }
    }

    /// What is at an address. What it does not know yet is looked for in what was written since.
    pub(super) fn name(&mut self, address: u64) -> Option<Generated> {
        if self.known(address).is_none() {
            self.read_on();
        }
        self.known(address)
    }

    fn known(&self, address: u64) -> Option<Generated> {
        let (start, code) = self.codes.range(..=address).next_back()?;
        if address - start >= code.bytes {
            return None;
        }
        let line = code.lines.partition_point(|(from, ..)| *from <= address).checked_sub(1);
        let place = line.and_then(|at| code.lines.get(at)).map(|(_, line, source)| (source.clone(), *line));
        Some(Generated { name: code.name.clone(), place })
    }

    fn read_on(&mut self) {
        if self.at == 0 {
            let Some(head) = self.bytes(0, HEAD).and_then(<[u8]>::first_chunk::<HEAD>).copied() else { return };
            let bytes = u64::from(half(&head, 8));
            if half(&head, 0) != MAGIC || bytes < HEAD as u64 {
                self.file = None;
                return;
            }
            self.at = bytes;
        }
        // What is at the end of the file may be written yet.
        let length = self.file.as_ref().and_then(|file| file.metadata().ok()).map_or(0, |metadata| metadata.len());
        while let Some(bytes) = self.record(length) {
            self.at += bytes;
        }
    }

    /// Takes in the next record; its size, once it is whole.
    fn record(&mut self, length: u64) -> Option<u64> {
        let prefix = *self.bytes(self.at, PREFIX)?.first_chunk::<PREFIX>()?;
        let (kind, bytes) = (half(&prefix, 0), u64::from(half(&prefix, 4)));
        if bytes < PREFIX as u64 || kind == CODE_CLOSE {
            // Nothing follows, or nothing that could be found.
            self.file = None;
            return None;
        }
        if self.at + bytes > length {
            return None;
        }
        let body = usize::try_from(bytes).ok()?.min(MOST_OF_RECORD) - PREFIX;
        match kind {
            CODE_LOAD => {
                let loaded = self.bytes(self.at + PREFIX as u64, body.min(40 + LONGEST_NAME)).and_then(load);
                if let Some((start, code)) = loaded {
                    let lines = self.awaited.take().filter(|(of, _)| *of == start).map(|(_, lines)| lines);
                    self.insert(start, Code { lines: lines.unwrap_or_default(), ..code });
                }
            }
            CODE_MOVE => {
                let fields =
                    self.bytes(self.at + PREFIX as u64, body).and_then(|body| Some([word(body, 16)?, word(body, 24)?]));
                if let Some([from, to]) = fields
                    && let Some(code) = self.codes.get(&from)
                {
                    // What was called before is told of now: the old place keeps its name until something else is there.
                    let moved = |(at, line, source): &(u64, u32, Rc<str>)| {
                        (at.wrapping_sub(from).wrapping_add(to), *line, source.clone())
                    };
                    let lines = code.lines.iter().map(moved).collect();
                    let code = Code { bytes: code.bytes, name: code.name.clone(), lines };
                    self.insert(to, code);
                }
            }
            CODE_DEBUG_INFO if self.lines_kept < MOST_LINES => {
                let body = self.bytes(self.at + PREFIX as u64, body).map(<[u8]>::to_vec);
                self.awaited = body.and_then(|body| self.lines(&body));
            }
            _ => {}
        }
        Some(bytes)
    }

    fn insert(&mut self, start: u64, code: Code) {
        if code.bytes == 0 || self.codes.len() >= MOST_FUNCTIONS {
            return;
        }
        // Code that is gone makes room for other code.
        while let Some((&before, old)) = self.codes.range(..start.saturating_add(code.bytes)).next_back()
            && before.saturating_add(old.bytes) > start
        {
            self.codes.remove(&before);
        }
        self.codes.insert(start, code);
    }

    /// `code_addr, nr_entry`, then for each `addr, line, discriminator, name`; `\xff` alone for the name of the last one.
    fn lines(&mut self, body: &[u8]) -> Option<(u64, Lines)> {
        let (start, count) = (word(body, 0)?, word(body, 8)?);
        let mut rest = body.get(16..)?;
        let (mut lines, mut source) = (Vec::new(), None);
        for _ in 0..count {
            let Some((at, tail)) = word(rest, 0).zip(rest.get(16..)) else { break };
            let Some(end) = tail.iter().position(|&byte| byte == 0) else { break };
            let (name, line) = (&tail[..end], half(rest, 8));
            if name != b"\xff" {
                source = Some(self.source(name));
            }
            if let Some(source) = &source {
                lines.push((at, line, source.clone()));
            }
            rest = &tail[end + 1..];
        }
        self.lines_kept += lines.len();
        lines.sort_by_key(|(at, ..)| *at);
        Some((start, lines.into()))
    }

    fn source(&mut self, name: &[u8]) -> Rc<str> {
        let name = String::from_utf8_lossy(name.get(..LONGEST_NAME).unwrap_or(name));
        if let Some((known, ())) = self.sources.get_key_value(&*name) {
            return known.clone();
        }
        let kept: Rc<str> = name.into();
        self.sources.insert(kept.clone(), ());
        kept
    }

    /// Bytes of the file, as many as asked for.
    fn bytes(&mut self, at: u64, length: usize) -> Option<&[u8]> {
        let (start, window) = &mut self.window;
        let is_there = at >= *start && at + length as u64 <= *start + window.len() as u64;
        if !is_there {
            window.resize(length.max(PIECE), 0);
            let read = self.file.as_ref().and_then(|file| file.read_at(window, at).ok()).unwrap_or(0);
            window.truncate(read);
            *start = at;
        }
        let from = usize::try_from(at - *start).ok()?;
        window.get(from..from.checked_add(length)?)
    }
}

/// `pid, tid, vma, code_addr, code_size, code_index, name`, and the code.
fn load(body: &[u8]) -> Option<(u64, Code)> {
    let (start, bytes) = (word(body, 16)?, word(body, 24)?);
    let name = body.get(40..)?;
    let end = name.iter().position(|&byte| byte == 0)?;
    Some((start, Code { bytes, name: String::from_utf8_lossy(&name[..end]).into(), lines: Lines::default() }))
}

fn word(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at.checked_add(8)?).and_then(|bytes| bytes.try_into().ok()).map(u64::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

#[cfg(test)]
mod tests;
