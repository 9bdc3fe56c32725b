//! The programs, built once for all tests, and what the oracles say of them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock};

use symbols::binary::Binary;
use symbols::debugfile::DebugSearch;
use symbols::index::Index;

use crate::common;

/// A program, and its symbols by address as the oracle has them.
pub(super) struct Program {
    pub(super) path: PathBuf,
    pub(super) index: Index,
    pub(super) symbols: BTreeMap<u64, BTreeSet<String>>,
}

pub(super) struct Programs {
    _dir: tempfile::TempDir,
    pub(super) go: Program,
    pub(super) legacy: Program,
    pub(super) v0: Program,
    pub(super) cpp: Program,
    pub(super) c: Program,
}

pub(super) static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/forms/sources");
    Programs {
        go: go(&sources, dir.path()),
        legacy: rust(&sources, dir.path(), "legacy"),
        v0: rust(&sources, dir.path(), "v0"),
        cpp: cpp(&sources, dir.path()),
        c: c(&sources, dir.path()),
        _dir: dir,
    }
});

fn index(path: &Path) -> Index {
    let search = DebugSearch { path: Some(path.to_owned()), folders: Vec::new(), ..DebugSearch::default() };
    Index::with_debug(Arc::new(Binary::open(path).unwrap()), &search).unwrap()
}

fn go(sources: &Path, dir: &Path) -> Program {
    let path = dir.join("go");
    common::run(common::go(&sources.join("go")).args(["build", "-o"]).arg(&path).arg("."));
    let text = common::run(Command::new(common::go_tool()).args(["tool", "nm"]).arg(&path).env("GOTOOLCHAIN", "local"));
    // Names may have spaces in them.
    let symbol = |line: &str| {
        let (address, rest) = line.trim().split_once(' ')?;
        let name = rest.strip_prefix("T ").or(rest.strip_prefix("t "))?;
        Some((address.to_owned(), name.to_owned()))
    };
    Program { index: index(&path), symbols: by_address(text.lines().filter_map(symbol)), path }
}

fn rust(sources: &Path, dir: &Path, mangling: &str) -> Program {
    let path = dir.join(mangling);
    let mut rustc = Command::new("rustc");
    rustc.args(["--edition=2021", "-O", "-Zunstable-options"]).env("RUSTC_BOOTSTRAP", "1").env_remove("RUSTFLAGS");
    rustc.arg(format!("-Csymbol-mangling-version={mangling}"));
    common::run(rustc.arg("-o").arg(&path).arg(sources.join("names.rs")));
    elf(path)
}

fn cpp(sources: &Path, dir: &Path) -> Program {
    let path = dir.join("cpp");
    common::run(Command::new("g++").args(["-std=c++17", "-O0", "-g", "-o"]).arg(&path).arg(sources.join("names.cc")));
    elf(path)
}

fn c(sources: &Path, dir: &Path) -> Program {
    let path = dir.join("libforms.so");
    let mut gcc = Command::new("gcc");
    gcc.current_dir(sources).args(["-shared", "-fPIC", "-O2", "-g", "-Wl,--version-script=versions.map", "-o"]);
    common::run(gcc.arg(&path).args(["lib.c", "one.c", "two.c"]));
    elf(path)
}

fn elf(path: PathBuf) -> Program {
    let text = common::run(Command::new("nm").args(["--defined-only"]).arg(&path));
    let symbol = |line: &str| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_owned(), words.nth(1)?.to_owned()))
    };
    Program { index: index(&path), symbols: by_address(text.lines().filter_map(symbol)), path }
}

fn by_address(symbols: impl Iterator<Item = (String, String)>) -> BTreeMap<u64, BTreeSet<String>> {
    let mut all: BTreeMap<u64, BTreeSet<String>> = BTreeMap::new();
    for (address, name) in symbols {
        all.entry(u64::from_str_radix(&address, 16).unwrap()).or_default().insert(name);
    }
    all
}
