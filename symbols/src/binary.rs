//! An ELF file held in memory: where its bytes are, which of them run, and what it says of itself.

use std::fmt;
use std::fs::File;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use crate::Error;
use crate::addr::{FileOffset, Vaddr};
use crate::bytes::{c_bytes, slice, u64_at};
use crate::elf::{Sections, SymbolTable};
use crate::go;
use crate::layout::{Layout, check_section_headers, relative_relocations};
use crate::mmap::Data;

pub use crate::layout::Tls;

/// A machine whose code can be traced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Machine {
    /// AMD64.
    X86_64,
    /// Little-endian 64-bit ARM.
    Aarch64,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::X86_64 => "x86-64",
            Self::Aarch64 => "aarch64",
        })
    }
}

/// A part of the file that the loader maps (`PT_LOAD`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Where it begins in the file's address space.
    pub vaddr: Vaddr,
    /// Where it begins in the file.
    pub file_offset: FileOffset,
    /// Bytes that come from the file.
    pub file_size: u64,
    /// Bytes in memory; those beyond `file_size` are zero.
    pub mem_size: u64,
    /// It may be executed.
    pub executable: bool,
    /// It may be written.
    pub writable: bool,
}

/// An ELF executable or shared library.
pub struct Binary {
    data: Arc<Data>,
    layout: Layout,
    sections: Sections,
    go: OnceLock<Result<Option<go::Program>, Error>>,
    plt: OnceLock<Vec<(Vaddr, u64)>>,
    /// Relative relocations by place, once a pointer is asked for.
    relocated: OnceLock<Vec<(Vaddr, Vaddr)>>,
}

impl Binary {
    /// Opens the file at `path`. A small one is read; one above 1 MiB is mapped: if it is then shortened, while this or an
    /// index of it is in use, the process may get SIGBUS. To be safe from that, call [`survive`](crate::truncation::survive)
    /// before, or read the file and use [`Self::from_bytes`].
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::from_file(&File::open(path)?, path)
    }

    /// Maps a file that is open already. `path` is not opened: a process's own file may have no path any more.
    pub fn from_file(file: &File, path: &Path) -> Result<Self, Error> {
        Self::from_data(Data::map(file, path)?)
    }

    /// Takes the file's bytes.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, Error> {
        Self::from_data(Data::Owned(bytes))
    }

    fn from_data(data: Data) -> Result<Self, Error> {
        let layout = Layout::parse(&data)?;
        let sections = Sections::parse(&data);
        let (go, plt, relocated) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        Ok(Self { data: Arc::new(data), layout, sections, go, plt, relocated })
    }

    /// The machine it is made for.
    pub fn machine(&self) -> Machine {
        self.layout.machine
    }

    /// The place in the file of an address, if it is in the file-backed part of a segment.
    pub fn file_offset(&self, v: Vaddr) -> Option<FileOffset> {
        self.layout.locate(v).map(|(offset, _)| offset)
    }

    /// The address at which a place of the file is mapped. If it is mapped twice, the executable mapping is meant.
    pub fn vaddr(&self, o: FileOffset) -> Option<Vaddr> {
        let here = |s: &&Segment| o.0.checked_sub(s.file_offset.0).is_some_and(|into| into < s.file_size);
        let mut holding = self.segments().iter().filter(here);
        let first = holding.next()?;
        let segment = if first.executable { first } else { holding.find(|s| s.executable).unwrap_or(first) };
        segment.vaddr.checked_add(o.0.checked_sub(segment.file_offset.0)?)
    }

    /// Whether the address is in an executable segment.
    pub fn is_executable(&self, v: Vaddr) -> bool {
        self.segments().iter().any(|s| s.executable && v.0.checked_sub(s.vaddr.0).is_some_and(|into| into < s.mem_size))
    }

    /// `len` bytes at an address, if all of them come from the file.
    pub fn bytes_at(&self, v: Vaddr, len: u64) -> Option<&[u8]> {
        let (offset, left) = self.layout.locate(v)?;
        if len > left {
            return None;
        }
        slice(&self.data, offset.0, len)
    }

    /// The file-backed bytes from an address to the end of its segment.
    pub fn bytes_from(&self, v: Vaddr) -> Option<&[u8]> {
        let (offset, left) = self.layout.locate(v)?;
        slice(&self.data, offset.0, left)
    }

    /// Lets the kernel take back the memory of the file's bytes from `start` to `end`, whose code nobody is going to look at
    /// soon. To walk over all functions touches all of the code, which may be a hundred megabytes.
    pub fn release(&self, start: Vaddr, end: Vaddr) {
        if let Some((offset, left)) = self.layout.locate(start)
            && let Ok(offset) = usize::try_from(offset.0)
        {
            let length = usize::try_from(end.0.saturating_sub(start.0).min(left)).unwrap_or(0);
            self.data.release(offset..offset.saturating_add(length));
        }
    }

    /// The whole file.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The GNU build id.
    pub fn build_id(&self) -> Option<&[u8]> {
        self.layout.build_id.as_deref()
    }

    /// Whether the loader chooses where it goes: a position-independent executable or a shared library.
    pub fn is_pie(&self) -> bool {
        self.layout.is_pie
    }

    /// A shared library's own name.
    pub fn soname(&self) -> Option<&str> {
        self.layout.soname.as_deref()
    }

    /// The shared libraries it asks for, in order.
    pub fn needed(&self) -> Vec<&str> {
        self.layout.needed.iter().map(String::as_str).collect()
    }

    /// Folders in which the loader looks for needed libraries first (`DT_RUNPATH`, else `DT_RPATH`), with `:` between.
    pub fn runpath(&self) -> Option<&str> {
        self.layout.runpath.as_deref()
    }

    /// The program that loads it (`PT_INTERP`).
    pub fn interpreter(&self) -> Option<&str> {
        self.layout.interpreter.as_deref()
    }

    /// What the loader maps.
    pub fn segments(&self) -> &[Segment] {
        &self.layout.segments
    }

    /// [`Error::Truncated`] if its section headers, and thereby most symbols, lie beyond the end of the file.
    pub fn cut_off(&self) -> Option<Error> {
        check_section_headers(&self.data).err()
    }

    /// The template of its thread-local variables.
    pub fn tls(&self) -> Option<Tls> {
        self.layout.tls
    }

    /// Where it begins to run.
    pub fn entry(&self) -> Vaddr {
        self.layout.entry
    }

    /// The address and bytes of a section, by name. Without a section table: `None`.
    pub fn section(&self, name: &str) -> Option<(Vaddr, &[u8])> {
        let section = self.sections.named(&self.data, name)?;
        Some((section.address, self.data.get(section.file.clone())?))
    }

    /// Whether `v` is in the procedure linkage table: stubs that jump to functions of other files. Without a section
    /// table it is not known, and false.
    pub fn in_plt(&self, v: Vaddr) -> bool {
        self.plt().iter().any(|&(start, size)| v.0.checked_sub(start.0).is_some_and(|offset| offset < size))
    }

    /// The sections of the procedure linkage table: (address, bytes).
    pub(crate) fn plt(&self) -> &[(Vaddr, u64)] {
        self.plt.get_or_init(|| {
            let found = [".plt", ".plt.sec", ".plt.got", ".plt.bnd"].into_iter().filter_map(|name| self.section(name));
            found.map(|(start, bytes)| (start, bytes.len() as u64)).collect()
        })
    }

    /// The value of a symbol of `.symtab` (else `.dynsym`) of any type, by its exact name: an address, or for
    /// thread-local variables an offset in the template.
    pub fn symbol_value(&self, name: &str) -> Option<u64> {
        self.symbol_tables().find_map(|table| {
            let strings = self.data.get(table.strings.clone())?;
            let wanted = name.as_bytes();
            let found = table.symbols(&self.data).find(|s| {
                s.section != 0
                    && usize::try_from(s.name)
                        .ok()
                        .and_then(|at| strings.get(at..)?.strip_prefix(wanted))
                        .is_some_and(|rest| rest.first() == Some(&0))
            })?;
            Some(found.value)
        })
    }

    /// The addresses at which the file itself has symbols of these names, each once.
    pub fn symbol_values(&self, names: &[&str]) -> Vec<Vaddr> {
        let mut found = Vec::new();
        for table in self.symbol_tables() {
            let strings = self.data.get(table.strings.clone()).unwrap_or_default();
            let is_one = |at: u32| {
                let Some(text) = usize::try_from(at).ok().and_then(|at| strings.get(at..)) else { return false };
                names.iter().any(|name| text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&0)))
            };
            let defined = table.symbols(&self.data).filter(|s| s.section != 0 && is_one(s.name));
            found.extend(defined.map(|s| Vaddr(s.value)));
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Whether a symbol of one of these names is taken from another file.
    pub fn imports(&self, names: &[&str]) -> bool {
        let Some(table) = self.symbol_tables().find(|table| table.dynamic) else { return false };
        let strings = self.data.get(table.strings.clone()).unwrap_or_default();
        let imported = table.symbols(&self.data).filter(|s| s.section == 0);
        let mut imported = imported.filter_map(|s| c_bytes(strings, usize::try_from(s.name).ok()?));
        imported.any(|imported| names.iter().any(|name| name.as_bytes() == imported))
    }

    /// The pointer stored at an address, as the loader leaves it with a load bias of 0: a relative relocation, if there
    /// is one for it, else the word in the file.
    pub fn pointer_at(&self, v: Vaddr) -> Option<Vaddr> {
        let relocated = v.checked_add(1).and_then(|end| self.relocations_in(v..end).first()).map(|&(_, target)| target);
        relocated.or_else(|| self.bytes_at(v, 8).and_then(|b| u64_at(b, 0)).map(Vaddr))
    }

    /// What it contains of Go; `None` if it is no Go program, or its tables are unusable ([`Self::go_error`] says why).
    pub fn go(&self) -> Option<&go::Program> {
        self.find_go().as_ref().ok()?.as_ref()
    }

    /// Why a Go program's tables cannot be used.
    pub fn go_error(&self) -> Option<&Error> {
        self.find_go().as_ref().err()
    }

    fn find_go(&self) -> &Result<Option<go::Program>, Error> {
        self.go.get_or_init(|| go::Program::find(self))
    }

    /// Relative relocations: (place, what the place points to).
    pub(crate) fn relocations(&self) -> impl Iterator<Item = (Vaddr, Vaddr)> {
        let (start, len) = self.layout.rela.unwrap_or((0, 0));
        let table = self.data.get(start..start.saturating_add(len)).unwrap_or_default();
        relative_relocations(self.machine(), table)
    }

    /// The relative relocations of the places in a range, by place.
    pub(crate) fn relocations_in(&self, range: Range<Vaddr>) -> &[(Vaddr, Vaddr)] {
        let all = self.relocated.get_or_init(|| {
            let mut all: Vec<_> = self.relocations().collect();
            // Of several for one place the first counts: the sort is stable.
            all.sort_by_key(|&(place, _)| place);
            all
        });
        let before = |v: Vaddr| all.partition_point(|&(place, _)| place < v);
        all.get(before(range.start)..before(range.end)).unwrap_or_default()
    }

    /// The whole file, to be kept longer than this.
    pub(crate) fn shared_data(&self) -> &Arc<Data> {
        &self.data
    }

    pub(crate) fn sections(&self) -> &Sections {
        &self.sections
    }

    pub(crate) fn layout(&self) -> &Layout {
        &self.layout
    }

    /// `.symtab`, then `.dynsym` (found through the dynamic section if there are no sections).
    pub(crate) fn symbol_tables(&self) -> impl Iterator<Item = SymbolTable> {
        let dynamic = self.layout.dynamic_symbols.map(|d| SymbolTable {
            entries: d.table..d.table.saturating_add(d.count.saturating_mul(24)),
            strings: d.strings..d.strings.saturating_add(d.strings_len),
            dynamic: true,
        });
        let dynsym = self.sections.dynsym.clone().or(dynamic);
        self.sections.symtab.clone().into_iter().chain(dynsym)
    }
}

impl fmt::Debug for Binary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Binary");
        out.field("machine", &self.machine()).field("bytes", &self.data.len()).finish_non_exhaustive()
    }
}
