//! Internal points: on the unwinders themselves, so that a call which a panic, exception or longjmp took away gets the
//! time at which that happened. They are never shown and are no calls; they cost nothing until somebody unwinds.

use std::collections::BTreeSet;

use symbols::{
    addr::Vaddr,
    binary::Binary,
    code,
    index::{Function, Matched},
    pattern::Pattern,
    unwind,
};

use super::{Cookie, FilePlanner, NO_FUNCTION, Plan, PlannedFile, PlannedPoint, PointKind, Returns};
use crate::{output::escape, target::TracedFile};

/// Functions that end by entering another frame (Itanium C++ ABI: Exception Handling, level I). Rust's panics and
/// `pthread_cancel` use the same. The last is where LLVM's libunwind does it.
const UNWINDERS: [&str; 5] = [
    "_Unwind_RaiseException",
    "_Unwind_Resume",
    "_Unwind_Resume_or_Rethrow",
    "_Unwind_ForcedUnwind",
    "__libunwind_Registers_x86_64_jumpto",
];
/// Names under which C libraries jump, some of them in a function that those call.
const JUMPERS: [&str; 6] = ["longjmp", "_longjmp", "siglongjmp", "__longjmp_chk", "__longjmp", "____longjmp_chk"];
/// What a program calls that uses them.
const USES_JUMPS: [&str; 7] =
    ["setjmp", "_setjmp", "__sigsetjmp", "longjmp", "_longjmp", "siglongjmp", "__longjmp_chk"];

/// What gives a coroutine its stack. Who makes them otherwise has calls that look as if they had been unwound.
const CONTEXTS: [(&str, PointKind); 2] =
    [("makecontext", PointKind::Context), ("make_fcontext", PointKind::BoostContext)];

/// Why a library's unwinder is not watched.
const UNKNOWN: &str = "where it enters the frame it unwound to is not known";

impl FilePlanner<'_> {
    /// Where Go's runtime takes frames away without returns. `runtime.Goexit` runs the deferred calls and then calls
    /// `goexit1`, which does not return: at that call all frames of the goroutine are gone. `runtime.recovery` runs on
    /// the system stack after `recover`, writes down where the goroutine is to go on, and calls `gogo`.
    pub(super) fn add_go_unwinding(&mut self) {
        if self.options.returns == Returns::None {
            return;
        }
        self.add_calls("runtime.Goexit", "runtime.goexit1", PointKind::GoroutineEnd);
        self.add_calls("runtime.recovery", "runtime.gogo", PointKind::Recovery);
    }

    fn add_calls(&mut self, caller: &str, callee: &str, kind: PointKind) {
        let binary = self.index.binary();
        let Some(caller) = self.named(caller).next() else { return };
        let Some(code) = binary.bytes_at(caller.address, caller.size) else { return };
        // Assembly and its wrapper share one name.
        let callees: Vec<Vaddr> = self.named(callee).map(|f| f.address).collect();
        let calls = callees.iter().flat_map(|&to| code::calls_to(binary.machine(), code, caller.address, to));
        for offset in calls.filter_map(|call| binary.file_offset(call)) {
            self.point(offset, kind, NO_FUNCTION, true, false);
        }
    }

    fn named(&self, name: &str) -> impl Iterator<Item = Function<'_>> {
        let matches = name.parse::<Pattern>().map(|pattern| self.index.select(&[pattern], true).matches);
        matches.unwrap_or_default().into_iter().filter_map(|found| match found.what {
            Matched::Function(id) => Some(self.index.function(id)),
            Matched::Point { .. } => None,
        })
    }
}

impl Plan {
    /// Watches native unwinders: those within the traced files, and those of `libraries`, which the caller appends to
    /// the files.
    pub fn watch_unwinders(&mut self, traced: &[TracedFile], libraries: &[TracedFile]) {
        let only_unwinds = |library: &TracedFile| PlannedFile { shown: library.shown.clone(), only_unwinds: true };
        self.files.extend(libraries.iter().map(only_unwinds));
        let wants_jumps = traced.iter().any(|file| uses_jumps(file.index.binary()));
        self.watch_contexts(traced, libraries);
        for (number, file) in traced.iter().chain(libraries).enumerate() {
            let binary = file.index.binary();
            // What it takes from elsewhere it does not have itself: no need to look through its symbols.
            let unwinders = if binary.imports(&UNWINDERS) { Vec::new() } else { binary.symbol_values(&UNWINDERS) };
            let jumpers = if wants_jumps { binary.symbol_values(&JUMPERS) } else { Vec::new() };
            let jumps = Jumps::of(binary, &jumpers);
            let mut places: Vec<Vaddr> = unwinders.iter().flat_map(|&f| landings(binary, f)).collect();
            places.extend(&jumps.landings);
            if places.is_empty() && jumps.calls.is_empty() && !(unwinders.is_empty() && jumpers.is_empty()) {
                self.unwatched.push(format!("{}: {UNKNOWN}", escape::escaped(&file.shown)));
            }
            self.push_internal(number, binary, jumps.calls, PointKind::LongJump);
            self.push_internal(number, binary, places, PointKind::Landing);
        }
        if self.has_unwinding_languages && !self.points.iter().any(|point| point.kind == PointKind::Landing) {
            self.unwatched.push("no unwinder was found, neither in the program nor in what it needs".to_owned());
        }
    }

    /// Unwinders by these names were not found.
    pub fn were_not_found(&mut self, names: &[String]) {
        self.unwatched.extend(names.iter().map(|name| format!("{} was not found", escape::escaped(name))));
    }

    /// Watches who makes coroutines, where a traced file does.
    fn watch_contexts(&mut self, traced: &[TracedFile], libraries: &[TracedFile]) {
        for (name, kind) in CONTEXTS {
            if !traced.iter().any(|file| uses(file.index.binary(), &[name])) {
                continue;
            }
            for (number, file) in traced.iter().chain(libraries).enumerate() {
                let binary = file.index.binary();
                self.push_internal(number, binary, binary.symbol_values(&[name]), kind);
            }
        }
    }

    fn push_internal(&mut self, file: usize, binary: &Binary, places: Vec<Vaddr>, kind: PointKind) {
        for offset in places.into_iter().filter_map(|place| binary.file_offset(place)) {
            let cookie = self.native_cookie(self.points.len() as u32);
            self.points.push(PlannedPoint { file, offset, kind, function: NO_FUNCTION, cookie });
        }
    }

    /// C that Go called belongs to the goroutine, also where it unwinds.
    fn native_cookie(&self, point: u32) -> Cookie {
        let go = self.points.iter().map(|point| point.cookie).find(|cookie| cookie.goid_offset() != 0);
        go.map_or(Cookie::native(point), |go| {
            Cookie::go(point, go.goid_offset() as u16, go.program() as u8).foreign_g()
        })
    }

    /// Whether a file is watched for unwinding only.
    pub fn only_unwinds(&self, file: usize) -> bool {
        self.files.get(file).is_some_and(|file| file.only_unwinds)
    }

    /// Whether unwinders are watched in files that programs which are not traced run too.
    pub fn watches_shared_files(&self) -> bool {
        self.points.iter().any(|point| self.only_unwinds(point.file))
    }
}

/// Where `longjmp` is watched in a file.
#[derive(Default)]
struct Jumps {
    /// Calls of glibc's `__longjmp`, which tell where it will land.
    calls: Vec<Vaddr>,
    /// Where other ones land.
    landings: Vec<Vaddr>,
}

impl Jumps {
    fn of(binary: &Binary, jumpers: &[Vaddr]) -> Self {
        let mut found = Self::default();
        let mut seen = BTreeSet::new();
        for &jumper in jumpers {
            for callee in callees(binary, jumper).into_iter().filter(|&callee| is_guarded(binary, callee)) {
                seen.insert(callee);
                found.calls.extend(calls(binary, jumper, callee));
            }
        }
        for function in jumpers.iter().flat_map(|&f| callees(binary, f)).chain(jumpers.iter().copied()) {
            if seen.insert(function) {
                found.landings.extend(landings(binary, function));
            }
        }
        found
    }
}

fn is_guarded(binary: &Binary, function: Vaddr) -> bool {
    code_of(binary, function).is_some_and(|(start, code)| code::restores_guarded_buffer(binary.machine(), code, start))
}

fn calls(binary: &Binary, caller: Vaddr, callee: Vaddr) -> Vec<Vaddr> {
    code_of(binary, caller).map_or_default(|(start, code)| code::calls_to(binary.machine(), code, start, callee))
}

fn uses_jumps(binary: &Binary) -> bool {
    binary.imports(&USES_JUMPS) || binary.interpreter().is_none() && !binary.symbol_values(&JUMPERS).is_empty()
}

fn uses(binary: &Binary, names: &[&str]) -> bool {
    binary.imports(names) || !binary.symbol_values(names).is_empty()
}

fn code_of(binary: &Binary, function: Vaddr) -> Option<(Vaddr, &[u8])> {
    let (start, size) = unwind::code_range(binary, function)?;
    Some((start, binary.bytes_at(start, size)?))
}

fn landings(binary: &Binary, function: Vaddr) -> Vec<Vaddr> {
    code_of(binary, function).map_or_default(|(start, code)| code::landings(binary.machine(), code, start))
}

fn callees(binary: &Binary, function: Vaddr) -> Vec<Vaddr> {
    code_of(binary, function).map_or_default(|(start, code)| code::callees(binary.machine(), code, start))
}
