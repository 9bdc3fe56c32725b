//! What each fuzz target does with its input. The tests replay inputs through the same functions.
//!
//! A target must end soon and take little memory, whatever the input; what the library answers is looked at by the tests.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use symbols::addr::Vaddr;
use symbols::binary::Binary;
use symbols::code::{self, Body};
use symbols::debugfile::DebugSearch;
use symbols::index::{Function, Index, Language};
use symbols::pattern::Pattern;
use symbols::unwind::{self, Registers, Rule, Tables};

use super::container::{self, DEBUG_FILE, Parts, SPLIT_OBJECT, SPLIT_PACKAGE};
use super::go_table::{self, Layout};

/// A target: its input is any bytes.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 7] = [
    ("code", code),
    ("debugfile", debugfile),
    ("demangle", demangle),
    ("dwarf", dwarf),
    ("elf", elf),
    ("patterns", patterns),
    ("pclntab", pclntab),
];

/// Functions of one file that are looked at one by one.
const MOST: usize = 200;

/// The input is a whole file, with which everything is done.
pub fn elf(input: &[u8]) {
    let Some(binary) = open(input.to_vec()) else { return };
    read_layout(&binary);
    read_go(&binary);
    let Some(index) = index(&binary, &nowhere()) else { return };
    read_names(&index);
    read_places(&index);
    read_code(&index);
    select(&index, &["*", "main", "Store.Get", "/e$/", "@main.go:30", "@names.cc", "@names.cc:30", "0x1040"]);
    select(&index, &["main+0x4", "!main.*", "memcpy@GLIBC_2.14"]);
}

/// The input is the parts of a Go program ([`Parts`]).
pub fn pclntab(input: &[u8]) {
    let Some(binary) = open(Parts::decode(input).file()) else { return };
    read_go(&binary);
    let Some(index) = index(&binary, &nowhere()) else { return };
    read_names(&index);
    read_places(&index);
    select(&index, &["*", "main.main", "@main.go:7", "@main.go"]);
}

/// The input is the parts of a program with debug information, and what is in files beside it.
pub fn dwarf(input: &[u8]) {
    let parts = Parts::decode(input);
    let Some(binary) = open(parts.file()) else { return };
    let beside = Beside::new(&parts, &[("x.dwo", SPLIT_OBJECT), ("program.dwp", SPLIT_PACKAGE)]);
    let Some(index) = index(&binary, &beside.search()) else { return };
    read_places(&index);
    let text = binary.segments().iter().find(|s| s.executable).map(|s| (s.vaddr.0, s.file_size));
    let (start, size) = text.unwrap_or_default();
    for v in (0..size.min(4096)).step_by(13).filter_map(|into| start.checked_add(into)).map(Vaddr) {
        let _ = (index.line(v), index.inlined(v).len());
    }
    select(&index, &["@inlined.c", "@inlined.c:5", "@a.c:1"]);
}

/// The input is symbols, one a line.
pub fn demangle(input: &[u8]) {
    let names = input.split(|&b| b == b'\n').take(16);
    let Some(binary) = open(container::named(names.clone()).file()) else { return };
    let Some(index) = index(&binary, &nowhere()) else { return };
    read_names(&index);
    select(&index, &["*", "a::b", "f(int)", "std::vector<int>::at", "<T as Tr>::m", "/a.*b/", "T*::f", "!a*"]);
    let own: Vec<String> = index.functions().map(|f| f.name.to_owned()).collect();
    for name in own {
        select(&index, &[&name]);
    }
}

/// The input is a pattern, and symbols that it is tried on, one a line.
pub fn patterns(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n');
    let Some(Ok(pattern)) = lines.next().map(str::parse::<Pattern>) else { return };
    let _ = (pattern.to_string(), pattern.is_negation());
    let names: Vec<&str> = lines.take(16).collect();
    let functions: Vec<_> = names.iter().map(|name| go_table::Function::plain(name, 16)).collect();
    let of_elf = container::named(names.iter().map(|name| name.as_bytes()));
    for parts in [of_elf, go_table::program(Layout::Go1_20, &functions, &[])] {
        let Some(binary) = open(parts.file()) else { continue };
        let Some(index) = index(&binary, &nowhere()) else { continue };
        let patterns = [pattern.clone()];
        let _ = (index.select(&patterns, false), index.select(&patterns, true));
        let _ = (index.nearest(&pattern, 3), index.why_no_match(&pattern));
        let _ = index.inlined_copies(&patterns, &index.select(&patterns, true), true).len();
    }
}

/// The input is the parts of a program whose code and unwind tables are read.
pub fn code(input: &[u8]) {
    let Some(binary) = open(Parts::decode(input).file()) else { return };
    let Some(index) = index(&binary, &nowhere()) else { return };
    read_code(&index);
}

/// The input is the parts of a stripped program, and a debug file that may be its.
pub fn debugfile(input: &[u8]) {
    let parts = Parts::decode(input);
    let Some(binary) = open(parts.file()) else { return };
    let beside = Beside::new(&parts, &[("x.debug", DEBUG_FILE)]);
    let Some(index) = index(&binary, &beside.search()) else { return };
    let _ = (index.debug_report(), index.is_stripped());
    read_names(&index);
    read_places(&index);
    select(&index, &["main", "*"]);
}

fn open(bytes: Vec<u8>) -> Option<Arc<Binary>> {
    match Binary::from_bytes(bytes) {
        Ok(binary) => Some(Arc::new(binary)),
        Err(error) => {
            let _ = error.to_string();
            None
        }
    }
}

fn index(binary: &Arc<Binary>, search: &DebugSearch) -> Option<Index> {
    match Index::with_debug(binary.clone(), search) {
        Ok(index) => Some(index),
        Err(error) => {
            let _ = error.to_string();
            None
        }
    }
}

fn nowhere() -> DebugSearch {
    DebugSearch { folders: Vec::new(), ..DebugSearch::default() }
}

fn read_layout(binary: &Binary) {
    let _ = (binary.build_id(), binary.soname(), binary.needed(), binary.interpreter(), binary.tls(), binary.entry());
    let _ = (binary.pointer_at(Vaddr(u64::MAX - 3)), binary.bytes_at(Vaddr(1), u64::MAX), binary.symbol_value("main"));
    for segment in binary.segments().iter().take(MOST) {
        let end = Vaddr(segment.vaddr.0.saturating_add(segment.file_size));
        let _ = (binary.file_offset(segment.vaddr), binary.vaddr(segment.file_offset), binary.bytes_from(end));
        let _ = (binary.in_plt(segment.vaddr), binary.is_executable(end), binary.pointer_at(segment.vaddr));
    }
}

fn read_go(binary: &Binary) {
    let _ = binary.go_error().map(ToString::to_string);
    let Some(program) = binary.go() else { return };
    let _ = (program.types(), program.text_range(binary), program.version(), program.module(), program.text());
    let _ = program.runtime_offsets(binary);
    let count = program.functions(binary).count();
    for function in program.functions(binary).step_by(count / MOST + 1) {
        let _ = (function.name(), function.size(), function.lines().take(1000).count(), function.flags());
        let inside = Vaddr(function.address.0.saturating_add(function.size() / 2));
        let _ = (program.function_at(binary, inside).is_some(), function.line_at(inside));
        let _ = (program.inlined(binary, &function, inside).len(), program.is_wrapper(&function));
    }
}

fn some(index: &Index) -> impl Iterator<Item = Function<'_>> {
    index.functions().step_by(index.len() / MOST + 1)
}

fn read_names(index: &Index) {
    for function in some(index) {
        let (id, place) = (function.id, function.address);
        let _ = (index.symbol(id), index.symbols(id).count(), index.aliases(id).len(), index.name(id));
        let _ = (index.at(place).is_some(), index.starts_function(place), index.parts(id).len(), index.outline(id));
    }
}

fn read_places(index: &Index) {
    for function in some(index) {
        let inside = Vaddr(function.address.0.saturating_add(function.size / 2));
        let _ = (index.line(function.address), index.line(inside), index.inlined(inside).len());
    }
    for name in ["innermost", "main.inner", "*"] {
        let _ = name.parse().map(|pattern| {
            let patterns = [pattern];
            index.inlined_copies(&patterns, &index.select(&patterns, true), true).len()
        });
    }
}

fn read_code(index: &Index) {
    let binary = index.binary();
    let tables = Tables::of(binary, Some(index));
    for function in some(index) {
        if let Rule::Row(row) = tables.rule(binary, Some(index), function.address) {
            let mut registers = Registers::new(function.address.0, 0x1000, u64::MAX);
            let _ = row.step(&mut registers, &mut |address| (address % 3 != 0).then_some(!address));
        }
        let _ = unwind::keeps_frame_pointer(binary, Some(index), function.address);
        let _ = unwind::code_range(binary, function.address);
        let Some(code) = binary.bytes_at(function.address, function.size) else { continue };
        let parts = index.parts(function.id);
        let body = Body {
            machine: binary.machine(),
            address: function.address,
            code,
            parts: parts.iter().filter_map(|&(start, size)| Some((start, binary.bytes_at(start, size)?))).collect(),
            is_go: function.language == Language::Go,
            go_asm: function.go_asm,
        };
        let _ = code::shape(&body, &|v| index.starts_function(v) || binary.in_plt(v));
        let _ = code::shape(&Body { go_asm: true, is_go: true, ..body.clone() }, &|_| false);
        let _ = code::entry_refusal(&body);
        let inside = Vaddr(function.address.0.saturating_add(function.size / 2));
        let _ = (code::place(&body, inside), unwind::keeps_frame_pointer(binary, Some(index), inside));
        let _ = code::calls_to(binary.machine(), code, function.address, inside).len();
    }
}

fn select(index: &Index, patterns: &[&str]) {
    let patterns: Vec<Pattern> = patterns.iter().filter_map(|p| p.parse().ok()).collect();
    let _ = index.select(&patterns, true);
    for pattern in &patterns {
        let _ = (index.select(std::slice::from_ref(pattern), false), index.nearest(pattern, 3));
    }
}

/// A folder with the files that lie beside the program, if there are any.
struct Beside(Option<PathBuf>);

impl Beside {
    fn new(parts: &Parts, files: &[(&str, u8)]) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        if !files.iter().any(|(_, number)| parts.get(*number).is_some()) {
            return Self(None);
        }
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("symbols-fuzz-{}-{number}", std::process::id()));
        let made = std::fs::create_dir_all(&folder);
        let beside = Self(Some(folder.clone()));
        made.unwrap_or_else(|e| panic!("failed to make {}: {e}", folder.display()));
        for (name, part) in files {
            if let Some(part) = parts.get(*part) {
                write(&folder.join(name), &Parts::decode(part).file());
            }
        }
        beside
    }

    fn search(&self) -> DebugSearch {
        DebugSearch { path: self.0.as_ref().map(|folder| folder.join("program")), ..nowhere() }
    }
}

fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).unwrap_or_else(|e| panic!("failed to write {}: {e}", path.display()));
}

impl Drop for Beside {
    fn drop(&mut self) {
        if let Some(folder) = &self.0 {
            // What is left behind is only untidy.
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}
