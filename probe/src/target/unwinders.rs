//! The libraries that unwind for a traced program: libgcc_s, libunwind, the C library.
//!
//! Of running processes those that are mapped; for what is yet to start, those that its file needs, found as the
//! loader would find them.

use std::{collections::BTreeSet, os::unix::fs::MetadataExt as _, path::Path};

use super::{TracedFile, debugfiles, in_root_of, loader::Loader, processes};

/// Libraries that were found, and the names of those that were not.
#[derive(Debug, Default)]
pub struct Unwinders {
    /// Opened, each once, none that is traced.
    pub files: Vec<TracedFile>,
    /// Needed, and not to be found or read.
    pub missing: Vec<String>,
}

/// Finds the unwinders of running processes, and with `starts` of what runs these files later.
pub fn find(traced: &[TracedFile], running: &[u32], starts: bool) -> Unwinders {
    let mut found = Unwinders::default();
    let mut seen = BTreeSet::new();
    for &pid in running {
        for path in processes::mapped_files(pid).iter().filter(|path| is_unwinder(path)) {
            let here = in_root_of(pid, path);
            let place = debugfiles::metadata(&here).map_or((0, 0), |metadata| (metadata.dev(), metadata.ino()));
            if seen.insert((place, (place == (0, 0)).then(|| here.clone()))) {
                found.add(traced, &here, path, Some(pid));
            }
        }
    }
    if starts {
        found.add_needed(traced);
    }
    found
}

fn is_unwinder(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ["libgcc_s.so", "libunwind.so", "libboost_context.so", "libc.so", "libc.musl-", "ld-musl-"]
        .iter()
        .any(|start| name.starts_with(start))
}

impl Unwinders {
    fn add(&mut self, traced: &[TracedFile], path: &Path, shown: &Path, through: Option<u32>) {
        let shown = shown.display().to_string();
        match TracedFile::plain(path, &shown) {
            Ok(file) => {
                if !traced.iter().chain(&self.files).any(|known| known.identity == file.identity) {
                    self.files.push(TracedFile { through, ..file });
                }
            }
            Err(_) => self.missing.push(shown),
        }
    }

    /// Those that the traced files need, and what they need in turn.
    fn add_needed(&mut self, traced: &[TracedFile]) {
        let programs = traced.iter().map(|file| (&**file.index.binary(), file.path.as_path()));
        for (name, path) in Loader::here().all_needed(programs) {
            match path {
                _ if !is_unwinder(Path::new(&name)) => {}
                Some(path) => self.add(traced, &path, &path, None),
                None => self.missing.push(name),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, process::Command};

    use super::*;

    #[test]
    fn our_own_unwinders_are_those_that_ldd_names() {
        let own = std::env::current_exe().expect("our own path");
        let file = TracedFile::plain(&own, "own").expect("an ELF file");
        let printed = Command::new("ldd").arg(&own).output().expect("ldd is installed");
        let printed = String::from_utf8(printed.stdout).expect("UTF-8");
        let paths = printed.lines().filter_map(|line| line.split_whitespace().find(|word| word.starts_with('/')));
        let mut expected: Vec<PathBuf> =
            paths.map(PathBuf::from).filter(|path| is_unwinder(path)).filter_map(|p| p.canonicalize().ok()).collect();
        expected.sort();
        for (running, starts) in [(vec![std::process::id()], false), (vec![], true), (vec![std::process::id()], true)] {
            let found = find(std::slice::from_ref(&file), &running, starts);
            let mut paths: Vec<PathBuf> = found.files.iter().filter_map(|f| f.path.canonicalize().ok()).collect();
            paths.sort();
            // Through a process's root a path keeps that root.
            let paths: Vec<PathBuf> = paths.iter().map(|p| outside_of_proc(p)).collect();
            assert_eq!(paths, expected, "{running:?} {starts}");
            assert_eq!(found.missing, [""; 0]);
        }
    }

    fn outside_of_proc(path: &Path) -> PathBuf {
        let components: Vec<_> = path.components().collect();
        if path.starts_with("/proc") {
            Path::new("/").join(components[4..].iter().collect::<PathBuf>())
        } else {
            path.to_owned()
        }
    }
}
