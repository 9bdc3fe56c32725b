//! What several patterns mean together, and what is left out unless it is named.

use symbols::index::{LeftOut, Matched};

use crate::programs::PROGRAMS;
use crate::{names, select};

#[test]
fn negations_take_away_wherever_they_stand() {
    for (patterns, expected) in [
        (&["func_*", "!func_c"][..], &["func_a", "func_b", "func_d", "func_e"][..]),
        (&["!func_c", "func_*"], &["func_a", "func_b", "func_d", "func_e"]),
        (&["func_*", "!func_[b-d]"], &["func_a", "func_e"]),
        (&["func_*", "!/[ab]$/"], &["func_c", "func_d", "func_e"]),
        (&["func_a", "!func_*"], &[]),
        (&["!func_*", "!versioned*", "!@one.c", "!@two.c", "!twice"], &["calls"]),
    ] {
        assert_eq!(names(&PROGRAMS.c, &select(&PROGRAMS.c, patterns, false)), expected, "{patterns:?}");
    }
    // What is left out stays so, and what a negation names is not said to be unmatched.
    let rest = select(&PROGRAMS.go, &["!main.*", "!nothing"], false);
    assert!(rest.unmatched.is_empty());
    assert!(rest.matches.iter().all(|m| !m.name.starts_with("main.") && !m.name.starts_with("runtime.")));
    let address = select(&PROGRAMS.c, &["func_a"], false).matches[0].what;
    let Matched::Function(id) = address else { panic!() };
    let by_address = format!("!{}", PROGRAMS.c.index.function(id).address);
    assert_eq!(names(&PROGRAMS.c, &select(&PROGRAMS.c, &["func_{a,b}", &by_address], false)), ["func_b"]);
}

/// What of each kind is there, which patterns do not take it in, and which do.
#[test]
fn what_is_left_out_is_taken_in_by_name() {
    for (program, kind, name, not_by, by) in [
        (
            &PROGRAMS.go,
            LeftOut::GoRuntime,
            "runtime.gcMark",
            &["*gcMark", "/gcMark$/", "!main.*"][..],
            &["runtime.gcMark", "gcMark", "runtime.gcMar*", "/^runtime\\.gcMark$/", "runtime.*"][..],
        ),
        (
            &PROGRAMS.go,
            LeftOut::GoInternal,
            "internal/abi.BoundsDecode",
            &["*BoundsDecode"],
            &["internal/abi.BoundsDecode", "abi.BoundsDecode", "internal/abi.*", "internal/*"],
        ),
        (
            &PROGRAMS.go,
            LeftOut::GoWrapper,
            "main.main.gowrap1",
            &["main.*", "main.main.*"],
            &["main.main.gowrap1", "main.gowrap1"],
        ),
        (&PROGRAMS.go, LeftOut::GoWrapper, "main.(*Store).Get-fm", &["main.*", "*-fm"], &["Store.Get-fm"]),
        (
            &PROGRAMS.cpp,
            LeftOut::Thunk,
            "virtual thunk to shop::Order::weight",
            &["*weight", "Order::weight"],
            &["virtual thunk to shop::Order::weight()"],
        ),
        (&PROGRAMS.cpp, LeftOut::Startup, "_start", &["*", "_sta*"], &["_start"]),
        (&PROGRAMS.c, LeftOut::Startup, "frame_dummy", &["*", "/^frame/"], &["frame_dummy"]),
        (&PROGRAMS.c, LeftOut::Part, "twice", &["!*"], &["twice.cold"]),
    ] {
        let has = |patterns: &[&str], all: bool| {
            let selection = select(program, patterns, all);
            let ids = selection.matches.iter().filter(|m| m.name == name).filter_map(|m| match m.what {
                Matched::Function(id) => Some(id),
                Matched::Point { .. } => None,
            });
            ids.into_iter().any(|id| program.index.function(id).left_out == Some(kind))
        };
        for pattern in not_by {
            assert!(!has(&[pattern], false), "{pattern} takes in {name}");
        }
        for pattern in by {
            assert!(has(&[pattern], false), "{pattern} does not take in {name}");
        }
        assert!(has(&["*"], true), "--all takes in {name}");
        let counted = select(program, &["*"], false).left_out;
        assert!(counted.iter().any(|(_, why)| *why == kind), "{kind}");
    }
}
