//! Files that come and go while the trace runs: what is at their paths, and taking in those that come.

use std::{
    collections::BTreeSet,
    io,
    os::unix::fs::MetadataExt as _,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::{Ended, Session};
use crate::{
    attach::monotonic_ns,
    calls::{Cause, NewFile, Skipped},
    output::{escape::escaped, talk},
    plan::{NO_FUNCTION, Plan, PlannedFunction},
    target::{self, Change, TracedFile, containers::files::is_same},
    trace::{
        arrivals::{Arrival, Candidate, Taken},
        not_probed,
    },
};

/// Where no events come that they belong to, records of mappings are applied up to so long ago.
const BEHIND_NS: u64 = 100_000_000;

/// How often processes are looked at, where the kernel does not record for us what they do.
const LOOK_AROUND: Duration = Duration::from_secs(1);

/// How often it is looked whether anybody still runs a file that has no name any more.
const CENSUS: Duration = Duration::from_secs(5);

/// What became of a file.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct FileState {
    /// The change that was said.
    said: Option<Change>,
    /// Another file has its path for good: what happens there is no matter of this one.
    is_superseded: bool,
    /// Its probes were removed.
    is_gone: bool,
    /// It came while the trace ran.
    has_come: bool,
    /// When it was last looked for who runs it.
    counted: Option<Instant>,
}

impl FileState {
    /// At the start of the trace.
    pub(super) fn of(file: &TracedFile) -> Self {
        Self { is_superseded: file.is_covered, ..Self::default() }
    }

    /// Whether its probes are there, and it is not what was read any more.
    pub(super) fn is_spoilt(self, file: &TracedFile) -> bool {
        !self.is_gone && file.is_overwritten()
    }
}

impl Session<'_> {
    /// A file is traced, or watched.
    pub(super) fn know_file(&mut self, number: usize) {
        let Some(file) = self.files.get(number).filter(|_| !self.plan.only_unwinds(number)) else { return };
        for inode in file.inodes() {
            self.world.modules.know(inode, Path::new(&file.shown), &file.index);
        }
        self.arrivals.know(file);
    }

    /// Looks at the files' paths, and takes in what has come. `is_idle`: no event waits.
    pub(super) fn watch_files(&mut self, is_idle: bool) -> io::Result<Option<Ended>> {
        if is_idle {
            let before = self.read_mapped();
            self.world.processes.advance(before.saturating_sub(BEHIND_NS));
        }
        self.look_around();
        for pid in std::mem::take(&mut self.renamed) {
            self.no_room_for += u64::from(!self.attachment.renamed(pid));
        }
        self.look_at_paths();
        self.let_go_of_unused();
        if let Some(arrival) = self.arrivals.next(&self.plan.go_programs, &self.attachment) {
            self.take_in(arrival)?;
        }
        let mut traced = (0..self.files.len()).filter(|&number| !self.plan.only_unwinds(number)).peekable();
        let all_gone = traced.peek().is_some() && traced.all(|number| self.states[number].is_gone);
        Ok(all_gone.then_some(Ended::Detached))
    }

    /// Looks at what nobody records: what the traced processes have mapped by now, and who has the name that is traced.
    fn look_around(&mut self) {
        if self.has_records || self.looked_around.elapsed() < LOOK_AROUND {
            return;
        }
        self.looked_around = Instant::now();
        self.arrivals.look_anew();
        if self.request.target.comm.is_some() {
            self.renamed = target::all_pids();
        }
    }

    fn look_at_paths(&mut self) {
        for number in 0..self.files.len() {
            let state = self.states[number];
            if state.is_gone {
                continue;
            }
            let change = self.files[number].change();
            let has_successor = matches!(change, Some(Change::Replaced | Change::Copied)) && !state.is_superseded;
            if change != state.said {
                self.file_changed(number, change);
            }
            if has_successor
                && !self.plan.only_unwinds(number)
                && let Some(why) = self.arrivals.look_at_successor(number, &self.files[number])
            {
                let shown = escaped(&self.files[number].shown);
                talk::say(format_args!("the new {shown} is not traced: {why}"));
            }
        }
    }

    fn file_changed(&mut self, number: usize, change: Option<Change>) {
        let (state, shown) = (&mut self.states[number], escaped(&self.files[number].shown));
        state.said = change;
        let is_no_matter = state.is_superseded || self.plan.only_unwinds(number);
        match change {
            None => {}
            Some(Change::Overwritten) => {
                state.is_gone = true;
                self.attachment.detach_file(&self.plan, number);
                talk::say(format_args!(
                    "{shown} was overwritten in place: its probes were removed at once, and its path is not looked at any more"
                ));
            }
            Some(Change::Replaced | Change::Copied | Change::Deleted) if is_no_matter => {}
            Some(Change::Replaced) => {
                talk::say(format_args!("{shown} was replaced: processes that run the old file are still traced"));
            }
            Some(Change::Copied) => {
                talk::say(format_args!(
                    "{shown} was changed, for which its overlay made a copy: processes that run the image's file are still traced"
                ));
            }
            Some(Change::Deleted) => {
                talk::say(format_args!("{shown} was deleted: running processes are still traced"));
            }
        }
    }

    /// A file without a name that nobody runs takes up disk space only because it is open here.
    fn let_go_of_unused(&mut self) {
        for number in 0..self.files.len() {
            let (file, state) = (&self.files[number], &mut self.states[number]);
            let is_due = state.counted.is_none_or(|counted| counted.elapsed() >= CENSUS);
            if !state.is_superseded || state.is_gone || !is_due {
                continue;
            }
            state.counted = Some(Instant::now());
            if file.file.metadata().is_ok_and(|metadata| metadata.nlink() == 0) {
                self.arrivals.count_users(number, file);
            }
        }
        for (number, unseen) in self.arrivals.take_unused() {
            // It may have been asked twice.
            let is_gone = self.states[number].is_gone;
            if is_gone || !unseen.is_empty() && !self.were_all_recorded(number, &unseen) {
                continue;
            }
            let Some(living) = self.states.iter().position(|state| !state.is_gone && !state.is_superseded) else {
                return;
            };
            self.states[number].is_gone = true;
            self.attachment.detach_file(&self.plan, number);
            self.world.modules.forget(self.files[number].identity.inode);
            self.arrivals.forget(self.files[number].identity.inode);
            let shown = escaped(&self.files[number].shown);
            talk::say(format_args!("nobody runs the old {shown} any more: its probes were removed"));
            // Nothing looks into a file that is gone: any other serves to keep its position.
            let (index, file) = (self.files[living].index.clone(), self.files[living].file.try_clone());
            let Ok(file) = file else { continue };
            (self.files[number].index, self.files[number].file) = (index, file);
        }
    }

    /// Whether none of these processes, which cannot be looked at, has mapped a file: what came later than the recorder can
    /// only have been mapped under its eyes.
    fn were_all_recorded(&self, number: usize, unseen: &[u32]) -> bool {
        let (file, state) = (&self.files[number], &self.states[number]);
        let (inode, path) = (file.identity.inode, Path::new(&file.shown));
        let has_mapped = |pid: &u32| self.world.processes.has_mapped(*pid, inode, path);
        state.has_come && self.remarks.is_empty() && !unseen.iter().any(has_mapped)
    }

    fn take_in(&mut self, Arrival { candidate, taken }: Arrival) -> io::Result<()> {
        match taken {
            Ok(taken) => match self.add(&candidate, *taken) {
                Ok(Some(file)) => {
                    say_arrival(&candidate, &file, self.request.verbose);
                    self.sink.grown(&self.info, &file)?;
                }
                Ok(None) => {}
                // What the kernel's verifier says goes on for pages.
                Err(why) => {
                    self.say_refusal(&candidate, escaped(format!("{why:#}").lines().next().unwrap_or_default()))
                }
            },
            Err(error) => self.say_refusal(&candidate, escaped(&format!("{error:#}"))),
        }
        Ok(())
    }

    fn say_refusal(&mut self, candidate: &Candidate, why: String) {
        match candidate.replaces {
            // It may still be written to.
            Some(number) => self.arrivals.is_no_successor(number, why),
            None => {
                self.arrivals.is_refused(candidate);
                talk::say(format_args!("{} is not traced: {why}", escaped(&candidate.shown)));
            }
        }
    }

    /// Traces a file from now on; none where it is traced already.
    fn add(&mut self, candidate: &Candidate, taken: Taken) -> Result<Option<NewFile>> {
        let Taken { mut file, libraries, mut plan } = taken;
        file.container = match candidate.replaces {
            Some(old) => self.files.get(old).and_then(|old| old.container),
            None => {
                self.inside.as_ref().zip(candidate.through).and_then(|(inside, pid)| inside.selected().number_of(pid))
            }
        };
        let known = self.position(&file).filter(|&known| !self.plan.only_unwinds(known));
        if let Some(known) = known {
            if candidate.replaces != Some(known) {
                self.supersede(candidate);
                self.states[known].is_superseded = false;
            }
            return Ok(None);
        }
        let too_hot = self.shed_before(&plan);
        if !too_hot.is_empty() {
            let reason = "it was too hot for --budget in another build";
            plan.remove(&too_hot, |function| Skipped { function, reason: reason.to_owned() });
        }
        if plan.functions.is_empty() {
            anyhow::bail!("{}", nothing_of(&plan));
        }
        if !self.attachment.has_room(&self.plan, &plan) {
            anyhow::bail!("there is no room for its {} points: end this trace, and start anew", plan.points.len());
        }
        if !self.attachment.can_tell(&plan) {
            anyhow::bail!("it has points or makes coroutines, which --min-duration cannot leave out: start anew");
        }
        if !self.attachment.watches_shared_files() {
            let all = plan.points.len();
            plan.points.retain(|point| point.function != NO_FUNCTION || point.file == 0);
            if plan.points.len() < all {
                plan.unwatched.push("its unwinders are in libraries that other programs run too".to_owned());
            }
        }
        let (matched, mut skipped) = (plan.matched, std::mem::take(&mut plan.skipped));
        let binary = file.shown.clone();
        let positions: Vec<usize> = [file].into_iter().chain(libraries).map(|file| self.place(file)).collect();
        let new = positions[0];
        let unwatched = self.plan.unwatched.len();
        let added = self.plan.append(plan, &positions);
        let refused = self.attachment.grow(&mut self.plan, &self.files, &added);
        let at_ns = monotonic_ns();
        let unwatched = self.plan.unwatched.iter().skip(unwatched).filter(|_| self.request.verbose > 0);
        unwatched.for_each(|reason| talk::say(format_args!("some unwound calls will have no duration: {reason}")));
        self.tracker.grow(&self.plan.points, &self.plan.functions, at_ns);
        if let Some(shedding) = &mut self.shedding {
            shedding.grow(&self.plan);
        }
        let functions = &self.plan.functions[added.functions.clone()];
        self.info.functions.extend(functions.iter().map(|function| function.traced.clone()));
        // What cannot be attached takes nobody's place: the file after it may.
        let refused = refused.inspect_err(|_| self.states[new].is_gone = true)?;
        self.supersede(candidate);
        self.know_file(new);
        let attached = (added.functions.len() - refused.len()) as u64;
        let name = |function: u32| self.info.functions.get(function as usize).map(|function| function.name.clone());
        let refused = refused.into_iter().filter_map(|(function, reason)| Some((name(function)?, reason)));
        skipped.extend(refused.map(|(function, reason)| Skipped { function, reason }));
        Ok(Some(NewFile { binary, cause: candidate.cause, at_ns, attached, matched, skipped }))
    }

    /// Functions of a new file that share in the budget, and were shed in a file of the same name: they would be too hot again, until
    /// that is noticed.
    fn shed_before(&self, plan: &Plan) -> BTreeSet<u32> {
        let place = |function: &PlannedFunction| (function.traced.binary.clone(), function.traced.name.clone());
        let shed = self.tracker.all_shed().filter_map(|function| self.plan.functions.get(function as usize));
        let shed: BTreeSet<_> = shed.map(place).collect();
        let functions = (0_u32..).zip(&plan.functions);
        functions.filter(|(_, function)| !function.exact && shed.contains(&place(function))).map(|(n, _)| n).collect()
    }

    /// The position of a file that is to be in the plan.
    fn place(&mut self, file: TracedFile) -> usize {
        self.position(&file).unwrap_or_else(|| {
            self.files.push(file);
            self.states.push(FileState { has_come: true, ..FileState::default() });
            self.files.len() - 1
        })
    }

    fn position(&self, file: &TracedFile) -> Option<usize> {
        let is_it = |(known, state): (&TracedFile, &FileState)| is_same(known, file) && !state.is_gone;
        self.files.iter().zip(&self.states).position(is_it)
    }

    fn supersede(&mut self, candidate: &Candidate) {
        if let Some(state) = candidate.replaces.and_then(|old| self.states.get_mut(old)) {
            state.is_superseded = true;
        }
    }
}

fn nothing_of(plan: &Plan) -> String {
    match plan.skipped.first() {
        Some(first) => format!("{} cannot be probed: {}", escaped(&first.function), first.reason),
        None => "no function in it matches".to_owned(),
    }
}

fn say_arrival(candidate: &Candidate, file: &NewFile, verbose: u8) {
    let (n, shown) = (file.attached, escaped(&file.binary));
    let functions = if n == 1 { "function" } else { "functions" };
    let why = match (candidate.cause, candidate.through) {
        (Cause::Loaded, Some(pid)) => format!("loaded by process {pid}"),
        _ => "a new file at this path".to_owned(),
    };
    let not =
        if file.skipped.is_empty() { String::new() } else { format!("; {} cannot be probed", file.skipped.len()) };
    talk::say(format_args!("now also tracing {n} {functions} of {shown} ({why}){not}"));
    not_probed(&file.skipped, verbose).for_each(talk::say);
}
