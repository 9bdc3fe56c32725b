//! Which files are meant in containers: found through the roots of their processes, and resolved inside of them.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

use super::{Container, Selected, escaped};
use crate::target::{
    self, Opened, TracedFile, debugfiles, debuginfod::Debuginfod, in_root_of, overlay, proc, program_file,
};

/// The programs of the containers' first processes, each once.
///
/// # Errors
/// One cannot be read, or no container has begun to run its program.
pub fn programs(selected: &Selected, debuginfod: Option<&Debuginfod>) -> Result<Vec<TracedFile>> {
    let (mut files, mut waiting) = (Vec::new(), Vec::new());
    for container in selected.containers() {
        let Some(init) = container.init else { continue };
        if container.has_begun() {
            add(&mut files, container.having(program_file(init, debuginfod)?));
        } else {
            let shown = escaped(&container.shown);
            waiting.push(format!("container {shown} is created, not started: start it, then trace it"));
        }
    }
    if files.is_empty()
        && let Some(why) = waiting.pop()
    {
        bail!(why);
    }
    waiting.iter().for_each(|why| log::warn!("{why}"));
    Ok(files)
}

/// The files that a name means, each once: an absolute path as the containers see it, a library that their processes have
/// mapped, or would be given by the loader there (none where it has none), any other path as we see it.
///
/// # Errors
/// It is in none of the containers, or cannot be read.
pub fn named(selected: &Selected, path: &Path, debuginfod: Option<&Debuginfod>) -> Result<Vec<TracedFile>> {
    let (mut files, mut errors) = (Vec::new(), Vec::new());
    for container in selected.containers() {
        match in_container(container, path, debuginfod) {
            Ok(found) => found.into_iter().for_each(|file| add(&mut files, container.having(file))),
            Err(error) => errors.push((container, error)),
        }
    }
    if files.is_empty()
        && let Some((_, error)) = errors.pop()
    {
        return Err(error.context(format!("in {}", selected.within().shown())));
    }
    // That some containers of a pod do not have it is as usual as that one does.
    let is_there = |error: &anyhow::Error| !matches!(error.downcast_ref::<io::Error>(), Some(error) if error.kind() == io::ErrorKind::NotFound);
    for (container, error) in errors.iter().filter(|(_, error)| is_there(error)) {
        log::warn!("not traced in container {}: {}", escaped(&container.shown), escaped(&format!("{error:#}")));
    }
    Ok(files)
}

/// The files that a request means: those that it names, else programs.
///
/// # Errors
/// One is in none of the containers, or cannot be read.
pub fn all(selected: &Selected, binaries: &[PathBuf], debuginfod: Option<&Debuginfod>) -> Result<Vec<TracedFile>> {
    if binaries.is_empty() {
        return programs(selected, debuginfod);
    }
    let mut files = Vec::new();
    for path in binaries {
        let found = named(selected, path, debuginfod)?;
        if found.is_empty() {
            let (within, path) = (selected.within().shown(), path.display());
            bail!(
                "no process of {within} has mapped a library {path}, and the loader would find none there; give its path as the \
                 container sees it"
            );
        }
        found.into_iter().for_each(|file| add(&mut files, file));
    }
    Ok(files)
}

/// Takes a file in, unless it is there: containers of one image see one file through file systems of their own.
fn add(files: &mut Vec<TracedFile>, file: TracedFile) {
    if !files.iter().any(|known| is_same(known, &file)) {
        files.push(file);
    }
}

/// Whether a probe on one file is a probe on the other. Where an overlay's layers cannot be seen, it has a device number of its
/// own, and shows the inode number and the times of the file below (Documentation/filesystems/overlayfs.rst, "Inode properties").
pub fn is_same(one: &TracedFile, other: &TracedFile) -> bool {
    are_same(&one.file, &other.file)
}

fn are_same(one: &File, other: &File) -> bool {
    let (Ok(a), Ok(b)) = (one.metadata(), other.metadata()) else { return false };
    if (a.dev(), a.ino()) == (b.dev(), b.ino()) {
        return true;
    }
    let below = |m: &Metadata| (m.ino(), m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
    below(&a) == below(&b) && overlay::is_on_overlay(one) && overlay::is_on_overlay(other)
}

fn in_container(container: &Container, path: &Path, debuginfod: Option<&Debuginfod>) -> Result<Vec<TracedFile>> {
    let is_library = target::library_name(path).is_some();
    if !path.is_absolute() && !is_library {
        return Ok(vec![target::file_here(path, None, debuginfod)?]);
    }
    let processes = container.processes();
    let first = container.init.or(processes.first().copied());
    let Some(first) = first.filter(|&first| is_elsewhere(first) || is_library) else {
        return Ok(vec![target::file_here(path, None, debuginfod)?]);
    };
    if is_library {
        return target::libraries_of(&processes, path, debuginfod);
    }
    let mut files = Vec::new();
    let found = target::file_of(first, path, debuginfod);
    // Processes may run what was at the path before: a file that was written to since then is another in an overlay
    // (the upper one), one that was replaced or deleted too.
    for &pid in &processes {
        if runs(pid, path) && found.as_ref().map_or(true, |file| !is_program(pid, file)) {
            add(&mut files, program_file(pid, debuginfod)?);
        }
    }
    match found {
        Ok(file) => add(&mut files, file),
        Err(error) if files.is_empty() => return Err(error),
        Err(_) => {}
    }
    Ok(files)
}

/// Whether a process sees another tree of files than we do.
fn is_elsewhere(pid: u32) -> bool {
    let place = |path: &Path| fs::metadata(path).ok().map(|root| (root.dev(), root.ino()));
    place(&proc::of(pid).join("root")) != place(Path::new("/"))
}

/// Whether a process runs what is or was at a path.
fn runs(pid: u32, path: &Path) -> bool {
    let link = fs::read_link(proc::of(pid).join("exe")).unwrap_or_default();
    target::undeleted(&link) == path
}

fn is_program(pid: u32, file: &TracedFile) -> bool {
    let program = fs::metadata(proc::of(pid).join("exe"));
    program.is_ok_and(|program| (program.dev(), program.ino()) == (file.identity.device, file.identity.inode))
}

/// A file of a container that was started anew, as the new one sees it: its path leads through the new first process, and if
/// it is the same file the probes on it hold. False: the new one is not so far yet, it has no root of its own.
pub fn follow(file: &mut TracedFile, old: &Container, new: &Container) -> bool {
    let Some(init) = new.init else { return true };
    // Another container of a pod may have another file at that path.
    let is_its = file.container == Some(old.number);
    if !is_its || file.through.is_none_or(|pid| Some(pid) != old.init && proc::start_time(pid).is_some()) {
        return true;
    }
    let path = in_root_of(init, Path::new(&file.shown));
    let opened = debugfiles::open(&path).ok().filter(|_| is_elsewhere(init));
    let Some(opened) = opened.and_then(|opened| Opened::new(opened, &path).ok()) else { return false };
    let is_same = are_same(&file.file, &opened.file);
    file.follow(opened, is_same);
    file.path = path;
    (file.through, file.container) = (Some(init), Some(new.number));
    true
}
