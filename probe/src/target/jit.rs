//! Names for code that a process made at run time, from the map that its runtime wrote for perf.
//!
//! In: `/tmp/perf-PID.map`, lines of `START SIZE NAME` (hexadecimal, no prefix). Out: names by address.
//!
//! Source: Linux, tools/perf/Documentation/jit-interface.txt.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    rc::Rc,
    time::{Duration, Instant},
};

/// Bytes read of one map at most: it is written by whoever may write to /tmp.
const MOST: u64 = 256 << 20;
/// A map that is not there is looked for so often: most programs that make code never write one, and it takes more than all else
/// that a stack takes.
const LOOK: Duration = Duration::from_millis(10);
/// Bytes read at once.
const PIECE: usize = 1 << 20;

/// Code that was made at run time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Generated {
    /// The function's name.
    pub(super) name: Rc<str>,
    /// Source file and line, where they are known.
    pub(super) place: Option<(Rc<str>, u32)>,
}

/// The map of one process.
#[derive(Default)]
pub(super) struct PerfMap {
    /// Open once it is there.
    file: Option<File>,
    /// When it was looked for in vain.
    missed: Option<Instant>,
    /// Read so far.
    read: u64,
    /// The beginning of a line that was not whole yet.
    rest: Vec<u8>,
    /// By start: bytes, name.
    entries: BTreeMap<u64, (u64, Rc<str>)>,
}

impl PerfMap {
    /// The name of the function at an address. The map grows while the process runs: what it does not know yet is looked
    /// for in what was written since.
    pub(super) fn name(&mut self, pid: u32, address: u64) -> Option<Rc<str>> {
        if self.known(address).is_none() {
            if self.file.is_none() && self.missed.is_none_or(|missed| missed.elapsed() >= LOOK) {
                self.file = find(pid);
                self.missed = Some(Instant::now());
            }
            self.read_on();
        }
        self.known(address).cloned()
    }

    fn known(&self, address: u64) -> Option<&Rc<str>> {
        let (start, (size, name)) = self.entries.range(..=address).next_back()?;
        (address - start < *size).then_some(name)
    }

    fn read_on(&mut self) {
        let Some(length) = self.file.as_ref().and_then(|file| file.metadata().ok()).map(|metadata| metadata.len())
        else {
            return;
        };
        if length <= self.read {
            return;
        }
        let mut piece = vec![0; PIECE];
        while self.read < MOST {
            let Some(length) = self.file.as_ref().and_then(|file| file.read_at(&mut piece, self.read).ok()) else {
                return;
            };
            let Some(new) = piece.get(..length).filter(|new| !new.is_empty()) else { return };
            self.read += length as u64;
            self.take(new);
        }
    }

    fn take(&mut self, new: &[u8]) {
        self.rest.extend_from_slice(new);
        let whole = self.rest.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
        let lines: Vec<u8> = self.rest.drain(..whole).collect();
        // A line without end is none.
        self.rest.truncate(PIECE);
        for (start, size, name) in lines.split(|&byte| byte == b'\n').filter_map(parse) {
            // Code that is gone makes room for other code.
            while let Some((&before, &(bytes, _))) = self.entries.range(..start.saturating_add(size)).next_back()
                && before.saturating_add(bytes) > start
            {
                self.entries.remove(&before);
            }
            self.entries.insert(start, (size, name));
        }
    }
}

fn parse(line: &[u8]) -> Option<(u64, u64, Rc<str>)> {
    let line = std::str::from_utf8(line).ok()?;
    let (start, rest) = line.split_once(' ')?;
    let (size, name) = rest.split_once(' ')?;
    let number = |text: &str| u64::from_str_radix(text.strip_prefix("0x").unwrap_or(text), 16).ok();
    Some((number(start)?, number(size)?, name.trim_end().into()))
}

/// Opens a process's map: as the process sees it, under the number that it knows itself by, or as we do.
fn find(pid: u32) -> Option<File> {
    let inner = inner_pid(pid).unwrap_or(pid);
    let inside = super::in_root_of(pid, Path::new(&format!("/tmp/perf-{inner}.map")));
    [inside, PathBuf::from(format!("/tmp/perf-{pid}.map"))].iter().find_map(|path| open(pid, path))
}

/// The number that a process has in its innermost namespace.
fn inner_pid(pid: u32) -> Option<u32> {
    super::proc::numbers(pid).last().copied()
}

/// Only a regular file that belongs to the process's owner or to root: names are to come from nobody else.
fn open(pid: u32, path: &Path) -> Option<File> {
    if !fs::symlink_metadata(path).ok()?.is_file() {
        return None;
    }
    let file = super::debugfiles::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let owner = fs::metadata(super::proc::of(pid)).map_or(0, |process| process.uid());
    (metadata.uid() == owner || metadata.uid() == 0).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_taken_once_they_are_whole_and_new_code_replaces_what_it_covers() {
        let mut map = PerfMap::default();
        map.take(b"1000 20 first\n2000 10 a name with blanks\n30");
        let known = |map: &PerfMap, address| map.known(address).map(|name| name.to_string());
        assert_eq!(known(&map, 0x101f).as_deref(), Some("first"));
        assert_eq!(known(&map, 0x1020), None);
        assert_eq!(known(&map, 0x2000).as_deref(), Some("a name with blanks"));
        map.take(b"00 8 third\nnonsense\n0x1010 40 newer\nzz 1 x\n");
        assert_eq!(known(&map, 0x3007).as_deref(), Some("third"));
        assert_eq!(known(&map, 0x1000), None);
        assert_eq!(known(&map, 0x1010).as_deref(), Some("newer"));
    }

    #[test]
    fn a_map_that_is_not_there_is_not_looked_for_at_every_address() {
        let mut map = PerfMap::default();
        let before = Instant::now();
        let mut looked = std::collections::BTreeSet::new();
        for address in 0..1000 {
            assert_eq!(map.name(u32::MAX, address), None);
            looked.insert(map.missed.expect("it was looked for"));
        }
        let most = before.elapsed().as_millis() / LOOK.as_millis() + 1;
        assert!(looked.len() as u128 <= most, "{} times, {most} at most", looked.len());
    }

    #[test]
    fn what_is_written_later_is_read_later() {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let path = folder.path().join("map");
        fs::write(&path, "1000 10 a\n").expect("it can be written");
        let mut map = PerfMap { file: File::open(&path).ok(), ..PerfMap::default() };
        assert_eq!(map.name(u32::MAX, 0x1000).as_deref(), Some("a"));
        assert_eq!(map.name(u32::MAX, 0x2000), None);
        fs::write(&path, "1000 10 a\n2000 10 b\n").expect("it can be written");
        assert_eq!(map.name(u32::MAX, 0x2000).as_deref(), Some("b"));
    }
}
