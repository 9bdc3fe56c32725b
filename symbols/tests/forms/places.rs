//! Where instead of what: files and lines, addresses, offsets.

use symbols::addr::Vaddr;
use symbols::index::Matched;

use crate::programs::PROGRAMS;
use crate::{FUNC, check, common, line_of, select};

#[test]
fn files_and_lines_are_named_by_the_end_of_the_path() {
    check(
        &PROGRAMS.go,
        &[
            ("@foo.v1/foo.go", &["example.com/ge.v2/foo.v1.(*Box).Open", "example.com/ge.v2/foo.v1.F"]),
            ("@deep/deep.go", &["example.com/ge.v2/internal/deep.Down"]),
            ("@eep.go", &[]),
            ("@nothing.go", &[]),
            ("@deep.go:4000", &[]),
            (
                &format!("@deep.go:{}", line_of("go/internal/deep/deep.go", "func Down")),
                &["example.com/ge.v2/internal/deep.Down"],
            ),
        ],
    );
    check(
        &PROGRAMS.c,
        &[
            ("@one.c", &["one", "same"]),
            ("@lib.c", &[&FUNC[..], &["calls", "twice", "versioned", "versioned"]].concat()),
            (&format!("@lib.c:{}", line_of("lib.c", "int func_d")), &["func_d"]),
            ("@ib.c", &[]),
        ],
    );
    // Every place of a line, as llvm-symbolizer has it.
    for (program, file, line) in [
        (&PROGRAMS.go, "main.go", line_of("go/main.go", "slices.Collect")),
        (&PROGRAMS.cpp, "names.cc", line_of("names.cc", "shop::Order::count(t.items)")),
    ] {
        let matches = select(program, &[&format!("@{file}:{line}")], false).matches;
        assert!(!matches.is_empty());
        for found in matches {
            let Matched::Point { address, offset, .. } = found.what else { panic!("{found:?}") };
            assert!(found.name.starts_with("main") && found.name.ends_with(&format!("+{offset:#x}")), "{found:?}");
            let frames = &common::llvm::symbolizer_of(&program.path, &[address.0])[0];
            assert!(frames.iter().any(|(_, path, at)| path.ends_with(file) && *at as usize == line), "{frames:?}");
        }
    }
}

#[test]
fn addresses_and_offsets_mean_functions_at_their_start_and_points_inside() {
    for (program, name) in [
        (&PROGRAMS.go, "main.(*Store).Get"),
        (&PROGRAMS.cpp, "shop::Order::label"),
        (&PROGRAMS.v0, "names::apply"),
        (&PROGRAMS.c, "calls"),
    ] {
        let Matched::Function(id) = select(program, &[name], false).matches[0].what else { panic!("{name}") };
        let function = program.index.function(id);
        let start = function.address;
        for same in [start.to_string(), format!("{name}+0x0"), format!("{:#X}", start.0).replace("0X", "0x")] {
            assert_eq!(select(program, &[&same], false).matches[0].what, Matched::Function(id), "{same}");
        }
        let inside = Matched::Point { address: Vaddr(start.0 + 4), function: Some(id), offset: 4 };
        for same in [format!("{:#x}", start.0 + 4), format!("{name}+0x4"), format!("{name}+0x04")] {
            let found = &select(program, &[&same], false).matches[0];
            assert_eq!((found.what, &*found.name, found.exact), (inside, &*format!("{name}+0x4"), true), "{same}");
        }
        for nothing in [format!("{name}+{:#x}", function.size), "0x1".to_owned(), "0xffffffffffffffff".to_owned()] {
            assert!(select(program, &[&nothing], false).matches.is_empty(), "{nothing}");
        }
    }
    // One of several functions of a name is long enough.
    let longer = select(&PROGRAMS.cpp, &["shop::Order::Order+0x60"], false);
    assert_eq!((longer.matches.len(), longer.notes.len()), (1, 1));
}
