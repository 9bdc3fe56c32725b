//! Patterns that are shorter than names: tails, globs, regular expressions.

use crate::programs::PROGRAMS;
use crate::{ALL_FUNC1, FUNC, GEN, PUSH, check, is_exact, names, select};

#[test]
fn tails_begin_at_a_separator() {
    check(
        &PROGRAMS.go,
        &[
            ("Get", &["main.(*Store).Get", "sync.(*Pool).Get"]),
            ("Store.Get", &["main.(*Store).Get"]),
            ("(*Store).Get", &["main.(*Store).Get"]),
            ("tore.Get", &[]),
            ("Store.Len", &["main.Store.Len"]),
            ("List.Push", &PUSH),
            ("(*List[...]).Push", &PUSH),
            ("List.All.func1", &ALL_FUNC1),
            ("foo.v1.F", &["example.com/ge.v2/foo.v1.F"]),
            ("foo%2ev1.F", &["example.com/ge.v2/foo.v1.F"]),
            ("ge.v2/foo.v1.(*Box).Open", &["example.com/ge.v2/foo.v1.(*Box).Open"]),
            ("Box.Open", &["example.com/ge.v2/foo.v1.(*Box).Open"]),
            ("internal/deep.Down", &["example.com/ge.v2/internal/deep.Down"]),
            ("Größe", &["main.Größe"]),
            ("röße", &[]),
            ("ranged-range1.1", &["main.ranged-range1.1"]),
            ("range1", &[]),
            ("main", &["main.main"]),
        ],
    );
    let both = ["(anonymous namespace)::Secret::tell"];
    check(
        &PROGRAMS.cpp,
        &[
            ("Order::price", &["shop::Order::price"]),
            ("Order::Order(int)", &["shop::Order::Order"]),
            // The thunks jump to it: they are no calls of their own.
            ("~Order", &["shop::Order::~Order", "shop::Order::~Order"]),
            ("weight", &["shop::Order::weight", "shop::Other::weight"]),
            ("rder::price", &[]),
            ("Secret::tell", &both),
            ("tell", &both),
            ("hidden", &["(anonymous namespace)::hidden"]),
            (
                "operator()(int)",
                &["main::{lambda(int)#1}::operator()", "main::{lambda(int)#2}::operator()", "shop::Order::operator()"],
            ),
            ("operator->", &["shop::Order::operator->"]),
            ("Order::operator new[]", &["shop::Order::operator new[]"]),
            ("operator int", &["shop::Order::operator int"]),
            ("Stack<int>::push", &["shop::Stack<int>::push"]),
            ("main", &["main"]),
        ],
    );
    for program in [&PROGRAMS.legacy, &PROGRAMS.v0] {
        check(
            program,
            &[
                ("Square::area", &["<names::Square<u32> as names::Area>::area"]),
                ("Guard::drop", &["<names::Guard as core::ops::drop::Drop>::drop"]),
                ("[u8]::area", &["<[u8] as names::Area>::area"]),
                ("apply", &["names::apply"]),
                ("pply", &[]),
                // The crate's, not the C function that the loader calls.
                ("main", &["names::main"]),
            ],
        );
        for (pattern, count) in [("pair", 2), ("down::pair", 2), ("Square::show", 2), ("main::{{closure}}", 1)] {
            assert_eq!(select(program, &[pattern], false).matches.len(), count, "{pattern}");
        }
    }
    check(&PROGRAMS.c, &[("wice", &[]), ("cold", &[])]);
    let many = select(&PROGRAMS.go, &["func1"], false);
    assert!(many.matches.len() > 100 && many.notes.len() == 1, "{:?}", many.notes);
}

#[test]
fn globs_are_over_the_full_name() {
    check(
        &PROGRAMS.go,
        &[
            ("main.(*Store).*", &["main.(*Store).Get"]),
            ("main.(*List).P*", &PUSH),
            ("main.(*List[...]).P*", &PUSH),
            ("main.(*List[int]).P*", &PUSH[..1]),
            ("*[go.shape.int]).Push", &PUSH[..1]),
            ("main.Gen[[]*", &[]),
            ("main.Gen[*", &GEN),
            ("main.Gen[st*", &GEN[1..]),
            ("main.{call,closures}", &["main.call", "main.closures"]),
            ("main.{call,closures.{func1,no}}", &["main.call", "main.closures.func1"]),
            ("main.[cG]a*", &["main.call"]),
            ("main.ma?n", &["main.main"]),
            ("main.Gr??e", &["main.Größe"]),
            ("main.Größ?", &["main.Größe"]),
            ("*/deep.*", &["example.com/ge.v2/internal/deep.Down"]),
            ("*/foo.v1.*", &["example.com/ge.v2/foo.v1.(*Box).Open", "example.com/ge.v2/foo.v1.F"]),
            ("*/foo%2ev1.F*", &["example.com/ge.v2/foo.v1.F"]),
            ("main.ranged-*", &["main.ranged-range1", "main.ranged-range1.1"]),
            (r"main.(\*Store).*", &["main.(*Store).Get"]),
            ("ain.main*", &[]),
            ("main.store*", &[]),
        ],
    );
    check(
        &PROGRAMS.cpp,
        &[
            ("shop::Order::pri*", &["shop::Order::price"]),
            ("shop::O*::price", &["shop::Order::price"]),
            ("shop::*::operator[]", &["shop::Order::operator[]"]),
            ("shop::Order::operator{()*,->*}", &["shop::Order::operator()", "shop::Order::operator->"]),
            ("shop::sc*<int*", &["shop::scale<int, 3>"]),
            ("main::{lambda(int)#1}::*", &["main::{lambda(int)#1}::operator()"]),
            ("(anonymous namespace)::h*", &["(anonymous namespace)::hidden"]),
            // Behind `::` braces are part of the name.
            ("shop::{over,tagged}*", &[]),
            ("shop:{:over,:tagged}", &["shop::over", "shop::over", "shop::tagged"]),
        ],
    );
    for program in [&PROGRAMS.legacy, &PROGRAMS.v0] {
        let closures = names(program, &select(program, &["names::*::{{closure}}"], false));
        assert!(closures.len() == 1 && closures == names(program, &select(program, &["names::*{closure#0}"], false)));
        for (pattern, count) in [("names::deep::*", 2), ("<names::Guard as *", 1), ("*Guard*::drop", 1), ("*::area", 2)]
        {
            let matches = select(program, &[pattern], false).matches;
            let own = matches.iter().filter(|m| m.name.contains("names::"));
            assert_eq!(own.count(), count, "{pattern}: {matches:#?}");
        }
    }
    check(
        &PROGRAMS.c,
        &[
            ("func_*", &FUNC),
            ("func_?", &FUNC),
            ("func_[a-c]", &FUNC[..3]),
            ("func_[!a-c]", &FUNC[3..]),
            ("func_[^a-c]", &FUNC[3..]),
            ("func_{a,b}", &FUNC[..2]),
            ("{func_a,twi*}", &["func_a", "twice"]),
            ("func_[abx]", &FUNC[..2]),
            (r"func_\*", &[]),
            ("sam*", &["same", "same"]),
            ("versioned*", &["versioned", "versioned"]),
        ],
    );
    assert!(!is_exact(&PROGRAMS.c, "func_*"));
}

#[test]
fn regular_expressions_search_the_full_name() {
    check(
        &PROGRAMS.go,
        &[
            (r"/^main\.(ranged|call)$/", &["main.call", "main.ranged"]),
            (r"/\(\*Store\)/", &["main.(*Store).Get"]),
            ("/(?i)größe/", &["main.Größe"]),
            (r"/foo\.v1\.F/", &["example.com/ge.v2/foo.v1.F"]),
            (r"/foo%2ev1\.F/", &["example.com/ge.v2/foo.v1.F"]),
            (r"/^main\.Gen$/", &GEN),
            ("/nosuchthing/", &[]),
        ],
    );
    check(&PROGRAMS.c, &[("/^func_[ab]$/", &FUNC[..2]), ("/unc_e/", &FUNC[4..]), ("/^unc/", &[])]);
    check(
        &PROGRAMS.cpp,
        &[
            ("/^shop::ov/", &["shop::over", "shop::over"]),
            (
                r"/^(shop|main).*operator\(\)$/",
                &["main::{lambda(int)#1}::operator()", "main::{lambda(int)#2}::operator()", "shop::Order::operator()"],
            ),
        ],
    );
}
