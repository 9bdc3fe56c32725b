//! Go's function table as the linker writes it, small: src/cmd/link/internal/ld/pcln.go, src/runtime/symtab.go.

use super::container::{Parts, address, push32, push64};

/// The layouts, by the first release that wrote them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Go1_16,
    Go1_18,
    Go1_20,
}

/// A function of the table: the runs of (value, bytes of code) of its tables, where something was inlined.
#[derive(Clone, Debug, Default)]
pub struct Function {
    pub name: String,
    pub size: u32,
    pub lines: Vec<(i32, u32)>,
    /// Numbers of records of the inlining tree; -1: nothing is inlined.
    pub inlined: Vec<(i32, u32)>,
}

/// A record of the inlining tree: the function of that number, called at this distance from the function's start.
pub type Inlined = (usize, u32);

impl Function {
    /// One line, nothing inlined.
    pub fn plain(name: &str, size: u32) -> Self {
        Self { name: name.to_owned(), size, lines: vec![(7, size)], inlined: Vec::new() }
    }
}

/// A program of these functions, one behind the other, whose inlining trees are all `tree`.
pub fn program(layout: Layout, functions: &[Function], tree: &[Inlined]) -> Parts {
    let size: u32 = functions.iter().map(|f| f.size).sum();
    let (table, places) = table(layout, functions);
    let version = match layout {
        Layout::Go1_16 => "go1.17.13",
        Layout::Go1_18 => "go1.19.13",
        Layout::Go1_20 => "go1.26.1",
    };
    let parts = Parts::default().with(".text", vec![0xc3; size as usize]).with(".gopclntab", table);
    let parts = parts.with(".go.buildinfo", build_info(version));
    let parts = parts.with(".go.module", module(layout, &places, u64::from(size)));
    parts.with(".rodata", inlining_tree(layout, tree, &places))
}

/// Where names and units begin in the table, and each name behind the former.
struct Places {
    tables: [u64; 5],
    names: Vec<u32>,
}

fn table(layout: Layout, functions: &[Function]) -> (Vec<u8>, Places) {
    let old = layout == Layout::Go1_16;
    let mut name_starts = Vec::new();
    let mut names = vec![0];
    for function in functions {
        name_starts.push(names.len() as u32);
        names.extend(function.name.as_bytes());
        names.push(0);
    }
    let units = 0u32.to_le_bytes();
    let files = b"/src/main.go\0";
    // Offset 0 is no table.
    let mut values = vec![0];
    let mut entries = Vec::new();
    let mut records = Vec::new();
    let base = (functions.len() * if old { 16 } else { 8 } + 8) as u32;
    let mut start = 0;
    for (function, name) in functions.iter().zip(&name_starts) {
        let at = base + records.len() as u32;
        if old {
            push64(&mut entries, &[address(".text") + u64::from(start), u64::from(at)]);
        } else {
            push32(&mut entries, &[start, at]);
        }
        let runs = [&[(0, function.size)][..], &function.lines, &function.inlined];
        let [file, line, inlined] = runs.map(|runs| add_values(&mut values, runs));
        let gofunc = address(".rodata");
        if old {
            push64(&mut records, &[address(".text") + u64::from(start)])
        } else {
            push32(&mut records, &[start])
        }
        // Name, arguments, deferreturn, stack depths, files, lines, three tables, unit.
        push32(&mut records, &[*name, 0, 0, 0, file, line, 3, 0]);
        if layout == Layout::Go1_20 {
            push32(&mut records, &[1]);
        }
        records.extend([0, 0, 0, 4]);
        push32(&mut records, &[0, 0, inlined]);
        if old {
            records.resize(records.len().next_multiple_of(8), 0);
            push64(&mut records, &[0, 0, 0, gofunc]);
        } else {
            push32(&mut records, &[u32::MAX, u32::MAX, u32::MAX, 0]);
        }
        start += function.size;
    }
    if old {
        push64(&mut entries, &[address(".text") + u64::from(start)])
    } else {
        push32(&mut entries, &[start, 0])
    }
    let header = if old { 64 } else { 72 };
    let mut offsets = [header; 5];
    let pieces = [&names[..], &units, files, &values];
    for (n, piece) in pieces.iter().enumerate() {
        offsets[n + 1] = (offsets[n] + piece.len() as u64).next_multiple_of(8);
    }
    let mut out = Vec::new();
    let magic = match layout {
        Layout::Go1_16 => 0xffff_fffa,
        Layout::Go1_18 => 0xffff_fff0,
        Layout::Go1_20 => 0xffff_fff1,
    };
    push32(&mut out, &[magic]);
    out.extend([0, 0, 1, 8]);
    push64(&mut out, &[functions.len() as u64, 1]);
    if !old {
        push64(&mut out, &[address(".text")]);
    }
    push64(&mut out, &offsets);
    for (piece, end) in pieces.iter().zip(&offsets[1..]) {
        out.extend_from_slice(piece);
        out.resize(*end as usize, 0);
    }
    out.extend(entries);
    out.extend(records);
    (out, Places { tables: offsets, names: name_starts })
}

/// Appends a table of values and says where it is; 0 without runs.
fn add_values(values: &mut Vec<u8>, runs: &[(i32, u32)]) -> u32 {
    if runs.is_empty() {
        return 0;
    }
    let start = values.len() as u32;
    let mut before = -1;
    for (value, len) in runs {
        let delta = value.wrapping_sub(before);
        push_varint(values, ((delta << 1) ^ (delta >> 31)) as u32);
        push_varint(values, *len);
        before = *value;
    }
    values.push(0);
    start
}

fn push_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn module(layout: Layout, places: &Places, size: u64) -> Vec<u8> {
    let (table, text) = (address(".gopclntab"), address(".text"));
    let mut words = [0; 48];
    words[0] = table;
    words[1] = table + places.tables[0];
    words[4] = table + places.tables[1];
    (words[20], words[21], words[22]) = (text, text + size, text);
    words[if layout == Layout::Go1_18 { 38 } else { 40 }] = address(".rodata");
    let mut out = Vec::new();
    push64(&mut out, &words);
    out
}

fn inlining_tree(layout: Layout, tree: &[Inlined], places: &Places) -> Vec<u8> {
    let mut out = Vec::new();
    for (function, parent) in tree {
        let name = places.names.get(*function).copied().unwrap_or(0);
        match layout {
            Layout::Go1_20 => push32(&mut out, &[0, name, *parent, 1]),
            Layout::Go1_16 | Layout::Go1_18 => push32(&mut out, &[0, 0, 7, name, *parent]),
        }
    }
    out
}

fn build_info(version: &str) -> Vec<u8> {
    let mut out = b"\xff Go buildinf:\x08\x02".to_vec();
    out.resize(32, 0);
    out.push(version.len() as u8);
    out.extend(version.as_bytes());
    out.push(0);
    out
}
