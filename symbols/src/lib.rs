//! Functions of Go, Rust, C and C++ ELF files: by name, by address, and where to probe them.
//!
//! Bytes in, functions out. No `/proc`, no kernel, no printing, no root.
//!
//! * [`addr`]: a type for each address space, and the only conversions between them.
//! * [`binary`]: an ELF file held in memory: its layout as the loader sees it, its sections and symbols.
//! * [`index`]: all functions of a binary; look-up by name pattern and by address.
//! * [`pattern`]: what a person types, parsed.
//! * [`code`]: machine code: function exits, the cheapest right entry point, what must not be probed.
//! * [`parallel`]: work shared among processors.
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
pub mod unwind;
mod versions;

pub use error::Error;
