//! Processes: what is mapped where, and their names, at the time of each event.
//!
//! Fed by the kernel's records of mmap, fork, exec and exit, applied in the order of time up to each event, so that
//! a process that lived five milliseconds ago is as well known as one that runs. `/proc` only seeds processes that
//! ran before the records began.

use std::{
    collections::{BTreeMap, VecDeque},
    ffi::OsStr,
    fs, io,
    path::{Path, PathBuf},
    rc::Rc,
};

use rustc_hash::FxHashMap;

use super::{containers::home::Homes, jitdump, proc};
use crate::calls::Home;

/// Executable memory that belongs to a file (or to none).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// First address.
    pub start: u64,
    /// First address behind it.
    pub end: u64,
    /// Offset in the file of [`Self::start`], bytes.
    pub offset: u64,
    /// Device and inode; 0 where there is none.
    pub inode: u64,
    /// The file's path in the process's own root; `[vdso]` and the like as the kernel names it.
    pub path: PathBuf,
}

/// What the kernel recorded of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Executable memory was mapped.
    Map(Mapping),
    /// It has a new name; after an exec, new memory too.
    Name {
        /// The name.
        comm: String,
        /// It executed another program.
        exec: bool,
    },
    /// It was forked off another process.
    Fork {
        /// Which one.
        parent: u32,
    },
    /// It ended.
    Exit,
}

/// A [`Change`], where and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// `CLOCK_MONOTONIC`, ns.
    pub time_ns: u64,
    /// Which process.
    pub pid: u32,
    /// What.
    pub change: Change,
}

#[derive(Clone, Default)]
struct Process {
    comm: Option<Rc<str>>,
    /// Where it lives, once that was asked.
    home: Option<Rc<Home>>,
    /// Where the process that forked it lives, as far as known.
    born_in: Option<Rc<str>>,
    /// The number that the kernel half says it has in its own PID namespace.
    number_inside: Option<u32>,
    /// The container in which the kernel half says it is.
    inside: Option<Rc<str>>,
    /// By start address.
    mappings: Rc<BTreeMap<u64, Mapping>>,
    /// That of the dump in which it tells of code made at run time.
    jitdump: Option<Rc<Mapping>>,
    /// `/proc/PID/maps` was read, or need not be.
    seeded: bool,
    /// Its first thread ended; others may live on.
    ended: bool,
}

impl Process {
    fn note_dump(&mut self, mapping: &Mapping) {
        if mapping.inode != 0 && jitdump::is_its_name(&mapping.path) {
            self.jitdump = Some(Rc::new(mapping.clone()));
        }
    }
}

/// An ended process is kept for so long: its last events may still be in the ring buffer.
const KEEP_ENDED_NS: u64 = 10_000_000_000;

/// All processes that events came from, and may come from.
#[derive(Default)]
pub struct Processes {
    by_pid: FxHashMap<u32, Process>,
    pending: VecDeque<Recorded>,
    /// Grows with every applied change of a process's memory: cached answers for it are void.
    generations: FxHashMap<u32, u32>,
    /// Ended processes, and when.
    ended: VecDeque<(u64, u32)>,
    unknown: Option<Rc<str>>,
    /// The answer for the process that was last asked for, until something becomes known of any: one that calls calls again.
    last: Option<(u32, Rc<str>, Rc<Home>)>,
    /// How often something became known.
    changes: u64,
    homes: Homes,
    /// The containers that were traced so far, by the lower halves of their numbers in the kernel half.
    containers: FxHashMap<u32, Rc<str>>,
}

impl Processes {
    /// Takes in records, in the order of time. They are applied by [`Self::advance`]. Some may be older than others that were taken in
    /// before: while one CPU's are read, others' are written.
    pub fn record(&mut self, records: impl IntoIterator<Item = Recorded>) {
        let (known, latest_ns) = (self.pending.len(), self.pending.back().map_or(0, |latest| latest.time_ns));
        self.pending.extend(records);
        if self.pending.get(known).is_some_and(|first| first.time_ns < latest_ns) {
            // Two runs that are in order each, which this merges.
            self.pending.make_contiguous().sort_by_key(|recorded| recorded.time_ns);
        }
    }

    /// Applies what was recorded up to a time (`CLOCK_MONOTONIC`, ns).
    #[inline]
    pub fn advance(&mut self, time_ns: u64) {
        if !self.pending.is_empty() || !self.ended.is_empty() {
            self.apply_until(time_ns);
        }
    }

    fn apply_until(&mut self, time_ns: u64) {
        while self.pending.front().is_some_and(|first| first.time_ns <= time_ns) {
            if let Some(recorded) = self.pending.pop_front() {
                self.apply(recorded);
            }
        }
        self.forget(time_ns);
    }

    /// Lets go of processes that ended long ago, unless threads of theirs live on.
    fn forget(&mut self, time_ns: u64) {
        while let Some(&(ended, pid)) = self.ended.front()
            && ended.saturating_add(KEEP_ENDED_NS) < time_ns
        {
            self.ended.pop_front();
            if !self.by_pid.get(&pid).is_some_and(|process| process.ended) {
                continue;
            }
            if fs::exists(proc::of(pid).join("task")).unwrap_or(false) {
                self.ended.push_back((time_ns, pid));
            } else {
                self.changed();
                self.by_pid.remove(&pid);
                self.generations.remove(&pid);
            }
        }
    }

    fn apply(&mut self, recorded: Recorded) {
        let pid = recorded.pid;
        self.changed();
        match recorded.change {
            Change::Map(mapping) => {
                let process = self.by_pid.entry(pid).or_default();
                process.note_dump(&mapping);
                // Rc::make_mut copies only while a forked child still shares the parent's table.
                insert(Rc::make_mut(&mut process.mappings), mapping);
                *self.generations.entry(pid).or_default() += 1;
            }
            Change::Name { comm, exec } => {
                let process = self.by_pid.entry(pid).or_default();
                process.comm = Some(comm.into());
                if exec {
                    // A runtime's own process goes into the container before it executes what is to run there.
                    process.home = None;
                    process.mappings = Rc::default();
                    process.jitdump = None;
                    process.seeded = true;
                    process.ended = false;
                    *self.generations.entry(pid).or_default() += 1;
                }
            }
            Change::Fork { parent } => {
                // A child that ends soon has no /proc to be seeded from: its parent's serves.
                let parent_process = self.by_pid.entry(parent).or_default();
                seed(parent_process, parent);
                let born_in = parent_process.home.as_ref().and_then(|home| home.container.clone());
                let born_in =
                    born_in.or_else(|| parent_process.inside.clone()).or_else(|| parent_process.born_in.clone());
                let parent = parent_process.clone();
                let child = Process { ended: false, home: None, born_in, number_inside: None, inside: None, ..parent };
                self.by_pid.insert(pid, child);
                *self.generations.entry(pid).or_default() += 1;
            }
            Change::Exit => {
                if let Some(process) = self.by_pid.get_mut(&pid) {
                    process.ended = true;
                    self.ended.push_back((recorded.time_ns, pid));
                }
            }
        }
    }

    /// A number that stays the same as long as [`Self::who`]'s answers do; none where these may change at any time.
    pub fn changes(&self) -> Option<u64> {
        // What could not be found is asked for again.
        self.unknown.is_none().then_some(self.changes)
    }

    fn changed(&mut self) {
        self.last = None;
        self.changes += 1;
    }

    /// What a process is called, and where it lives.
    pub fn who(&mut self, pid: u32) -> (Rc<str>, Rc<Home>) {
        if let Some((last, comm, home)) = &self.last
            && *last == pid
        {
            return (comm.clone(), home.clone());
        }
        let (comm, home) = (self.comm(pid), self.home(pid));
        // What could not be found is asked for again.
        if self.by_pid.get(&pid).is_some_and(|process| process.comm.is_some()) {
            self.last = Some((pid, comm.clone(), home.clone()));
        }
        (comm, home)
    }

    /// A process's name.
    pub fn comm(&mut self, pid: u32) -> Rc<str> {
        if let Some(comm) = self.by_pid.get(&pid).and_then(|process| process.comm.as_ref()) {
            return comm.clone();
        }
        let process = self.by_pid.entry(pid).or_default();
        process.comm = super::comm_of(pid).map(Rc::from);
        match &process.comm {
            Some(comm) => comm.clone(),
            None => self.unknown.get_or_insert_with(|| "?".into()).clone(),
        }
    }

    /// What is traced lives in these containers: their numbers in the kernel half, and what they are called.
    pub fn live_in<'a>(&mut self, containers: impl IntoIterator<Item = (u64, &'a str)>) {
        self.changed();
        self.containers.extend(containers.into_iter().map(|(number, shown)| (number as u32, Rc::from(shown))));
    }

    /// A process has this number in its own PID namespace, and is in the container of which this is the lower half of its number:
    /// said when it executes a program, when it may end before it can be asked.
    pub fn is_inside(&mut self, pid: u32, number: u32, container: u32) {
        self.changed();
        let process = self.by_pid.entry(pid).or_default();
        process.number_inside = Some(number).filter(|&number| number != 0);
        process.inside = self.containers.get(&container).cloned();
    }

    /// The container in which all lives that is traced, if there is one.
    fn only_container(&self) -> Option<Rc<str>> {
        let mut names = self.containers.values();
        let first = names.next()?;
        names.all(|name| name == first).then(|| first.clone())
    }

    /// A process has ended, or executes another program, and no record tells: what is known of it is another's.
    pub fn is_another(&mut self, pid: u32) {
        self.changed();
        self.by_pid.remove(&pid);
        *self.generations.entry(pid).or_default() += 1;
    }

    /// Where a process lives. Of one that has ended before it could be asked, and executed nothing meanwhile, its number
    /// inside is not known.
    pub fn home(&mut self, pid: u32) -> Rc<Home> {
        if let Some(home) = self.by_pid.get(&pid).and_then(|process| process.home.clone()) {
            return home;
        }
        let only = self.only_container();
        let process = self.by_pid.entry(pid).or_default();
        let mut found = self.homes.of(pid).unwrap_or_default();
        if found.container.is_none() {
            let born_in = process.born_in.clone().filter(|_| proc::is_ending(pid));
            found.container = process.inside.clone().or(born_in).or(only);
        }
        // It may have ended while it was asked.
        found.inner_pid = found.inner_pid.or(process.number_inside).filter(|&inner| inner != pid);
        let home = Rc::new(found);
        process.home = Some(home.clone());
        home
    }

    /// Reads what a running process is called and has mapped. One that ends soon cannot be asked when its first event
    /// is read.
    pub fn know(&mut self, pid: u32) {
        self.comm(pid);
        self.home(pid);
        seed(self.by_pid.entry(pid).or_default(), pid);
    }

    /// The mapping an address is in. Reads `/proc/PID/maps` once, for a process that ran before the records began.
    pub fn mapping(&mut self, pid: u32, address: u64) -> Option<&Mapping> {
        let process = self.by_pid.entry(pid).or_default();
        seed(process, pid);
        let (_, mapping) = process.mappings.range(..=address).next_back()?;
        (address < mapping.end).then_some(mapping)
    }

    /// The mapping of the dump in which a process tells of code that it made at run time.
    pub fn jitdump(&mut self, pid: u32) -> Option<Rc<Mapping>> {
        let process = self.by_pid.entry(pid).or_default();
        seed(process, pid);
        process.jitdump.clone()
    }

    /// Whether a process was recorded to have mapped code of a file, by its inode or path.
    pub fn has_mapped(&self, pid: u32, inode: u64, path: &Path) -> bool {
        let is_it = |mapping: &Mapping| mapping.inode == inode || mapping.path == path;
        let mapped = self.by_pid.get(&pid).is_some_and(|process| process.mappings.values().any(is_it));
        let is_pending = |recorded: &Recorded| matches!(&recorded.change, Change::Map(mapping) if is_it(mapping));
        mapped || self.pending.iter().any(|recorded| recorded.pid == pid && is_pending(recorded))
    }

    /// Changes whenever the process's memory did.
    pub fn generation(&self, pid: u32) -> u32 {
        self.generations.get(&pid).copied().unwrap_or(0)
    }

    /// Reads `/proc/PID/maps` now, whatever is known: records were lost.
    pub fn reseed_all(&mut self) {
        for (&pid, process) in &mut self.by_pid {
            process.seeded = false;
            *self.generations.entry(pid).or_default() += 1;
        }
    }
}

/// Reads `/proc/PID/maps`, once. What was recorded since is newer than the file, which adds only what is missing.
fn seed(process: &mut Process, pid: u32) {
    if process.seeded {
        return;
    }
    process.seeded = true;
    let Ok(maps) = fs::read(proc::of(pid).join("maps")) else { return };
    let text = String::from_utf8_lossy(&maps);
    for mapping in text.lines().filter_map(parse_line) {
        process.note_dump(&mapping);
        let mappings = Rc::make_mut(&mut process.mappings);
        let overlaps = mappings.range(..mapping.end).next_back().is_some_and(|(_, m)| m.end > mapping.start);
        if !overlaps {
            mappings.insert(mapping.start, mapping);
        }
    }
}

/// The code that a process has mapped, now.
pub fn mappings_of(pid: u32) -> Vec<Mapping> {
    let maps = fs::read(proc::of(pid).join("maps")).unwrap_or_default();
    String::from_utf8_lossy(&maps).lines().filter_map(parse_line).collect()
}

/// Who may run a deleted file that nobody is seen to have mapped code of, by its inode or (some file systems tell another inode
/// there) its name: processes that cannot be looked at. None: somebody runs it, or not all processes can be seen.
pub fn unseen_users(inode: u64, name: &OsStr) -> Option<Vec<u32>> {
    let deleted = [name.as_encoded_bytes(), b" (deleted)"].concat();
    let is_it = |mapping: &Mapping| {
        let mapped = mapping.path.file_name().unwrap_or_default();
        mapping.inode == inode || mapped.as_encoded_bytes() == deleted
    };
    let mut unseen = Vec::new();
    let pids = super::all_pids();
    // proc(5): with `hidepid` others' processes are not even listed, the first one among them.
    if !pids.contains(&1) {
        return None;
    }
    for pid in pids {
        match fs::read(proc::of(pid).join("maps")) {
            Ok(maps) if String::from_utf8_lossy(&maps).lines().filter_map(parse_line).any(|m| is_it(&m)) => {
                return None;
            }
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(_) => unseen.push(pid),
        }
    }
    (proc::is_the_machines() == Some(true)).then_some(unseen)
}

/// Files of which a process has mapped code, now.
pub fn mapped_files(pid: u32) -> Vec<PathBuf> {
    let maps = fs::read(proc::of(pid).join("maps")).unwrap_or_default();
    let text = String::from_utf8_lossy(&maps);
    let of_files = text.lines().filter(|line| line.contains('/')).filter_map(parse_line);
    of_files.map(|mapping| mapping.path).filter(|path| path.is_absolute()).collect()
}

/// A new mapping takes the place of what it covers.
fn insert(mappings: &mut BTreeMap<u64, Mapping>, new: Mapping) {
    let covered: Vec<u64> =
        mappings.range(..new.end).rev().take_while(|(_, m)| m.end > new.start).map(|(&start, _)| start).collect();
    for start in covered {
        let Some(old) = mappings.remove(&start) else { continue };
        if old.end > new.end {
            let offset = old.offset.wrapping_add(new.end - old.start);
            mappings.insert(new.end, Mapping { start: new.end, offset, ..old.clone() });
        }
        if old.start < new.start {
            mappings.insert(old.start, Mapping { end: new.start, ..old });
        }
    }
    mappings.insert(new.start, new);
}

/// A line of `/proc/PID/maps` that is executable: `start-end perms offset dev inode   path`.
fn parse_line(line: &str) -> Option<Mapping> {
    // Of 60,000 lines most say nothing of code.
    if line.as_bytes().get(line.find(' ')? + 3) != Some(&b'x') {
        return None;
    }
    let mut rest = line;
    let mut field = || {
        let trimmed = rest.trim_start_matches(' ');
        let (field, after) = trimmed.split_once(' ').unwrap_or((trimmed, ""));
        rest = after;
        field
    };
    let (range, _permissions, offset, _device, inode) = (field(), field(), field(), field(), field());
    let (start, end) = range.split_once('-')?;
    Some(Mapping {
        start: u64::from_str_radix(start, 16).ok()?,
        end: u64::from_str_radix(end, 16).ok()?,
        offset: u64::from_str_radix(offset, 16).ok()?,
        inode: inode.parse().ok()?,
        path: rest.trim_start_matches(' ').into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(start: u64, end: u64, offset: u64, path: &str) -> Mapping {
        Mapping { start, end, offset, inode: 1, path: path.into() }
    }

    fn at(time_ns: u64, pid: u32, change: Change) -> Recorded {
        Recorded { time_ns, pid, change }
    }

    fn path_at(processes: &mut Processes, pid: u32, address: u64) -> Option<String> {
        processes.mapping(pid, address).map(|m| m.path.display().to_string())
    }

    /// No process has this id.
    const PID: u32 = u32::MAX - 7;

    #[test]
    fn an_exec_is_applied_only_to_events_after_it() {
        let mut processes = Processes::default();
        let exec = |comm: &str| Change::Name { comm: comm.into(), exec: true };
        processes.record([
            at(1, PID, exec("first")),
            at(2, PID, Change::Map(mapping(0x1000, 0x2000, 0, "/first"))),
            at(10, PID, exec("second")),
            at(11, PID, Change::Map(mapping(0x1000, 0x2000, 0, "/second"))),
            at(20, PID, Change::Exit),
        ]);
        processes.advance(9);
        assert_eq!(path_at(&mut processes, PID, 0x1fff).as_deref(), Some("/first"));
        assert_eq!(&*processes.comm(PID), "first");
        processes.advance(19);
        assert_eq!(path_at(&mut processes, PID, 0x1000).as_deref(), Some("/second"));
        assert_eq!(path_at(&mut processes, PID, 0x2000), None);
    }

    #[test]
    fn what_is_said_of_the_process_that_was_asked_for_last_ends_with_whatever_becomes_known() {
        let mut processes = Processes::default();
        let who = |processes: &mut Processes| {
            let (comm, home) = processes.who(PID);
            (comm.to_string(), home.container.as_deref().unwrap_or("none").to_owned(), home.inner_pid)
        };
        let said = |comm: &str, container: &str, inner| (comm.to_owned(), container.to_owned(), inner);
        assert_eq!(who(&mut processes), said("?", "none", None));
        processes.record([at(1, PID, Change::Name { comm: "runc".into(), exec: true })]);
        processes.advance(1);
        assert_eq!(who(&mut processes), said("runc", "none", None));
        processes.live_in([(7, "web")]);
        processes.is_inside(PID, 12, 7);
        processes.record([at(2, PID, Change::Name { comm: "nginx".into(), exec: true })]);
        assert_eq!(
            who(&mut processes),
            said("runc", "none", None),
            "its home was asked for already, and the exec is to come"
        );
        processes.advance(2);
        assert_eq!(who(&mut processes), said("nginx", "web", Some(12)));
        processes.is_another(PID);
        assert_eq!(who(&mut processes), said("?", "web", None));
    }

    /// While one CPU's records are read, others' are written.
    #[test]
    fn a_record_that_is_read_after_later_ones_of_another_cpu_is_applied_in_its_time() {
        let mut processes = Processes::default();
        let map = |at: u64| Change::Map(mapping(at, at + 0x1000, 0, "/lib"));
        processes.record([at(1, PID, Change::Name { comm: "p".into(), exec: true }), at(7, PID - 1, map(0x1000))]);
        processes.record([at(3, PID, map(0x2000)), at(9, PID, map(0x4000))]);
        processes.record([at(8, PID, map(0x3000))]);
        processes.advance(5);
        assert_eq!(path_at(&mut processes, PID, 0x2000).as_deref(), Some("/lib"));
        assert_eq!(path_at(&mut processes, PID, 0x3000), None);
        processes.advance(8);
        assert_eq!(path_at(&mut processes, PID, 0x3000).as_deref(), Some("/lib"));
        assert_eq!(path_at(&mut processes, PID, 0x4000), None);
    }

    #[test]
    fn a_forked_child_has_its_parents_memory_and_then_its_own() {
        let mut processes = Processes::default();
        let child = PID - 1;
        processes.record([
            at(1, PID, Change::Name { comm: "p".into(), exec: true }),
            at(2, PID, Change::Map(mapping(0x1000, 0x2000, 0, "/lib"))),
            at(3, child, Change::Fork { parent: PID }),
            at(4, child, Change::Map(mapping(0x5000, 0x6000, 0, "/dlopened"))),
        ]);
        processes.advance(5);
        assert_eq!(path_at(&mut processes, child, 0x1234).as_deref(), Some("/lib"));
        assert_eq!(path_at(&mut processes, child, 0x5000).as_deref(), Some("/dlopened"));
        assert_eq!(path_at(&mut processes, PID, 0x5000), None);
    }

    #[test]
    fn a_process_that_has_ended_lives_where_the_kernel_half_said_that_it_executed_its_program() {
        const NUMBER: u64 = (7 << 32) | 4_026_532_001;
        let mut processes = Processes::default();
        let lived = |processes: &mut Processes, pid| processes.home(pid).container.as_deref().map(str::to_owned);
        processes.live_in([(NUMBER, "web")]);
        assert_eq!(lived(&mut processes, PID).as_deref(), Some("web"), "all that is traced is there");
        processes.live_in([(NUMBER + 1, "db")]);
        let (told, child, untold) = (PID - 1, PID - 2, PID - 3);
        processes.is_inside(told, 12, (NUMBER + 1) as u32);
        processes.record([at(1, child, Change::Fork { parent: told })]);
        processes.advance(1);
        assert_eq!(lived(&mut processes, told).as_deref(), Some("db"));
        assert_eq!(lived(&mut processes, child).as_deref(), Some("db"));
        assert_eq!(processes.home(told).inner_pid, Some(12));
        assert_eq!(lived(&mut processes, untold), None, "it may be either");
    }

    #[test]
    fn a_process_that_has_ended_and_was_not_waited_for_lives_where_it_did() {
        let mut child = std::process::Command::new("true").spawn().expect("it can be started");
        let pid = child.id();
        while proc::state(pid) != Some('Z') {
            std::thread::yield_now();
        }
        let (mut alone, mut one_of_two, mut born) = (Processes::default(), Processes::default(), Processes::default());
        alone.live_in([(7, "web")]);
        one_of_two.live_in([(7, "web"), (8, "db")]);
        one_of_two.is_inside(pid, 12, 8);
        born.live_in([(7, "web"), (8, "db")]);
        born.is_inside(PID, 12, 7);
        born.record([at(1, pid, Change::Fork { parent: PID })]);
        born.advance(1);
        for (mut processes, container) in [(alone, "web"), (one_of_two, "db"), (born, "web")] {
            assert_eq!(processes.home(pid).container.as_deref(), Some(container));
        }
        child.wait().expect("it has ended");
    }

    #[test]
    fn a_mapping_over_the_middle_of_another_leaves_both_ends_at_their_offsets() {
        let mut map = BTreeMap::new();
        insert(&mut map, mapping(0x1000, 0x9000, 0x100, "/a"));
        insert(&mut map, mapping(0x3000, 0x4000, 0, "/b"));
        let all: Vec<_> = map.values().cloned().collect();
        assert_eq!(
            all,
            [
                mapping(0x1000, 0x3000, 0x100, "/a"),
                mapping(0x3000, 0x4000, 0, "/b"),
                mapping(0x4000, 0x9000, 0x3100, "/a")
            ]
        );
    }

    #[test]
    fn our_own_maps_agree_with_the_kernel_about_our_own_code() {
        let mut processes = Processes::default();
        let here = our_own_maps_agree_with_the_kernel_about_our_own_code as fn() as usize as u64;
        let own = std::env::current_exe().expect("our own path");
        assert_eq!(path_at(&mut processes, std::process::id(), here), Some(own.display().to_string()));
    }

    #[test]
    fn a_path_with_blanks_is_whole_and_data_is_left_out() {
        let line = "7f00-7f10 r-xp 00000abc 08:01 99                         /tmp/a b (deleted)";
        let expected =
            Mapping { start: 0x7f00, end: 0x7f10, offset: 0xabc, inode: 99, path: "/tmp/a b (deleted)".into() };
        assert_eq!(parse_line(line), Some(expected));
        assert_eq!(parse_line(&line.replace("r-xp", "rw-p")), None);
        assert_eq!(parse_line("garbage"), None);
    }
}
