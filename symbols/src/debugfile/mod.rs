//! Separate debug files: what a stripped file left to others.
//!
//! In: a [`Binary`] and where to look. Out: symbol tables and debug information that belong to it, and what was looked for
//! in vain. No network: of debuginfod only a cache folder is read.
//!
//! * `.gnu_debugdata`: symbols that the file itself carries, compressed with xz ("mini-debuginfo", Fedora).
//! * build id: `FOLDER/.build-id/ab/cdef….debug`, `CACHE/abcdef…/debuginfo`.
//! * `.gnu_debuglink`: a file's name and checksum; beside the file, in `.debug` there, and under each folder.
//! * split DWARF: `.dwo` files where the compiler put them or beside the file, `FILE.dwp`.
//! * `.gnu_debugaltlink`, `.debug_sup`: the file that `dwz` put into what several debug files have in common.
//!
//! Source: GDB manual, "Debugging Information in Separate Files" and "MiniDebugInfo".

mod made;
mod map;
mod place;

use std::fmt::{self, Write as _};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::binary::Binary;
use crate::bytes::{c_bytes, u32_at};
use crate::dwarf::Files;
use crate::elf::Sections;
use crate::mmap::Data;

pub(crate) use made::Made;
pub(crate) use map::AddressMap;
use place::Place;
pub use place::open_in_root;

/// Where separate debug files are looked for.
#[derive(Clone, Debug)]
pub struct DebugSearch {
    /// The file's own path: of a file of another root, its path there.
    pub path: Option<PathBuf>,
    /// Folders laid out like `/usr/lib/debug`.
    pub folders: Vec<PathBuf>,
    /// Folders that debuginfod's clients keep files in.
    pub caches: Vec<PathBuf>,
    /// The roots in which `path` and `folders` are looked up, the first first.
    pub roots: Vec<PathBuf>,
}

impl Default for DebugSearch {
    fn default() -> Self {
        let folders = vec![PathBuf::from("/usr/lib/debug")];
        Self { path: None, folders, caches: Vec::new(), roots: vec![PathBuf::from("/")] }
    }
}

/// What came of the search.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebugReport {
    /// The separate debug file that is used.
    pub used: Option<PathBuf>,
    /// The file's own mini-debuginfo is used.
    pub mini: bool,
    /// Files that were looked for and not found, or do not belong to this build.
    pub missing: Vec<PathBuf>,
    /// The build id in hex, by which debug files are found.
    pub build_id: Option<String>,
}

/// Paths that a message names.
const SHOWN: usize = 4;

impl fmt::Display for DebugReport {
    /// Where a debug file was looked for, in words that follow a semicolon.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.missing.is_empty() {
            return f.write_str("it has neither a build id nor a debug link by which a debug file could be found");
        }
        f.write_str("no debug file for it ")?;
        if let Some(id) = &self.build_id {
            write!(f, "(build id {id}) ")?;
        }
        let paths: Vec<String> = self.missing.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
        write!(f, "at {}", paths.join(", "))?;
        match self.missing.len().saturating_sub(SHOWN) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

/// A file that has symbols or debug information of another.
pub(crate) struct DebugFile {
    pub(crate) data: Arc<Data>,
    pub(crate) sections: Sections,
    /// From its addresses to those of the file it belongs to.
    pub(crate) map: AddressMap,
    pub(crate) origin: Origin,
}

/// What a [`DebugFile`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A file or section with a symbol table.
    Symbols,
    /// Made from the functions that debug information describes.
    Dwarf,
    /// Made from the stubs that call other files' functions.
    Plt,
}

/// Bytes that mini-debuginfo may have: times the compressed ones, and at least. Symbol tables shrink to a fifth.
const MINI_TIMES: usize = 64;
const MINI_LEAST: usize = 1 << 20;
/// What xz may use. Its highest level takes 65 MiB.
const XZ_MEMORY: u32 = 80 << 10;
/// No file can be opened by a longer name (NAME_MAX).
const MAX_NAME: usize = 255;

impl DebugFile {
    /// Takes a file's bytes; they need be no more than a section table.
    fn new(data: Data, binary: &Binary) -> Option<Self> {
        let sections = Sections::parse(&data);
        let map = AddressMap::between((&data, &sections), (binary.data(), binary.sections()));
        (!sections.sections.is_empty()).then(|| Self { data: Arc::new(data), sections, map, origin: Origin::Symbols })
    }

    fn build_id(&self) -> Option<&[u8]> {
        build_id(&self.data, &self.sections)
    }

    /// Whether it names the functions of the file it belongs to.
    pub(crate) fn has_symbols(&self) -> bool {
        self.sections.symtab.is_some() && self.origin != Origin::Plt
    }
}

/// A debug file's build id.
pub(crate) fn build_id_in(data: &[u8]) -> Option<&[u8]> {
    build_id(data, &Sections::parse(data))
}

/// A debug file's build id. Its program headers are the other file's, their places in the file mean nothing here.
fn build_id<'a>(data: &'a [u8], sections: &Sections) -> Option<&'a [u8]> {
    let note = data.get(sections.named(data, ".note.gnu.build-id")?.file.clone())?;
    let (name, id) = (usize::try_from(u32_at(note, 0)?).ok()?, usize::try_from(u32_at(note, 4)?).ok()?);
    let start = name.checked_next_multiple_of(4)?.checked_add(12)?;
    note.get(start..start.checked_add(id)?)
}

/// The build id in hex of an ELF file, even of one that is no more than debug information.
pub fn build_id_of(path: &Path) -> Option<String> {
    let data = Place::here(path.to_owned()).map()?;
    build_id(&data, &Sections::parse(&data)).map(hex)
}

/// The build id in hex of a file that lacks symbols or debug information, if no debug file for it is found.
pub fn wanted(binary: &Binary, search: &DebugSearch) -> Option<String> {
    let (_, report) = find(binary, search);
    report.build_id.filter(|_| report.used.is_none() && !report.missing.is_empty())
}

/// What a file has elsewhere: at most a separate file, and the symbols in its own `.gnu_debugdata`.
pub(crate) fn find(binary: &Binary, search: &DebugSearch) -> (Vec<DebugFile>, DebugReport) {
    let mut report = DebugReport { build_id: binary.build_id().map(hex), ..DebugReport::default() };
    let mut files = Vec::new();
    let has_lines = binary.sections().named(binary.data(), ".debug_info").is_some()
        || binary.sections().named(binary.data(), ".zdebug_info").is_some();
    if !has_lines || binary.sections().symtab.is_none() {
        files.extend(separate(binary, search, &mut report));
    }
    if binary.sections().symtab.is_none()
        && !files.iter().any(DebugFile::has_symbols)
        && let Some(mini) = mini(binary)
    {
        report.mini = true;
        files.push(mini);
    }
    (files, report)
}

fn separate(binary: &Binary, search: &DebugSearch, report: &mut DebugReport) -> Option<DebugFile> {
    let link = debug_link(binary);
    let of_id = binary.build_id().map(|id| candidates_by_id(id, search)).unwrap_or_default();
    let of_link = link.as_ref().map(|(name, _)| candidates_by_link(name, search)).unwrap_or_default();
    for place in of_id.into_iter().chain(of_link) {
        let path = place.seen_from_here();
        match open(&place, binary, link.as_ref().map(|(_, crc)| *crc)) {
            Some(file) => {
                report.used = Some(path);
                return Some(file);
            }
            None if report.missing.contains(&path) => {}
            None => report.missing.push(path),
        }
    }
    None
}

fn candidates_by_id(id: &[u8], search: &DebugSearch) -> Vec<Place> {
    let name = hex(id);
    let Some((head, tail)) = name.split_at_checked(2).filter(|(_, tail)| !tail.is_empty()) else { return Vec::new() };
    let place = PathBuf::from(".build-id").join(head).join(format!("{tail}.debug"));
    let in_folders = search.in_roots(search.folders.iter().map(|folder| folder.join(&place)));
    let cached = search.caches.iter().map(|cache| Place::here(cache.join(&name).join("debuginfo")));
    in_folders.into_iter().chain(cached).collect()
}

fn candidates_by_link(name: &str, search: &DebugSearch) -> Vec<Place> {
    let Some(beside) = search.path.as_deref().and_then(Path::parent) else { return Vec::new() };
    let inner = beside.strip_prefix("/").unwrap_or(beside);
    let near = [beside.join(name), beside.join(".debug").join(name)];
    search.in_roots(near.into_iter().chain(search.folders.iter().map(|folder| folder.join(inner).join(name))))
}

impl DebugSearch {
    /// The paths in each of the roots.
    fn in_roots(&self, paths: impl Iterator<Item = PathBuf>) -> Vec<Place> {
        let paths: Vec<PathBuf> = paths.collect();
        let in_root =
            |root: &PathBuf| paths.iter().map(|p| Place { root: root.clone(), path: p.clone() }).collect::<Vec<_>>();
        self.roots.iter().flat_map(in_root).collect()
    }

    fn first_file(&self, paths: impl Iterator<Item = PathBuf>) -> Option<Data> {
        self.in_roots(paths).iter().find_map(Place::map)
    }
}

/// Split DWARF: beside the program, or where the compiler put it.
pub(crate) struct SplitFiles {
    pub(crate) search: DebugSearch,
    /// The separate debug file, if the skeletons are there.
    pub(crate) debug_file: Option<PathBuf>,
}

impl Files for SplitFiles {
    fn object(&self, folder: &str, name: &str) -> Option<Data> {
        let beside = self.search.path.as_deref().and_then(Path::parent);
        let moved = beside.into_iter().flat_map(|beside| {
            let flat = Path::new(name).file_name().map(|flat| beside.join(flat));
            // An absolute name stays what it is.
            [Some(beside.join(name)), flat].into_iter().flatten()
        });
        let paths: Vec<PathBuf> = [Path::new(folder).join(name)].into_iter().chain(moved).collect();
        self.search.first_file(paths.into_iter().filter(|path| path.is_absolute()))
    }

    fn package(&self) -> Option<Data> {
        let with_suffix = |path: &PathBuf| {
            let mut name = path.as_os_str().to_owned();
            name.push(".dwp");
            PathBuf::from(name)
        };
        let own = self.search.first_file(self.search.path.iter().map(with_suffix));
        own.or_else(|| Place::here(with_suffix(self.debug_file.as_ref()?)).map())
    }

    fn supplement(&self, name: &str, id: &[u8], is_right: &dyn Fn(&[u8]) -> bool) -> Option<Data> {
        // A relative name is relative to the file that has it: the debug file, or the program.
        let beside_debug =
            self.debug_file.as_deref().and_then(Path::parent).map(|beside| Place::here(beside.join(name)));
        let beside = self.search.path.as_deref().and_then(Path::parent).map(|beside| beside.join(name));
        let near = self.search.in_roots(beside.into_iter().filter(|path| path.is_absolute()));
        let relative = beside_debug.filter(|_| !name.starts_with('/'));
        let places = relative.into_iter().chain(near).chain(candidates_by_id(id, &self.search));
        places.filter_map(|place| place.map()).find(|data| is_right(data))
    }
}

/// A debug file, if it belongs to the same build: by build id, or where there is none by checksum.
fn open(place: &Place, binary: &Binary, crc: Option<u32>) -> Option<DebugFile> {
    let file = DebugFile::new(place.map()?, binary)?;
    let same = match (binary.build_id(), file.build_id()) {
        (Some(ours), Some(theirs)) => ours == theirs,
        _ => crc == Some(crc32fast::hash(&file.data)),
    };
    same.then_some(file)
}

/// The name and checksum in `.gnu_debuglink`.
fn debug_link(binary: &Binary) -> Option<(String, u32)> {
    let (_, bytes) = binary.section(".gnu_debuglink")?;
    let name = c_bytes(bytes, 0).filter(|name| name.len() <= MAX_NAME && !name.contains(&b'/'))?;
    let crc = u32_at(bytes, (name.len() + 1).next_multiple_of(4))?;
    Some((std::str::from_utf8(name).ok()?.to_owned(), crc))
}

fn mini(binary: &Binary) -> Option<DebugFile> {
    let (_, bytes) = binary.section(".gnu_debugdata")?;
    let most = bytes.len().saturating_mul(MINI_TIMES).saturating_add(MINI_LEAST);
    let mut found = Vec::new();
    let reader = lzma_rust2::XzReader::new_mem_limit(bytes, false, XZ_MEMORY);
    reader.take(most as u64).read_to_end(&mut found).ok()?;
    DebugFile::new(Data::Owned(found), binary)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
