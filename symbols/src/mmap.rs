//! A file's bytes: mapped, or owned. The one place of this crate with `unsafe`.

use std::fs::File;
use std::ops::Deref;

use crate::Error;

/// The bytes of one file.
pub(crate) enum Data {
    Mapped(memmap2::Mmap),
    Owned(Vec<u8>),
}

impl Data {
    /// Maps `file` privately and read-only. An empty file cannot be mapped and is [`Error::Empty`].
    #[allow(unsafe_code)]
    pub(crate) fn map(file: &File) -> Result<Self, Error> {
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
        // SAFETY: the mapping is read as plain bytes, every value of which is valid, and all parsing is bounds-checked,
        // so a file that changes while it is mapped gives wrong answers at worst. A file that *shrinks* raises SIGBUS on
        // the pages that went; reading it instead would cost a copy of files of hundreds of megabytes. The kernel
        // refuses to write to or shorten a file that is being executed (ETXTBSY), which covers the usual target.
        let map = unsafe { memmap2::Mmap::map(file) }?;
        Ok(Self::Mapped(map))
    }
}

impl Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Owned(bytes) => bytes,
        }
    }
}
