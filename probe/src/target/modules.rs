//! Modules: names for code addresses, and what leads to their callers, through the files that are mapped there.
//!
//! In: a process's mapping and an address. Out: [`Frame`]s and [`Step`]s, made once for each address of each file.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use rustc_hash::FxHashMap;
use symbols::{
    addr::{FileOffset, RuntimeAddr, Vaddr},
    binary::Binary,
    index::Index,
    unwind::{self, Rule, Tables},
};

use super::{debugfiles, processes::Mapping};
use crate::{
    calls::{Cut, Frame},
    stacks::{CodeAddress, Step},
};

/// A mapped file, read when it is first needed.
struct Module {
    path: String,
    binary: Option<Arc<Binary>>,
    index: Option<Arc<Index>>,
    /// By the address looked up.
    places: FxHashMap<Vaddr, Place>,
    /// Once a stack is unwound through it.
    tables: Option<Tables>,
}

/// What is known of an address in a module.
#[derive(Clone)]
struct Place {
    function: Option<Rc<str>>,
    file: Option<String>,
    line: Option<u32>,
    keeps_frame_pointer: bool,
}

/// A caller, named.
pub struct Named {
    /// What to show.
    pub frame: Rc<Frame>,
    /// The frame pointer is the caller's own there: the next frame of a walk by frame pointers is true.
    pub keeps_frame_pointer: bool,
}

/// All modules, by inode and path.
#[derive(Default)]
pub struct Modules {
    modules: FxHashMap<(u64, PathBuf), Module>,
}

impl Modules {
    /// Says that a file is read already.
    pub fn know(&mut self, inode: u64, path: &Path, index: &Arc<Index>) {
        let module = Module {
            path: path.display().to_string(),
            binary: Some(index.binary().clone()),
            index: Some(index.clone()),
            places: FxHashMap::default(),
            tables: None,
        };
        self.modules.insert((inode, path.to_owned()), module);
    }

    /// Names an address of a process.
    pub fn name(&mut self, pid: u32, mapping: &Mapping, address: CodeAddress) -> Named {
        self.module(pid, mapping).name(mapping, address)
    }

    /// What leads from there to the caller.
    pub fn step(&mut self, pid: u32, mapping: &Mapping, address: CodeAddress) -> Step {
        self.module(pid, mapping).step(mapping, address)
    }

    fn module(&mut self, pid: u32, mapping: &Mapping) -> &mut Module {
        let key = (mapping.inode, mapping.path.clone());
        self.modules.entry(key).or_insert_with(|| Module::open(pid, mapping))
    }
}

/// An address in memory that belongs to no known file.
pub fn nameless(address: CodeAddress) -> Frame {
    Frame { function: None, file: None, line: None, binary: None, address: None, ip: address.ip().0, inlined: false }
}

/// Functions that nothing calls: where threads and goroutines begin.
pub fn is_root(function: &str) -> bool {
    matches!(
        function,
        "runtime.goexit" | "runtime.mstart" | "runtime.rt0_go" | "_start" | "clone" | "__clone" | "clone3" | "__clone3"
    )
}

/// `mov $15,%rax; syscall`: where signal handlers return to, in glibc, musl and Go (`rt_sigreturn`; GCC and gdb know it
/// by these bytes too).
const SIGNAL_RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
/// What glibc and musl call that place. A stripped libc has no name for it.
const SIGNAL_RETURN_NAME: &str = "__restore_rt";

impl Module {
    fn open(pid: u32, mapping: &Mapping) -> Self {
        let path = mapping.path.display().to_string();
        let path = path.strip_suffix(" (deleted)").unwrap_or(&path).to_owned();
        let binary =
            open_same_file(pid, mapping).and_then(|file| Binary::from_file(&file, &mapping.path).ok()).map(Arc::new);
        let search = debugfiles::search(&super::in_root_of(pid, Path::new(&path)), Path::new(&path));
        let index = binary.clone().and_then(|binary| Index::with_debug(binary, &search).ok()).map(Arc::new);
        Self { path, binary, index, places: FxHashMap::default(), tables: None }
    }

    fn name(&mut self, mapping: &Mapping, address: CodeAddress) -> Named {
        let signal_return = self.is_signal_return(mapping, address);
        // The call that a trampoline returns from is none that stands before it.
        let lookup = if signal_return { address.ip() } else { address.for_lookup() };
        let place = self.vaddr(mapping, lookup).map(|vaddr| self.place(vaddr));
        let known = place.as_ref().and_then(|p| p.function.as_deref().map(str::to_owned));
        let keeps_frame_pointer = place.as_ref().is_some_and(|p| p.keeps_frame_pointer);
        let frame = Frame {
            function: if signal_return { Some(SIGNAL_RETURN_NAME.to_owned()) } else { known },
            file: place.as_ref().and_then(|p| p.file.clone()),
            line: place.as_ref().and_then(|p| p.line),
            binary: (!self.path.is_empty()).then(|| self.path.clone()),
            address: self.vaddr(mapping, address.ip()).map(|v| v.0),
            ip: address.ip().0,
            inlined: false,
        };
        Named { frame: Rc::new(frame), keeps_frame_pointer }
    }

    fn step(&mut self, mapping: &Mapping, address: CodeAddress) -> Step {
        let Some(binary) = self.binary.clone() else { return Step::Cut(Cut::UnknownCode) };
        let Some(vaddr) = self.vaddr(mapping, address.for_lookup()) else { return Step::Cut(Cut::UnknownCode) };
        if self.is_signal_return(mapping, address) {
            return Step::Signal;
        }
        let index = self.index.as_deref();
        let rule = self.tables.get_or_insert_with(|| Tables::of(&binary, index)).rule(&binary, index, vaddr);
        match rule {
            Rule::Row(row) if row.is_end() => Step::End,
            Rule::Row(row) => Step::Row(Rc::new(row)),
            // Assembly where threads begin keeps no frame pointer, and needs none.
            _ if self.place(vaddr).function.as_deref().is_some_and(is_root) => Step::End,
            Rule::FramePointer => Step::FramePointer,
            Rule::Unknown => Step::Cut(Cut::NoRules),
        }
    }

    fn is_signal_return(&self, mapping: &Mapping, address: CodeAddress) -> bool {
        let code = || self.binary.as_ref()?.bytes_at(self.vaddr(mapping, address.ip())?, SIGNAL_RETURN.len() as u64);
        code().is_some_and(|code| *code == SIGNAL_RETURN)
    }

    fn vaddr(&self, mapping: &Mapping, address: RuntimeAddr) -> Option<Vaddr> {
        let offset = address.0.checked_sub(mapping.start)?.checked_add(mapping.offset)?;
        self.binary.as_ref()?.vaddr(FileOffset(offset))
    }

    fn place(&mut self, vaddr: Vaddr) -> Place {
        if let Some(place) = self.places.get(&vaddr) {
            return place.clone();
        }
        let index = self.index.as_deref();
        let line = index.and_then(|index| index.line(vaddr));
        let place = Place {
            function: index.and_then(|index| index.at(vaddr)).map(|function| function.name.into()),
            file: line.as_ref().map(|l| l.file.to_string()),
            line: line.as_ref().map(|l| l.line),
            keeps_frame_pointer: self
                .binary
                .as_deref()
                .is_some_and(|binary| unwind::keeps_frame_pointer(binary, index, vaddr)),
        };
        self.places.insert(vaddr, place.clone());
        place
    }
}

/// Opens the file that is mapped, and no other that has its name by now: through the process's root, through its
/// table of mapped files (which holds deleted ones too), or by name when the process is gone.
fn open_same_file(pid: u32, mapping: &Mapping) -> Option<File> {
    let in_root = super::in_root_of(pid, &mapping.path);
    let by_address = PathBuf::from(format!("/proc/{pid}/map_files/{:x}-{:x}", mapping.start, mapping.end));
    [in_root, by_address, mapping.path.clone()].into_iter().find_map(|path| open_inode(&path, mapping.inode))
}

fn open_inode(path: &Path, inode: u64) -> Option<File> {
    // Opening a device or a pipe could block or act; the inode number alone does not say what it is.
    let metadata = fs::metadata(path).ok()?;
    if !metadata.is_file() || metadata.ino() != inode {
        return None;
    }
    let file = File::open(path).ok()?;
    (file.metadata().ok()?.ino() == inode).then_some(file)
}
