//! A file's bytes: mapped, or owned. With [`truncation`](crate::truncation) the one place of this crate with `unsafe`.
//!
//! A mapped file that is shortened (`cp new program` truncates) raises SIGBUS where what went is read, and that ends the
//! process, unless the program wants zeros instead. No check beforehand helps, and a copy of every file would cost more
//! memory than the rest of the program. So small files, which are the ones that people build and overwrite all the time,
//! are read; large ones are mapped.

use std::fs::File;
use std::ops::Deref;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::Error;
use crate::truncation::Watch;

/// Files up to this many bytes are read.
const MAX_READ: u64 = 1 << 20;

/// The bytes of one file.
pub(crate) enum Data {
    Mapped(Mapping),
    Owned(Vec<u8>),
}

pub(crate) struct Mapping {
    /// Before the mapping: fields are dropped in order.
    _watch: Watch,
    bytes: memmap2::Mmap,
}

impl Data {
    /// Reads a small file, and maps a large one privately and read-only. An empty file is [`Error::Empty`]. `path` is what
    /// the file is called if it becomes shorter.
    #[allow(unsafe_code)]
    pub(crate) fn map(file: &File, path: &Path) -> Result<Self, Error> {
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(std::io::Error::from(std::io::ErrorKind::IsADirectory).into());
        }
        if !metadata.is_file() {
            return Err(Error::NotElf);
        }
        if metadata.len() == 0 {
            return Err(Error::Empty);
        }
        if metadata.len() <= MAX_READ {
            return Self::read(file, metadata.len());
        }
        // SAFETY: the mapping is read as plain bytes, every value of which is valid, and all parsing is bounds-checked,
        // so a file that changes while it is mapped gives wrong answers at worst. A file that *shrinks* raises SIGBUS on
        // the pages that went, or, if the program wants that, has zeros there. The kernel refuses to write to or shorten a
        // file that is being executed (ETXTBSY), which covers the usual target.
        let bytes = unsafe { memmap2::Mmap::map(file) }?;
        // A process that is forked has no use for it, and would keep the file on the disk.
        let _ = bytes.advise(memmap2::Advice::DontFork);
        match Watch::new(&bytes, path) {
            Some(watch) => Ok(Self::Mapped(Mapping { _watch: watch, bytes })),
            None => Self::read(file, metadata.len()),
        }
    }

    /// Lets the kernel take back the memory of a mapped file's bytes: they are read from the file again when they are
    /// asked for.
    #[allow(unsafe_code)]
    pub(crate) fn release(&self, bytes: std::ops::Range<usize>) {
        let Self::Mapped(Mapping { bytes: map, .. }) = self else { return };
        let bytes = bytes.start.min(map.len())..bytes.end.min(map.len());
        // SAFETY: `MADV_DONTNEED` loses what was written to private pages. Nothing is: the mapping is read-only.
        let advised =
            unsafe { map.unchecked_advise_range(memmap2::UncheckedAdvice::DontNeed, bytes.start, bytes.len()) };
        // It only saves memory.
        let _ = advised;
    }

    /// Reads the file from its beginning, wherever its cursor is. One that becomes shorter meanwhile is cut.
    fn read(file: &File, len: u64) -> Result<Self, Error> {
        let mut bytes = vec![0; usize::try_from(len).map_err(|_| Error::Empty)?];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match file.read_at(rest, done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        bytes.truncate(done);
        if bytes.is_empty() { Err(Error::Empty) } else { Ok(Self::Owned(bytes)) }
    }
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(mapping) => &mapping.bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}
