//! Where separate debug files of a target are looked for: in its own root, in ours, and in debuginfod's cache.

use std::{
    env, fs,
    path::{Component, Path, PathBuf},
};

use symbols::debugfile::DebugSearch;

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
    DebugSearch { path: own, caches: cache().into_iter().collect(), roots, ..DebugSearch::default() }
}

/// `/proc/PID`, and what follows.
fn process_of(path: &Path) -> Option<(PathBuf, &Path)> {
    let mut parts = path.components();
    let (root, proc, pid) = (parts.next()?, parts.next()?, parts.next()?);
    let is_pid = pid.as_os_str().to_str()?.bytes().all(|b| b.is_ascii_digit());
    (root == Component::RootDir && proc.as_os_str() == "proc" && is_pid)
        .then(|| (Path::new("/proc").join(pid), parts.as_path()))
}

/// Where debuginfod's clients keep what they fetched. Source: debuginfod_find_debuginfo(3).
fn cache() -> Option<PathBuf> {
    let folder = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cached = || folder("XDG_CACHE_HOME").or_else(|| Some(folder("HOME")?.join(".cache")));
    folder("DEBUGINFOD_CACHE_PATH").or_else(|| Some(cached()?.join("debuginfod_client")))
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
}
