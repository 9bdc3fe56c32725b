//! Containers, pods and control groups as targets: which processes are meant, and how the kernel half tells them.
//!
//! In: a name as a person knows it. Out: [`Selected`]: the containers with their first processes, and the numbers that
//! [`crate::attach`] filters by. A container that ends and comes back is found anew: [`Selected::look`].

mod cgroups;
pub mod files;
pub mod home;
mod runtimes;

use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, bail};

use self::{
    cgroups::Group,
    runtimes::{Known, short},
};
use super::{TracedFile, all_pids, has_left_its_path, proc};
use crate::output::escape::escaped;

/// Where the processes are that are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Within {
    /// A container, by its name or the beginning of its ID.
    Container(String),
    /// All containers of a pod.
    Pod(String),
    /// A control group, by its directory or as `/proc/PID/cgroup` names it.
    Cgroup(PathBuf),
}

impl Within {
    /// `container web`, escaped.
    pub fn shown(&self) -> String {
        match self {
            Self::Container(name) => format!("container {}", escaped(name)),
            Self::Pod(name) => format!("pod {}", escaped(name)),
            Self::Cgroup(path) => format!("cgroup {}", escaped(&path.display().to_string())),
        }
    }
}

/// What the kernel half tells processes by. It compares one number of the running process, or of what that is nested in,
/// with a set of numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The inode of its PID namespace.
    PidNamespace,
    /// The id of its cgroup in the second version's hierarchy.
    Cgroup2,
    /// The id of its cgroup in the first version's hierarchy of this controller.
    Cgroup1(String),
}

/// A container that runs, or a control group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Container {
    /// What to call it.
    pub shown: String,
    /// Its first process, as the machine numbers it; none of a control group.
    pub init: Option<u32>,
    /// Its number in the kernel half.
    pub number: u64,
    /// What the number is.
    pub kind: Kind,
    /// Tells a process that took the first one's number from it.
    started: Option<u64>,
    group: Option<Group>,
}

impl Container {
    /// Whether a process is in it.
    pub fn holds(&self, pid: u32) -> bool {
        match &self.group {
            Some(group) => group.holds(&cgroups::of(pid)),
            None => proc::pid_namespace(pid) == Some(self.number),
        }
    }

    /// Its processes, now, the first one first.
    pub fn processes(&self) -> Vec<u32> {
        let mut found: Vec<u32> = all_pids().into_iter().filter(|&pid| self.holds(pid)).collect();
        // Each is asked once: what ends meanwhile would compare otherwise the second time.
        found.sort_by_cached_key(|&pid| (Some(pid) != self.init, proc::start_time(pid), pid));
        found
    }

    /// The number that a process of the machine has in the container.
    fn inner_pid(&self, pid: u32) -> Option<u32> {
        let level = self.init.map_or(0, |init| proc::numbers(init).len().saturating_sub(1));
        proc::numbers(pid).get(level).copied()
    }

    /// A file that was found in it.
    fn having(&self, file: TracedFile) -> TracedFile {
        TracedFile { container: Some(self.number), ..file }
    }

    /// Whether its first process runs a program of the container. At first it runs the runtime's, a sealed copy of it that no
    /// path leads to: up to `runc start` of what was only created, and for a moment after `docker start` has returned.
    fn has_begun(&self) -> bool {
        self.init.is_none_or(|init| !(proc::runs_its_parents_program(init) && has_left_its_path(init)))
    }

    fn is_there(&self) -> bool {
        match (self.init, &self.group) {
            (Some(init), _) => proc::start_time(init).is_some_and(|started| Some(started) == self.started),
            (None, Some(group)) => group.is_there(),
            (None, None) => false,
        }
    }
}

/// What was selected, and what is there of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    within: Within,
    kind: Kind,
    containers: Vec<Container>,
    obstacle: Option<String>,
}

/// Nothing runs that is called so: it may come.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Absent(String);

/// How long a container that starts may take to execute its program.
const BEGUN: Duration = Duration::from_secs(3);

/// Why what is there cannot be traced; none where nothing is.
fn obstacle(error: &anyhow::Error) -> Option<String> {
    (!error.is::<Absent>()).then(|| format!("{error:#}"))
}

/// How what was selected changed.
#[derive(Debug)]
pub struct Change {
    /// No more there.
    pub gone: Vec<Container>,
    /// There, and not before.
    pub new: Vec<Container>,
}

impl Selected {
    /// Finds what is meant, and waits a moment for what is just being started.
    ///
    /// # Errors
    /// Nothing of that name runs, or several do.
    pub fn find(within: &Within) -> Result<Self> {
        if proc::is_the_machines() == Some(false) {
            bail!(
                "failed to find {}: {} shows the processes of one container only; mount the host's and give it with --proc \
                 (docker run --pid=host, or -v /proc:/host/proc:ro and --proc /host/proc)",
                within.shown(),
                proc::root().display()
            );
        }
        let (containers, obstacle) = found(within)?;
        let (first, rest) = containers.split_first().ok_or_else(|| anyhow!("no {}", within.shown()))?;
        if rest.iter().any(|other| other.kind != first.kind) {
            bail!(
                "failed to trace {}: its containers are told in different ways; name one with --container",
                within.shown()
            );
        }
        let asked = Instant::now();
        while !containers.iter().all(Container::has_begun) && asked.elapsed() < BEGUN {
            thread::sleep(Duration::from_millis(10));
        }
        Ok(Self { within: within.clone(), kind: first.kind.clone(), containers, obstacle })
    }

    /// What it was named.
    pub fn within(&self) -> &Within {
        &self.within
    }

    /// What is there now.
    pub fn containers(&self) -> &[Container] {
        &self.containers
    }

    /// Why not all that is called so is traced; none where it is, or nothing else is there.
    pub fn obstacle(&self) -> Option<&str> {
        self.obstacle.as_deref()
    }

    /// What the kernel half tells its processes by. It stays the same for the whole trace.
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    /// The number of the container that a process is in.
    pub fn number_of(&self, pid: u32) -> Option<u64> {
        self.containers.iter().find(|container| container.holds(pid)).map(|container| container.number)
    }

    /// Whether a process is in it.
    pub fn holds(&self, pid: u32) -> bool {
        self.containers.iter().any(|container| container.holds(pid))
    }

    /// Its processes, now, first ones first.
    pub fn processes(&self) -> Vec<u32> {
        self.containers.iter().flat_map(Container::processes).collect()
    }

    /// The machine's numbers of processes that are named as the container numbers them, or as the machine does; and what
    /// is to be said where that is not one and the same.
    ///
    /// # Errors
    /// No process in it has such a number.
    pub fn pids(&self, named: &[u32]) -> Result<(Vec<u32>, Vec<String>)> {
        let members: Vec<(u32, Option<u32>)> = self
            .containers
            .iter()
            .flat_map(|container| container.processes().into_iter().map(|pid| (pid, container.inner_pid(pid))))
            .collect();
        let mut said = Vec::new();
        let mut found = Vec::new();
        for &number in named {
            let inner: Vec<u32> =
                members.iter().filter(|(_, inner)| *inner == Some(number)).map(|(pid, _)| *pid).collect();
            let outer = members.iter().any(|(pid, _)| *pid == number);
            match inner.as_slice() {
                [] if outer => found.push(number),
                [] => bail!(
                    "no process {number} in {}: neither as it is numbered inside nor as the host numbers it",
                    self.within.shown()
                ),
                [one] => {
                    if outer && *one != number {
                        said.push(format!("-p {number} means the process that is {number} inside: {one} on the host"));
                    }
                    found.push(*one);
                }
                // Of a pod: one in each container.
                several => found.extend(several),
            }
        }
        Ok((found, said))
    }

    /// Looks whether all of it is still there, and what came in its place; with `thorough` also whether a pod has grown.
    /// None: nothing changed.
    pub fn look(&mut self, thorough: bool) -> Option<Change> {
        let may_grow = thorough && matches!(self.within, Within::Pod(_));
        if !self.containers.is_empty() && self.containers.iter().all(Container::is_there) && !may_grow {
            return None;
        }
        let mut now;
        (now, self.obstacle) = found(&self.within).unwrap_or_else(|error| (Vec::new(), obstacle(&error)));
        if let Some(other) = now.iter().find(|container| container.kind != self.kind) {
            self.obstacle =
                Some(format!("failed to trace container {}: it is told in another way", escaped(&other.shown)));
        }
        now.retain(|container| container.kind == self.kind);
        let was = |container: &Container, list: &[Container]| list.iter().any(|other| other.is(container));
        let (gone, stay): (Vec<_>, Vec<_>) = self.containers.drain(..).partition(|old| !was(old, &now));
        let new: Vec<Container> = now.into_iter().filter(|new| !was(new, &stay)).collect();
        self.containers = stay;
        self.containers.extend(new.iter().cloned());
        (!gone.is_empty() || !new.is_empty()).then_some(Change { gone, new })
    }
}

/// Our own process's number of a kind; none where that cannot be found out.
pub fn own_number(kind: &Kind) -> Option<u64> {
    match kind {
        Kind::PidNamespace => proc::pid_namespace(proc::own_pid()),
        _ => cgroups::own(kind),
    }
}

impl Container {
    /// The same one, not started anew.
    fn is(&self, other: &Self) -> bool {
        (self.number, self.init, self.started) == (other.number, other.init, other.started)
    }
}

/// What is called so and runs; and why not all of it is there.
fn found(within: &Within) -> Result<(Vec<Container>, Option<String>)> {
    match within {
        Within::Container(name) => container(name).map(|container| (vec![container], None)),
        Within::Pod(name) => pod(name),
        Within::Cgroup(path) => {
            let group = cgroups::named(path)?;
            let container = Container {
                shown: group.place.path.clone(),
                init: None,
                number: group.id,
                kind: group.kind.clone(),
                started: None,
                group: Some(group),
            };
            Ok((vec![container], None))
        }
    }
}

fn container(name: &str) -> Result<Container> {
    let known = runtimes::all();
    let called: Vec<&Known> = known.iter().filter(|known| known.is_called(name)).collect();
    // Of several that had the name in turn (a pod's container that was restarted) the one that runs is meant.
    let running: Vec<&Known> = called.iter().copied().filter(|known| known.pid.is_some_and(runs)).collect();
    match (running.as_slice(), called.as_slice()) {
        ([one], _) | ([], [one]) => return running_container(one),
        ([], []) => {}
        ([], several) | (several, _) => return Err(ambiguous(name, several.iter().map(|known| candidate(known)))),
    }
    let mut ids = ids_that_begin(name, &known);
    ids.dedup();
    match ids.as_slice() {
        [] => Err(nothing_called(name, &known)),
        [id] => {
            let known = known.iter().find(|known| known.id == *id).cloned();
            running_container(&known.unwrap_or(Known { id: id.clone(), ..Known::default() }))
        }
        several => {
            let shown = |id: &String| {
                known.iter().find(|known| known.id == *id).map_or_else(|| short(id).to_owned(), candidate)
            };
            Err(ambiguous(name, several.iter().map(shown)))
        }
    }
}

fn runs(pid: u32) -> bool {
    proc::start_time(pid).is_some()
}

/// Digits of an ID that a person must give at least.
const LEAST_DIGITS: usize = 4;

/// IDs of containers, known or running, that begin like this; sorted.
fn ids_that_begin(name: &str, known: &[Known]) -> Vec<String> {
    if name.len() < LEAST_DIGITS || !cgroups::is_hex(name) {
        return Vec::new();
    }
    let running = all_pids().into_iter().flat_map(|pid| {
        cgroups::of(pid)
            .iter()
            .filter_map(|place| cgroups::container_id(&place.path).map(str::to_owned))
            .collect::<Vec<_>>()
    });
    let mut ids: Vec<String> =
        known.iter().map(|known| known.id.clone()).chain(running).filter(|id| id.starts_with(name)).collect();
    ids.sort();
    ids.dedup();
    ids
}

fn candidate(known: &Known) -> String {
    let namespace = known.pod.as_ref().filter(|(_, namespace)| !namespace.is_empty());
    let namespace = namespace.map(|(_, namespace)| format!("{namespace}/")).unwrap_or_default();
    format!("{namespace}{} ({})", known.shown(), short(&known.id))
}

fn ambiguous(name: &str, candidates: impl Iterator<Item = String>) -> anyhow::Error {
    let candidates: Vec<String> = candidates.map(|candidate| escaped(&candidate)).collect();
    anyhow!("container {} may be any of {}: give more of the name or of the ID", escaped(name), candidates.join(", "))
}

/// Containers that an error names at most.
const MOST_NAMED: usize = 10;

fn nothing_called(name: &str, known: &[Known]) -> anyhow::Error {
    let here: Vec<String> = known
        .iter()
        .filter(|known| !known.is_sandbox && known.pid.is_some_and(runs))
        .take(MOST_NAMED)
        .map(|known| escaped(&candidate(known)))
        .collect();
    let hint = match here.as_slice() {
        [] => "no runtime's state was found that names any; give the ID (4 digits or more), a cgroup's path with --cgroup, or \
               a process with -p"
            .to_owned(),
        here => format!("here are {}", here.join(", ")),
    };
    Absent(format!("no container {}: {hint}", escaped(name))).into()
}

fn pod(name: &str) -> Result<(Vec<Container>, Option<String>)> {
    let known = runtimes::all();
    let inside: Vec<&Known> = known.iter().filter(|known| known.is_in_pod(name)).collect();
    let mut pods: Vec<(String, String)> = inside.iter().filter_map(|known| known.pod.clone()).collect();
    pods.sort();
    pods.dedup();
    match pods.as_slice() {
        [] => bail!(Absent(no_pod(name, &known))),
        [_] => {}
        several => {
            let several: Vec<String> = several.iter().map(shown_pod).collect();
            bail!("pod {} may be any of {}: give its namespace too", escaped(name), several.join(", "));
        }
    }
    let (mut containers, mut cannot_be_traced) = (Vec::new(), None);
    for known in inside.into_iter().filter(|known| !known.is_sandbox) {
        match running_container(known) {
            Ok(container) => containers.push(container),
            Err(error) => cannot_be_traced = cannot_be_traced.or_else(|| obstacle(&error)),
        }
    }
    match (containers.is_empty(), cannot_be_traced) {
        (true, None) => bail!(Absent(format!("no container of pod {} runs", escaped(name)))),
        (true, Some(error)) => bail!(error),
        (false, obstacle) => Ok((containers, obstacle)),
    }
}

/// As a person names it: with its namespace, where there are any.
fn shown_pod((pod, namespace): &(String, String)) -> String {
    escaped(&if namespace.is_empty() { pod.clone() } else { format!("{namespace}/{pod}") })
}

fn no_pod(name: &str, known: &[Known]) -> String {
    let mut pods: Vec<String> = known.iter().filter_map(|known| known.pod.as_ref().map(shown_pod)).collect();
    pods.sort();
    pods.dedup();
    pods.truncate(MOST_NAMED);
    let hint = if pods.is_empty() {
        "no runtime's state was found that names any".to_owned()
    } else {
        format!("here are {}", pods.join(", "))
    };
    format!("no pod {}: {hint}", escaped(name))
}

/// The container as it runs.
fn running_container(known: &Known) -> Result<Container> {
    let shown = escaped(&known.shown());
    let recorded = known.pid.filter(|&pid| runs(pid));
    let owns = |path: &str| cgroups::up_to_id(path, &known.id);
    let is_inside = |pid: &u32| cgroups::of(*pid).iter().any(|place| owns(&place.path).is_some());
    let init = match recorded {
        Some(pid) => pid,
        None => first_of(all_pids().into_iter().filter(is_inside).collect()).ok_or_else(|| does_not_run(&shown))?,
    };
    let started = proc::start_time(init);
    let places = cgroups::of(init);
    let mounts = cgroups::mounts();
    let named = |path: &str| owns(path).or_else(|| cgroups::up_to_one_of(path, &known.cgroups, &mounts));
    // What the runtime wrote down may be of a process that is no more, and its number another's.
    let is_anothers =
        |path: &str| cgroups::container_id(path).is_some_and(|id| id != known.id) && named(path).is_none();
    if places.iter().any(|place| is_anothers(&place.path)) {
        return Err(does_not_run(&shown));
    }
    let group = cgroups::group_of(&mounts, &places, named);
    let container =
        |kind, number, group| Container { shown: known.shown(), init: Some(init), number, kind, started, group };
    if let Some(group) = group {
        return Ok(container(group.kind.clone(), group.id, Some(group)));
    }
    // Without a group of its own, or where its directory cannot be seen from here: by its PID namespace, if its first process
    // is that namespace's first. Otherwise the namespace is another's too.
    let (Some(namespace), [_, .., 1]) = (proc::pid_namespace(init), proc::numbers(init).as_slice()) else {
        bail!("failed to trace container {shown}: it has neither a cgroup nor a PID namespace of its own; use -p PID");
    };
    if let Some(other) = lodger_in(namespace, &known.id) {
        bail!(
            "failed to trace container {shown}: container {} shares its PID namespace, and their cgroups, which would tell them \
             apart, cannot be seen from here; mount /sys/fs/cgroup, or use -p PID",
            short(&other)
        );
    }
    Ok(container(Kind::PidNamespace, namespace, None))
}

fn does_not_run(shown: &str) -> anyhow::Error {
    Absent(format!("container {shown} does not run: start it, then trace it")).into()
}

/// Another container of which a process is in a container's PID namespace.
fn lodger_in(namespace: u64, id: &str) -> Option<String> {
    all_pids().into_iter().filter(|&pid| proc::pid_namespace(pid) == Some(namespace)).find_map(|pid| {
        let places = cgroups::of(pid);
        places
            .iter()
            .filter_map(|place| cgroups::container_id(&place.path))
            .find(|other| *other != id)
            .map(str::to_owned)
    })
}

/// The first process: the one that is 1 inside, else the oldest.
fn first_of(pids: Vec<u32>) -> Option<u32> {
    pids.into_iter().min_by_key(|&pid| {
        let numbers = proc::numbers(pid);
        (!(numbers.len() > 1 && numbers.last() == Some(&1)), proc::start_time(pid), pid)
    })
}
