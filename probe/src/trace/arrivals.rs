//! Files that come while a trace runs: what took a traced file's place at its path, and libraries that traced processes load.
//!
//! In: looks at paths, and the kernel's records of what is mapped. Out: files, read and planned by themselves, which the
//! session takes in ([`super::session`]). Reading and planning takes up to seconds, so another thread does it: the ring
//! buffer goes on being read.

use std::{
    collections::VecDeque,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::mpsc::{self, Receiver, Sender, TryRecvError},
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, Result, bail};
use probe_ebpf::abi::GoProgram;
use rustc_hash::{FxHashMap, FxHashSet};
use symbols::pattern::Pattern;

use crate::{
    attach::{Attachment, rights},
    calls::Cause,
    output::talk,
    plan::{self, Plan},
    request::Returns,
    target::{
        self, Identity, TracedFile,
        debuginfod::Debuginfod,
        processes::{self, Mapping},
        unwinders,
    },
};

/// A file that is written to has to be left alone for so long: then it is taken for complete.
const SETTLED: Duration = Duration::from_millis(200);
/// What cannot be read so long after its last change is said.
const GIVEN_UP: Duration = Duration::from_secs(1);
/// Mappings that were looked at, at most: when there are more, they are looked at anew.
const MAX_SEEN: usize = 4096;

/// A file that may have to be traced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    /// Where it is found, from here (may lead through `/proc/PID/root`).
    pub(super) path: PathBuf,
    /// Its path as the user knows it.
    pub(super) shown: String,
    /// The process in whose root it is found, and which has loaded it.
    pub(super) through: Option<u32>,
    /// Why it is looked at.
    pub(super) cause: Cause,
    /// The file (its position in the plan) whose place it has taken.
    pub(super) replaces: Option<usize>,
    /// Where a process has mapped it: another file that has its name by now is not meant.
    pub(super) mapping: Option<Mapping>,
}

/// A candidate that was read.
pub(super) struct Arrival {
    pub(super) candidate: Candidate,
    /// None: it cannot be traced.
    pub(super) taken: Result<Box<Taken>>,
}

/// A file, planned by itself.
pub(super) struct Taken {
    pub(super) file: TracedFile,
    /// Libraries that unwind for it. The plan's files go on with them.
    pub(super) libraries: Vec<TracedFile>,
    pub(super) plan: Plan,
}

/// How files are read and planned.
pub(super) struct Planning {
    pub(super) patterns: Vec<Pattern>,
    pub(super) options: plan::Options,
    /// Servers for debug files, and whether nothing is said of them.
    pub(super) debuginfod: Option<(String, bool)>,
    /// Processes may start that run it.
    pub(super) starts: bool,
}

enum Job {
    Read(Candidate, Vec<GoProgram>),
    /// What these processes have mapped.
    Look(Vec<u32>),
    /// Whether anybody runs a file (its position in the plan) that was deleted: its inode and its name.
    Census(usize, u64, OsString),
}

enum Done {
    Read(Box<Arrival>),
    Looked(Vec<(u32, Mapping)>),
    /// A file that nobody is seen to run, and who cannot be looked at.
    Unused(Option<(usize, Vec<u32>)>),
}

/// What has the place of a traced file by now.
struct Successor {
    identity: Identity,
    since: Instant,
    is_queued: bool,
    error: Option<String>,
}

/// Finds the files.
pub(super) struct Arrivals {
    /// Libraries by name: any file of that name which a traced process loads is meant.
    names: Vec<String>,
    /// Paths of traced files as processes see them: what a traced process loads from there is meant.
    paths: FxHashSet<PathBuf>,
    /// Mappings looked at, by inode and path.
    seen: FxHashSet<(u64, PathBuf)>,
    /// Of these, what cannot be traced.
    refused: FxHashMap<(u64, PathBuf), Identity>,
    /// Of which it is to be found out whether the process is traced.
    mappings: Vec<(u32, Mapping)>,
    is_to_look: bool,
    /// Files that nobody is seen to run any more, and who cannot be looked at.
    unused: Vec<(usize, Vec<u32>)>,
    successors: FxHashMap<usize, Successor>,
    queue: VecDeque<Candidate>,
    /// The Go programs that the one being read was given are the plan's: only one is read at a time.
    is_reading: bool,
    planning: Option<Planning>,
    worker: Option<(Sender<Job>, Receiver<Done>)>,
}

impl Arrivals {
    /// `names`: libraries by name, of which any that a traced process loads is meant.
    pub(super) fn new(names: Vec<String>, planning: Planning) -> Self {
        Self {
            names,
            paths: FxHashSet::default(),
            seen: FxHashSet::default(),
            refused: FxHashMap::default(),
            mappings: Vec::new(),
            is_to_look: false,
            unused: Vec::new(),
            successors: FxHashMap::default(),
            queue: VecDeque::new(),
            is_reading: false,
            planning: Some(planning),
            worker: None,
        }
    }

    /// A file is traced.
    pub(super) fn know(&mut self, file: &TracedFile) {
        let path = match file.through {
            Some(_) => PathBuf::from(&file.shown),
            None => file.path.canonicalize().unwrap_or_else(|_| file.path.clone()),
        };
        self.seen.extend(file.inodes().map(|inode| (inode, path.clone())));
        self.paths.insert(path);
    }

    /// It is to be traced, if it can be and is not yet.
    pub(super) fn consider(&mut self, candidate: Candidate) {
        self.queue.push_back(candidate);
    }

    /// Another file is at a traced file's path: it is considered when it is complete. Why it cannot be traced, once.
    pub(super) fn look_at_successor(&mut self, number: usize, of: &TracedFile) -> Option<String> {
        let identity = identity(&of.path)?;
        let new = || Successor { identity, since: Instant::now(), is_queued: false, error: None };
        let successor = self.successors.entry(number).or_insert_with(new);
        if successor.identity != identity {
            *successor = new();
        }
        let is_old = |since: SystemTime| since.elapsed().is_ok_and(|age| age >= SETTLED);
        let settled = successor.since.elapsed() >= SETTLED || identity.modified.is_some_and(is_old);
        if settled && !successor.is_queued {
            successor.is_queued = true;
            self.consider(Candidate {
                path: of.path.clone(),
                shown: of.shown.clone(),
                through: of.through,
                cause: Cause::Replaced,
                replaces: Some(number),
                mapping: None,
            });
        }
        let successor = self.successors.get_mut(&number)?;
        if successor.since.elapsed() >= GIVEN_UP { successor.error.take() } else { None }
    }

    /// Why what has a file's place cannot be traced: said when it stays so.
    pub(super) fn is_no_successor(&mut self, number: usize, error: String) {
        if let Some(successor) = self.successors.get_mut(&number) {
            successor.error = Some(error);
        }
    }

    /// A process has mapped code.
    pub(super) fn mapped(&mut self, pid: u32, mapping: &Mapping) {
        let is_new = |key| !self.seen.contains(&key) || self.refused.contains_key(&key);
        if self.wanted(mapping).is_some_and(|(path, _)| is_new((mapping.inode, path))) {
            self.mappings.push((pid, mapping.clone()));
        }
    }

    /// What a traced process has mapped is considered.
    fn consider_mapped(&mut self, pid: u32, mapping: Mapping, targets: &Attachment) {
        let Some((path, cause)) = self.wanted(&mapping) else { return };
        let (here, key) = (target::in_root_of(pid, &path), (mapping.inode, path));
        let is_another =
            self.refused.get(&key).is_some_and(|refused| identity(&here).is_some_and(|now| now != *refused));
        if self.seen.contains(&key) && !is_another || !targets.has_target(pid) {
            return;
        }
        self.refused.remove(&key);
        if self.seen.len() >= MAX_SEEN {
            self.seen.clear();
            self.refused.clear();
        }
        let path = key.1.clone();
        self.seen.insert(key);
        self.consider(Candidate {
            path: here,
            shown: path.display().to_string(),
            through: Some(pid),
            cause,
            replaces: None,
            mapping: Some(mapping),
        });
    }

    /// The path of a mapped file that is meant, and why it is.
    fn wanted(&self, mapping: &Mapping) -> Option<(PathBuf, Cause)> {
        if mapping.inode == 0 || !mapping.path.is_absolute() {
            return None;
        }
        let path = target::undeleted(&mapping.path);
        if self.paths.contains(path) {
            return Some((path.to_owned(), Cause::Replaced));
        }
        let file = path.file_name()?.to_string_lossy();
        let is_named = self.names.iter().any(|name| target::is_library_named(&file, name));
        is_named.then(|| (path.to_owned(), Cause::Loaded))
    }

    /// A file is gone: its inode may come to be another's.
    pub(super) fn forget(&mut self, inode: u64) {
        self.seen.retain(|(seen, _)| *seen != inode);
        self.refused.retain(|(refused, _), _| *refused != inode);
    }

    /// What a process has mapped cannot be traced. It is not read again, unless another file comes to have its inode: nobody
    /// holds it open here.
    pub(super) fn is_refused(&mut self, candidate: &Candidate) {
        let Some(mapping) = &candidate.mapping else { return };
        if let Some(identity) = identity(&candidate.path) {
            self.refused.insert((mapping.inode, PathBuf::from(&candidate.shown)), identity);
        }
    }

    /// It is to be found out whether anybody runs a file that has no name any more.
    pub(super) fn count_users(&mut self, number: usize, file: &TracedFile) {
        let name = Path::new(&file.shown).file_name().unwrap_or_default().to_owned();
        self.send(Job::Census(number, file.identity.inode, name));
    }

    /// Files of [`Self::count_users`] that nobody is seen to run, and the processes that cannot be looked at.
    pub(super) fn take_unused(&mut self) -> Vec<(usize, Vec<u32>)> {
        std::mem::take(&mut self.unused)
    }

    /// Not all that was mapped is known: what the traced processes have is to be looked at.
    pub(super) fn look_anew(&mut self) {
        self.is_to_look = !self.names.is_empty() || !self.paths.is_empty();
    }

    /// What was read since. `go_programs` are the plan's.
    pub(super) fn next(&mut self, go_programs: &[GoProgram], targets: &Attachment) -> Option<Arrival> {
        if std::mem::take(&mut self.is_to_look) {
            self.send(Job::Look(targets.targets()));
        }
        for (pid, mapping) in std::mem::take(&mut self.mappings) {
            self.consider_mapped(pid, mapping, targets);
        }
        while let Some((_, results)) = &self.worker {
            let done = match results.try_recv() {
                Ok(done) => done,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => {
                    self.worker = None;
                    talk::say("WARNING: what reads new files has failed: files that come from now on are not traced");
                    break;
                }
            };
            match done {
                Done::Looked(found) => {
                    found.into_iter().for_each(|(pid, mapping)| self.consider_mapped(pid, mapping, targets));
                }
                Done::Unused(file) => self.unused.extend(file),
                Done::Read(arrival) => {
                    self.is_reading = false;
                    return Some(*arrival);
                }
            }
        }
        if !self.is_reading
            && let Some(candidate) = self.queue.pop_front()
        {
            self.is_reading = true;
            self.send(Job::Read(candidate, go_programs.to_vec()));
        }
        None
    }

    fn send(&mut self, job: Job) {
        if let Some(planning) = self.planning.take() {
            let ((jobs, to_do), (done, results)) = (mpsc::channel(), mpsc::channel());
            let work = move || {
                if let Err(error) = rights::keep_what_reading_needs(planning.debuginfod.is_some()) {
                    talk::say(format_args!("failed to give up capabilities: {error}"));
                    return;
                }
                while let Ok(job) = to_do.recv() {
                    if done.send(planning.work(job)).is_err() {
                        return;
                    }
                }
            };
            match thread::Builder::new().name("arrivals".to_owned()).spawn(work) {
                Ok(_) => self.worker = Some((jobs, results)),
                Err(error) => talk::say(format_args!(
                    "WARNING: failed to start a thread: {error}: files that come from now on are not traced"
                )),
            }
        }
        if let Some((jobs, _)) = &self.worker {
            // That it has ended is seen, and said, when its results are looked at.
            let _ = jobs.send(job);
        }
    }
}

impl Planning {
    fn work(&self, job: Job) -> Done {
        match job {
            Job::Read(candidate, go_programs) => {
                let taken = self.read(&candidate, go_programs).map(Box::new);
                Done::Read(Box::new(Arrival { candidate, taken }))
            }
            Job::Census(file, inode, name) => {
                Done::Unused(processes::unseen_users(inode, &name).map(|unseen| (file, unseen)))
            }
            Job::Look(pids) => {
                let mapped = |pid: u32| processes::mappings_of(pid).into_iter().map(move |mapping| (pid, mapping));
                Done::Looked(pids.into_iter().flat_map(mapped).collect())
            }
        }
    }

    fn read(&self, candidate: &Candidate, go_programs: Vec<GoProgram>) -> Result<Taken> {
        let shown = &candidate.shown;
        let debuginfod = self.debuginfod.as_ref().map(|(given, quiet)| Debuginfod::new(given, *quiet)).transpose()?;
        let (place, through) = place(candidate)?;
        let mut file = TracedFile::fetching(&place, shown, debuginfod.as_ref())?;
        file.through = through;
        if place != candidate.path && through.is_some() {
            // The link of a mapping lasts as long as the mapping.
            file.path.clone_from(&candidate.path);
        }
        super::of_this_machine(std::slice::from_ref(&file))?;
        let mut plan = plan::plan_alone(&file, &self.patterns, self.options, go_programs);
        let mut libraries = Vec::new();
        if self.options.returns != Returns::None && !plan.functions.is_empty() {
            let running: Vec<u32> = through.iter().copied().collect();
            let found = unwinders::find(std::slice::from_ref(&file), &running, self.starts);
            plan.watch_unwinders(std::slice::from_ref(&file), &found.files);
            plan.were_not_found(&found.missing);
            libraries = found.files;
        }
        // Written to, or cut off, while it was read.
        if file.is_overwritten() {
            bail!("failed to read {shown}: it was changed meanwhile");
        }
        Ok(Taken { file, libraries, plan })
    }
}

fn identity(path: &Path) -> Option<Identity> {
    target::debugfiles::metadata(path).ok().map(|metadata| Identity::of(&metadata))
}

/// Where a candidate can be opened, and through which process: at its path, or as what the process has mapped, whatever has
/// its name by now; and by its name here, when the process is gone.
fn place(candidate: &Candidate) -> Result<(PathBuf, Option<u32>)> {
    let (Some(mapping), Some(pid)) = (&candidate.mapping, candidate.through) else {
        return Ok((candidate.path.clone(), candidate.through));
    };
    let by_address = target::proc::of(pid).join(format!("map_files/{:x}-{:x}", mapping.start, mapping.end));
    let is_it = |(path, _): &(PathBuf, Option<u32>)| target::has_inode(path, mapping.inode);
    let through =
        [(candidate.path.clone(), Some(pid)), (by_address, Some(pid)), (PathBuf::from(&candidate.shown), None)];
    through
        .into_iter()
        .find(is_it)
        .with_context(|| format!("failed to open {}, which process {pid} has loaded: it is gone", candidate.shown))
}
