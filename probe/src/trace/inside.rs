//! A trace of containers: whom the request means, and what is done when a container ends and comes back.

use std::time::{Duration, Instant};

use anyhow::Result;

use crate::{
    attach::{Attachment, Groups},
    output::{escape::escaped, talk},
    request::{TargetRequest, Trace},
    target::{
        TracedFile,
        containers::{Change, Container, Selected, files},
    },
};

/// How often it is looked whether a container is still there; while none is, finding it takes a look at all processes.
const LOOK: Duration = Duration::from_millis(100);
const LOOK_ABSENT: Duration = Duration::from_millis(250);
/// How often a pod is looked at for containers that it did not have.
const LOOK_THOROUGH: Duration = Duration::from_millis(500);

/// What stands in a container's way for so long is said.
const SETTLED: Duration = Duration::from_secs(1);
/// How long a container that starts may take to have its files.
const FOLLOWED: Duration = Duration::from_secs(10);

/// The containers of a trace.
pub(super) struct Inside {
    selected: Selected,
    looked: Instant,
    looked_thoroughly: Instant,
    /// What ended and did not come back.
    absent: Vec<Container>,
    /// What ended, and what came back in its place: files of the one are to be found in the other, as soon as it has them.
    returned: Vec<(Container, Container, Instant)>,
    /// Why not all is traced that is there, since when, and whether that was said.
    obstacle: Option<(String, Instant, bool)>,
    /// Processes were named: the trace is of them, and ends with them.
    is_of_processes: bool,
}

impl Inside {
    /// Finds what is meant, and says by their numbers on the machine which processes are.
    ///
    /// # Errors
    /// There is nothing of that name, or no such process in it.
    pub(super) fn find(request: &Trace) -> Result<Option<(Self, Trace)>> {
        let Some(within) = &request.target.within else { return Ok(None) };
        let selected = Selected::find(within)?;
        selected.obstacle().filter(|_| !request.quiet).iter().for_each(talk::say);
        let mut request = request.clone();
        let is_of_processes = !request.target.pids.is_empty();
        if is_of_processes {
            let (pids, said) = selected.pids(&request.target.pids)?;
            said.iter().filter(|_| !request.quiet).for_each(talk::say);
            request.target = TargetRequest { pids, ..request.target };
        }
        let now = Instant::now();
        Ok(Some((
            Self {
                selected,
                looked: now,
                looked_thoroughly: now,
                absent: Vec::new(),
                returned: Vec::new(),
                obstacle: None,
                is_of_processes,
            },
            request,
        )))
    }

    pub(super) fn selected(&self) -> &Selected {
        &self.selected
    }

    /// What the kernel half is to tell processes by.
    pub(super) fn groups(&self) -> Groups {
        let numbers = self.selected.containers().iter().map(|container| container.number).collect();
        Groups { kind: self.selected.kind().clone(), numbers, selected: Some(self.selected.clone()) }
    }

    /// The containers that there are, by their numbers in the kernel half.
    pub(super) fn names(&self) -> impl Iterator<Item = (u64, &str)> {
        let containers = self.selected.containers().iter().filter(|container| container.init.is_some());
        containers.map(|container| (container.number, container.shown.as_str()))
    }

    /// Looks whether containers ended or came, tells the kernel half, and says it. Whether any did.
    pub(super) fn look(&mut self, attachment: &mut Attachment, files: &mut [TracedFile]) -> bool {
        let now = Instant::now();
        let due = if self.selected.containers().is_empty() { LOOK_ABSENT } else { LOOK };
        if self.is_of_processes || now - self.looked < due {
            return false;
        }
        self.looked = now;
        let thorough = now - self.looked_thoroughly >= LOOK_THOROUGH;
        if thorough {
            self.looked_thoroughly = now;
        }
        let change = self.selected.look(thorough);
        self.say_obstacle(now);
        let has_changed = change.is_some();
        if let Some(change) = change {
            self.changed(change, attachment, now);
        }
        self.returned.retain(|(old, new, since)| {
            let mut followed = true;
            for file in files.iter_mut() {
                followed &= files::follow(file, old, new);
            }
            if !followed && now - *since >= FOLLOWED {
                let shown = escaped(&new.shown);
                talk::say(format_args!(
                    "container {shown} has none of the traced files: new builds of them are not traced there"
                ));
                return false;
            }
            !followed
        });
        has_changed
    }

    /// Says why what is there is not traced, once it stays so: a container that starts is not whole at first.
    fn say_obstacle(&mut self, now: Instant) {
        match (self.selected.obstacle(), &mut self.obstacle) {
            (None, known) => *known = None,
            (Some(why), Some((known, since, is_said))) if known == why => {
                if !*is_said && now - *since >= SETTLED {
                    *is_said = true;
                    talk::say(why);
                }
            }
            (Some(why), known) => *known = Some((why.to_owned(), now, false)),
        }
    }

    fn changed(&mut self, Change { gone, new }: Change, attachment: &mut Attachment, now: Instant) {
        let numbers =
            |containers: &[Container]| containers.iter().map(|container| container.number).collect::<Vec<_>>();
        if let Err(error) = attachment.change_groups(&numbers(&gone), &numbers(&new), &self.selected) {
            talk::say_error(&error);
        }
        for container in &new {
            let shown = self.shown(container);
            let replaces = |old: &&Container| old.shown == container.shown;
            if let Some(old) = gone.iter().find(replaces) {
                self.returned.push((old.clone(), container.clone(), now));
                talk::say(format_args!("{shown} restarted: it is still traced{}", at(container)));
            } else if let Some(position) = self.absent.iter().position(|old| old.shown == container.shown) {
                let old = self.absent.swap_remove(position);
                self.returned.push((old, container.clone(), now));
                talk::say(format_args!("{shown} is back: it is traced again{}", at(container)));
            } else {
                talk::say(format_args!("{shown} started: it is traced too{}", at(container)));
            }
        }
        for container in gone {
            if !new.iter().any(|new| new.shown == container.shown) {
                talk::say(format_args!("{} is gone: it is traced again when it comes back", self.shown(&container)));
                self.absent.push(container);
            }
        }
    }

    fn shown(&self, container: &Container) -> String {
        let what = if container.init.is_some() { "container" } else { "cgroup" };
        format!("{what} {}", escaped(&container.shown))
    }
}

fn at(container: &Container) -> String {
    container.init.map(|pid| format!(" (its first process is {pid})")).unwrap_or_default()
}
