//! What a Go program carries in every build, stripped or not: its function table (pclntab), the module data that says
//! where the text begins, and the build info.
//!
//! * `pclntab`: functions, their bounds, files and lines, for Go 1.16 to 1.27.
//! * `find`: where these tables are, with and without section headers.
//! * `buildinfo`: the version of the toolchain.
//! * `inline`: what the compiler inlined where.
//! * `runtime`: offsets of fields that name a goroutine.

mod buildinfo;
mod find;
mod inline;
pub(crate) mod names;
mod pclntab;
mod runtime;
mod values;

use std::sync::OnceLock;

use crate::Error;
use crate::addr::Vaddr;
use crate::binary::Binary;

pub use pclntab::{Function, SourceLine, TableVersion};
pub use runtime::RuntimeOffsets;

/// Words of moduledata that are read: the last one known is gofunc of Go 1.27.
const MODULE_WORDS: usize = 48;

/// A Go program's own description of itself. Holds places in the file, not the bytes: methods that read take the
/// [`Binary`] it was found in.
#[derive(Debug)]
pub struct Program {
    table: pclntab::Pclntab,
    module: Option<Module>,
    version: Option<String>,
    wrapper_id: OnceLock<u8>,
}

/// `runtime.firstmoduledata`, its pointers resolved through the relocations.
#[derive(Debug)]
struct Module {
    address: Vaddr,
    words: [u64; MODULE_WORDS],
}

// Go 1.16+: src/runtime/symtab.go, type moduledata, as indices of words.
const WORD_MINPC: usize = 20;
const WORD_MAXPC: usize = 21;
const WORD_TEXT: usize = 22;

/// `abi.FuncIDNormal`: most functions.
const ORDINARY: u8 = 0;

impl Program {
    /// Looks for Go's tables. `None`: no Go program. An error: a Go program whose tables are broken.
    pub(crate) fn find(binary: &Binary) -> Result<Option<Self>, Error> {
        let Some((table, module)) = find::tables(binary)? else {
            return Ok(None);
        };
        let version = buildinfo::version(binary);
        Ok(Some(Self { table, module, version, wrapper_id: OnceLock::new() }))
    }

    /// The toolchain's version as `go1.27.3`; `None` without build info.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The layout of the function table.
    pub fn table_version(&self) -> TableVersion {
        self.table.version()
    }

    /// Where Go's code begins (`runtime.text`). With an external linker that is not where `.text` does.
    pub fn text(&self) -> Vaddr {
        self.table.text()
    }

    /// The addresses of Go's code: `start..end`. Functions of C are outside.
    pub fn text_range(&self, binary: &Binary) -> std::ops::Range<Vaddr> {
        match self.module_word(WORD_MINPC).zip(self.module_word(WORD_MAXPC)) {
            Some((min, max)) if min < max => min..max,
            _ => self.table.bounds(binary),
        }
    }

    /// The address of `runtime.firstmoduledata`.
    pub fn module(&self) -> Option<Vaddr> {
        self.module.as_ref().map(|m| m.address)
    }

    /// Word number `index` of `runtime.firstmoduledata` with relocations applied.
    pub fn module_word(&self, index: usize) -> Option<Vaddr> {
        self.module.as_ref()?.words.get(index).copied().map(Vaddr)
    }

    /// Where type descriptors begin (`moduledata.types`).
    pub fn types(&self) -> Option<Vaddr> {
        // Go 1.20 put covctrs and ecovctrs before it.
        let index = match self.table.version() {
            TableVersion::Go1_16 | TableVersion::Go1_18 => 35,
            TableVersion::Go1_20 => 37,
        };
        self.module_word(index)
    }

    /// All functions, in the table's order, which is that of their addresses.
    pub fn functions<'a>(&'a self, binary: &'a Binary) -> impl Iterator<Item = Function<'a>> + 'a {
        self.table.functions(binary)
    }

    /// How many functions of C stand at the table's start, where the linker puts them.
    pub(crate) fn foreign(&self, binary: &Binary) -> usize {
        self.functions(binary).take_while(Function::is_foreign).count()
    }

    /// The bytes of the file that hold the functions' names.
    pub(crate) fn names(&self) -> std::ops::Range<usize> {
        self.table.names()
    }

    /// Where functions begin: (table position, address), in the table's order. Reads nothing else of them.
    pub(crate) fn addresses<'a>(
        &'a self,
        binary: &'a Binary,
    ) -> impl ExactSizeIterator<Item = (usize, Option<Vaddr>)> + 'a {
        self.table.addresses(binary)
    }

    /// The function at table position `position`.
    pub fn function<'a>(&'a self, binary: &'a Binary, position: usize) -> Option<Function<'a>> {
        self.table.function(binary, position)
    }

    /// The first function with exactly this name, as the table spells it.
    pub fn function_named<'a>(&'a self, binary: &'a Binary, name: &str) -> Option<Function<'a>> {
        self.functions(binary).find(|f| f.name() == name)
    }

    /// The function that holds an address.
    pub fn function_at<'a>(&'a self, binary: &'a Binary, v: Vaddr) -> Option<Function<'a>> {
        self.table.function_at(binary, v)
    }

    /// Whether the compiler made this function: method wrappers, `-fm`, `deferwrap`, `gowrap`, ABI wrappers.
    pub fn is_wrapper(&self, function: &Function<'_>) -> bool {
        // `abi.FuncIDWrapper` is the last constant of its enumeration in every version (21 in Go 1.19, 23 in 1.27), and
        // every program has such functions: so the highest id is that one, also where the version is not known.
        let id = function.id();
        id != ORDINARY && id == *self.wrapper_id.get_or_init(|| function.highest_id())
    }
}
