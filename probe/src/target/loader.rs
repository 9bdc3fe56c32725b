//! Libraries by name, as the loader would find them.
//!
//! In: a name that a file needs or a person types. Out: a path. Reads the loader's cache and folders, runs nothing.

use std::{
    collections::{BTreeSet, VecDeque},
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use symbols::binary::{Binary, Machine};

use super::{debugfiles, in_root_of, proc};

/// Libraries that a program needs, and theirs: more are not looked at.
const MAX_NEEDED: usize = 512;

/// What runs here.
const MACHINE: Machine = if cfg!(target_arch = "aarch64") { Machine::Aarch64 } else { Machine::X86_64 };

/// Where the loader looks for libraries (ld.so(8)): what a file names, the environment, its cache, its own folders.
pub(super) struct Loader {
    folders: Vec<PathBuf>,
    cache: Vec<(String, PathBuf)>,
    /// The process in whose root all paths are; none: ours.
    root_of: Option<u32>,
}

/// The last two are where Debian's loader looks, on which images without a cache rely.
const FOLDERS: [&str; 7] = ["/lib64", "/usr/lib64", "/lib", "/usr/lib", "/usr/local/lib", LIB_TRIPLET, USR_LIB_TRIPLET];

const LIB_TRIPLET: &str =
    if cfg!(target_arch = "aarch64") { "/lib/aarch64-linux-gnu" } else { "/lib/x86_64-linux-gnu" };
const USR_LIB_TRIPLET: &str =
    if cfg!(target_arch = "aarch64") { "/usr/lib/aarch64-linux-gnu" } else { "/usr/lib/x86_64-linux-gnu" };

const CACHE: &str = "/etc/ld.so.cache";
const VARIABLE: &str = "LD_LIBRARY_PATH";

impl Loader {
    pub(super) fn here() -> Self {
        let given = std::env::var_os(VARIABLE).unwrap_or_default();
        Self {
            folders: absolute(&given),
            cache: cache(&fs::read(CACHE).unwrap_or_default()).unwrap_or_default(),
            root_of: None,
        }
    }

    /// As a process that sees other files than we do has it: with its environment, and what its root has.
    pub(super) fn of_process(pid: u32) -> Self {
        let environment = fs::read(proc::of(pid).join("environ")).unwrap_or_default();
        let variable = [VARIABLE.as_bytes(), b"="].concat();
        let given =
            environment.split(|&byte| byte == 0).find_map(|entry| entry.strip_prefix(&*variable)).unwrap_or_default();
        let cached = debugfiles::read(&in_root_of(pid, Path::new(CACHE)), MOST_CACHE).unwrap_or_default();
        Self {
            folders: absolute(OsStr::from_bytes(given)),
            cache: cache(&cached).unwrap_or_default(),
            root_of: Some(pid),
        }
    }

    /// Where a path is, from here.
    fn at(&self, path: &Path) -> PathBuf {
        self.root_of.map_or_else(|| path.to_owned(), |pid| in_root_of(pid, path))
    }

    fn open(&self, path: &Path) -> Option<Binary> {
        match self.root_of {
            None => Binary::open(path).ok(),
            Some(_) => Binary::from_file(&debugfiles::open(&self.at(path)).ok()?, path).ok(),
        }
    }

    /// The paths of what is in a folder.
    fn files_in(&self, folder: &Path) -> Vec<PathBuf> {
        let entries = debugfiles::names_in(&self.at(folder)).unwrap_or_default();
        entries.into_iter().map(|name| folder.join(name)).collect()
    }

    /// The libraries that files need, with what those need in turn, each once: its name, and where it is found.
    pub(super) fn all_needed<'a>(
        &self,
        files: impl Iterator<Item = (&'a Binary, &'a Path)>,
    ) -> Vec<(String, Option<PathBuf>)> {
        let mut seen = BTreeSet::new();
        let mut found = Vec::new();
        let mut wanted: VecDeque<(String, Option<PathBuf>)> =
            files.flat_map(|(binary, path)| self.needed(binary, path)).collect();
        while let Some((name, path)) = wanted.pop_front() {
            if found.len() >= MAX_NEEDED || !seen.insert(name.clone()) {
                continue;
            }
            if let Some(path) = &path
                && let Some(binary) = self.open(path)
            {
                wanted.extend(self.needed(&binary, path));
            }
            found.push((name, path));
        }
        found
    }

    /// The library of a name that may lack its version (`libssl`, `libc.so.6`): of those that `program` needs, else of those
    /// that any program would be given. Of several versions the highest.
    pub(super) fn library(&self, name: &str, program: Option<&Path>) -> Option<PathBuf> {
        let is_it = |path: &PathBuf| path.file_name().is_some_and(|f| is_library_named(&f.to_string_lossy(), name));
        let here = |path: &PathBuf| self.open(path).is_some_and(|binary| binary.machine() == MACHINE);
        let binary = program.and_then(|path| Some((self.open(path)?, path)));
        let needed = self.all_needed(binary.iter().map(|(binary, path)| (binary, *path)));
        if let Some(path) = needed.into_iter().filter_map(|(_, path)| path).find(|path| is_it(path) && here(path)) {
            return Some(path);
        }
        let given = || self.folders.iter().flat_map(|folder| self.files_in(folder)).collect();
        let cached = || self.cache.iter().map(|(_, path)| path.clone()).collect();
        let own = || FOLDERS.iter().flat_map(|folder| self.files_in(Path::new(folder))).collect();
        let sources: [&dyn Fn() -> Vec<PathBuf>; 3] = [&given, &cached, &own];
        sources.into_iter().find_map(|source| {
            let mut found: Vec<PathBuf> = source().into_iter().filter(is_it).collect();
            found.sort_by_cached_key(|path| std::cmp::Reverse(version(path)));
            found.into_iter().find(here)
        })
    }

    /// The libraries that a file needs, and where each is.
    fn needed(&self, binary: &Binary, path: &Path) -> Vec<(String, Option<PathBuf>)> {
        let origin = self.root_of.map_or_else(|| path.canonicalize().ok(), |_| None).unwrap_or_else(|| path.to_owned());
        let origin = origin.parent().map(|folder| folder.display().to_string()).unwrap_or_default();
        let own = binary.runpath().unwrap_or_default();
        let own: Vec<PathBuf> = own
            .split(':')
            .filter(|folder| !folder.is_empty())
            .map(|folder| folder.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin).into())
            .collect();
        binary.needed().into_iter().map(|name| (name.to_owned(), self.find(name, &own))).collect()
    }

    fn find(&self, name: &str, own: &[PathBuf]) -> Option<PathBuf> {
        if name.contains('/') {
            return Some(PathBuf::from(name)).filter(|path| self.open(path).is_some());
        }
        let first = own.iter().chain(&self.folders).map(|folder| folder.join(name));
        let cached = self.cache.iter().filter(|(cached, _)| cached == name).map(|(_, path)| path.clone());
        let last = FOLDERS.iter().map(|folder| Path::new(folder).join(name));
        first.chain(cached).chain(last).find(|path| self.open(path).is_some())
    }
}

fn absolute(folders: &OsStr) -> Vec<PathBuf> {
    std::env::split_paths(folders).filter(|folder| folder.is_absolute()).collect()
}

/// Bytes of another root's cache that are read at most.
const MOST_CACHE: u64 = 64 << 20;

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

/// The numbers in a file's name, which order its versions: `libssl.so.3` above `libssl.so.1.1`, and both above
/// `libssl.so`, which is there for linking.
fn version(path: &Path) -> Vec<u64> {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let digits = name.split(|c: char| !c.is_ascii_digit()).filter(|part| !part.is_empty());
    digits.map(|part| part.parse().unwrap_or(u64::MAX)).collect()
}

/// `libssl` names `libssl.so.3`, `libssl.so` and `libssl-1.1.so`; a full file name names only itself.
pub fn is_library_named(file: &str, name: &str) -> bool {
    let Some(rest) = file.strip_prefix(name) else { return false };
    let version = if name.contains(".so") { rest.starts_with('.') } else { rest.starts_with(".so") };
    rest.is_empty() || version || rest.starts_with('-') && rest.contains(".so")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn ldconfig() -> Vec<(String, PathBuf)> {
        let printed = Command::new("/sbin/ldconfig").arg("-p").output().expect("ldconfig is installed");
        let printed = String::from_utf8(printed.stdout).expect("UTF-8");
        let lines = printed.lines().filter_map(|line| line.strip_prefix('\t')?.split_once(" => "));
        lines.map(|(name, path)| (name.split(' ').next().unwrap_or_default().to_owned(), path.into())).collect()
    }

    #[test]
    fn the_loaders_cache_is_read_as_ldconfig_prints_it() {
        let expected = ldconfig();
        assert!(!expected.is_empty());
        assert_eq!(cache(&fs::read("/etc/ld.so.cache").expect("there is one")), Some(expected));
    }

    #[test]
    fn a_library_is_found_by_its_name_with_and_without_its_version_where_ldconfig_has_it() {
        let expected = ldconfig().into_iter().find(|(name, _)| name == "libc.so.6").expect("glibc").1;
        for name in ["libc", "libc.so.6"] {
            assert_eq!(Loader::here().library(name, None), Some(expected.clone()), "{name}");
        }
        assert_eq!(Loader::here().library("libnothing-of-this-name", None), None);
    }

    #[test]
    fn of_a_program_the_library_is_the_one_that_it_would_be_given() {
        let folder = tempfile::tempdir().expect("a folder");
        let (program, library) = (folder.path().join("program"), folder.path().join("lib/libc.so.6"));
        fs::create_dir(folder.path().join("lib")).expect("a folder");
        fs::copy("/lib/x86_64-linux-gnu/libc.so.6", &library).expect("a library");
        let source = folder.path().join("program.c");
        fs::write(&source, "int main(void) { return 0; }").expect("a source");
        let mut cc = Command::new("cc");
        let made = cc.args(["-Wl,-rpath,$ORIGIN/lib", "-o"]).args([&program, &source]).status().expect("a compiler");
        assert!(made.success());
        assert_eq!(Loader::here().library("libc", Some(&program)), Some(library));
    }

    #[test]
    fn of_several_versions_the_highest_is_meant() {
        let mut paths: Vec<PathBuf> =
            ["libssl.so", "libssl.so.3", "libssl.so.1.1", "libssl.so.10"].map(PathBuf::from).into();
        paths.sort_by_key(|path| version(path));
        assert_eq!(paths, ["libssl.so", "libssl.so.1.1", "libssl.so.3", "libssl.so.10"].map(PathBuf::from));
    }

    #[test]
    fn a_librarys_name_may_leave_out_its_version_and_nothing_else() {
        for (file, name, same) in [
            ("libssl.so.3", "libssl", true),
            ("libssl.so.3", "libssl.so", true),
            ("libssl.so.3", "libssl.so.3", true),
            ("libssl-1.1.so", "libssl", true),
            ("libc.so.6", "libc", true),
            ("libcrypto.so.3", "libc", false),
            ("libssl3.so", "libssl", false),
            ("notes-libssl.so", "libssl", false),
            ("srv", "srv", true),
        ] {
            assert_eq!(is_library_named(file, name), same, "{file} {name}");
        }
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
}
