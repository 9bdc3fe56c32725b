//! A compilation unit's line table: which file and line each address comes from.

use std::ops::Range;

use gimli::{
    AttributeValue, DebugLine, DebugLineOffset, FileEntry, IncompleteLineProgram, LineProgramHeader, LittleEndian,
    Section as _,
};

use super::budget::Budget;
use super::{Dwarf, Reader, Unit};

/// Longer paths are cut: no file can be opened by one (PATH_MAX).
const MAX_PATH: usize = 4096;

/// The table, in order of address.
pub(super) struct Lines {
    sequences: Vec<Sequence>,
    rows: Vec<Row>,
}

struct Sequence {
    start: u64,
    end: u64,
    rows: Range<usize>,
}

/// From `address` to the next row's.
#[derive(Clone, Copy)]
struct Row {
    address: u64,
    file: u32,
    /// 0: the compiler knows of none.
    line: u32,
    /// A statement begins here: debuggers stop at such places.
    statement: bool,
}

/// A row that stands for a run of addresses.
pub(super) struct Run {
    pub(super) start: u64,
    pub(super) file: u32,
    pub(super) line: u32,
    pub(super) statement: bool,
}

type Header<'a> = LineProgramHeader<Reader<'a>>;

impl Lines {
    /// Runs the line program at `place`. `is_code` tells real addresses from those of functions that the linker threw
    /// away (0 or -1).
    pub(super) fn read(
        dwarf: &Dwarf<'_>,
        unit: &Unit<'_>,
        place: &Range<usize>,
        budget: &Budget,
        is_code: &dyn Fn(u64) -> bool,
    ) -> Option<Self> {
        let program = program(dwarf, unit, place)?;
        let mut lines = Self { sequences: Vec::new(), rows: Vec::new() };
        let mut rows = program.rows();
        let mut first = 0;
        // A broken program's beginning still serves.
        while let Ok(Some((_, row))) = rows.next_row() {
            if row.end_sequence() {
                lines.end_sequence(first, row.address(), is_code);
                first = lines.rows.len();
                continue;
            }
            if budget.take_one::<Row>().is_none() {
                break;
            }
            lines.push(
                first,
                Row {
                    address: row.address(),
                    file: u32::try_from(row.file_index()).unwrap_or(u32::MAX),
                    line: row.line().and_then(|line| u32::try_from(line.get()).ok()).unwrap_or(0),
                    statement: row.is_stmt(),
                },
            );
        }
        lines.rows.truncate(first);
        lines.rows.shrink_to_fit();
        lines.sequences.sort_by_key(|s| (s.start, s.end));
        Some(lines)
    }

    /// Of rows at one address the last counts.
    fn push(&mut self, first: usize, row: Row) {
        match self.rows.get_mut(first..).and_then(<[Row]>::last_mut) {
            Some(last) if last.address == row.address => *last = row,
            _ => self.rows.push(row),
        }
    }

    fn end_sequence(&mut self, first: usize, end: u64, is_code: &dyn Fn(u64) -> bool) {
        let rows = self.rows.get_mut(first..).unwrap_or_default();
        if !rows.is_sorted_by_key(|row| row.address) {
            rows.sort_by_key(|row| row.address);
        }
        match rows.first().map(|row| row.address) {
            Some(start) if start < end && is_code(start) => {
                self.sequences.push(Sequence { start, end, rows: first..self.rows.len() });
            }
            _ => self.rows.truncate(first),
        }
    }

    /// The file's number and the line of an address.
    pub(super) fn at(&self, v: u64) -> Option<(u32, u32)> {
        let after = self.sequences.partition_point(|s| s.start <= v);
        // Sequences do not overlap but in broken files; an empty one may stand between.
        let before = self.sequences.get(..after)?.iter().rev().take(4);
        let sequence = before.into_iter().find(|s| v < s.end)?;
        let rows = self.rows.get(sequence.rows.clone())?;
        let row = rows.get(rows.partition_point(|row| row.address <= v).checked_sub(1)?)?;
        (row.line != 0).then_some((row.file, row.line))
    }

    /// All runs, sequence by sequence.
    pub(super) fn runs(&self) -> impl Iterator<Item = Run> + '_ {
        let rows = self.sequences.iter().flat_map(|s| self.rows.get(s.rows.clone()).unwrap_or_default());
        rows.map(|r| Run { start: r.address, file: r.file, line: r.line, statement: r.statement })
    }
}

/// The line program at a place of `.debug_line`, which may reach no further.
fn program<'a>(dwarf: &Dwarf<'a>, unit: &Unit<'a>, place: &Range<usize>) -> Option<IncompleteLineProgram<Reader<'a>>> {
    let bytes = dwarf.debug_line.reader().slice().get(..place.end)?;
    let section = DebugLine::new(bytes, LittleEndian);
    section.program(DebugLineOffset(place.start), unit.header.address_size(), unit.comp_dir, unit.name).ok()
}

/// The paths of a line program's files, by number.
pub(super) fn files(dwarf: &Dwarf<'_>, unit: &Unit<'_>, place: &Range<usize>, budget: &Budget) -> Vec<Box<str>> {
    let program = program(dwarf, unit, place);
    let Some(header) = program.as_ref().map(|program| program.header()) else { return Vec::new() };
    let numbers = 0..=header.file_names().len() as u64;
    // Before DWARF 5, files are counted from 1.
    let paths =
        numbers.map(|number| header.file(number).map_or_else(String::new, |file| path(dwarf, unit, header, file)));
    let bounded = paths.map_while(|path| {
        budget.take(path.len() + size_of::<Box<str>>())?;
        Some(path.into_boxed_str())
    });
    bounded.collect()
}

/// The folder where the compiler ran, the file's folder, its name: each may be absolute. Folder 0 is where the compiler
/// ran: since DWARF 5 the table has it, before it is the unit's to tell (DWARF 5, 6.2.4).
fn path<'a>(dwarf: &Dwarf<'a>, unit: &Unit<'a>, header: &Header<'a>, file: &FileEntry<Reader<'a>>) -> String {
    let text = |value: AttributeValue<Reader<'a>>| dwarf.attr_string(unit, value).ok();
    let is_first = file.directory_index() == 0;
    let folder = (header.version() >= 5 || !is_first).then(|| file.directory(header)).flatten();
    let mut path = match (is_first, folder) {
        (true, Some(_)) => String::new(),
        _ => unit.comp_dir.map(|dir| shortened(dir).into_owned()).unwrap_or_default(),
    };
    for part in folder.into_iter().chain([file.path_name()]).filter_map(text) {
        push(&mut path, &shortened(part));
    }
    path
}

fn shortened<'a>(text: Reader<'a>) -> std::borrow::Cow<'a, str> {
    let bytes = text.slice();
    String::from_utf8_lossy(bytes.get(..MAX_PATH).unwrap_or(bytes))
}

fn push(path: &mut String, part: &str) {
    if part.starts_with('/') {
        path.clear();
    } else if !path.is_empty() && !path.ends_with('/') {
        path.push('/');
    }
    path.push_str(part);
}
