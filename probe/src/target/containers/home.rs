//! Where a process lives, for its header: which container, and what number it has there.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use rustc_hash::{FxHashMap, FxHashSet};

use super::{
    cgroups,
    runtimes::{self, Known, short},
};
use crate::{calls::Home, target::proc};

/// How often runtimes are asked at most what new containers are called.
const ASKED: Duration = Duration::from_secs(1);

/// Names of containers, learned as processes of them are seen.
#[derive(Debug, Default)]
pub struct Homes {
    names: FxHashMap<String, Rc<str>>,
    /// IDs that were asked for, and nobody has a name for.
    unnamed: FxHashSet<String>,
    /// Of runtimes that name containers as they please.
    by_directory: Vec<Known>,
    asked: Option<Instant>,
    listed: Option<Instant>,
}

impl Homes {
    /// Where a process lives; none when it has ended. Reads two files of `/proc`.
    pub fn of(&mut self, pid: u32) -> Option<Home> {
        let places = cgroups::of(pid);
        if places.is_empty() {
            return None;
        }
        let numbers = proc::numbers(pid);
        let inner_pid = numbers.last().copied().filter(|inner| *inner != pid && numbers.len() > 1);
        Some(Home { container: self.container(&places), inner_pid })
    }

    fn container(&mut self, places: &[cgroups::Place]) -> Option<Rc<str>> {
        if let Some(id) = places.iter().find_map(|place| cgroups::container_id(&place.path)) {
            // One that is not known yet may have come since the last time.
            if !self.names.contains_key(id) && (self.unnamed.insert(id.to_owned()) || is_due(&mut self.asked)) {
                self.ask();
            }
            return Some(self.names.get(id).cloned().unwrap_or_else(|| short(id).into()));
        }
        if places.iter().all(|place| place.path == "/") || self.freely_named().is_empty() {
            return None;
        }
        let mounts = cgroups::mounts();
        let is_its = |known: &Known| {
            places.iter().any(|place| cgroups::up_to_one_of(&place.path, &known.cgroups, &mounts).is_some())
        };
        self.freely_named().iter().find(|known| is_its(known)).map(|known| known.shown().into())
    }

    fn freely_named(&mut self) -> &[Known] {
        if is_due(&mut self.listed) {
            self.by_directory = runtimes::named_freely();
        }
        &self.by_directory
    }

    fn ask(&mut self) {
        self.names = runtimes::all().iter().map(|known| (known.id.clone(), known.shown().into())).collect();
        self.unnamed.retain(|id| !self.names.contains_key(id));
    }
}

fn is_due(last: &mut Option<Instant>) -> bool {
    let now = Instant::now();
    let due = last.is_none_or(|last| now - last >= ASKED);
    if due {
        *last = Some(now);
    }
    due
}
