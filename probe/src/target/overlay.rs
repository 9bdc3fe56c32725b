//! Which file a file of an overlay really is. The kernel's probes sit on the inode of the layer: that of the image's file until
//! the file is written to (a change of its mode is enough), and then that of a copy. Processes that began before go on with the
//! image's file, and all that `/proc` shows of them is the overlay's inode, which stays the same.
//!
//! In: an open file, and the process in whose mount namespace the overlay may be. Out: the layer's file. Sources: Linux
//! Documentation/filesystems/overlayfs.rst; fs/overlayfs/{inode,params}.c; kernel/trace/bpf_trace.c (`d_real_inode`).

use std::{
    fs::{self, File, Metadata},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags, SeekFrom, StatxFlags, fstatfs, open, openat2, seek, statx};
use symbols::debugfile::open_in_root;

use super::proc;

/// Linux: include/uapi/linux/magic.h, `OVERLAYFS_SUPER_MAGIC`.
const OVERLAY: u32 = 0x794c_7630;
/// Overlays that lie on each other at most (Linux: include/linux/fs.h, `FILESYSTEM_MAX_STACK_DEPTH`).
const MOST_STACKED: u32 = 2;
/// Bytes of a table of mounts that are read at most.
const MOST_BYTES: usize = 16 << 20;

/// Whether a file is one of an overlay.
pub(super) fn is_on_overlay(file: &File) -> bool {
    fstatfs(file).is_ok_and(|kind| kind.f_type as u32 == OVERLAY)
}

/// A layer's file.
#[derive(Debug)]
pub(super) struct Layered {
    pub(super) file: File,
    /// What the file covers: processes that began before it was made from that may run it.
    pub(super) covered: Option<File>,
}

/// The layer's file that a file of an overlay is now; none where the layers cannot be seen from here, or it is no overlay.
pub(super) fn real(seen: &File, pid: Option<u32>) -> Option<Layered> {
    let mut found = layered(seen, pid)?;
    for _ in 1..MOST_STACKED {
        let Some(below) = layered(&found.file, pid) else { break };
        found.file = below.file;
        found.covered = found.covered.or(below.covered);
    }
    found.covered = found.covered.map(|covered| layered(&covered, pid).map_or(covered, |below| below.file));
    Some(found)
}

fn layered(seen: &File, pid: Option<u32>) -> Option<Layered> {
    if !is_on_overlay(seen) {
        return None;
    }
    let overlay = mounted(seen, pid)?;
    let metadata = seen.metadata().ok()?;
    let in_layer = |layer: &PathBuf| overlay.open(layer, pid);
    let upper = overlay.upper.as_ref().and_then(in_layer).filter(|(_, own)| is_shown_as(own, &metadata));
    let mut lower = overlay.lower.iter().filter_map(in_layer).filter(|(file, own)| has_data(file, own));
    // Of a file that only has other attributes the upper layer may have no more than these (`metacopy`).
    let (file, own) = match upper {
        Some((file, own)) if !has_data(&file, &own) => lower.find(|(_, lower)| lower.size() == metadata.size())?,
        Some(upper) => upper,
        None => {
            return lower.find(|(_, own)| is_shown_as(own, &metadata)).map(|(file, _)| Layered { file, covered: None });
        }
    };
    let covered = lower.next().filter(|(_, lower)| may_be_origin(lower, &own, &metadata)).map(|(file, _)| file);
    Some(Layered { file, covered })
}

/// Whether a layer's file can be what the overlay shows: it has the same times.
fn is_shown_as(own: &Metadata, shown: &Metadata) -> bool {
    let times = |m: &Metadata| (m.size(), m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
    times(own) == times(shown)
}

/// Whether there are any bytes in it, and not a hole alone.
fn has_data(file: &File, own: &Metadata) -> bool {
    own.size() == 0 || seek(file, SeekFrom::Data(0)).is_ok()
}

/// Whether a layer's file may be what an upper one was made from: an overlay goes on showing its inode number, where its layers
/// are in one file system and the file had one name.
fn may_be_origin(lower: &Metadata, upper: &Metadata, shown: &Metadata) -> bool {
    lower.ino() == shown.ino() || lower.dev() != upper.dev() || lower.nlink() > 1
}

/// An overlay, as it was mounted, and a path in it.
#[derive(Debug, PartialEq, Eq)]
struct Overlay {
    upper: Option<PathBuf>,
    /// From the top.
    lower: Vec<PathBuf>,
    /// The file, from the root of each layer.
    inside: PathBuf,
}

impl Overlay {
    /// The file of a layer. Whoever mounted the overlay named its layers: we ourselves, the machine's first process, or, where
    /// containers are nested, the parent of the inner one's process.
    fn open(&self, layer: &Path, pid: Option<u32>) -> Option<(File, Metadata)> {
        let parent = pid.and_then(|pid| proc::status(pid, "PPid")?.parse().ok());
        let of_parent = parent.filter(|&parent: &u32| parent != 0).map(|parent| proc::of(parent).join("root"));
        let roots = proc::host_roots().into_iter().chain([proc::host_root()]).chain(of_parent);
        // What is in a layer is a container's own doing: no link there leads out of it.
        roots.into_iter().find_map(|root| {
            let folder = folder_in(&root, layer).ok()?;
            let file = open_in_root(Path::new(&format!("/proc/self/fd/{}", folder.as_raw_fd())), &self.inside).ok()?;
            let metadata = file.metadata().ok()?;
            Some((file, metadata))
        })
    }
}

fn folder_in(root: &Path, folder: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = open(root, flags, Mode::empty())?;
    Ok(openat2(root, folder, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?)
}

/// The overlay that a file is in, where its mount can be seen: in our own namespace, or a process's.
fn mounted(file: &File, pid: Option<u32>) -> Option<Overlay> {
    let known = statx(file, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).ok()?;
    let mount = (known.stx_mask & StatxFlags::MNT_ID.bits() != 0).then_some(known.stx_mnt_id)?;
    let path = fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    let path = path.to_str()?;
    let path = path.strip_suffix(" (deleted)").unwrap_or(path);
    let tables = [Some(PathBuf::from("/proc/self/mountinfo")), pid.map(|pid| proc::of(pid).join("mountinfo"))];
    tables.into_iter().flatten().find_map(|table| {
        let text = fs::read(table).ok().filter(|text| text.len() <= MOST_BYTES)?;
        String::from_utf8_lossy(&text).lines().find_map(|line| parse(line, mount, Path::new(path)))
    })
}

/// `36 35 0:40 /root /mount/point rw,noatime master:1 - overlay overlay rw,lowerdir=/a:/b,upperdir=/c,workdir=/d`: the overlay of
/// this mount. Layers with relative paths were named from a folder that nobody knows: a folder above the upper layer's, as
/// engines do it to have short options.
fn parse(line: &str, mount: u64, path: &Path) -> Option<Overlay> {
    let (place, kind) = line.split_once(" - ")?;
    let mut place = place.split(' ');
    if place.next()?.parse() != Ok(mount) {
        return None;
    }
    let mut place = place.skip(2).map(unescaped);
    let (root, point) = (place.next()?, place.next()?);
    let mut kind = kind.split(' ');
    let options = unescaped(kind.next().filter(|&kind| kind == "overlay").and_then(|_| kind.nth(1))?);
    let below = path.strip_prefix(&point).ok()?;
    let inside = Path::new(&root).join(below);
    let (mut upper, mut lower) = (None, Vec::new());
    for option in split(&options, ',') {
        match option.split_once('=') {
            Some(("upperdir", folder)) => upper = Some(PathBuf::from(plain(folder))),
            // Linux 6.7: one option for each layer where they were given one by one.
            Some(("lowerdir+", folder)) => lower.push(PathBuf::from(plain(folder))),
            Some(("lowerdir", folders)) => {
                lower.extend(split(folders, ':').filter(|folder| !folder.is_empty()).map(|f| PathBuf::from(plain(f))));
            }
            _ => {}
        }
    }
    if let Some(upper) = &upper {
        for folder in lower.iter_mut().filter(|folder| folder.is_relative()) {
            let base = upper.ancestors().find(|above| fs::exists(above.join(&*folder)).unwrap_or(false));
            *folder = base.map(|base| base.join(&*folder)).unwrap_or_else(|| folder.clone());
        }
    }
    Some(Overlay { upper, lower, inside })
}

/// Octal escapes, as tables of mounts have them for blanks, newlines and backslashes.
fn unescaped(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let octal = after.get(..3).filter(|_| byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                out.push(escaped);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The parts between separators that no backslash stands before.
fn split(text: &str, separator: char) -> impl Iterator<Item = &str> {
    let mut is_escaped = false;
    text.split(move |c: char| {
        let is_it = c == separator && !is_escaped;
        is_escaped = c == '\\' && !is_escaped;
        is_it
    })
}

/// Without the backslashes before what would separate.
fn plain(text: &str) -> String {
    let mut is_escaped = false;
    let keeps = |c: char| {
        is_escaped = c == '\\' && !is_escaped;
        !is_escaped
    };
    text.chars()
        .filter({
            let mut keeps = keeps;
            move |&c| keeps(c)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str, path: &str) -> Option<Overlay> {
        parse(line, 36, Path::new(path))
    }

    #[test]
    fn layers_and_the_path_in_them_are_read_from_the_table_of_mounts() {
        let line = "36 35 0:40 / / rw,relatime - overlay overlay rw,lowerdir=/a/l/X:/a/l/Y,upperdir=/a/1/diff,workdir=/a/1/work";
        let expected = Overlay {
            upper: Some("/a/1/diff".into()),
            lower: vec!["/a/l/X".into(), "/a/l/Y".into()],
            inside: "/bin/srv".into(),
        };
        assert_eq!(parsed(line, "/bin/srv"), Some(expected));
        assert_eq!(parsed(&line.replacen("36", "37", 1), "/bin/srv"), None, "another mount");
        assert_eq!(parsed(&line.replace("overlay", "ext4"), "/bin/srv"), None);
        let bound = line.replace("0:40 / /", "0:40 /opt /srv");
        assert_eq!(parsed(&bound, "/srv/app").map(|overlay| overlay.inside), Some("/opt/app".into()));
        assert_eq!(parsed(&bound, "/bin/srv"), None, "not below the mount");
    }

    #[test]
    fn layers_that_are_named_one_by_one_or_with_separators_in_their_names_are_read() {
        let line = r"36 35 0:40 / / rw - overlay none rw,lowerdir+=/a\040b,lowerdir+=/c,upperdir=/u\134,x";
        let overlay = parsed(line, "/f").expect("an overlay");
        assert_eq!((overlay.lower, overlay.upper), (vec!["/a b".into(), "/c".into()], Some("/u,x".into())));
        let line = r"36 35 0:40 / / rw - overlay none rw,lowerdir=/a\134:b:/c::/data";
        let overlay = parsed(line, "/f").expect("an overlay");
        assert_eq!((overlay.lower, overlay.upper), (vec!["/a:b".into(), "/c".into(), "/data".into()], None));
    }

    #[test]
    fn layers_with_relative_names_are_found_above_the_upper_one() {
        let folder = tempfile::tempdir().expect("a folder");
        let at = |path: &str| folder.path().join(path);
        fs::create_dir_all(at("l/X")).expect("a folder");
        fs::create_dir_all(at("1/diff")).expect("a folder");
        let line = format!("36 35 0:40 / / rw - overlay none rw,lowerdir=l/X,upperdir={}", at("1/diff").display());
        assert_eq!(parsed(&line, "/f").map(|overlay| overlay.lower), Some(vec![at("l/X")]));
    }

    #[test]
    fn what_is_on_no_overlay_is_itself() {
        let own = File::open("/proc/self/exe").expect("our own program");
        assert!(!is_on_overlay(&own) && real(&own, None).is_none());
    }
}
