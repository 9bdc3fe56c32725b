//! Targets: which files are traced, in which processes.
//!
//! In: what the user asked for. Out: opened and indexed files, and processes with their mappings. Reads `/proc`; asks
//! no privilege that reading does not.

pub mod command;
pub mod containers;
pub mod debugfiles;
pub mod debuginfod;
mod ifuncs;
mod jit;
mod jitdump;
pub mod kallsyms;
mod loader;
pub mod modules;
mod overlay;
pub mod proc;
pub mod processes;
pub mod unwinders;
mod user;

use std::{
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{FileExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, anyhow, bail};
use rustc_hash::FxHashMap;
use symbols::{
    binary::Binary,
    debugfile::{self, DebugReport},
    index::Index,
};

pub use self::loader::is_library_named;
use self::{debuginfod::Debuginfod, loader::Loader};
use crate::output::escape;

/// A file that is traced: held open, so that what was read is what is probed.
#[derive(Debug)]
pub struct TracedFile {
    /// Its path as the user knows it.
    pub shown: String,
    /// Where it is found, from here (may lead through `/proc/PID/root`).
    pub path: PathBuf,
    /// The process in whose root, or as whose program, it is found.
    pub through: Option<u32>,
    /// The container in which it was found, by its number in the kernel half; where containers are traced.
    pub container: Option<u64>,
    /// The open file. Of an overlay it is the layer's, where that can be seen: the one that probes sit on.
    pub file: File,
    /// What it was when it was read, as processes see it.
    pub identity: Identity,
    /// What [`Self::file`] was.
    real: Identity,
    /// When the inode at its path was last changed, as far as that was looked at; none where it is on no overlay.
    changed: Option<(i64, i64)>,
    /// Of an overlay's copy: the image's file, which processes that began before it was copied may run.
    pub covered: Option<File>,
    /// It is such a file of an image: new processes run the copy.
    pub is_covered: bool,
    /// Its functions.
    pub index: Arc<Index>,
    /// Servers were asked for its debug file, or need not be.
    pub asked: bool,
}

/// What tells a changed file from an unchanged one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last modification of its contents.
    pub modified: Option<SystemTime>,
}

impl Identity {
    /// The identity that a file's metadata states.
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: metadata.modified().ok(),
        }
    }
}

/// What to say when a file became shorter while it was read; `None`: none did.
pub fn shortened() -> Option<String> {
    let files = symbols::truncation::shortened();
    let names: Vec<String> = files.iter().map(|path| escape::escaped(&path.display().to_string())).collect();
    (!names.is_empty()).then(|| format!("{} became shorter while it was read", names.join(", ")))
}

/// That every file that was read is still as long as it was: of another, what was found cannot be trusted.
///
/// # Errors
/// One is shorter.
pub fn whole_files() -> Result<()> {
    match shortened() {
        Some(said) => bail!("{said}: is it being replaced? Run this again when it is complete"),
        None => Ok(()),
    }
}

impl TracedFile {
    /// Opens and indexes a file.
    ///
    /// # Errors
    /// It cannot be read, is no ELF file of this machine, or has no functions.
    pub fn open(path: &Path, shown: &str) -> Result<Self> {
        Self::fetching(path, shown, None)
    }

    /// The same. A debug file that is missing is fetched.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn fetching(path: &Path, shown: &str, debuginfod: Option<&Debuginfod>) -> Result<Self> {
        let search = debugfiles::search(path, Path::new(shown));
        Self::indexed(path, shown, debuginfod.is_some(), |binary, identity| {
            if let Some(debuginfod) = debuginfod
                && let Some(build_id) = debugfile::wanted(&binary, &search)
            {
                debuginfod.fetch(shown, &build_id);
            }
            let mut index = Index::with_debug(binary, &search)?;
            ifuncs::learn(&mut index, identity, debugfiles::pid_of(path));
            Ok(index)
        })
    }

    /// The same without debug files: for what is not shown.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn plain(path: &Path, shown: &str) -> Result<Self> {
        Self::indexed(path, shown, true, |binary, _| Index::new(binary))
    }

    fn indexed(
        path: &Path,
        shown: &str,
        asked: bool,
        index: impl FnOnce(Arc<Binary>, Identity) -> Result<Index, symbols::Error>,
    ) -> Result<Self> {
        let file = debugfiles::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => anyhow!("failed to read {shown}: {error}"),
            _ => anyhow::Error::new(error).context(format!("failed to open {shown}")),
        })?;
        let opened = Opened::new(file, path).with_context(|| format!("failed to open {shown}"))?;
        Self::of_opened(opened, path, shown, asked, index)
    }

    fn of_opened(
        opened: Opened,
        path: &Path,
        shown: &str,
        asked: bool,
        index: impl FnOnce(Arc<Binary>, Identity) -> Result<Index, symbols::Error>,
    ) -> Result<Self> {
        let Opened { file, identity, real, changed, covered } = opened;
        let binary = Binary::from_file(&file, path).map_err(|error| match interpreter(&file) {
            Some(line) => anyhow!("failed to read {shown}: a script ({line}); name the program that runs it with -x"),
            None => unreadable(shown, &error),
        })?;
        let index = index(Arc::new(binary), identity).map_err(|error| match &error {
            symbols::Error::NoSymbolsNorDebugFile(report) => {
                anyhow!("{}{}", unreadable(shown, &error), advice(report, asked))
            }
            _ => unreadable(shown, &error),
        })?;
        Ok(Self {
            shown: shown.to_owned(),
            path: path.to_owned(),
            through: None,
            container: None,
            identity,
            real,
            changed,
            covered,
            is_covered: false,
            file,
            index: Arc::new(index),
            asked,
        })
    }

    /// The image's file below an overlay's copy: processes that began before the copy was made run that.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn take_covered(&mut self) -> Option<Result<Self>> {
        let file = self.covered.take()?;
        let read = || {
            let real = Identity::of(&file.metadata()?);
            let opened = Opened { file, identity: self.identity, real, changed: self.changed, covered: None };
            let search = debugfiles::search(&self.path, Path::new(&self.shown));
            let index = |binary, _| Index::with_debug(binary, &search);
            let covered = Self::of_opened(opened, &self.path, &self.shown, true, index)?;
            Ok(Self { through: self.through, is_covered: true, ..covered })
        };
        Some(read())
    }

    /// The inodes that processes' mappings of it may show: of an overlay its own, and before Linux 6.8 the layer's.
    pub fn inodes(&self) -> impl Iterator<Item = u64> + use<> {
        let (seen, real) = (self.identity.inode, self.real.inode);
        [seen].into_iter().chain((real != seen).then_some(real))
    }

    /// Whether the file was written to, so that it is not what was read any more.
    pub fn is_overwritten(&self) -> bool {
        self.file.metadata().map_or(true, |now| Identity::of(&now) != self.real)
    }

    /// Why the file is not what was read any more; none while it is.
    pub fn change(&mut self) -> Option<Change> {
        if self.is_overwritten() {
            return Some(Change::Overwritten);
        }
        match debugfiles::metadata(&self.path) {
            // The process through which it was found has ended: that says nothing of the file.
            Err(_) if self.through.is_some_and(|pid| !has_root(pid)) => None,
            Err(_) => Some(Change::Deleted),
            Ok(now) if now.ino() != self.identity.inode || now.dev() != self.identity.device => Some(Change::Replaced),
            Ok(now) => self.is_copied(&now).then_some(Change::Copied),
        }
    }

    /// Whether an overlay has a copy of the file by now. To be copied changes the inode at the path, and seldom anything else does.
    fn is_copied(&mut self, now: &fs::Metadata) -> bool {
        if self.is_covered || self.changed.is_none_or(|known| known == changed_at(now)) {
            return self.is_covered;
        }
        let opened = debugfiles::open(&self.path).and_then(|file| Opened::new(file, &self.path));
        let Ok(opened) = opened else { return false };
        let place = |identity: Identity| (identity.device, identity.inode);
        self.is_covered = opened.identity.inode == self.identity.inode && place(opened.real) != place(self.real);
        self.changed = opened.changed;
        self.is_covered
    }

    /// The file is seen through another process: if it is the same one, its probes hold.
    fn follow(&mut self, opened: Opened, is_same: bool) {
        if is_same {
            (self.file, self.identity, self.real) = (opened.file, opened.identity, opened.real);
            (self.changed, self.is_covered) = (opened.changed, false);
        }
    }
}

/// An open file, and of an overlay's the layer's.
struct Opened {
    file: File,
    identity: Identity,
    real: Identity,
    changed: Option<(i64, i64)>,
    covered: Option<File>,
}

impl Opened {
    /// `path`: where it was opened.
    fn new(seen: File, path: &Path) -> io::Result<Self> {
        let metadata = seen.metadata()?;
        let identity = Identity::of(&metadata);
        let Some(overlay::Layered { file, covered }) = overlay::real(&seen, debugfiles::pid_of(path)) else {
            return Ok(Self { file: seen, identity, real: identity, changed: None, covered: None });
        };
        let real = Identity::of(&file.metadata()?);
        Ok(Self { file, identity, real, changed: Some(changed_at(&metadata)), covered })
    }
}

/// Whether what is at a path has an inode, as it is seen or as its layer has it.
pub fn has_inode(path: &Path, inode: u64) -> bool {
    let opened = || debugfiles::open(path).and_then(|file| Opened::new(file, path));
    debugfiles::metadata(path).is_ok_and(|metadata| metadata.ino() == inode)
        || opened().is_ok_and(|opened| opened.real.inode == inode)
}

fn changed_at(metadata: &fs::Metadata) -> (i64, i64) {
    (metadata.ctime(), metadata.ctime_nsec())
}

/// How a traced file changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Written to in place: what is probed is not what was read. The probes must go at once.
    Overwritten,
    /// Another file has its name; processes started from now on run that one.
    Replaced,
    /// It belongs to an image, and the container's overlay now has a copy of it at its path: what processes run that start from
    /// now on.
    Copied,
    /// No file has its name any more; running processes keep it.
    Deleted,
}

/// The first line of a script, which names its interpreter.
fn interpreter(file: &File) -> Option<String> {
    let mut head = [0; 80];
    let length = file.read_at(&mut head, 0).ok()?;
    let line = head.get(..length)?.split(|&byte| byte == b'\n').next()?;
    line.starts_with(b"#!").then(|| escape::escaped(&String::from_utf8_lossy(line)))
}

fn unreadable(shown: &str, error: &dyn std::error::Error) -> anyhow::Error {
    let mut text = format!("failed to read {shown}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    anyhow!(text)
}

/// What to do where no debug file was found, behind the words that say so.
pub fn advice(report: &DebugReport, asked: bool) -> &'static str {
    let may_be_served = !asked && report.used.is_none() && report.build_id.is_some();
    if may_be_served { "; --debuginfod asks servers for it" } else { "" }
}

/// The path of a file as a process sees it, from here.
pub fn in_root_of(pid: u32, path: &Path) -> PathBuf {
    let relative = path.strip_prefix("/").unwrap_or(path);
    proc::of(pid).join("root").join(relative)
}

/// There is no such program: shells exit with 127.
#[derive(Debug, thiserror::Error)]
pub enum NoSuchProgram {
    /// A bare name.
    #[error("failed to start {}: no such program in PATH", .0.display())]
    InPath(PathBuf),
    /// A path.
    #[error("failed to start {}: no such file", .0.display())]
    File(PathBuf),
}

/// Finds a program as `execvp` would.
///
/// # Errors
/// [`NoSuchProgram`].
pub fn find_program(name: &Path) -> Result<PathBuf> {
    // `./name` has one component.
    if name.as_os_str().as_encoded_bytes().contains(&b'/') {
        return if name.exists() { Ok(name.to_owned()) } else { Err(NoSuchProgram::File(name.to_owned()).into()) };
    }
    let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| is_executable(file))
        .ok_or_else(|| NoSuchProgram::InPath(name.to_owned()).into())
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.mode() & 0o111 != 0)
}

/// The program a process runs, as it is named there; its `/proc/PID/exe` opens even a deleted file.
///
/// # Errors
/// There is no such process, or it is not ours to look at.
fn program_of(pid: u32) -> Result<(PathBuf, String)> {
    let link = proc::of(pid).join("exe");
    let shown = fs::read_link(&link).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound if !is_there(pid) => anyhow!("no process {pid}"),
        std::io::ErrorKind::NotFound if proc::is_kernel_thread(pid) => {
            anyhow!("process {pid} is a kernel thread: it runs no program")
        }
        std::io::ErrorKind::NotFound => anyhow!("process {pid} has ended"),
        std::io::ErrorKind::PermissionDenied => {
            anyhow!(
                "failed to look at process {pid}: permission denied; it takes root or CAP_SYS_PTRACE (and not even they \
                 suffice for a process that a security module or another user namespace guards)"
            )
        }
        _ => anyhow!("failed to look at process {pid}: {error}"),
    })?;
    Ok((link, undeleted(&shown).to_string_lossy().into_owned()))
}

/// Whether the program that a process runs is another than what the process finds at that program's path, if anything.
fn has_left_its_path(pid: u32) -> bool {
    let Ok((exe, shown)) = program_of(pid) else { return false };
    let identity = |path: &Path| fs::metadata(path).ok().map(|metadata| Identity::of(&metadata));
    identity(&exe).is_some_and(|program| identity(&in_root_of(pid, Path::new(&shown))) != Some(program))
}

/// The program that a process runs, even if it was deleted.
///
/// # Errors
/// See [`program_of`] and [`TracedFile::open`].
pub fn program_file(pid: u32, debuginfod: Option<&Debuginfod>) -> Result<TracedFile> {
    let (path, shown) = program_of(pid)?;
    // What was only chrooted is named by paths from outside.
    let root = fs::read_link(proc::of(pid).join("root")).unwrap_or_default();
    let inside = Path::new(&shown).strip_prefix(&root).unwrap_or(Path::new(&shown));
    // The link names the file even after it was deleted or replaced; to be told of that, watch the path.
    let file = TracedFile::fetching(&path, &shown, debuginfod)?;
    Ok(TracedFile { path: in_root_of(pid, inside), through: Some(pid), ..file })
}

/// A file as the user names it: a path, or the name of a library (`libssl`, `libc.so.6`), found as the loader would find
/// it for `program`, or else for any.
///
/// # Errors
/// No such library; see [`TracedFile::open`].
pub fn file_here(path: &Path, program: Option<&Path>, debuginfod: Option<&Debuginfod>) -> Result<TracedFile> {
    let found;
    let path = if is_name(path) && !path.exists() {
        found = Loader::here().library(&path.to_string_lossy(), program).ok_or_else(|| NoLibrary(path.to_owned()))?;
        &found
    } else {
        path
    };
    TracedFile::fetching(path, &path.display().to_string(), debuginfod)
}

/// There is no such library.
#[derive(Debug, thiserror::Error)]
#[error(
    "no file {name}, and no library of that name: the loader's cache and folders have none (`ldconfig -p` shows what is in the \
     cache); give its path, or -p PID of a process that has it mapped",
    name = .0.display()
)]
pub struct NoLibrary(PathBuf);

/// A file as a process sees it: an absolute path in its root, or the name of a library that it has mapped
/// (`libssl`, `libc.so.6`). Any other path is the user's own.
///
/// # Errors
/// No such library there; see [`TracedFile::open`].
pub fn file_of(pid: u32, path: &Path, debuginfod: Option<&Debuginfod>) -> Result<TracedFile> {
    let path = match is_name(path) && !path.exists() {
        true => mapped_library(pid, path).ok_or_else(|| not_mapped(pid, path))?,
        false => path.to_owned(),
    };
    if !path.is_absolute() {
        return file_here(&path, None, debuginfod);
    }
    let shown = path.display().to_string();
    let file = TracedFile::fetching(&in_root_of(pid, &path), &shown, debuginfod)?;
    Ok(TracedFile { through: Some(pid), ..file })
}

fn is_name(path: &Path) -> bool {
    path.components().count() == 1 && path.is_relative()
}

/// The name, where a library is named and no path: `libssl`, `libc.so.6`.
pub fn library_name(path: &Path) -> Option<&str> {
    let name = path.to_str().filter(|_| is_name(path) && !path.exists())?;
    (name.starts_with("lib") || name.contains(".so")).then_some(name)
}

fn mapped_library(pid: u32, name: &Path) -> Option<PathBuf> {
    let name = name.to_string_lossy();
    let is_it = |path: &PathBuf| path.file_name().is_some_and(|file| is_library_named(&file.to_string_lossy(), &name));
    processes::mapped_files(pid).into_iter().find(is_it)
}

fn not_mapped(pid: u32, name: &Path) -> anyhow::Error {
    let name = name.display();
    anyhow!("process {pid} has mapped no library {name}; `grep {name} /proc/{pid}/maps` shows what it has")
}

/// The library of a name for each of these processes: what they have mapped; where that is nothing, what the loader would
/// give them if they asked for it now. Each file once; none where nobody has any.
///
/// # Errors
/// See [`TracedFile::open`].
pub fn libraries_of(pids: &[u32], name: &Path, debuginfod: Option<&Debuginfod>) -> Result<Vec<TracedFile>> {
    let mut files: Vec<TracedFile> = Vec::new();
    let mut found = FxHashMap::default();
    for &pid in pids {
        let Some(path) = mapped_library(pid, name).or_else(|| library_for(pid, name, &mut found)) else { continue };
        let here = in_root_of(pid, &path);
        // Most of them have the same one: it is read once.
        let known = debugfiles::metadata(&here).map(|metadata| Identity::of(&metadata));
        if !known.is_ok_and(|known| files.iter().any(|file| file.identity == known)) {
            let file = TracedFile::fetching(&here, &path.display().to_string(), debuginfod)?;
            files.push(TracedFile { through: Some(pid), ..file });
        }
    }
    Ok(files)
}

/// What was found for a program in a root: device and inode of the root, and the program's path.
type FoundFor = FxHashMap<((u64, u64), PathBuf), Option<PathBuf>>;

/// What the loader would give a process.
fn library_for(pid: u32, name: &Path, found: &mut FoundFor) -> Option<PathBuf> {
    let root = |path: PathBuf| fs::metadata(path).ok().map(|root| (root.dev(), root.ino()));
    let process = proc::of(pid);
    let (own, its) = (root("/".into()), root(process.join("root"))?);
    // What was only chrooted is named by a path from outside.
    let folder = fs::read_link(process.join("root")).unwrap_or_default();
    let inside =
        |path: PathBuf| path.strip_prefix(&folder).map_or_else(|_| path.clone(), |path| Path::new("/").join(path));
    let program = fs::read_link(process.join("exe")).ok().map(inside);
    let look = || {
        let loader = if own == Some(its) { Loader::here() } else { Loader::of_process(pid) };
        loader.library(&name.to_string_lossy(), program.as_deref())
    };
    found.entry((its, program.clone().unwrap_or_default())).or_insert_with(look).clone()
}

/// The path of a file, as `/proc` has it, without what says that the file was deleted.
pub fn undeleted(path: &Path) -> &Path {
    let bytes = path.as_os_str().as_bytes();
    bytes.strip_suffix(b" (deleted)").map_or(path, |bytes| Path::new(OsStr::from_bytes(bytes)))
}

/// Whether a process has not let go of its files yet, as it does when it ends.
fn has_root(pid: u32) -> bool {
    fs::metadata(proc::of(pid).join("root")).is_ok()
}

fn is_there(pid: u32) -> bool {
    proc::of(pid).exists()
}

/// Whether a process or thread, or another thread of the process, runs still. One that only was not waited for does not.
pub fn runs(id: u32) -> bool {
    let Some(state) = proc::state(id) else { return false };
    let threads = || fs::read_dir(proc::of(id).join("task")).map_or(0, Iterator::count);
    !matches!(state, 'Z' | 'X') || threads() > 1
}

/// The name of a process.
pub fn comm_of(pid: u32) -> Option<String> {
    comm_bytes_of(pid).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether a process has this name, as [`cut_comm`] gives it.
pub fn is_called(pid: u32, comm: &[u8]) -> bool {
    comm_bytes_of(pid).is_some_and(|own| own == comm)
}

fn comm_bytes_of(pid: u32) -> Option<Vec<u8>> {
    let mut bytes = fs::read(proc::of(pid).join("comm")).ok()?;
    bytes.pop_if(|last| *last == b'\n');
    Some(bytes)
}

/// A name as the kernel keeps it: the first 15 bytes, wherever in a letter these end.
pub fn cut_comm(comm: &str) -> &[u8] {
    let bytes = comm.as_bytes();
    bytes.get(..probe_ebpf::abi::COMM_LEN - 1).unwrap_or(bytes)
}

/// All processes of the machine.
pub fn all_pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir(proc::root()) else { return Vec::new() };
    entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

/// The process a thread belongs to; none when there is no such thread.
pub fn process_of_thread(tid: u32) -> Option<u32> {
    proc::status(tid, "Tgid")?.parse().ok()
}

/// The children of processes, their children, and so on.
pub fn descendants(roots: &[u32]) -> Vec<u32> {
    let parents: Vec<(u32, u32)> = all_pids().into_iter().filter_map(|pid| Some((pid, parent_of(pid)?))).collect();
    let mut found: Vec<u32> = roots.to_vec();
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        next += 1;
        for &(pid, of) in &parents {
            if of == parent && !found.contains(&pid) {
                found.push(pid);
            }
        }
    }
    found.split_off(roots.len())
}

fn parent_of(pid: u32) -> Option<u32> {
    proc::status(pid, "PPid")?.parse().ok()
}

/// How often files are looked at for changes.
pub const WATCH_INTERVAL: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_is_found_in_our_own_mappings_by_its_name() {
        let file = file_of(std::process::id(), Path::new("libc"), None).unwrap();
        assert!(file.shown.ends_with("/libc.so.6"), "{}", file.shown);
    }
}
