//! What a Go programmer types, and exactly the functions that it means.

use std::collections::BTreeSet;

use symbols::index::Index;

use crate::cells::{self, Stripping};

fn names(index: &Index, pattern: &str) -> BTreeSet<String> {
    let selection = index.select(&[pattern.parse().unwrap()], false);
    selection.matches.into_iter().map(|found| found.name).collect()
}

/// Each row: a pattern, and all names that it matches.
fn check(index: &Index, version: &str, rows: &[(&str, &[&str])]) {
    for (pattern, expected) in rows {
        let expected: BTreeSet<String> = expected.iter().map(|&name| name.to_owned()).collect();
        assert_eq!(names(index, pattern), expected, "{version}: {pattern}");
    }
}

/// Names that are the same in every version.
const ALWAYS: &[(&str, &[&str])] = &[
    ("main", &["main.main"]),
    ("main.touch", &["main.touch"]),
    // Methods: as the table spells them, escaped for another tool, without the package, without the receiver's marks.
    ("main.(*Store).Get", &["main.(*Store).Get"]),
    (r"main.(\*Store).Get", &["main.(*Store).Get"]),
    ("main.Store.Get", &["main.(*Store).Get"]),
    ("(*Store).Get", &["main.(*Store).Get"]),
    ("Store.Get", &["main.(*Store).Get"]),
    ("main.Store.Len", &["main.Store.Len"]),
    ("Store.Len", &["main.Store.Len"]),
    ("main.(*Store).*", &["main.(*Store).Get"]),
    (r"main.(\*Store).*", &["main.(*Store).Get"]),
    // What the compiler made is taken by its exact name.
    ("main.(*Store).Get-fm", &["main.(*Store).Get-fm"]),
    ("Store.Get-fm", &["main.(*Store).Get-fm"]),
    // Functions within functions.
    ("main.nested.func1", &["main.nested.func1"]),
    ("main.nested.func1.1", &["main.nested.func1.1"]),
    ("nested.func1.1", &["main.nested.func1.1"]),
    ("main.nested*", &["main.nested", "main.nested.func1", "main.nested.func1.1"]),
    ("main.nested.*", &["main.nested.func1", "main.nested.func1.1"]),
    ("main.main.func?", &["main.main.func1", "main.main.func2"]),
    ("main.init.0", &["main.init.0"]),
    ("main.init.[01]", &["main.init.0", "main.init.1"]),
    // Paths: escaped and not, in full, in part, with a version, by the package's name.
    ("example.com/ge.v2/foo.v1.(*Counter).Add", &["example.com/ge.v2/foo.v1.(*Counter).Add"]),
    ("example.com/ge.v2/foo%2ev1.(*Counter).Add", &["example.com/ge.v2/foo.v1.(*Counter).Add"]),
    ("foo.v1.(*Counter).Add", &["example.com/ge.v2/foo.v1.(*Counter).Add"]),
    ("foo.v1.Counter.Add", &["example.com/ge.v2/foo.v1.(*Counter).Add"]),
    ("foo.(*Counter).Add", &["example.com/ge.v2/foo.v1.(*Counter).Add"]),
    ("foo.Counter.Add", &["example.com/ge.v2/foo.v1.(*Counter).Add"]),
    (r"foo.(\*Counter).Add", &["example.com/ge.v2/foo.v1.(*Counter).Add"]),
    ("Counter.Add", &["example.com/ge.v2/foo.v1.(*Counter).Add"]),
    ("example.com/ge.v2/foo.(*Counter).Add", &["example.com/ge.v2/foo.v1.(*Counter).Add"]),
    ("example.org/dep/v2.Weigh", &["example.org/dep/v2.Weigh"]),
    ("dep/v2.Weigh", &["example.org/dep/v2.Weigh"]),
    ("example.org/dep.Weigh", &["example.org/dep/v2.Weigh"]),
    ("dep.Weigh", &["example.org/dep/v2.Weigh"]),
    ("example.org/*", &["example.org/dep/v2.Weigh"]),
    ("example.*/v2.*", &["example.org/dep/v2.Weigh"]),
    ("*/foo.v1.*", &["example.com/ge.v2/foo.v1.(*Counter).Add"]),
    ("*/foo%2ev1.*", &["example.com/ge.v2/foo.v1.(*Counter).Add"]),
    ("example.com/*/shelf.*", &["example.com/ge.v2/internal/shelf.Put"]),
    ("shelf.Put", &["example.com/ge.v2/internal/shelf.Put"]),
    // The assembly, and not its wrapper besides.
    ("asm.Twice", &["example.com/ge.v2/asm.Twice"]),
    (
        "example.com/ge.v2/asm.*",
        &["example.com/ge.v2/asm.Through", "example.com/ge.v2/asm.Twice", "example.com/ge.v2/asm.target"],
    ),
    ("/^main\\.(send|times)$/", &["main.send", "main.times"]),
    ("main.{send,times}", &["main.send", "main.times"]),
    ("main.Send", &[]),
    ("ain.send", &[]),
];

/// From Go 1.21 on the function table has what generics were made for.
const GENERIC: &[(&str, &[&str])] = &[
    ("main.(*List).Push", &["main.(*List[go.shape.int]).Push", "main.(*List[go.shape.string]).Push"]),
    ("main.(*List[...]).Push", &["main.(*List[go.shape.int]).Push", "main.(*List[go.shape.string]).Push"]),
    (r"main.(\*List[...]).Push", &["main.(*List[go.shape.int]).Push", "main.(*List[go.shape.string]).Push"]),
    ("main.(*List[int]).Push", &["main.(*List[go.shape.int]).Push"]),
    ("main.(*List[go.shape.int]).Push", &["main.(*List[go.shape.int]).Push"]),
    ("(*List[int]).Push", &["main.(*List[go.shape.int]).Push"]),
    ("List.Push", &["main.(*List[go.shape.int]).Push", "main.(*List[go.shape.string]).Push"]),
    ("main.List[string].First", &["main.List[go.shape.string].First"]),
    ("List.First", &["main.List[go.shape.int].First", "main.List[go.shape.string].First"]),
    ("main.(*Pair).Swap", &["main.(*Pair[go.shape.string,go.shape.float64]).Swap"]),
    ("main.(*Pair[string,float64]).Swap", &["main.(*Pair[go.shape.string,go.shape.float64]).Swap"]),
    ("main.(*Pair[string, float64]).Swap", &["main.(*Pair[go.shape.string,go.shape.float64]).Swap"]),
    ("main.Map", &["main.Map[go.shape.int,go.shape.string]", "main.Map[go.shape.string,go.shape.int]"]),
    ("main.Map[int, string]", &["main.Map[go.shape.int,go.shape.string]"]),
    ("main.Gen[bool]", &["main.Gen[go.shape.bool]"]),
    ("main.Gen[bool].func1", &["main.Gen[go.shape.bool].func1"]),
    ("main.Gen[bool]*", &["main.Gen[go.shape.bool]", "main.Gen[go.shape.bool].func1"]),
    (
        "main.Gen.func1",
        &["main.Gen[go.shape.bool].func1", "main.Gen[go.shape.int].func1", "main.Gen[go.shape.string].func1"],
    ),
];

/// Go 1.18 to 1.20 leave it out.
const ABRIDGED: &[(&str, &[&str])] = &[
    ("main.(*List).Push", &["main.(*List[...]).Push"]),
    ("main.(*List[...]).Push", &["main.(*List[...]).Push"]),
    ("List.First", &["main.List[...].First"]),
    ("main.Gen.func1", &["main.Gen[...].func1"]),
    ("main.hook", &[]),
    ("main.glob..func1", &["main.glob..func1"]),
];

/// Go 1.23 and later: bodies of loops over functions; what `defer` and `go` wrap.
const RANGES: &[(&str, &[&str])] = &[
    ("main.overEvens-range1", &["main.overEvens-range1"]),
    ("overEvens-range1", &["main.overEvens-range1"]),
    ("main.deferred.gowrap3", &["main.deferred.gowrap3"]),
    ("main.deferred.deferwrap1", &["main.deferred.deferwrap1"]),
    ("main.deferred*", &["main.deferred", "main.deferred.func1"]),
    ("main.init.func1", &["main.init.func1"]),
];

fn agree(version: &str) {
    let index = cells::index(&cells::twin(version, "exe"), Stripping::Flags);
    let tables: &[&[(&str, &[&str])]] = match version {
        "go1.19" => &[ALWAYS, ABRIDGED],
        "go1.21" | "go1.22" => &[ALWAYS, GENERIC],
        _ => &[ALWAYS, GENERIC, RANGES],
    };
    for rows in tables {
        check(&index, version, rows);
    }
}

cells::for_each_version!(agree);
