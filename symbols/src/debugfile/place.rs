//! Files in a root that may be another's: a container's symbolic links lead to places in that container, not in ours.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};

use crate::mmap::Data;

/// A path in a root. A relative one is of no root.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) root: PathBuf,
    pub(super) path: PathBuf,
}

impl Place {
    /// A path in our own root.
    pub(super) fn here(path: PathBuf) -> Self {
        Self { root: PathBuf::from("/"), path }
    }

    /// The path by which it is found from here, if no link is in the way.
    pub(super) fn seen_from_here(&self) -> PathBuf {
        self.path.strip_prefix("/").map_or_else(|_| self.path.clone(), |inner| self.root.join(inner))
    }

    /// The bytes of a regular file.
    pub(super) fn map(&self) -> Option<Data> {
        Data::map(&open_in_root(&self.root, &self.path).ok()?, &self.seen_from_here()).ok()
    }
}

/// Opens a regular file for reading as a process sees it whose root is `root`, such as `/proc/PID/root`. No symbolic link,
/// and no `..`, leads out of it. Others than regular files are not opened: that could block, or act on a device.
///
/// # Errors
/// There is none, it is no regular file, or the kernel is older than 5.6 (`openat2`).
pub fn open_in_root(root: &Path, path: &Path) -> io::Result<File> {
    let root = (root != Path::new("/") && path.is_absolute())
        .then(|| open(root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()))
        .transpose()?;
    let open = |flags: OFlags| {
        let flags = flags | OFlags::CLOEXEC;
        let file = match &root {
            None => rustix::fs::open(path, flags, Mode::empty())?,
            Some(root) => {
                openat2(root, path, flags, Mode::empty(), ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS)?
            }
        };
        match FileType::from_raw_mode(fstat(&file)?.st_mode) {
            FileType::RegularFile => Ok(File::from(file)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    };
    open(OFlags::PATH)?;
    // Whatever has its name by now does not block.
    open(OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY)
}
