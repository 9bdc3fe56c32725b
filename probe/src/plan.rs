//! The plan: which functions are traced, through which points, and what is passed over and why.
//!
//! In: indexes of the files and the patterns. Out: a [`Plan`], which `attach` carries out and `--dry-run` prints.
//! Pure: no kernel, no root. Every decision is taken here, once.

mod growing;
mod inlined;
mod internal;
mod jump;
mod nothing;
mod print;
mod reading;
mod shape;
mod standard;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, bail};
use probe_ebpf::abi::{Cookie, GoProgram, Jump};
use symbols::{
    addr::{FileOffset, Vaddr},
    code::{EntryCost, Exit, ExitKind},
    index::{Function, FunctionId, Index, Language, LeftOut, Match, Matched},
    pattern::Pattern,
};

pub use self::{
    growing::{Appended, plan_alone, plan_so_far},
    inlined::{InlinedAway, is_cheap, where_inlined},
    nothing::{no_match, why_nameless},
    reading::Reading,
    shape::{Probeable, probeable},
};
use self::{
    jump::jump,
    nothing::nothing_left,
    shape::{check_point, is_stub, shape},
};
use crate::{
    calls::{Skipped, TracedFunction},
    request::Returns,
    target::TracedFile,
};

/// What a point's event means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PointKind {
    /// The function was entered.
    Entry,
    /// It returns here.
    Return,
    /// It leaves here by a jump, always.
    TailJump,
    /// It may leave here by a jump; the kernel half decides.
    MaybeJump,
    /// It returned (a uretprobe).
    AfterReturn,
    /// A point named by the user: no call.
    Passed,
    /// The running goroutine ends here without returns (`runtime.Goexit`).
    GoroutineEnd,
    /// An unwinder is about to enter the frame it unwound to: calls as deep as the event and deeper are over.
    Landing,
    /// The same of glibc's `longjmp`, told from its buffer.
    LongJump,
    /// The same of Go's runtime, which sends a goroutine there from the system stack.
    Recovery,
    /// A coroutine gets its stack (`makecontext`).
    Context,
    /// The same of Boost.Context (`make_fcontext`).
    BoostContext,
}

impl PointKind {
    /// Whether unwinding ends here.
    pub fn is_landing(self) -> bool {
        matches!(self, Self::Landing | Self::LongJump | Self::Recovery)
    }
}

/// A probe point.
#[derive(Clone, Copy, Debug)]
pub struct PlannedPoint {
    /// Position in [`Plan::files`].
    pub file: usize,
    /// Where the uprobe sits.
    pub offset: FileOffset,
    /// What it means.
    pub kind: PointKind,
    /// Position in [`Plan::functions`]; [`NO_FUNCTION`] for an internal point: `GoroutineEnd`, and where
    /// unwinding ends.
    pub function: u32,
    /// What the kernel half has to know of it.
    pub cookie: Cookie,
}

/// `PlannedPoint::function` of a point that belongs to no traced function.
pub const NO_FUNCTION: u32 = u32::MAX;

/// A traced function (or a point named by the user).
#[derive(Clone, Debug)]
pub struct PlannedFunction {
    /// What sinks show of it.
    pub traced: TracedFunction,
    /// A branch may reach the entry point again within one call: a second entry at the same depth is the same call.
    pub may_repeat: bool,
    /// It can leave by a jump that has no probe: an entry at the same depth then means a tail call.
    pub unprobed_jumps: bool,
    /// Cost class of the entry point.
    pub cost: EntryCost,
    /// Named exactly or by its tail: a budget does not shed it.
    pub exact: bool,
    /// Of the language's own library: the first that a budget does without.
    pub standard: bool,
}

/// A file that points are in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedFile {
    /// Its name, as shown.
    pub shown: String,
    /// It is watched for unwinding only: none of its functions is traced.
    pub only_unwinds: bool,
}

/// What is to be done.
#[derive(Debug, Default)]
pub struct Plan {
    /// The files; the caller keeps them open, in the same order.
    pub files: Vec<PlannedFile>,
    /// Functions and points that are traced.
    pub functions: Vec<PlannedFunction>,
    /// Probe points, by the number that events carry.
    pub points: Vec<PlannedPoint>,
    /// Matched, but not probeable.
    pub skipped: Vec<Skipped>,
    /// Functions and points that the patterns matched, probeable or not.
    pub matched: u64,
    /// Matched by a glob or regex and left out by default, by reason.
    pub left_out: BTreeMap<LeftOut, u64>,
    /// Functions that a pattern matched and a negation took away.
    pub taken_away: u64,
    /// What was inlined, which no probe sees; `None`: not looked for.
    pub inlined: Option<InlinedAway>,
    /// Go programs, for the kernel half.
    pub go_programs: Vec<GoProgram>,
    /// Indirect jumps, by point number, for the kernel half.
    pub jumps: Vec<(u32, Jump)>,
    /// Sentences for the user.
    pub notes: Vec<String>,
    /// Why some calls that are unwound will have no end time.
    pub unwatched: Vec<String>,
    /// Rust or C++ is among the traced functions.
    pub has_unwinding_languages: bool,
}

/// How the plan is to be made.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Take in what is left out by default.
    pub all: bool,
    /// How returns are seen.
    pub returns: Returns,
    /// Look for inlined copies however long it takes.
    pub thorough: bool,
}

/// Makes the plan.
///
/// # Errors
/// A pattern that matches nothing in any file (with the nearest names), and a plan without a single point.
pub fn plan(files: &[TracedFile], patterns: &[Pattern], options: Options) -> Result<Plan> {
    let (plan, unmatched) = plan_so_far(files, patterns, options);
    if let Some(&pattern) = unmatched.first() {
        bail!(no_match(files, &patterns[pattern]));
    }
    if plan.functions.is_empty() {
        bail!(nothing_left(&plan, files));
    }
    Ok(plan)
}

/// Plans one file.
struct FilePlanner<'a> {
    plan: &'a mut Plan,
    number: usize,
    index: &'a Index,
    reading: Reading,
    shown: &'a str,
    options: Options,
    /// Of a Go program: offset of goid, and position in [`Plan::go_programs`]; or why its calls cannot be told apart.
    go: Option<Result<(u16, u8), String>>,
}

impl<'a> FilePlanner<'a> {
    fn new(plan: &'a mut Plan, number: usize, file: &'a TracedFile, options: Options) -> Self {
        let binary = file.index.binary();
        let go = binary.go().map(|program| {
            let offsets =
                program.runtime_offsets(binary).map_err(|error| format!("goroutines have no ids: {error}"))?;
            let goid = u16::try_from(offsets.goid).map_err(|_| "goid is too far inside runtime.g")?;
            let program = GoProgram {
                tls: offsets.tls,
                m: offsets.m,
                curg: offsets.m_curg,
                sched_sp: offsets.sched_sp,
                syscall_sp: offsets.syscall_sp.unwrap_or(0),
                parent_goid: offsets.parent_goid.unwrap_or(0),
                gopc: offsets.gopc.unwrap_or(0),
            };
            // Another build of a program mostly has what it had.
            let known = plan.go_programs.iter().position(|known| *known == program);
            let position = known.unwrap_or(plan.go_programs.len());
            let position = u8::try_from(position).map_err(|_| "it is the 257th Go program")?;
            if known.is_none() {
                plan.go_programs.push(program);
            }
            Ok((goid, position))
        });
        let reading = Reading::of(binary);
        Self { plan, number, index: &file.index, reading, shown: &file.shown, options, go }
    }

    fn add(&mut self, matches: &[Match]) {
        let mut any_go = false;
        for found in matches {
            match &found.what {
                Matched::Function(id) => {
                    let function = self.index.function(*id);
                    any_go |= function.language == Language::Go;
                    if let Err(reason) = self.add_function(function, found) {
                        self.skip(&found.name, reason);
                    }
                }
                Matched::Point { address, function, offset } => {
                    if let Err(reason) = self.add_point(*address, *function, *offset, found) {
                        self.skip(&found.name, reason);
                    }
                }
            }
        }
        if any_go {
            self.add_go_unwinding();
        }
    }

    fn skip(&mut self, function: &str, reason: String) {
        self.plan.skipped.push(Skipped { function: function.to_owned(), reason });
    }

    fn add_function(&mut self, function: Function<'_>, found: &Match) -> Result<(), String> {
        let is_go = function.language == Language::Go;
        if is_go && self.options.returns == Returns::Uretprobe {
            return Err("--returns=uretprobe would kill a Go program".to_owned());
        }
        if is_go && let Some(Err(reason)) = &self.go {
            return Err(reason.clone());
        }
        let (shape, parts) = shape(self.index, &function, &self.reading)?;
        let entry = shape.entry.map_err(|refusal| refusal.to_string())?;
        let offset = self.offset(entry.address)?;
        let number = self.plan.functions.len() as u32;
        let exits = self.exits(&shape.exits, entry.address, is_stub(&function))?;
        let dropped = exits.len() < shape.exits.len();
        self.plan.has_unwinding_languages |= matches!(function.language, Language::Rust | Language::Cpp);
        self.plan.functions.push(PlannedFunction {
            traced: TracedFunction {
                name: found.name.clone(),
                binary: self.shown.to_owned(),
                address: function.address.0,
                point: None,
            },
            may_repeat: entry.may_repeat,
            unprobed_jumps: shape.unprobed_jumps || dropped,
            cost: entry.cost,
            exact: found.exact,
            standard: standard::is_standard(function.language, &found.name),
        });
        self.point(offset, PointKind::Entry, number, is_go, function.go_asm);
        match self.options.returns {
            Returns::Ret => self.add_exits(&function, &parts, exits, number),
            Returns::Uretprobe => self.point(offset, PointKind::AfterReturn, number, false, false),
            Returns::None => {}
        }
        Ok(())
    }

    fn offset(&self, address: Vaddr) -> Result<FileOffset, String> {
        self.index.binary().file_offset(address).ok_or_else(|| format!("{address} is not in the file"))
    }

    /// The exits that get a probe. A conditional exit at the entry point itself gets none: which of two probes at one
    /// place fires first is the kernel's affair.
    fn exits(&self, exits: &[Exit], entry: Vaddr, is_stub: bool) -> Result<Vec<(FileOffset, Exit)>, String> {
        exits
            .iter()
            .filter(|exit| is_stub || exit.address != entry || is_unconditional(&exit.kind))
            .map(|exit| Ok((self.offset(exit.address)?, *exit)))
            .collect()
    }

    fn add_exits(
        &mut self,
        function: &Function<'_>,
        parts: &[(Vaddr, u64)],
        exits: Vec<(FileOffset, Exit)>,
        number: u32,
    ) {
        let is_go = function.language == Language::Go;
        for (offset, exit) in exits {
            let kind = match &exit.kind {
                ExitKind::Return => PointKind::Return,
                ExitKind::TailJump { condition: None, .. } => PointKind::TailJump,
                ExitKind::IndirectJump { .. } if is_stub(function) => PointKind::TailJump,
                _ => PointKind::MaybeJump,
            };
            self.point(offset, kind, number, is_go, function.go_asm);
            let Some(point) = self.plan.points.last_mut() else { continue };
            match exit.kind {
                ExitKind::TailJump { condition: Some(condition), .. } => {
                    point.cookie = point.cookie.conditional(condition as u8);
                }
                ExitKind::IndirectJump { operand } if !is_stub(function) => {
                    point.cookie = point.cookie.indirect();
                    let jump = jump(&operand, exit.address, function, parts);
                    self.plan.jumps.push((point.cookie.point(), jump));
                }
                _ => {}
            }
        }
    }

    fn point(&mut self, offset: FileOffset, kind: PointKind, function: u32, is_go: bool, foreign_g: bool) {
        let number = self.plan.points.len() as u32;
        let mut cookie = match &self.go {
            Some(Ok((goid, program))) => Cookie::go(number, *goid, *program),
            _ => Cookie::native(number),
        };
        // C in a Go program belongs to the goroutine that called it, and may have anything in R14.
        if foreign_g || !is_go {
            cookie = cookie.foreign_g();
        }
        if self.plan.functions.get(function as usize).is_some_and(|f| !f.exact) {
            cookie = cookie.counted();
        }
        self.plan.points.push(PlannedPoint { file: self.number, offset, kind, function, cookie });
    }

    fn add_point(
        &mut self,
        address: Vaddr,
        function: Option<FunctionId>,
        offset: u64,
        found: &Match,
    ) -> Result<(), String> {
        check_point(self.index, address, function, &self.reading)?;
        let function = function.map(|id| self.index.function(id));
        let file_offset = self.offset(address)?;
        let number = self.plan.functions.len() as u32;
        let is_go = function.is_some_and(|f| f.language == Language::Go);
        self.plan.functions.push(PlannedFunction {
            traced: TracedFunction {
                name: function.map_or_else(|| found.name.clone(), |f| f.name.to_owned()),
                binary: self.shown.to_owned(),
                address: address.0,
                point: Some(offset),
            },
            may_repeat: false,
            unprobed_jumps: false,
            cost: EntryCost::SingleStep,
            exact: true,
            standard: false,
        });
        self.point(file_offset, PointKind::Passed, number, is_go, function.is_some_and(|f| f.go_asm));
        Ok(())
    }
}

fn is_unconditional(kind: &ExitKind) -> bool {
    matches!(kind, ExitKind::Return | ExitKind::TailJump { condition: None, .. })
}

impl Plan {
    /// Adds what the patterns match in a file; the patterns that match nothing there.
    fn add_file(&mut self, number: usize, file: &TracedFile, patterns: &[Pattern], options: Options) -> Vec<usize> {
        let selection = file.index.select(patterns, options.all);
        if let Some(inlined) = &mut self.inlined {
            inlined.add(&file.index, &file.index.inlined_copies(patterns, &selection, options.all));
        }
        self.files.push(PlannedFile { shown: file.shown.clone(), only_unwinds: false });
        self.notes.extend(selection.notes);
        for (_, reason) in &selection.left_out {
            *self.left_out.entry(*reason).or_default() += 1;
        }
        self.taken_away += selection.taken_away as u64;
        self.matched += selection.matches.len() as u64;
        FilePlanner::new(self, number, file, options).add(&selection.matches);
        selection.unmatched
    }

    /// The files that are traced, as shown; several of one name once.
    pub fn traced_files(&self) -> impl Iterator<Item = &str> {
        let mut seen = BTreeSet::new();
        let traced = self.files.iter().filter(|file| !file.only_unwinds).map(|file| file.shown.as_str());
        traced.filter(move |&shown| seen.insert(shown))
    }

    /// Moves functions to the skipped ones, with their points, and numbers the rest anew.
    pub fn remove(&mut self, functions: &BTreeSet<u32>, skipped: impl Fn(String) -> Skipped) {
        let mut numbers = Vec::with_capacity(self.functions.len());
        let mut kept = Vec::new();
        for (number, function) in (0_u32..).zip(self.functions.drain(..)) {
            if functions.contains(&number) {
                numbers.push(None);
                self.skipped.push(skipped(function.traced.name));
            } else {
                numbers.push(Some(kept.len() as u32));
                kept.push(function);
            }
        }
        self.functions = kept;
        let mut points = Vec::new();
        let mut jumps = Vec::new();
        for mut point in self.points.drain(..) {
            let number = match point.function {
                NO_FUNCTION if functions.contains(&NO_FUNCTION) => None,
                NO_FUNCTION => Some(NO_FUNCTION),
                function => numbers.get(function as usize).copied().flatten(),
            };
            let Some(function) = number else { continue };
            let (old, new) = (point.cookie.point(), points.len() as u32);
            jumps.extend(self.jumps.iter().filter(|(point, _)| *point == old).map(|(_, jump)| (new, *jump)));
            point.function = function;
            point.cookie = point.cookie.renumbered(new);
            points.push(point);
        }
        (self.points, self.jumps) = (points, jumps);
    }
}

#[cfg(test)]
mod tests;
