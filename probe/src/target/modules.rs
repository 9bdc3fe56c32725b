//! Modules: names for code addresses, and what leads to their callers, through the files that are mapped there.
//!
//! In: a process's mapping and an address. Out: [`Frame`]s and [`Step`]s, made once for each address of each file.

use std::{
    fs::File,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    rc::Rc,
    sync::Arc,
};

use rustc_hash::FxHashMap;
use symbols::{
    addr::{FileOffset, RuntimeAddr, Vaddr},
    binary::Binary,
    index::{Function, Index, LeftOut},
    unwind::{self, Rule, Tables},
};

use super::{
    debugfiles,
    jit::{Generated, PerfMap},
    jitdump::JitDump,
    proc,
    processes::{self, Mapping},
    undeleted,
};
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
struct Place {
    /// Functions that were inlined there, innermost first, and last the one that has the code.
    functions: Vec<NamedPlace>,
    keeps_frame_pointer: bool,
}

#[derive(Default)]
struct NamedPlace {
    function: Option<String>,
    file: Option<String>,
    line: Option<u32>,
}

/// A caller, named.
pub struct Named {
    /// What to show: functions that were inlined there, innermost first, and last the one that has the code.
    pub frames: Box<[Rc<Frame>]>,
    /// Nothing calls that function.
    pub is_root: bool,
    /// The frame pointer is the caller's own there: the next frame of a walk by frame pointers is true.
    pub keeps_frame_pointer: bool,
}

/// All modules, by inode and path.
#[derive(Default)]
pub struct Modules {
    modules: FxHashMap<(u64, PathBuf), Module>,
    /// Of processes that run code which belongs to no file.
    perf_maps: FxHashMap<u32, PerfMap>,
    /// The same, by process and the dump's inode.
    dumps: FxHashMap<(u32, u64), JitDump>,
}

/// Processes whose maps and dumps are kept at most.
const MAX_PERF_MAPS: usize = 256;

/// A process, and the file in which it tells of code that it made at run time.
#[derive(Clone, Copy)]
pub struct Of<'a> {
    /// Which.
    pub pid: u32,
    /// Where that file is mapped.
    pub dump: Option<&'a Mapping>,
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
        self.modules.insert((inode, undeleted(path).to_owned()), module);
    }

    /// Nobody runs a file any more: its inode may come to be another's.
    pub fn forget(&mut self, inode: u64) {
        self.modules.retain(|(known, _), _| *known != inode);
    }

    /// Names an address of a process.
    pub fn name(&mut self, of: Of<'_>, mapping: &Mapping, address: CodeAddress) -> Named {
        if self.is_generated(of.pid, mapping) {
            let found = self.generated(of, address);
            if found.is_some() || is_anonymous(mapping) {
                return Named::generated(found, address);
            }
        }
        self.module(of.pid, mapping).name(mapping, address)
    }

    /// What leads from there to the caller.
    pub fn step(&mut self, of: Of<'_>, mapping: &Mapping, address: CodeAddress) -> Step {
        if self.is_generated(of.pid, mapping) {
            // Runtimes that write such maps keep frame pointers in what they translate.
            let known = self.generated(of, address).is_some();
            return if known { Step::FramePointer } else { Step::Cut(Cut::UnknownCode) };
        }
        self.module(of.pid, mapping).step(mapping, address)
    }

    /// Whether code there was made at run time. Some runtimes map a file of their own twice: to write to, and to execute.
    fn is_generated(&mut self, pid: u32, mapping: &Mapping) -> bool {
        is_anonymous(mapping) || self.module(pid, mapping).binary.is_none()
    }

    /// What code that was made at run time is. A dump also knows lines.
    fn generated(&mut self, of: Of<'_>, address: CodeAddress) -> Option<Generated> {
        let lookup = address.for_lookup().0;
        self.dumped(of, lookup).or_else(|| {
            if self.perf_maps.len() >= MAX_PERF_MAPS {
                self.perf_maps.clear();
            }
            let name = self.perf_maps.entry(of.pid).or_default().name(of.pid, lookup)?;
            Some(Generated { name, place: None })
        })
    }

    fn dumped(&mut self, of: Of<'_>, lookup: u64) -> Option<Generated> {
        let mapping = of.dump?;
        if self.dumps.len() >= MAX_PERF_MAPS {
            self.dumps.clear();
        }
        let dump = self.dumps.entry((of.pid, mapping.inode));
        dump.or_insert_with(|| JitDump::new(open_same_file(of.pid, mapping))).name(lookup)
    }

    fn module(&mut self, pid: u32, mapping: &Mapping) -> &mut Module {
        let key = (mapping.inode, undeleted(&mapping.path).to_owned());
        self.modules.entry(key).or_insert_with(|| Module::open(pid, mapping))
    }
}

/// Memory that belongs to no file: `/proc/PID/maps` says nothing, the kernel's records `//anon`, and a process may give it a
/// name (`[anon:…]`).
fn is_anonymous(mapping: &Mapping) -> bool {
    mapping.inode == 0 && mapping.path != Path::new(VDSO)
}

const VDSO: &str = "[vdso]";

impl Named {
    fn generated(found: Option<Generated>, address: CodeAddress) -> Self {
        let keeps_frame_pointer = found.is_some();
        let (function, place) = found.map_or((None, None), |found| (Some(found.name.to_string()), found.place));
        let (file, line) = place.map_or((None, None), |(file, line)| (Some(file.to_string()), Some(line)));
        let frame = Frame { function, file, line, ..nameless(address) };
        Self { frames: [Rc::new(frame)].into(), is_root: false, keeps_frame_pointer }
    }

    /// Whether there is a name.
    pub fn is_known(&self) -> bool {
        self.frames.iter().any(|frame| frame.function.is_some())
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
        "runtime.goexit" | "runtime.mstart" | "runtime.rt0_go" | START | "clone" | "__clone" | "clone3" | "__clone3"
    )
}

/// Where Go calls C, on the thread's own stack.
const SWITCH_OF_STACKS: &str = "runtime.asmcgocall";

/// Of the code behind its call as much as shows where it finds what it left.
const SWITCH_BACK_BYTES: u64 = 5;

/// How far above the stack pointer `asmcgocall` has left where it came from, by the instruction behind its call. It left g one word
/// above, and takes it from there into rdi; or where it did not switch stacks, the place itself into rsi (Go:
/// src/runtime/asm_amd64.s; up to 1.21 both lie above room for four registers).
fn left_by_switch(behind_call: &[u8]) -> Option<u64> {
    match *behind_call {
        [0x48, 0x8b, 0x7c, 0x24, g] => g.checked_sub(8).map(u64::from),
        [0x48, 0x8b, 0x74, 0x24, place] => Some(place.into()),
        [0x48, 0x8b, 0x34, 0x24, _] => Some(0),
        _ => None,
    }
}

/// Code that is returned to, though no call stands before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trampoline {
    /// Where signal handlers return to.
    SignalReturn,
    /// Where a coroutine's first function returns to.
    StartOfContext,
}

impl Trampoline {
    /// What glibc (and musl, the first) call that place. A stripped libc has no name for it.
    fn name(self) -> &'static str {
        match self {
            Self::SignalReturn => "__restore_rt",
            Self::StartOfContext => "__start_context",
        }
    }
}

/// `mov $15,%rax; syscall`: in glibc, musl and Go (`rt_sigreturn`; GCC and gdb know it by these bytes too).
const SIGNAL_RETURN: [u8; 9] = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
/// `mov %rbx,%rsp; mov (%rsp),%rdi; test %rdi,%rdi`: `makecontext` has a coroutine return to the first byte of it, and its
/// unwind tables do not say that nothing called it (glibc 2.36: sysdeps/unix/sysv/linux/x86_64/__start_context.S).
const START_OF_CONTEXT: [u8; 10] = [0x48, 0x89, 0xdc, 0x48, 0x8b, 0x3c, 0x24, 0x48, 0x85, 0xff];

impl Module {
    fn open(pid: u32, mapping: &Mapping) -> Self {
        let path = undeleted(&mapping.path).display().to_string();
        let file = || Binary::from_file(&open_same_file(pid, mapping)?, &mapping.path).ok();
        let binary = if path == VDSO { own_vdso() } else { file() }.map(Arc::new);
        let search = debugfiles::search(&super::in_root_of(pid, Path::new(&path)), Path::new(&path));
        let index = binary.clone().and_then(|binary| Index::with_debug(binary, &search).ok()).map(Arc::new);
        Self { path, binary, index, places: FxHashMap::default(), tables: None }
    }

    fn name(&mut self, mapping: &Mapping, address: CodeAddress) -> Named {
        let trampoline = self.trampoline(mapping, address);
        // The call that a trampoline returns from is none that stands before it.
        let lookup = if trampoline.is_some() { address.ip() } else { address.for_lookup() };
        let binary = (!self.path.is_empty()).then(|| self.path.clone());
        let shown_address = self.vaddr(mapping, address.ip()).map(|v| v.0);
        let place = self.vaddr(mapping, lookup).map(|vaddr| self.place(vaddr));
        let frame = |place: &NamedPlace, inlined: bool| Frame {
            function: place.function.clone(),
            file: place.file.clone(),
            line: place.line,
            binary: binary.clone(),
            address: shown_address,
            ip: address.ip().0,
            inlined,
        };
        let frames: Box<[Rc<Frame>]> = match place {
            Some(place) if trampoline.is_none() => {
                let last = place.functions.len().saturating_sub(1);
                place.functions.iter().enumerate().map(|(at, place)| Rc::new(frame(place, at < last))).collect()
            }
            _ => {
                let function = trampoline.map(|trampoline| trampoline.name().to_owned());
                [Rc::new(frame(&NamedPlace { function, ..NamedPlace::default() }, false))].into()
            }
        };
        Named {
            is_root: frames.last().and_then(|frame| frame.function.as_deref()).is_some_and(is_root),
            keeps_frame_pointer: place.is_some_and(|place| place.keeps_frame_pointer),
            frames,
        }
    }

    fn step(&mut self, mapping: &Mapping, address: CodeAddress) -> Step {
        let Some(binary) = self.binary.clone() else { return Step::Cut(Cut::UnknownCode) };
        let Some(vaddr) = self.vaddr(mapping, address.for_lookup()) else { return Step::Cut(Cut::UnknownCode) };
        match self.trampoline(mapping, address) {
            Some(Trampoline::SignalReturn) => return Step::Signal,
            Some(Trampoline::StartOfContext) => return Step::End,
            None => {}
        }
        let index = self.index.as_deref();
        let rule = self.tables.get_or_insert_with(|| Tables::of(&binary, index)).rule(&binary, index, vaddr);
        match rule {
            Rule::Row(row) if row.is_end() => Step::End,
            Rule::Row(row) => Step::Row(Rc::new(row)),
            // Assembly where threads begin keeps no frame pointer, and needs none.
            _ if self.place(vaddr).is_root() => Step::End,
            Rule::FramePointer if self.place(vaddr).is(SWITCH_OF_STACKS) => {
                let behind_call = self.vaddr(mapping, address.ip()).and_then(|v| binary.bytes_at(v, SWITCH_BACK_BYTES));
                behind_call.and_then(left_by_switch).map_or(Step::Cut(Cut::NoRules), Step::SwitchOfStacks)
            }
            Rule::FramePointer => Step::FramePointer,
            Rule::Unknown => Step::Cut(Cut::NoRules),
        }
    }

    fn trampoline(&self, mapping: &Mapping, address: CodeAddress) -> Option<Trampoline> {
        let vaddr = self.vaddr(mapping, address.ip())?;
        let begins_with =
            |code: &[u8]| self.binary.as_ref()?.bytes_at(vaddr, code.len() as u64).filter(|at| *at == code);
        if begins_with(&SIGNAL_RETURN).is_some() {
            return Some(Trampoline::SignalReturn);
        }
        let starts = !address.is_exact() && begins_with(&START_OF_CONTEXT).is_some();
        starts.then_some(Trampoline::StartOfContext)
    }

    fn vaddr(&self, mapping: &Mapping, address: RuntimeAddr) -> Option<Vaddr> {
        let offset = address.0.checked_sub(mapping.start)?.checked_add(mapping.offset)?;
        self.binary.as_ref()?.vaddr(FileOffset(offset))
    }

    fn place(&mut self, vaddr: Vaddr) -> &Place {
        let Self { places, index, binary, .. } = self;
        places.entry(vaddr).or_insert_with(|| {
            let (binary, index) = (binary.as_deref(), index.as_deref());
            let functions = index.map(|index| functions_at(index, vaddr)).unwrap_or_default();
            Place {
                functions: if functions.is_empty() { vec![NamedPlace::default()] } else { functions },
                keeps_frame_pointer: binary.is_some_and(|binary| unwind::keeps_frame_pointer(binary, index, vaddr)),
            }
        })
    }
}

impl Place {
    /// The function that has the code.
    fn function(&self) -> Option<&str> {
        self.functions.last()?.function.as_deref()
    }

    fn is_root(&self) -> bool {
        self.function().is_some_and(is_root)
    }

    fn is(&self, function: &str) -> bool {
        self.function() == Some(function)
    }
}

fn functions_at(index: &Index, vaddr: Vaddr) -> Vec<NamedPlace> {
    let inlined = index.inlined(vaddr).into_iter().map(|frame| NamedPlace {
        function: Some(frame.name).filter(|name| !name.is_empty()),
        file: frame.source.map(|source| source.file.to_owned()),
        line: frame.source.map(|source| source.line),
    });
    let mut functions: Vec<_> = inlined.collect();
    if functions.is_empty() {
        let (function, line) = (index.at(vaddr), index.line(vaddr));
        let name =
            |function: Function<'_>| if is_nameless_start(index, &function) { START } else { function.name }.into();
        functions.push(NamedPlace {
            function: function.map(name),
            file: line.map(|line| line.file.to_owned()),
            line: line.map(|line| line.line),
        });
    }
    functions
}

/// Where a program begins, whatever it is called.
const START: &str = "_start";

/// Whether the program begins with this function and nothing names it: the file is stripped.
fn is_nameless_start(index: &Index, function: &Function<'_>) -> bool {
    function.left_out == Some(LeftOut::Nameless) && function.address == index.binary().entry()
}

/// The code that the kernel maps into every process: all 64-bit ones have the same.
fn own_vdso() -> Option<Binary> {
    let mapping = processes::mappings_of(proc::own_pid()).into_iter().find(|m| m.path == Path::new(VDSO))?;
    let mut bytes = vec![0; usize::try_from(mapping.end.checked_sub(mapping.start)?).ok()?];
    File::open("/proc/self/mem").ok()?.read_exact_at(&mut bytes, mapping.start).ok()?;
    Binary::from_bytes(bytes).ok()
}

/// Opens the file that is mapped, and no other that has its name by now: through the process's root, through its
/// table of mapped files (which holds deleted ones too), or by name when the process is gone.
fn open_same_file(pid: u32, mapping: &Mapping) -> Option<File> {
    let in_root = super::in_root_of(pid, &mapping.path);
    let by_address = proc::of(pid).join(format!("map_files/{:x}-{:x}", mapping.start, mapping.end));
    [in_root, by_address, mapping.path.clone()].into_iter().find_map(|path| open_inode(&path, mapping.inode))
}

fn open_inode(path: &Path, inode: u64) -> Option<File> {
    // No link of a process's root leads out of that, and nothing but a regular file is opened.
    let file = debugfiles::open(path).ok()?;
    (file.metadata().ok()?.ino() == inode).then_some(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_known_is_known_by_its_mapping_too_after_it_was_deleted_and_its_process_ended() {
        let own = std::env::current_exe().expect("our own path");
        let index =
            Arc::new(Index::new(Arc::new(Binary::open(&own).expect("it is a program"))).expect("it has symbols"));
        let here = undeleted as fn(&Path) -> &Path as usize as u64;
        let mappings = processes::mappings_of(std::process::id());
        let mapping = mappings.into_iter().find(|m| (m.start..m.end).contains(&here)).expect("our code is mapped");
        let mut modules = Modules::default();
        modules.know(mapping.inode, Path::new("/gone/program"), &index);
        let deleted = Mapping { path: "/gone/program (deleted)".into(), ..mapping };
        // No process has this id.
        let named = modules.name(Of { pid: u32::MAX - 9, dump: None }, &deleted, CodeAddress::exact(here));
        let function = named.frames.last().and_then(|frame| frame.function.clone());
        assert!(function.as_deref().is_some_and(|name| name.ends_with("target::undeleted")), "{function:?}");
        assert_eq!(named.frames.last().and_then(|frame| frame.binary.as_deref()), Some("/gone/program"));
    }
}
