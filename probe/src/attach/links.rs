//! Links: which probes hang together, and how some go while the rest stays.
//!
//! A link to many points is made and removed in milliseconds, but only as a whole. Functions that share in a budget
//! therefore have links of their own, apart from those that are always traced: *bundles*. To shed some of a bundle, the
//! others of it are first attached anew, then the old links go. What was called until then is put apart from what never
//! was: the first exchange touches everything, those after it only the few hundred functions that matter.
//!
//! Better than to exchange links is to know before what is hot: so the entries can be counted for a while beforehand
//! ([`super::rehearsal`]).
//!
//! While both are there each event of the others comes twice, with the generations of both links: the reader drops one
//! ([`crate::calls::twice`]). Without links to many points each function is a bundle, and simply goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroU32,
    os::fd::{AsFd as _, BorrowedFd},
};

use anyhow::{Result, anyhow};
use probe_ebpf::abi::GENERATIONS;

use super::{
    Refused,
    error::{explain, is_refusal, os_error},
    holder::{Holder, LinkNumber, Order, Place, Refusal},
    monotonic_ns,
};
use crate::{
    plan::{Appended, Plan, PlannedFunction, PlannedPoint, PointKind},
    target::TracedFile,
};

/// When links were exchanged (`CLOCK_MONOTONIC`, ns).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// From here on the new links see events, too.
    pub begin_ns: u64,
    /// The new links see everything; what is not in them is not traced from here on.
    pub cut_ns: u64,
    /// The old links see nothing any more.
    pub end_ns: u64,
    /// Generation of the new links.
    pub generation: u32,
}

/// Position in [`Links::generations`].
type Bundle = usize;

/// The bundle of functions that are always traced, and of points that are no function's.
const FIXED: Bundle = 0;

/// Functions from which on a rehearsal is made: fewer are exchanged in a millisecond or two.
const REHEARSED: usize = 200;

struct Held {
    bundle: Bundle,
    /// Position in [`Plan::files`].
    file: usize,
    link: LinkNumber,
}

/// All links to the plan's points.
pub(super) struct Links {
    holder: Holder,
    multi: bool,
    /// The programs are those that leave out short calls.
    defers: bool,
    /// Processes that the links are confined to.
    pids: Option<Vec<u32>>,
    /// In the order of attaching: exits before entries, so that no call is seen to begin that cannot be seen to end.
    held: Vec<Held>,
    /// By function; none: it was shed.
    bundles: Vec<Option<Bundle>>,
    /// By bundle; none: it is gone.
    generations: Vec<Option<u32>>,
    /// Points that are not to be attached any more: refused while the trace ran, or of a file that is not what was read.
    barred: BTreeSet<u32>,
    /// Why unwinders are not watched.
    pub(super) unwatched: Vec<String>,
}

/// What bundles are attached.
struct Work<'a> {
    plan: &'a Plan,
    /// Of the plan: those that may be attached.
    points: &'a [PlannedPoint],
    files: &'a [TracedFile],
    bundles: BTreeSet<Bundle>,
    groups: &'a [Group],
}

impl Links {
    pub(super) fn new(holder: Holder, plan: &Plan, multi: bool, defers: bool, pids: Option<Vec<u32>>) -> Self {
        let mut links = Self {
            holder,
            multi,
            defers,
            pids,
            held: Vec::new(),
            bundles: Vec::new(),
            generations: vec![Some(0)],
            barred: BTreeSet::new(),
            unwatched: Vec::new(),
        };
        links.bundle_up(&plan.functions);
        links
    }

    /// Gives functions, which come behind those known, their bundles.
    fn bundle_up(&mut self, functions: &[PlannedFunction]) {
        let first = self.generations.len();
        for function in functions {
            let bundle = match (function.exact, self.multi) {
                (true, _) => FIXED,
                (false, true) => first,
                (false, false) => self.generations.len(),
            };
            self.generations.resize(self.generations.len().max(bundle + 1), Some(0));
            self.bundles.push(Some(bundle));
        }
    }

    /// Loads the programs of usual functions, where none is there yet: the kernel's verifier takes its time, and what is awaited
    /// is to be traced at once when it comes.
    pub(super) fn load_programs(&mut self) -> Result<()> {
        let usual = [PointKind::Return, PointKind::MaybeJump, PointKind::Entry];
        for group in GROUPS.iter().filter(|group| group.kinds.iter().any(|kind| usual.contains(kind))) {
            self.holder.load(self.program_of(group))?;
        }
        Ok(())
    }

    fn program_of(&self, group: &Group) -> &'static str {
        match (self.multi, self.defers) {
            (true, true) => group.deferred_multi,
            (true, false) => group.multi,
            (false, true) => group.deferred,
            (false, false) => group.single,
        }
    }

    /// Attaches what was appended to the plan. What the kernel refuses of it is left out: functions and the reason.
    ///
    /// # Errors
    /// It could not be attached, and nothing of it is.
    pub(super) fn add(&mut self, plan: &Plan, files: &[TracedFile], added: &Appended) -> Result<Vec<(u32, String)>> {
        let first = self.generations.len();
        self.bundle_up(&plan.functions[added.functions.clone()]);
        let mut left_out = BTreeMap::new();
        loop {
            let held = self.held.len();
            let points = &plan.points[added.points.clone()];
            let bundles = (first..self.generations.len()).chain([FIXED]).collect();
            let refused = match self.attach_first(&Work { plan, points, files, bundles, groups: GROUPS }) {
                Ok(Ok(())) => return Ok(left_out.into_iter().collect()),
                Ok(Err(refused)) => Ok(refused),
                Err(error) => Err(error),
            };
            let gone = self.held.split_off(held);
            self.remove(gone, Order::Any);
            if refused.is_err() {
                self.barred.extend(added.points.clone().map(|point| point as u32));
            }
            let Refused { points: refused, reason } = refused?;
            for point in refused.iter().filter_map(|&point| plan.points.get(point as usize)) {
                if let Some(bundle) = self.bundles.get_mut(point.function as usize) {
                    *bundle = None;
                    left_out.insert(point.function, reason.clone());
                }
            }
            self.barred.extend(refused);
        }
    }

    /// Removes the links to one file, for good.
    pub(super) fn detach_file(&mut self, plan: &Plan, file: usize) {
        self.barred.extend(plan.points.iter().filter(|point| point.file == file).map(|point| point.cookie.point()));
        let (gone, kept): (Vec<Held>, Vec<Held>) = self.held.drain(..).partition(|held| held.file == file);
        self.held = kept;
        self.remove(gone, Order::Any);
    }

    /// Whether any link is there.
    pub(super) fn any(&self) -> bool {
        !self.held.is_empty()
    }

    /// So many functions share in a budget that it is better to know before what is hot.
    pub(super) fn are_worth_a_rehearsal(&self) -> bool {
        self.multi && self.bundles.iter().filter(|bundle| **bundle != Some(FIXED)).count() >= REHEARSED
    }

    /// Attaches every point.
    pub(super) fn attach_all(&mut self, plan: &Plan, files: &[TracedFile]) -> Result<Result<(), Refused>> {
        let bundles = (0..self.generations.len()).collect();
        self.attach_first(&Work { plan, points: &plan.points, files, bundles, groups: GROUPS })
    }

    /// Lets the entries of functions that share in a budget be counted, and no more: until [`Self::detach_counting`].
    pub(super) fn attach_counting(&mut self, plan: &Plan, files: &[TracedFile]) -> Result<Result<(), Refused>> {
        let bundles = self.sharing();
        self.attach_first(&Work { plan, points: &plan.points, files, bundles, groups: &[COUNTING] })
    }

    /// Nothing is attached any more.
    pub(super) fn detach_counting(&mut self) {
        self.detach_bundles(&self.sharing());
    }

    /// Bundles of functions that share in a budget.
    fn sharing(&self) -> BTreeSet<Bundle> {
        (FIXED + 1..self.generations.len()).collect()
    }

    /// Before anything is attached: some functions are left out, and those that will be called are put apart from the
    /// others, because what is called may be shed.
    pub(super) fn prepare(&mut self, without: &BTreeSet<u32>, called: &BTreeSet<u32>) {
        for (function, bundle) in (0_u32..).zip(&mut self.bundles).filter(|(_, bundle)| **bundle != Some(FIXED)) {
            let kept = !without.contains(&function);
            *bundle = kept.then(|| FIXED + 1 + usize::from(!called.contains(&function)));
        }
        self.generations.resize(FIXED + 3, Some(0));
    }

    fn attach_first(&mut self, work: &Work<'_>) -> Result<Result<(), Refused>> {
        // The kernel validates instructions only when a process maps the file; else a bad one would attach, and
        // never fire. So we are that process, until all is attached.
        let _mapped: Vec<_> = match self.pids {
            None => work.files.iter().filter_map(map_code).collect(),
            Some(_) => Vec::new(),
        };
        self.attach(work)
    }

    /// Goes on without these functions. Calls of all others are seen throughout. `called` tells functions that were
    /// called so far.
    ///
    /// # Errors
    /// The others could not be attached anew. Nothing was detached then.
    pub(super) fn shed(
        &mut self,
        plan: &Plan,
        files: &[TracedFile],
        functions: &BTreeSet<u32>,
        called: &dyn Fn(u32) -> bool,
    ) -> Result<Exchange> {
        let before = (self.bundles.clone(), self.generations.clone());
        let old: BTreeSet<Bundle> = functions.iter().filter_map(|&f| self.bundle(f)).filter(|&b| b != FIXED).collect();
        let generation = self.unused_generation();
        let new = self.regroup(&old, functions, called, generation);
        let begin_ns = monotonic_ns();
        let bundles = new.clone();
        let attached = self.attach(&Work { plan, points: &plan.points, files, bundles, groups: GROUPS });
        if let Err(error) = attached.and_then(|done| done.map_err(|refused| anyhow!(refused.reason))) {
            self.detach_bundles(&new);
            (self.bundles, self.generations) = before;
            return Err(error);
        }
        let cut_ns = monotonic_ns();
        self.detach_bundles(&old);
        Ok(Exchange { begin_ns, cut_ns, end_ns: monotonic_ns(), generation })
    }

    fn bundle(&self, function: u32) -> Option<Bundle> {
        self.bundles.get(function as usize).copied().flatten()
    }

    /// Told apart from those of all links that are exchanged.
    fn unused_generation(&self) -> u32 {
        let is_free = |generation: &u32| !self.generations.contains(&Some(*generation));
        // Each exchange leaves at most one bundle more, and mostly none: they do not run out.
        (0..GENERATIONS).find(is_free).unwrap_or_default()
    }

    /// Puts what remains of the old bundles into new ones: those called so far, and the others.
    fn regroup(
        &mut self,
        old: &BTreeSet<Bundle>,
        shed: &BTreeSet<u32>,
        called: &dyn Fn(u32) -> bool,
        generation: u32,
    ) -> BTreeSet<Bundle> {
        let first = self.generations.len();
        for (function, bundle) in (0_u32..).zip(&mut self.bundles) {
            if bundle.is_some_and(|bundle| old.contains(&bundle)) {
                let kept = !shed.contains(&function);
                *bundle = kept.then(|| first + usize::from(!called(function)));
            }
        }
        for &bundle in old {
            self.generations[bundle] = None;
        }
        let new: BTreeSet<Bundle> = self.bundles.iter().flatten().copied().filter(|&b| b >= first).collect();
        self.generations.resize(first + 2, None);
        for &bundle in &new {
            self.generations[bundle] = Some(generation);
        }
        new
    }

    fn attach(&mut self, work: &Work<'_>) -> Result<Result<(), Refused>> {
        for group in work.groups {
            for (number, file) in work.files.iter().enumerate() {
                for (bundle, points) in self.points(work, group, number) {
                    for process in processes(self.pids.as_deref())? {
                        match self.attach_group(group, bundle, &points, file, process) {
                            // The process has ended meanwhile.
                            Err(error) if has_ended(&error) => {}
                            // An unwinder's: without it some durations are missing, no more.
                            Err(error) if work.plan.only_unwinds(number) => self.unwatched.push(format!("{error:#}")),
                            Ok(Ok(())) => {}
                            other => return other,
                        }
                    }
                }
            }
        }
        Ok(Ok(()))
    }

    /// The group's points in one file, by bundle.
    fn points<'a>(&self, work: &Work<'a>, group: &Group, file: usize) -> BTreeMap<Bundle, Vec<&'a PlannedPoint>> {
        let mut points: BTreeMap<Bundle, Vec<&PlannedPoint>> = BTreeMap::new();
        for point in work.points.iter().filter(|point| point.file == file && group.kinds.contains(&point.kind)) {
            let bundle = match self.bundles.get(point.function as usize) {
                Some(bundle) => *bundle,
                None => Some(FIXED),
            };
            if let Some(bundle) = bundle.filter(|bundle| work.bundles.contains(bundle))
                && !self.barred.contains(&point.cookie.point())
            {
                points.entry(bundle).or_default().push(point);
            }
        }
        points
    }

    fn attach_group(
        &mut self,
        group: &Group,
        bundle: Bundle,
        points: &[&PlannedPoint],
        file: &TracedFile,
        process: Option<NonZeroU32>,
    ) -> Result<Result<(), Refused>> {
        let program = self.program_of(group);
        let generation = self.generations.get(bundle).copied().flatten().unwrap_or_default();
        self.holder.load(program)?;
        let opened = file.file.as_fd();
        let failed = |error| explain(&format!("failed to attach to {}", file.shown), error);
        match self.holder.attach(program, places(points, generation), opened, process) {
            Ok(link) => {
                let file = points.first().map_or(0, |point| point.file);
                self.held.push(Held { bundle, file, link });
                Ok(Ok(()))
            }
            Err(error) if is_refusal(&error) => {
                let points = self.find_refused(program, points, opened, process).map_err(failed)?;
                Ok(Err(Refused { points, reason: "the kernel refuses a probe on one of its instructions".to_owned() }))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// Bisects: halves that attach are good (and detached again at once), single points that do not are refused.
    fn find_refused(
        &mut self,
        program: &str,
        points: &[&PlannedPoint],
        file: BorrowedFd<'_>,
        process: Option<NonZeroU32>,
    ) -> Result<BTreeSet<u32>, Refusal> {
        let mut refused = BTreeSet::new();
        let mut pending = vec![points];
        while let Some(points) = pending.pop() {
            match self.holder.attach(program, places(points, 0), file, process) {
                Ok(link) => self.holder.remove(vec![link], Order::Given)?,
                Err(error) if is_refusal(&error) => match points {
                    [point] => {
                        refused.insert(point.cookie.point());
                    }
                    _ => {
                        let (left, right) = points.split_at(points.len() / 2);
                        pending.extend([left, right]);
                    }
                },
                Err(error) => return Err(error),
            }
        }
        Ok(refused)
    }

    /// Removes the links of some bundles.
    fn detach_bundles(&mut self, bundles: &BTreeSet<Bundle>) {
        let (gone, kept): (Vec<Held>, Vec<Held>) = self.held.drain(..).partition(|held| bundles.contains(&held.bundle));
        self.held = kept;
        self.remove(gone, Order::Any);
    }

    /// Removes all links: entries first, so that the last calls are seen to end.
    pub(super) fn detach(&mut self) {
        let gone = std::mem::take(&mut self.held).into_iter().rev().collect();
        self.remove(gone, Order::Given);
    }

    /// Whether they are gone, though nobody removed them: how their holder came to its end.
    pub(super) fn are_lost(&self) -> Option<String> {
        self.holder.has_ended()
    }

    fn remove(&mut self, gone: Vec<Held>, order: Order) {
        // A holder that does not answer is gone, and they with it, of which [`Self::are_lost`] tells.
        let _ = self.holder.remove(gone.into_iter().map(|held| held.link).collect(), order);
    }
}

/// Whether the process that a link was to be confined to is gone.
fn has_ended(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| os_error(cause) == Some(libc::ESRCH))
}

/// A program and the points it is for.
struct Group {
    multi: &'static str,
    single: &'static str,
    /// Those that leave out short calls.
    deferred_multi: &'static str,
    deferred: &'static str,
    kinds: &'static [PointKind],
}

impl Group {
    const fn new(multi: &'static str, single: &'static str, kinds: &'static [PointKind]) -> Self {
        Self { multi, single, deferred_multi: multi, deferred: single, kinds }
    }

    const fn or_deferring(self, deferred_multi: &'static str, deferred: &'static str) -> Self {
        Self { deferred_multi, deferred, ..self }
    }
}

/// To count entries only; there is no rehearsal where links to many points are missing.
const COUNTING: Group = Group::new("count_multi", "", &[PointKind::Entry]);

/// In the order of attaching. The kernel calls the youngest probe of a place first (Linux: `consumer_add` in
/// kernel/events/uprobes.c), so where an entry is also an exit, the entry is told first.
const GROUPS: &[Group] = &[
    Group::new("exit_multi", "exit", &[PointKind::Return, PointKind::TailJump, PointKind::GoroutineEnd])
        .or_deferring("deferred_exit_multi", "deferred_exit"),
    Group::new("landing_multi", "landing", &[PointKind::Landing]),
    Group::new("longjmp_multi", "longjmp", &[PointKind::LongJump]),
    Group::new("recovery_multi", "recovery", &[PointKind::Recovery]),
    Group::new("makecontext_multi", "makecontext", &[PointKind::Context]),
    Group::new("make_fcontext_multi", "make_fcontext", &[PointKind::BoostContext]),
    Group::new("jump_multi", "jump", &[PointKind::MaybeJump]).or_deferring("deferred_jump_multi", "deferred_jump"),
    Group::new("return_multi", "return_single", &[PointKind::AfterReturn]),
    Group::new("point_multi", "point", &[PointKind::Passed]),
    Group::new("entry_multi", "entry", &[PointKind::Entry]).or_deferring("deferred_entry_multi", "deferred_entry"),
];

/// The processes that links are confined to, each of them; one `None`: to none.
fn processes(pids: Option<&[u32]>) -> Result<Vec<Option<NonZeroU32>>> {
    let Some(pids) = pids else { return Ok(vec![None]) };
    pids.iter().map(|&pid| Ok(Some(NonZeroU32::new(pid).ok_or_else(|| anyhow!("no process 0"))?))).collect()
}

fn places(points: &[&PlannedPoint], generation: u32) -> Vec<Place> {
    let place =
        |point: &&PlannedPoint| Place { offset: point.offset.0, cookie: point.cookie.of_generation(generation).0 };
    points.iter().map(place).collect()
}

#[expect(unsafe_code, reason = "a mapping of a file")]
fn map_code(file: &TracedFile) -> Option<memmap2::Mmap> {
    // Linux: `valid_vma` in kernel/events/uprobes.c takes private mappings that may be executed, not shared ones.
    // SAFETY: the mapping is never read: it only has to exist.
    unsafe { memmap2::MmapOptions::new().map_copy_read_only(&file.file) }.ok()
}
