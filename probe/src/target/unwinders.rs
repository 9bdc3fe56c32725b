//! The libraries that unwind for a traced program: libgcc_s, libunwind, the C library.
//!
//! Of running processes those that are mapped; for what is yet to start, those that its file needs, found as the
//! loader would find them.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use symbols::binary::Binary;

use super::{TracedFile, in_root_of, processes};

/// Libraries that were found, and the names of those that were not.
#[derive(Debug, Default)]
pub struct Unwinders {
    /// Opened, each once, none that is traced.
    pub files: Vec<TracedFile>,
    /// Needed, and not to be found or read.
    pub missing: Vec<String>,
}

/// Libraries that a program needs, and theirs: more are not looked at.
const MAX_NEEDED: usize = 512;

/// Finds the unwinders of running processes, and with `starts` of what runs these files later.
pub fn find(traced: &[TracedFile], running: &[u32], starts: bool) -> Unwinders {
    let mut found = Unwinders::default();
    let mut seen = BTreeSet::new();
    for &pid in running {
        for path in processes::mapped_files(pid).iter().filter(|path| is_unwinder(path)) {
            let here = in_root_of(pid, path);
            if seen.insert(here.canonicalize().unwrap_or_else(|_| here.clone())) {
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
        let loader = Loader::here();
        let mut seen = BTreeSet::new();
        let mut wanted: Vec<(String, PathBuf)> = Vec::new();
        for file in traced {
            wanted.extend(loader.needed(file.index.binary(), &file.path));
        }
        while let Some((name, path)) = wanted.pop() {
            if seen.len() >= MAX_NEEDED || !seen.insert(name.clone()) {
                continue;
            }
            if is_unwinder(Path::new(&name)) {
                if path.as_os_str().is_empty() {
                    self.missing.push(name);
                } else {
                    self.add(traced, &path, &path, None);
                }
            } else if let Ok(binary) = Binary::open(&path) {
                wanted.extend(loader.needed(&binary, &path));
            }
        }
    }
}

/// Where the loader looks for libraries (ld.so(8)), as far as finding an unwinder takes: what a file names, the
/// environment, its cache, its own folders.
struct Loader {
    folders: Vec<PathBuf>,
    cache: Vec<(String, PathBuf)>,
}

const FOLDERS: [&str; 5] = ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib"];

impl Loader {
    fn here() -> Self {
        let given = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
        let given = std::env::split_paths(&given).filter(|folder| folder.is_absolute()).collect();
        Self { folders: given, cache: cache(&fs::read("/etc/ld.so.cache").unwrap_or_default()).unwrap_or_default() }
    }

    /// The libraries that a file needs, and where each is; nowhere: an empty path.
    fn needed(&self, binary: &Binary, path: &Path) -> Vec<(String, PathBuf)> {
        let origin = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let origin = origin.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
        let own = binary.runpath().unwrap_or_default();
        let own: Vec<PathBuf> = own
            .split(':')
            .filter(|folder| !folder.is_empty())
            .map(|folder| folder.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin).into())
            .collect();
        binary.needed().into_iter().map(|name| (name.to_owned(), self.find(name, &own).unwrap_or_default())).collect()
    }

    fn find(&self, name: &str, own: &[PathBuf]) -> Option<PathBuf> {
        let first = own.iter().chain(&self.folders).map(|folder| folder.join(name));
        let cached = self.cache.iter().filter(|(cached, _)| cached == name).map(|(_, path)| path.clone());
        let last = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
        first.chain(cached).chain(last).find(|path| Binary::open(path).is_ok())
    }
}

/// Names and paths in `/etc/ld.so.cache`. glibc: sysdeps/generic/dl-cache.h, `cache_file_new`, which may stand behind
/// one in the old format.
fn cache(bytes: &[u8]) -> Option<Vec<(String, PathBuf)>> {
    const MAGIC: &[u8] = b"glibc-ld.so.cache1.1";
    const HEADER: usize = 48;
    const ENTRY: usize = 24;
    let start = bytes.windows(MAGIC.len()).position(|window| window == MAGIC)?;
    let bytes = bytes.get(start..)?;
    let count = usize::try_from(word(bytes, 20)?).ok()?;
    let entries = bytes.get(HEADER..HEADER.checked_add(count.checked_mul(ENTRY)?)?)?;
    let text = |at: u32| {
        let text = bytes.get(usize::try_from(at).ok()?..)?.split(|&byte| byte == 0).next()?;
        std::str::from_utf8(text).ok().map(str::to_owned)
    };
    let entry = |entry: &[u8]| Some((text(word(entry, 4)?)?, text(word(entry, 8)?)?.into()));
    Some(entries.chunks_exact(ENTRY).filter_map(entry).collect())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_loaders_cache_is_read_as_ldconfig_prints_it() {
        let printed = Command::new("/sbin/ldconfig").arg("-p").output().expect("ldconfig is installed");
        let printed = String::from_utf8(printed.stdout).expect("UTF-8");
        let expected: Vec<(String, PathBuf)> = printed
            .lines()
            .filter_map(|line| line.strip_prefix('\t')?.split_once(" => "))
            .map(|(name, path)| (name.split(' ').next().unwrap_or_default().to_owned(), path.into()))
            .collect();
        assert!(!expected.is_empty(), "{printed}");
        assert_eq!(cache(&fs::read("/etc/ld.so.cache").expect("there is one")), Some(expected));
    }

    #[test]
    fn a_broken_cache_is_none_and_never_a_panic() {
        let bytes = fs::read("/etc/ld.so.cache").expect("there is one");
        for len in (0..bytes.len()).step_by(97).chain(0..200) {
            let _ = cache(&bytes[..len]);
        }
        let mut huge = bytes;
        huge[20..24].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert_eq!(cache(&huge), None);
    }

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
