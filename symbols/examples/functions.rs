//! What patterns match in a file, with the places that a tracer would probe:
//!
//! ```text
//! cargo run -p symbols --example functions -- /usr/bin/env 'main' 'x*alloc'
//! ```

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use symbols::binary::Binary;
use symbols::code::{self, Body};
use symbols::debugfile::DebugSearch;
use symbols::index::{Function, Index, Matched};
use symbols::pattern::Pattern;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let path = PathBuf::from(arguments.next().ok_or("usage: functions FILE PATTERN...")?);
    let patterns: Vec<Pattern> = arguments.map(|text| text.parse()).collect::<Result<_, _>>()?;
    let search = DebugSearch { path: Some(path.clone()), ..DebugSearch::default() };
    let index = Index::with_debug(Arc::new(Binary::open(&path)?), &search)?;
    let selection = index.select(&patterns, false);
    for found in &selection.matches {
        match found.what {
            Matched::Function(id) => print(&index, &index.function(id), &found.name),
            Matched::Point { address, .. } => println!("{address} {}", found.name),
        }
    }
    println!("{} left out", selection.left_out.len());
    for &number in &selection.unmatched {
        println!("{} matches nothing; near: {:?}", patterns[number], index.nearest(&patterns[number], 3));
    }
    Ok(())
}

fn print(index: &Index, function: &Function<'_>, name: &str) {
    let source = index.line(function.address).map(|s| format!(" {}:{}", s.file, s.line)).unwrap_or_default();
    println!("{} {} {name}{source}", function.address, function.language);
    let binary = index.binary();
    let code = binary.bytes_at(function.address, function.size).unwrap_or_default();
    let body = Body {
        machine: binary.machine(),
        address: function.address,
        code,
        parts: Vec::new(),
        is_go: function.language == symbols::index::Language::Go,
        go_asm: function.go_asm,
    };
    let shape = code::shape(&body, &|address| index.starts_function(address));
    match shape.entry {
        Ok(entry) => println!("    entered at {} ({:?})", entry.address, entry.cost),
        Err(reason) => println!("    not probeable: {reason}"),
    }
    for exit in &shape.exits {
        println!("    left at {} by {:?}", exit.address, exit.kind);
    }
}
