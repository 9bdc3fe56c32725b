//! Figures: from the times of the specimens' events to what each kind of trap costs. Pure.

use super::Points;
use crate::{
    attach::specimens::Specimen,
    calls::overhead::{Callers as Collected, Cost, Costs, Trap, TrapKind},
    request::Returns,
};

/// Specimens whose calls are timed.
pub(super) const TIMED: [Specimen; 6] =
    [Specimen::Nop, Specimen::Emulated, Specimen::Stepped, Specimen::Jumps, Specimen::Open, Specimen::Point];

/// What the kernel half collects callers of, which says in what settings specimens are called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Callers {
    /// Of nothing. One setting: an inner call.
    Nobody,
    /// Of outermost calls. An inner call; then outermost ones with one caller, with many, and with one that cannot be read.
    Outermost,
    /// Of all calls. Inner ones with one caller, with many, and with one that cannot be read.
    All,
}

impl Callers {
    /// The first setting in which they are collected.
    fn first(self) -> usize {
        usize::from(self == Self::Outermost)
    }
}

/// What was seen of one specimen in one setting, ns.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    /// From one call's entry to the next one's.
    pub(super) cycles: Vec<u64>,
    /// From a call's entry to its exit.
    pub(super) insides: Vec<u64>,
    /// From a call's entry to the breakpoint at its exit, where traps are timed.
    pub(super) behind_entries: Vec<u64>,
    /// From the end of an entry's step to the next one's breakpoint, where it is stepped through.
    pub(super) behind_steps: Vec<u64>,
    /// Callers in each record of an entry.
    pub(super) callers: Option<Collected>,
}

/// The same at an undisturbed moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Figure {
    cycle_ns: u64,
    inside_ns: u64,
    behind_entry_ns: u64,
    behind_step_ns: u64,
    callers: Option<Collected>,
}

/// By specimen, in [`TIMED`]'s order, and setting.
pub(super) struct Figures(Vec<Vec<Figure>>);

impl Figures {
    pub(super) fn of(seen: Vec<Vec<Seen>>) -> Self {
        let figure = |seen: Seen| Figure {
            cycle_ns: undisturbed(seen.cycles),
            inside_ns: undisturbed(seen.insides),
            behind_entry_ns: undisturbed(seen.behind_entries),
            behind_step_ns: undisturbed(seen.behind_steps),
            callers: seen.callers,
        };
        Self(seen.into_iter().map(|settings| settings.into_iter().map(figure).collect()).collect())
    }

    fn get(&self, specimen: Specimen, setting: usize) -> Figure {
        let number = TIMED.iter().position(|timed| *timed == specimen);
        number.and_then(|number| self.0.get(number)?.get(setting).copied()).unwrap_or_default()
    }

    /// Draws the conclusions.
    pub(super) fn conclude(&self, points: Points, callers: Callers, costs: &mut Costs) {
        let (inner, first) = (0, callers.first());
        for (kind, cost) in self.traps(points.returns, inner) {
            costs.bare[Trap { kind, go: points.go }.index()] = cost;
        }
        for (kind, cost) in self.traps(points.returns, first) {
            costs.with_callers[Trap { kind, go: points.go }.index()] = cost;
        }
        let entries = [
            (TrapKind::NopEntry, Specimen::Nop),
            (TrapKind::EmulatedEntry, Specimen::Emulated),
            (TrapKind::Entry, Specimen::Stepped),
        ];
        for (behind_ns, setting) in costs.behind_entry_ns.iter_mut().zip([inner, first]) {
            for (kind, specimen) in entries {
                behind_ns[Trap { kind, go: points.go }.index()] = self.get(specimen, setting).behind_entry_ns;
            }
        }
        costs.behind_step_ns = self.get(Specimen::Point, inner).behind_step_ns;
        let [one, many, unreadable] = [0, 1, 2].map(|further| self.get(Specimen::Open, first + further));
        let more_ns = many.cycle_ns.saturating_sub(one.cycle_ns);
        match (one.callers, many.callers) {
            (Some(Collected::Walked { count, .. }), Some(Collected::Walked { count: many, .. })) => {
                costs.caller_ns = more_ns / many.saturating_sub(count).max(1) as u64;
                costs.unreadable_ns = unreadable.cycle_ns.saturating_sub(one.cycle_ns);
            }
            (Some(Collected::Copied(bytes)), Some(Collected::Copied(many))) => {
                costs.copy_bytes = bytes as u64;
                costs.copy_kib_ns = more_ns * 1024 / many.saturating_sub(bytes).max(1024) as u64;
            }
            _ => {}
        }
    }

    /// Of what lies between an entry's time and its exit's, the exit's part cannot be told apart: all is taken for the
    /// entry's, and what a jump has more for the jump's.
    fn traps(&self, returns: Returns, setting: usize) -> [(TrapKind, Cost); 6] {
        // Callers make an entry dearer, and no exit.
        let return_ns = self.exit_ns(returns, Specimen::Emulated);
        let jump_ns = self.exit_ns(returns, Specimen::Jumps);
        let later_ns = self.get(Specimen::Jumps, 0).inside_ns.saturating_sub(self.get(Specimen::Emulated, 0).inside_ns);
        let entry = |specimen| {
            let Figure { cycle_ns, inside_ns, .. } = self.get(specimen, setting);
            let whole_ns = cycle_ns.saturating_sub(return_ns);
            Cost { whole_ns, inside_ns: inside_ns.min(whole_ns) }
        };
        [
            (TrapKind::NopEntry, entry(Specimen::Nop)),
            (TrapKind::EmulatedEntry, entry(Specimen::Emulated)),
            (TrapKind::Entry, entry(Specimen::Stepped)),
            (TrapKind::Return, Cost { whole_ns: return_ns, inside_ns: 0 }),
            (TrapKind::Jump, Cost { whole_ns: jump_ns, inside_ns: later_ns.min(jump_ns) }),
            (TrapKind::Passed, Cost { whole_ns: self.get(Specimen::Point, setting).cycle_ns, inside_ns: 0 }),
        ]
    }

    /// What an exit costs: what a call costs more than an entry alone. 0 where there is no entry without a return: the
    /// entry stands for both.
    fn exit_ns(&self, returns: Returns, specimen: Specimen) -> u64 {
        match returns {
            Returns::Ret => self.get(specimen, 0).cycle_ns.saturating_sub(self.get(Specimen::Open, 0).cycle_ns),
            Returns::Uretprobe | Returns::None => 0,
        }
    }
}

/// The lowest tenth's upper end: nothing makes a trap much cheaper, and much makes it dearer, for milliseconds on a shared
/// machine. What is subtracted is rather too little than too much. 0 of nothing.
fn undisturbed(mut values: Vec<u64>) -> u64 {
    values.sort_unstable();
    values.get(values.len() / 10).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine on which these take so long: an entry, by specimen; a RET, a jump, from an entry's time to its RET's and to
    /// its jump's; collecting one caller, each further one, and finding that one cannot be read.
    const ENTRIES: [u64; 6] = [300, 600, 2000, 600, 600, 2100];
    const RET: u64 = 1900;
    const JUMP: u64 = 550;
    const INSIDE: [u64; 2] = [260, 280];
    const BEHIND_ENTRY: u64 = 240;
    const BEHIND_STEP: u64 = 350;
    const ONE: u64 = 150;
    const FURTHER: u64 = 20;
    const UNREADABLE: u64 = 1000;

    /// So many callers, and whether the next one can be read.
    type Setting = Option<(usize, bool)>;

    fn seen(returns: Returns, number: usize, setting: Setting) -> Seen {
        let has_exit = !matches!(TIMED[number], Specimen::Open | Specimen::Point);
        let exit = match (returns, TIMED[number]) {
            _ if !has_exit => 0,
            (Returns::Ret, Specimen::Jumps) => JUMP,
            _ => RET,
        };
        let callers = setting.map_or(0, |(callers, unreadable)| {
            ONE + (callers as u64 - 1) * FURTHER + if unreadable { UNREADABLE } else { 0 }
        });
        let cycle = ENTRIES[number] + callers + exit;
        let inside = if exit == JUMP { INSIDE[1] } else { INSIDE[0] };
        // One in twenty is disturbed, and one comes a little early.
        let disturbed = |ns: u64| {
            (0..100).map(move |at| {
                if at % 20 == 7 {
                    ns * 50
                } else if at == 3 {
                    ns - 9
                } else {
                    ns
                }
            })
        };
        Seen {
            cycles: disturbed(cycle).collect(),
            insides: disturbed(inside).take(if has_exit { 100 } else { 0 }).collect(),
            behind_entries: disturbed(BEHIND_ENTRY + callers / 10).take(if has_exit { 100 } else { 0 }).collect(),
            behind_steps: disturbed(BEHIND_STEP).take(if TIMED[number] == Specimen::Point { 100 } else { 0 }).collect(),
            callers: setting.map(|(count, unreadable)| Collected::Walked { count, unreadable }),
        }
    }

    fn concluded(returns: Returns, callers: Callers, settings: &[Setting]) -> Costs {
        let mut costs = Costs::default();
        let seen =
            (0..TIMED.len()).map(|number| settings.iter().map(|s| seen(returns, number, *s)).collect()).collect();
        Figures::of(seen).conclude(Points { go: true, returns }, callers, &mut costs);
        costs
    }

    fn cost(costs: &Costs, kind: TrapKind, callers: Option<Collected>) -> (u64, u64) {
        let cost = costs.of(Trap { kind, go: true }, callers);
        (cost.whole_ns, cost.inside_ns)
    }

    #[test]
    fn what_each_trap_costs_follows_from_calls_with_different_ends() {
        let costs = concluded(Returns::Ret, Callers::Nobody, &[None]);
        assert_eq!(cost(&costs, TrapKind::NopEntry, None), (300, 260));
        assert_eq!(cost(&costs, TrapKind::EmulatedEntry, None), (600, 260));
        assert_eq!(cost(&costs, TrapKind::Entry, None), (2000, 260));
        assert_eq!(cost(&costs, TrapKind::Return, None), (RET, 0));
        assert_eq!(cost(&costs, TrapKind::Jump, None), (JUMP, 20));
        assert_eq!(cost(&costs, TrapKind::Passed, None), (2100, 0));
        assert_eq!(costs.of(Trap { kind: TrapKind::Return, go: false }, None), Cost::default(), "C was not measured");
    }

    #[test]
    fn what_is_behind_an_entrys_time_and_behind_a_step_is_known_of_each_kind() {
        let settings = [None, Some((1, false)), Some((33, false)), Some((1, true))];
        let costs = concluded(Returns::Ret, Callers::Outermost, &settings);
        for kind in [TrapKind::NopEntry, TrapKind::EmulatedEntry, TrapKind::Entry] {
            let behind_ns = costs.behind_entry_ns.map(|of| of[Trap { kind, go: true }.index()]);
            assert_eq!(behind_ns, [BEHIND_ENTRY, BEHIND_ENTRY + ONE / 10], "{kind:?}");
        }
        assert_eq!(costs.behind_step_ns, BEHIND_STEP);
    }

    #[test]
    fn callers_cost_by_their_number_where_they_are_collected() {
        let collected = [Some((1, false)), Some((33, false)), Some((1, true))];
        let outermost = [&[None][..], &collected].concat();
        let some = |count, unreadable| Some(Collected::Walked { count, unreadable });
        for (callers, settings) in [(Callers::All, &collected[..]), (Callers::Outermost, &outermost)] {
            let costs = concluded(Returns::Ret, callers, settings);
            assert_eq!(cost(&costs, TrapKind::EmulatedEntry, some(1, false)).0, 600 + ONE, "{callers:?}");
            assert_eq!(cost(&costs, TrapKind::EmulatedEntry, some(5, false)).0, 600 + ONE + 4 * FURTHER, "{callers:?}");
            assert_eq!(
                cost(&costs, TrapKind::Passed, some(2, true)).0,
                2100 + ONE + FURTHER + UNREADABLE,
                "{callers:?}"
            );
            let bare = if callers == Callers::All { 600 + ONE } else { 600 };
            assert_eq!(cost(&costs, TrapKind::EmulatedEntry, None).0, bare, "{callers:?}");
        }
    }

    #[test]
    fn copies_of_the_stack_cost_by_their_size() {
        let figure = |cycle_ns, bytes| Figure {
            cycle_ns,
            inside_ns: 200,
            callers: Some(Collected::Copied(bytes)),
            ..Figure::default()
        };
        let settings = vec![figure(1500, 3000), figure(3500, 3000 + 8192), figure(1500, 3000)];
        let figures = Figures(vec![settings; TIMED.len()]);
        let mut costs = Costs::default();
        figures.conclude(Points { go: true, returns: Returns::Ret }, Callers::All, &mut costs);
        let of = |bytes| cost(&costs, TrapKind::EmulatedEntry, Some(Collected::Copied(bytes)));
        // 250 ns for each 1024 bytes.
        assert_eq!((of(3000), of(3000 + 4096), of(3000 - 2048)), ((1500, 200), (2500, 200), (1000, 200)));
    }

    #[test]
    fn an_entry_with_a_uretprobe_stands_for_both() {
        let costs = concluded(Returns::Uretprobe, Callers::Nobody, &[None]);
        assert_eq!(cost(&costs, TrapKind::EmulatedEntry, None), (600 + RET, 260));
        assert_eq!(cost(&costs, TrapKind::AfterReturn, None), (0, 0));
    }
}
