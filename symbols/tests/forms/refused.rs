//! Patterns that mean nothing: what is said of them.

use symbols::pattern::Pattern;

use crate::line_of;
use crate::programs::PROGRAMS;

#[test]
fn what_is_no_pattern_is_refused_with_the_reason() {
    for (text, reason) in [
        ("", "is empty"),
        ("  ", "is empty"),
        ("!", "is empty"),
        ("! ", "is empty"),
        ("@", "is empty"),
        ("//", "is empty"),
        ("0x", "up to 16 hexadecimal digits"),
        ("0xZZ", "up to 16 hexadecimal digits"),
        ("0x10000000000000000", "up to 16 hexadecimal digits"),
        ("main.main+0x", "up to 16 hexadecimal digits"),
        ("main.main+0xq", "\"main.main+0xq\""),
        ("@main.go:0", "lines count from 1"),
        ("@main.go:99999999999", "lines count from 1"),
        ("/(/", "unclosed group"),
        ("/[z-a]/", "invalid character class range"),
        ("/a{2,1}/", "invalid repetition"),
    ] {
        let error = text.parse::<Pattern>().unwrap_err().to_string();
        assert!(error.contains(reason), "{text:?}: {error}");
    }
    // Strange, but names or globs.
    for text in
        ["-x", "--all", "./main", "/usr/bin/true", "a b", "[", "{", "}", "f(", "<", "::", ".", "\\", "0", "+0x1", "=f"]
    {
        let pattern: Pattern = text.parse().unwrap();
        assert!(PROGRAMS.c.index.select(&[pattern], false).matches.is_empty(), "{text}");
    }
}

#[test]
fn what_matches_nothing_has_something_near() {
    for (program, typed, near) in [
        (&PROGRAMS.go, "main.(*Store).Gett", "main.(*Store).Get"),
        (&PROGRAMS.go, "main.(*store).get", "main.(*Store).Get"),
        (&PROGRAMS.go, "main.(*Store).Len", "main.Store.Len"),
        (&PROGRAMS.go, "main.Shop.Get", "main.(*Store).Get"),
        (&PROGRAMS.go, "example.com/ge/foo.v1.F", "example.com/ge.v2/foo.v1.F"),
        (&PROGRAMS.go, "main.Gen[float64]", "main.Gen[go.shape.int]"),
        (&PROGRAMS.go, r"/MAIN\.CALL$/", "main.call"),
        (&PROGRAMS.go, "@mian.go", "/main.go"),
        (&PROGRAMS.go, "@foo/foo.go", "/foo.v1/foo.go"),
        (&PROGRAMS.cpp, "shop::Ordr::price", "shop::Order::price"),
        (&PROGRAMS.cpp, "shop::Order::prise(int)", "shop::Order::price"),
        (&PROGRAMS.cpp, "shop::versioned", "shop::v1::versioned"),
        (&PROGRAMS.cpp, "shop::scael<int>", "shop::scale<int, 3>"),
        (&PROGRAMS.v0, "names::Squre::show", "<names::Square<char>>::show"),
        (&PROGRAMS.legacy, "names::Squre::show", "names::Square<T>::show"),
        (&PROGRAMS.legacy, "std::rt::lang_start_intern", "std::rt::lang_start_internal"),
        (&PROGRAMS.c, "twise", "twice"),
        (&PROGRAMS.c, "FUNC_A", "func_a"),
        (&PROGRAMS.c, "@on.c", "one.c"),
    ] {
        let pattern: Pattern = typed.parse().unwrap();
        assert!(program.index.select(std::slice::from_ref(&pattern), false).matches.is_empty(), "{typed}");
        let nearest = program.index.nearest(&pattern, 5);
        assert!(nearest.iter().any(|name| name.ends_with(near)), "{typed}: {nearest:?}");
    }
    let go = &PROGRAMS.go.index;
    let nothing: Pattern = "@deep.go:1".parse().unwrap();
    let line = line_of("go/internal/deep/deep.go", "func Down");
    assert_eq!(go.nearest(&nothing, 5), [format!("@deep.go:{line}")]);
    assert!(go.why_no_match(&nothing).unwrap().contains("line 1 of deep.go has no code"));
    assert!(go.why_no_match(&"0x1".parse().unwrap()).unwrap().contains("not code"));
    assert!(go.why_no_match(&"main.call+0x1000".parse().unwrap()).unwrap().contains("main.call ends at +0x"));
    assert!(go.why_no_match(&"shop::{a,b}".parse().unwrap()).unwrap().contains("behind `::`"));
    let before = PROGRAMS.c.index.nearest(&"0x1".parse().unwrap(), 5);
    assert!(before.len() == 1 && before[0].starts_with("0x"), "{before:?}");
}
