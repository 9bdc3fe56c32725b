//! What can be wrong with a file, in words that complete "failed to read FILE: ".

use crate::binary::Machine;
use crate::debugfile::DebugReport;

/// Why a file, or a part of it, cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The file could not be opened or mapped.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The file has no bytes.
    #[error("the file is empty")]
    Empty,
    /// It does not begin with the ELF magic.
    #[error("not an ELF file")]
    NotElf,
    /// The program headers, a segment that they state, or the section headers reach beyond the end of the file. Without
    /// the last, a file can be read as far as functions are known all the same.
    #[error("truncated: {what} ends at byte {end}, the file at byte {length}")]
    Truncated {
        /// What reaches too far.
        what: &'static str,
        /// Where it would end, in bytes from the file's start.
        end: u64,
        /// The file's length in bytes.
        length: u64,
    },
    /// An ELF file for a machine (or word size, or byte order) that is not supported.
    #[error("made for another machine: {found}; x86-64 and little-endian aarch64 are supported")]
    OtherMachine {
        /// What the header says.
        found: String,
    },
    /// What compilers write and linkers read.
    #[error("a relocatable object file, not a program or library: what it is linked into can be read")]
    ObjectFile,
    /// The ELF header or the program headers contradict themselves.
    #[error("broken ELF file: {0}")]
    Malformed(String),
    /// No function is known by name.
    #[error(
        "no symbols: neither .symtab nor .dynsym nor a Go function table names a function (stripped); \
         an unstripped build of the same file is needed"
    )]
    NoSymbols,
    /// No function is known by name, and no debug file was found.
    #[error("no symbols: neither .symtab nor .dynsym nor a Go function table names a function (stripped); {0}")]
    NoSymbolsNorDebugFile(Box<DebugReport>),
    /// The file is a Go program, but its function table cannot be used.
    #[error("broken Go function table: {0}")]
    GoTable(&'static str),
    /// A fact about the Go runtime could not be worked out.
    #[error("failed to find {what} of the Go runtime: {why}")]
    GoRuntime {
        /// What was looked for.
        what: &'static str,
        /// Why it was not found.
        why: String,
    },
    /// The operation does not exist for this machine.
    #[error("not supported on {0}")]
    Unsupported(Machine),
}
