//! Files that are traced: opened, indexed, and watched for changes.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use anyhow::{Context as _, Result, anyhow};
use symbols::{
    binary::Binary,
    debugfile::{self, DebugReport},
    index::Index,
};

use super::{debugfiles, debuginfod::Debuginfod, has_root, ifuncs, overlay};
use crate::output::escape;

/// A file that is traced: held open, so that what was read is what is probed.
#[derive(Debug)]
pub struct TracedFile {
    /// Its path as the user knows it.
    pub shown: String,
    /// Where it is found, from here (may lead through `/proc/PID/root`).
    pub path: PathBuf,
    /// The process in whose root, or as whose program, it is found.
    pub through: Option<u32>,
    /// The container in which it was found, by its number in the kernel half; where containers are traced.
    pub container: Option<u64>,
    /// The open file. Of an overlay it is the layer's, where that can be seen: the one that probes sit on.
    pub file: File,
    /// What it was when it was read, as processes see it.
    pub identity: Identity,
    /// What [`Self::file`] was.
    pub(super) real: Identity,
    /// When the inode at its path was last changed, as far as that was looked at; none where it is on no overlay.
    pub(super) changed: Option<(i64, i64)>,
    /// Of an overlay's copy: the image's file, which processes that began before it was copied may run.
    pub covered: Option<File>,
    /// It is such a file of an image: new processes run the copy.
    pub is_covered: bool,
    /// Its functions.
    pub index: Arc<Index>,
    /// Servers were asked for its debug file, or need not be.
    pub asked: bool,
}

/// What tells a changed file from an unchanged one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Bytes.
    pub size: u64,
    /// Last modification of its contents.
    pub modified: Option<SystemTime>,
}

impl Identity {
    /// The identity that a file's metadata states.
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: metadata.modified().ok(),
        }
    }
}

impl TracedFile {
    /// Opens and indexes a file.
    ///
    /// # Errors
    /// It cannot be read, is no ELF file of this machine, or has no functions.
    pub fn open(path: &Path, shown: &str) -> Result<Self> {
        Self::fetching(path, shown, None)
    }

    /// The same. A debug file that is missing is fetched.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn fetching(path: &Path, shown: &str, debuginfod: Option<&Debuginfod>) -> Result<Self> {
        let search = debugfiles::search(path, Path::new(shown));
        Self::indexed(path, shown, debuginfod.is_some(), |binary, identity| {
            if let Some(debuginfod) = debuginfod
                && let Some(build_id) = debugfile::wanted(&binary, &search)
            {
                debuginfod.fetch(shown, &build_id);
            }
            let mut index = Index::with_debug(binary, &search)?;
            ifuncs::learn(&mut index, identity, debugfiles::pid_of(path));
            Ok(index)
        })
    }

    /// The same without debug files: for what is not shown.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn plain(path: &Path, shown: &str) -> Result<Self> {
        Self::indexed(path, shown, true, |binary, _| Index::new(binary))
    }

    fn indexed(
        path: &Path,
        shown: &str,
        asked: bool,
        index: impl FnOnce(Arc<Binary>, Identity) -> Result<Index, symbols::Error>,
    ) -> Result<Self> {
        let file = debugfiles::open(path).map_err(|error| match error.kind() {
            io::ErrorKind::InvalidInput => anyhow!("failed to read {shown}: {error}"),
            _ => anyhow::Error::new(error).context(format!("failed to open {shown}")),
        })?;
        let opened = Opened::new(file, path).with_context(|| format!("failed to open {shown}"))?;
        Self::of_opened(opened, path, shown, asked, index)
    }

    fn of_opened(
        opened: Opened,
        path: &Path,
        shown: &str,
        asked: bool,
        index: impl FnOnce(Arc<Binary>, Identity) -> Result<Index, symbols::Error>,
    ) -> Result<Self> {
        let Opened { file, identity, real, changed, covered } = opened;
        let binary = Binary::from_file(&file, path).map_err(|error| match interpreter(&file) {
            Some(line) => anyhow!("failed to read {shown}: a script ({line}); name the program that runs it with -x"),
            None => unreadable(shown, &error),
        })?;
        let index = index(Arc::new(binary), identity).map_err(|error| match &error {
            symbols::Error::NoSymbolsNorDebugFile(report) => {
                anyhow!("{}{}", unreadable(shown, &error), advice(report, asked))
            }
            _ => unreadable(shown, &error),
        })?;
        Ok(Self {
            shown: shown.to_owned(),
            path: path.to_owned(),
            through: None,
            container: None,
            identity,
            real,
            changed,
            covered,
            is_covered: false,
            file,
            index: Arc::new(index),
            asked,
        })
    }

    /// The image's file below an overlay's copy: processes that began before the copy was made run that.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn take_covered(&mut self) -> Option<Result<Self>> {
        let file = self.covered.take()?;
        let read = || {
            let real = Identity::of(&file.metadata()?);
            let opened = Opened { file, identity: self.identity, real, changed: self.changed, covered: None };
            let search = debugfiles::search(&self.path, Path::new(&self.shown));
            let index = |binary, _| Index::with_debug(binary, &search);
            let covered = Self::of_opened(opened, &self.path, &self.shown, true, index)?;
            Ok(Self { through: self.through, is_covered: true, ..covered })
        };
        Some(read())
    }

    /// The inodes that processes' mappings of it may show: of an overlay its own, and before Linux 6.8 the layer's.
    pub fn inodes(&self) -> impl Iterator<Item = u64> + use<> {
        let (seen, real) = (self.identity.inode, self.real.inode);
        [seen].into_iter().chain((real != seen).then_some(real))
    }

    /// Whether the file was written to, so that it is not what was read any more.
    pub fn is_overwritten(&self) -> bool {
        self.file.metadata().map_or(true, |now| Identity::of(&now) != self.real)
    }

    /// Why the file is not what was read any more; none while it is.
    pub fn change(&mut self) -> Option<Change> {
        if self.is_overwritten() {
            return Some(Change::Overwritten);
        }
        match debugfiles::metadata(&self.path) {
            // The process through which it was found has ended: that says nothing of the file.
            Err(_) if self.through.is_some_and(|pid| !has_root(pid)) => None,
            Err(_) => Some(Change::Deleted),
            Ok(now) if now.ino() != self.identity.inode || now.dev() != self.identity.device => Some(Change::Replaced),
            Ok(now) => self.is_copied(&now).then_some(Change::Copied),
        }
    }

    /// Whether an overlay has a copy of the file by now. To be copied changes the inode at the path, and seldom anything else does.
    fn is_copied(&mut self, now: &fs::Metadata) -> bool {
        if self.is_covered || self.changed.is_none_or(|known| known == changed_at(now)) {
            return self.is_covered;
        }
        let opened = debugfiles::open(&self.path).and_then(|file| Opened::new(file, &self.path));
        let Ok(opened) = opened else { return false };
        let place = |identity: Identity| (identity.device, identity.inode);
        self.is_covered = opened.identity.inode == self.identity.inode && place(opened.real) != place(self.real);
        self.changed = opened.changed;
        self.is_covered
    }

    /// The file is seen through another process: if it is the same one, its probes hold.
    pub(super) fn follow(&mut self, opened: Opened, is_same: bool) {
        if is_same {
            (self.file, self.identity, self.real) = (opened.file, opened.identity, opened.real);
            (self.changed, self.is_covered) = (opened.changed, false);
        }
    }
}

/// An open file, and of an overlay's the layer's.
pub(super) struct Opened {
    pub(super) file: File,
    identity: Identity,
    real: Identity,
    changed: Option<(i64, i64)>,
    covered: Option<File>,
}

impl Opened {
    /// `path`: where it was opened.
    pub(super) fn new(seen: File, path: &Path) -> io::Result<Self> {
        let metadata = seen.metadata()?;
        let identity = Identity::of(&metadata);
        let Some(overlay::Layered { file, covered }) = overlay::real(&seen, debugfiles::pid_of(path)) else {
            return Ok(Self { file: seen, identity, real: identity, changed: None, covered: None });
        };
        let real = Identity::of(&file.metadata()?);
        Ok(Self { file, identity, real, changed: Some(changed_at(&metadata)), covered })
    }
}

/// Whether what is at a path has an inode, as it is seen or as its layer has it.
pub fn has_inode(path: &Path, inode: u64) -> bool {
    let opened = || debugfiles::open(path).and_then(|file| Opened::new(file, path));
    debugfiles::metadata(path).is_ok_and(|metadata| metadata.ino() == inode)
        || opened().is_ok_and(|opened| opened.real.inode == inode)
}

fn changed_at(metadata: &fs::Metadata) -> (i64, i64) {
    (metadata.ctime(), metadata.ctime_nsec())
}

/// How a traced file changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Written to in place: what is probed is not what was read. The probes must go at once.
    Overwritten,
    /// Another file has its name; processes started from now on run that one.
    Replaced,
    /// It belongs to an image, and the container's overlay now has a copy of it at its path: what processes run that start from
    /// now on.
    Copied,
    /// No file has its name any more; running processes keep it.
    Deleted,
}

/// The first line of a script, which names its interpreter.
fn interpreter(file: &File) -> Option<String> {
    let mut head = [0; 80];
    let length = file.read_at(&mut head, 0).ok()?;
    let line = head.get(..length)?.split(|&byte| byte == b'\n').next()?;
    line.starts_with(b"#!").then(|| escape::escaped(&String::from_utf8_lossy(line)))
}

fn unreadable(shown: &str, error: &dyn std::error::Error) -> anyhow::Error {
    let mut text = format!("failed to read {shown}: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    anyhow!(text)
}

/// What to do where no debug file was found, behind the words that say so.
pub fn advice(report: &DebugReport, asked: bool) -> &'static str {
    let may_be_served = !asked && report.used.is_none() && report.build_id.is_some();
    if may_be_served { "; --debuginfod asks servers for it" } else { "" }
}
