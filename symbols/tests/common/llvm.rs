//! Tools of LLVM as oracles for lines, inlined functions, and names.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use super::filtered;

/// One address as llvm-symbolizer has it: (function, file, line), innermost first.
pub type Frames = Vec<(String, String, u32)>;

/// What is at addresses of a program. The llvm-symbolizer of Debian's `llvm` reads old `.zdebug` sections, which later ones
/// do not.
pub fn symbolizer_of(program: &Path, addresses: &[u64]) -> Vec<Frames> {
    symbolizer(Command::new("llvm-symbolizer").arg("--obj").arg(program), addresses)
}

/// Asks a llvm-symbolizer, `command`, that already knows its file.
pub fn symbolizer(command: &mut Command, addresses: &[u64]) -> Vec<Frames> {
    command.args(["--functions=linkage", "--inlines", "--no-demangle", "--output-style=LLVM"]);
    let output = filtered(command, addresses.iter().map(|a| format!("{a:#x}")));
    // Each answer: pairs of lines (function; file:line:column), then an empty line.
    let answers: Vec<Frames> = output.split_terminator("\n\n").map(answer).collect();
    assert_eq!(answers.len(), addresses.len());
    answers
}

fn answer(text: &str) -> Frames {
    let lines: Vec<&str> = text.lines().collect();
    let frames = lines.chunks_exact(2).map(|pair| {
        let mut place = pair[1].rsplitn(3, ':');
        let (_, line) = (place.next(), place.next().unwrap().parse().unwrap());
        (pair[0].to_owned(), place.next().unwrap().to_owned(), line)
    });
    frames.collect()
}

/// Mangled names, as llvm-cxxfilt demangles them, without the hashes of Rust.
pub fn demangled(names: BTreeSet<&str>) -> BTreeMap<String, String> {
    let output = filtered(&mut Command::new("llvm-cxxfilt-22"), names.iter().copied());
    assert_eq!(output.lines().count(), names.len());
    let without_hash = |name: &str| match name.rsplit_once("::h") {
        Some((name, hash)) if hash.len() == 16 && hash.bytes().all(|b| b.is_ascii_hexdigit()) => name.to_owned(),
        _ => name.to_owned(),
    };
    names.iter().zip(output.lines()).map(|(name, line)| ((*name).to_owned(), without_hash(line))).collect()
}

/// Whether an inlined function's name is the one that LLVM has: `demangled`, of `raw`. Where the debug information states no
/// linkage name, that is the last element alone of what is in namespaces and classes.
pub fn is_name(ours: &str, raw: &str, demangled: &str) -> bool {
    let is_whole = raw.starts_with("_Z") || raw.starts_with("_R") || raw.contains("::");
    ours == demangled || !is_whole && ours.strip_suffix(demangled).is_some_and(|around| around.ends_with("::"))
}
