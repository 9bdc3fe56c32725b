//! Targets: which files are traced, in which processes.
//!
//! In: what the user asked for. Out: opened and indexed files, and processes with their mappings. Reads `/proc`; asks
//! no privilege that reading does not.

pub mod command;
pub mod containers;
pub mod debugfiles;
pub mod debuginfod;
mod file;
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
    fs,
    os::unix::{ffi::OsStrExt as _, fs::MetadataExt as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, anyhow, bail};
use rustc_hash::FxHashMap;

use self::{debuginfod::Debuginfod, file::Opened, loader::Loader};
pub use self::{
    file::{Change, Identity, TracedFile, advice, has_inode},
    loader::is_library_named,
};
use crate::output::escape;

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
    let at_path = debugfiles::metadata(&in_root_of(pid, Path::new(&shown))).map(|found| Identity::of(&found));
    fs::metadata(exe).is_ok_and(|program| at_path.ok() != Some(Identity::of(&program)))
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
