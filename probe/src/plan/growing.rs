//! A plan that grows: files that come while a trace runs.
//!
//! Each is planned by itself, then appended. Positions and numbers of what was there before stay as they are, and none is
//! ever given anew: records that wait in the ring buffer carry them.

use std::{collections::BTreeSet, ops::Range};

use probe_ebpf::abi::GoProgram;
use symbols::pattern::Pattern;

use super::{InlinedAway, NO_FUNCTION, Options, Plan, is_cheap};
use crate::target::TracedFile;

/// What was appended to a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Appended {
    /// Positions in [`Plan::functions`].
    pub functions: Range<usize>,
    /// Positions in [`Plan::points`].
    pub points: Range<usize>,
    /// Positions in [`Plan::jumps`].
    pub jumps: Range<usize>,
}

/// Plans what the patterns match in the files that are there; which of the patterns match nothing.
pub fn plan_so_far(files: &[TracedFile], patterns: &[Pattern], options: Options) -> (Plan, Vec<usize>) {
    let mut plan = Plan::default();
    let mut unmatched: Vec<usize> = (0..patterns.len()).collect();
    if options.thorough || files.iter().all(|file| is_cheap(&file.index)) {
        plan.inlined = Some(InlinedAway::default());
    }
    for (number, file) in files.iter().enumerate() {
        let still = plan.add_file(number, file, patterns, options);
        unmatched.retain(|pattern| still.contains(pattern));
    }
    (plan, unmatched)
}

/// Plans a file that comes later, by itself. That a pattern matches nothing in it is no error. A bare address means nothing:
/// it was one of another file. `go_programs` are those that are known.
pub fn plan_alone(file: &TracedFile, patterns: &[Pattern], options: Options, go_programs: Vec<GoProgram>) -> Plan {
    let mut plan = Plan { go_programs, ..Plan::default() };
    let named: Vec<Pattern> = patterns.iter().filter(|pattern| !pattern.is_address()).cloned().collect();
    // Without the address that it takes away from, a negation would mean all else.
    let means_something = named.len() == patterns.len() || !named.iter().all(Pattern::is_negation);
    plan.add_file(0, file, if means_something { &named } else { &[] }, options);
    plan
}

impl Plan {
    /// Appends what was planned alone with the Go programs of this plan. `files` are the positions here of its files: known
    /// ones, or new ones at the end. What is watched for unwinding already is not watched twice.
    pub fn append(&mut self, added: Plan, files: &[usize]) -> Appended {
        let (functions, points, jumps) = (self.functions.len(), self.points.len(), self.jumps.len());
        for (file, &position) in added.files.into_iter().zip(files) {
            match self.files.get_mut(position) {
                Some(known) => known.only_unwinds &= file.only_unwinds,
                None => self.files.push(file),
            }
        }
        let watched: BTreeSet<(usize, u64)> =
            self.points.iter().filter(|p| p.function == NO_FUNCTION).map(|p| (p.file, p.offset.0)).collect();
        for mut point in added.points {
            let Some(&file) = files.get(point.file) else { continue };
            point.file = file;
            if point.function != NO_FUNCTION {
                point.function += functions as u32;
            } else if watched.contains(&(file, point.offset.0)) {
                continue;
            }
            let (old, new) = (point.cookie.point(), self.points.len() as u32);
            point.cookie = point.cookie.renumbered(new);
            if point.cookie.is_indirect()
                && let Ok(at) = added.jumps.binary_search_by_key(&old, |(point, _)| *point)
            {
                self.jumps.push((new, added.jumps[at].1));
            }
            self.points.push(point);
        }
        self.functions.extend(added.functions);
        let known = self.go_programs.len();
        self.go_programs.extend(added.go_programs.into_iter().skip(known));
        self.skipped.extend(added.skipped);
        self.matched += added.matched;
        self.unwatched.extend(added.unwatched);
        self.has_unwinding_languages |= added.has_unwinding_languages;
        Appended {
            functions: functions..self.functions.len(),
            points: points..self.points.len(),
            jumps: jumps..self.jumps.len(),
        }
    }
}
