//! Functions of Go, Rust, C and C++ ELF files: by the name that a person types, by address, and where to probe them.
//!
//! Bytes in, functions out: no `/proc`, no kernel, no root, nothing printed. What is read may be hostile: broken files are
//! errors, never panics, and memory is bounded by a small multiple of the file. The machine that runs this and the one that
//! a file is for need not be the same; files are for x86-64 or little-endian aarch64.
//!
//! # Opening a file
//!
//! A [`binary::Binary`] is the file, mapped; an [`index::Index`] its functions, from whatever names them: `.symtab`, `.dynsym`,
//! mini-debuginfo, separate debug files, and Go's own function table, which no strip takes away. To open is to sort
//! addresses; names are demangled when they are asked for.
//!
//! ```
//! use std::sync::Arc;
//! use symbols::{binary::Binary, debugfile::DebugSearch, index::Index};
//!
//! let path = std::env::current_exe()?;
//! let binary = Arc::new(Binary::open(&path)?);
//! // What the file itself has…
//! let index = Index::new(binary.clone())?;
//! // …or with debug files too, looked for under /usr/lib/debug; of a stripped file, also functions without a name.
//! let search = DebugSearch { path: Some(path), ..DebugSearch::default() };
//! let index = Index::with_debug(binary, &search)?;
//! assert!(index.len() > 100);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Functions by name
//!
//! A [`pattern::Pattern`] is what a person types: an exact name, its end, a glob, a `/regex/`, `@file:line`, an address, or
//! any of them taken away (`!`). [`index::Index::select`] says what several of them mean together, what they would
//! match but for its kind, and which match nothing; for those there are the [nearest](index::Index::nearest) that
//! do, and [where they were inlined](index::Index::inlined_copies).
//!
//! ```
//! # use std::sync::Arc;
//! # use symbols::{binary::Binary, index::{Index, Matched}, pattern::Pattern};
//! #[inline(never)]
//! fn answer() -> u32 {
//!     std::hint::black_box(42)
//! }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! assert_eq!(answer(), 42);
//! let index = Index::new(Arc::new(Binary::open(&std::env::current_exe()?)?))?;
//! let patterns: [Pattern; 2] = ["answer".parse()?, "!std::*".parse()?];
//! let selection = index.select(&patterns, false);
//! let found = selection.matches.first().ok_or("it is in this program")?;
//! assert!(found.name.ends_with("::answer") && found.exact);
//! let Matched::Function(id) = found.what else { return Err("a name is no point".into()) };
//! println!("{} at {}, {} bytes", found.name, index.outline(id).address, index.outline(id).size);
//!
//! let mistyped: Pattern = "anwser".parse()?;
//! assert_eq!(index.select(std::slice::from_ref(&mistyped), false).unmatched, [0]);
//! assert!(index.nearest(&mistyped, 5).iter().any(|name| name.ends_with("::answer")));
//! # Ok(()) }
//! ```
//!
//! # Functions, lines and inlined calls by address
//!
//! Addresses have a type for each space they count in ([`addr`]). One from a running process becomes the file's by the
//! [`addr::LoadBias`]; a return address is looked up one byte earlier, in the call.
//!
//! ```
//! # use std::sync::Arc;
//! # use symbols::{addr::{LoadBias, RuntimeAddr}, binary::Binary, index::Index};
//! #[inline(never)]
//! fn answer() -> u32 {
//!     std::hint::black_box(42)
//! }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # assert_eq!(answer(), 42);
//! let index = Index::new(Arc::new(Binary::open(&std::env::current_exe()?)?))?;
//! let selection = index.select(&["answer".parse()?], false);
//! # let symbols::index::Matched::Function(id) = selection.matches[0].what else { return Err("a name is no point".into()) };
//! // In a tracer, /proc/PID/maps tells the bias.
//! let running = RuntimeAddr(answer as fn() -> u32 as usize as u64);
//! let bias = LoadBias::between(index.outline(id).address, running);
//! let address = bias.to_vaddr(running);
//! assert_eq!(index.id_at(address), Some(id));
//! // From Go's tables or from DWARF; none where a program has neither.
//! if let Some(line) = index.line(address) {
//!     println!("{}:{}", line.file, line.line);
//! }
//! for frame in index.inlined(address) {
//!     println!("{} at {:?}", frame.name, frame.source);
//! }
//! # Ok(()) }
//! ```
//!
//! # Where to probe
//!
//! [`code::shape`] reads a function's instructions: the cheapest place that is passed once for each call, the exits, and why
//! a place must not be probed. [`binary::Binary::file_offset`] is what the kernel's uprobes take.
//!
//! ```
//! # use std::sync::Arc;
//! # use symbols::{addr::Vaddr, binary::Machine, code::{Body, shape}};
//! // push %rbp; mov %rsp,%rbp; mov %edi,%eax; pop %rbp; ret
//! let code = [0x55, 0x48, 0x89, 0xe5, 0x89, 0xf8, 0x5d, 0xc3];
//! let body = Body {
//!     machine: Machine::X86_64,
//!     address: Vaddr(0x1000),
//!     code: &code,
//!     parts: Vec::new(),
//!     is_go: false,
//!     go_asm: false,
//! };
//! let shape = shape(&body, &|_| false);
//! assert_eq!(shape.entry?.address, Vaddr(0x1000));
//! assert_eq!(shape.exits[0].address, Vaddr(0x1007));
//! # Ok::<(), symbols::code::Refusal>(())
//! ```
//!
//! `examples/functions.rs` lists what patterns match in a file, with lines and exits.
//!
//! # Modules
//!
//! * [`addr`]: a type for each address space, and the only conversions between them.
//! * [`binary`]: an ELF file held in memory: its layout as the loader sees it, its sections and symbols.
//! * [`index`]: all functions of a binary; look-up by name pattern and by address.
//! * [`pattern`]: what a person types, parsed.
//! * [`code`]: machine code: function exits, the cheapest right entry point, what must not be probed.
//! * [`parallel`]: work shared among processors.
//! * [`truncation`]: what becomes of mapped files that are shortened.
//! * [`unwind`]: whether a frame pointer is kept at an address.
//! * [`debugfile`]: where the debug information of stripped files is looked for.
//! * [`go`]: a Go program's function table, module data and build info.

pub mod addr;
pub mod binary;
mod bytes;
pub mod code;
pub mod debugfile;
mod demangle;
mod dwarf;
mod elf;
mod error;
pub mod go;
pub mod index;
mod layout;
mod mmap;
pub mod parallel;
pub mod pattern;
mod plt;
pub mod truncation;
pub mod unwind;
mod versions;

pub use error::Error;
