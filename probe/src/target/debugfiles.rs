//! Where separate debug files of a target are looked for: in its own root, in ours, and in debuginfod's cache.

use std::{
    env,
    ffi::OsString,
    fs::{self, File, Metadata},
    io::{self, Read as _},
    os::fd::{AsRawFd as _, OwnedFd},
    path::{Path, PathBuf},
};

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use symbols::debugfile::{DebugSearch, open_in_root};

use super::proc;

/// The search for a file that is opened at `path`, and called `shown` where it comes from.
pub fn search(path: &Path, shown: &Path) -> DebugSearch {
    let host = PathBuf::from("/");
    let (own, roots) = match process_of(path) {
        Some((process, inner)) => {
            // The link to a program says nothing of where it is.
            let inside = if inner.starts_with("root") { inner.strip_prefix("root").ok() } else { Some(shown) };
            let inside = inside.map(|inside| Path::new("/").join(inside));
            (inside, vec![process.join("root"), host])
        }
        None => (fs::canonicalize(path).ok(), vec![host]),
    };
    DebugSearch { path: own, caches: caches(), roots, ..DebugSearch::default() }
}

/// Opens a regular file. On a path through a process's root, links lead where they lead that process.
///
/// # Errors
/// As of [`open_in_root`].
pub fn open(path: &Path) -> io::Result<File> {
    match through_root(path) {
        Some((root, inner)) => open_in_root(&root, &inner),
        None => open_in_root(Path::new("/"), path),
    }
}

/// The beginning of a regular file, opened as [`open`] does.
///
/// # Errors
/// It cannot be opened or read.
pub fn read(path: &Path, most_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(most_bytes).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What is known of a folder. On a path through a process's root, links lead where they lead that process.
///
/// # Errors
/// There is no such folder.
pub fn folder(path: &Path) -> io::Result<Metadata> {
    match through_root(path) {
        Some((root, inner)) => File::from(folder_in(&root, &inner)?).metadata(),
        None => fs::metadata(path),
    }
}

/// The names of what is in a folder. On a path through a process's root, links lead where they lead that process.
///
/// # Errors
/// There is no such folder, or it cannot be read.
pub fn names_in(folder: &Path) -> io::Result<Vec<OsString>> {
    let Some((root, inner)) = through_root(folder) else { return names(folder) };
    let opened = folder_in(&root, &inner)?;
    names(&PathBuf::from(format!("/proc/self/fd/{}", opened.as_raw_fd())))
}

fn names(folder: &Path) -> io::Result<Vec<OsString>> {
    Ok(fs::read_dir(folder)?.flatten().map(|entry| entry.file_name()).collect())
}

/// A folder, found in a root: no link leads out of it.
pub(super) fn folder_in(root: &Path, folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(root, flags, Mode::empty())?;
    Ok(openat2(root, folder, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?)
}

/// What [`open`] would open.
///
/// # Errors
/// There is none.
pub fn metadata(path: &Path) -> io::Result<Metadata> {
    // Asked a hundred times a second.
    if through_root(path).is_some() { open(path)?.metadata() } else { fs::metadata(path) }
}

/// A process's root, and the path in it.
fn through_root(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let (process, inner) = process_of(path)?;
    Some((process.join("root"), Path::new("/").join(inner.strip_prefix("root").ok()?)))
}

/// The process through which a path leads.
pub fn pid_of(path: &Path) -> Option<u32> {
    process_of(path)?.0.file_name()?.to_str()?.parse().ok()
}

/// `/proc/PID`, and what follows.
fn process_of(path: &Path) -> Option<(PathBuf, &Path)> {
    let mut parts = path.strip_prefix(proc::root()).ok()?.components();
    let pid = parts.next()?;
    let is_pid = pid.as_os_str().to_str()?.bytes().all(|b| b.is_ascii_digit());
    is_pid.then(|| (proc::root().join(pid), parts.as_path()))
}

/// Where debuginfod's clients keep what they fetched, first where they would put more.
pub fn caches() -> Vec<PathBuf> {
    caches_of(|name| env::var_os(name))
}

/// Source: elfutils, debuginfod/debuginfod-client.c, `debuginfod_query_server`.
fn caches_of(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let folder = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    if let Some(only) = folder("DEBUGINFOD_CACHE_PATH") {
        return vec![only];
    }
    let home = folder("HOME");
    // What the first versions used is used still, where it is there.
    let old = home.as_ref().map(|home| home.join(".debuginfod_client_cache")).filter(|old| old.exists());
    let cached = folder("XDG_CACHE_HOME").or_else(|| Some(home?.join(".cache")));
    old.into_iter().chain(cached.map(|cached| cached.join("debuginfod_client"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_a_process_are_searched_in_its_root_first() {
        for (path, shown, expected) in
            [("/proc/12/root/bin/a", "/bin/a", "/bin/a"), ("/proc/12/exe", "/srv/b", "/srv/b")]
        {
            let search = search(Path::new(path), Path::new(shown));
            assert_eq!(search.path.as_deref(), Some(Path::new(expected)));
            assert_eq!(search.roots, [Path::new("/proc/12/root"), Path::new("/")]);
        }
        assert_eq!(search(Path::new("/proc/self/exe"), Path::new("x")).roots, [Path::new("/")]);
    }

    #[test]
    fn caches_are_where_elfutils_client_has_them() {
        let home = tempfile::tempdir().expect("a folder can be made");
        let caches = |variables: &[(&str, &Path)]| {
            caches_of(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_os_str().to_owned()))
        };
        let (xdg, own) = (Path::new("/xdg"), Path::new("/own"));
        let of_home = ("HOME", home.path());
        let usual = home.path().join(".cache/debuginfod_client");
        assert_eq!(caches(&[of_home]), std::slice::from_ref(&usual));
        assert_eq!(caches(&[of_home, ("XDG_CACHE_HOME", Path::new(""))]), std::slice::from_ref(&usual));
        assert_eq!(caches(&[of_home, ("XDG_CACHE_HOME", xdg)]), [xdg.join("debuginfod_client")]);
        assert_eq!(caches(&[of_home, ("XDG_CACHE_HOME", xdg), ("DEBUGINFOD_CACHE_PATH", own)]), [own]);
        assert!(caches(&[]).is_empty());
        let old = home.path().join(".debuginfod_client_cache");
        fs::create_dir(&old).expect("a folder can be made");
        assert_eq!(caches(&[of_home]), [old, usual]);
    }
}
