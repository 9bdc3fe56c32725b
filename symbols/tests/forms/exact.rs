//! Names in full: of functions, with what may be left out of them; of symbols.

use symbols::index::{LeftOut, Matched};

use crate::programs::PROGRAMS;
use crate::{ALL_FUNC1, GEN, PUSH, check, is_exact, select};

#[test]
fn exact_names_of_go() {
    check(
        &PROGRAMS.go,
        &[
            ("main.(*Store).Get", &["main.(*Store).Get"]),
            (r"main.(\*Store).Get", &["main.(*Store).Get"]),
            (r"main\.\(\*Store\)\.Get", &["main.(*Store).Get"]),
            ("main.Store.Len", &["main.Store.Len"]),
            ("main.(*Store).Get-fm", &["main.(*Store).Get-fm"]),
            // The last element of a package's path, as the linker escapes it and as it is written.
            ("example.com/ge.v2/foo%2ev1.F", &["example.com/ge.v2/foo.v1.F"]),
            ("example.com/ge.v2/foo.v1.F", &["example.com/ge.v2/foo.v1.F"]),
            ("example.com/ge.v2/foo.v1.(*Box).Open", &["example.com/ge.v2/foo.v1.(*Box).Open"]),
            (r"example.com/ge.v2/foo.v1.(\*Box).Open", &["example.com/ge.v2/foo.v1.(*Box).Open"]),
            ("example.com/ge%2ev2/foo.v1.F", &[]),
            ("main.Größe", &["main.Größe"]),
            // Type arguments: as the table has them, as they are written, abridged, left out.
            ("main.(*List[go.shape.int]).Push", &PUSH[..1]),
            ("main.(*List[int]).Push", &PUSH[..1]),
            ("main.(*List[...]).Push", &PUSH),
            ("main.(*List).Push", &PUSH),
            ("main.Gen[go.shape.struct {}]", &GEN[2..]),
            ("main.Gen[struct {}]", &GEN[2..]),
            ("main.Gen[...]", &GEN),
            ("main.Gen", &GEN),
            ("main.Gen[float64]", &[]),
            ("main.Pair[string,int].Swap", &["main.Pair[go.shape.string,go.shape.int].Swap"]),
            ("main.Pair.Swap", &["main.Pair[go.shape.string,go.shape.int].Swap"]),
            // Closures, in generic methods too; bodies of loops over functions; what `go` starts.
            ("main.closures.func1", &["main.closures.func1"]),
            ("main.closures.func1.1", &["main.closures.func1.1"]),
            ("main.(*List[...]).All.func1", &ALL_FUNC1),
            ("main.(*List).All.func1", &ALL_FUNC1),
            ("main.ranged", &["main.ranged"]),
            ("main.ranged-range1", &["main.ranged-range1"]),
            ("main.ranged-range1.1", &["main.ranged-range1.1"]),
            ("main.main.gowrap1", &["main.main.gowrap1"]),
            ("main.init.0", &["main.init.0"]),
            ("main.init.func1", &["main.init.func1"]),
            ("main.(*Store).get", &[]),
            ("main.nothing", &[]),
        ],
    );
    assert!(is_exact(&PROGRAMS.go, "main.ranged") && is_exact(&PROGRAMS.go, "(*Store).Get"));
}

const ORDER: &str = "shop::Order";
const STRING: &str = "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >";

#[test]
fn exact_names_of_cpp() {
    let order = |name: &str| format!("{ORDER}::{name}");
    let strings = format!("shop::Stack<{STRING} >::push");
    let convert = order(&format!("operator {STRING}"));
    // Each operator is its own name.
    for operator in ["operator()", "operator<", "operator==", "operator->", "operator[]", "operator int", "operator+="]
    {
        check(&PROGRAMS.cpp, &[(&order(operator), &[&order(operator)])]);
    }
    for operator in ["operator new", "operator new[]", "operator delete", "operator delete[]"] {
        check(&PROGRAMS.cpp, &[(&order(operator), &[&order(operator)])]);
    }
    check(
        &PROGRAMS.cpp,
        &[
            ("shop::over", &["shop::over", "shop::over"]),
            ("shop::over(int)", &["shop::over"]),
            ("shop::over(int, char const*)", &["shop::over"]),
            ("shop::over(int,char const*)", &["shop::over"]),
            ("shop::over(long)", &[]),
            ("shop::Order::price(int)", &["shop::Order::price"]),
            ("shop::Order::price(int) const", &["shop::Order::price"]),
            // Each of the two constructors once, whatever number of symbols they have; the deleting destructor is one.
            ("shop::Order::Order", &["shop::Order::Order", "shop::Order::Order"]),
            ("shop::Order::Order(int)", &["shop::Order::Order"]),
            ("shop::Order::Order(std::string)", &["shop::Order::Order"]),
            ("shop::Order::~Order", &["shop::Order::~Order", "shop::Order::~Order"]),
            ("shop::Order::operator()(int)", &["shop::Order::operator()"]),
            ("shop::Order::operator<(shop::Order const&)", &["shop::Order::operator<"]),
            ("shop::Order::operator new[](unsigned long)", &["shop::Order::operator new[]"]),
            ("shop::Order::operator std::string", &[&convert]),
            ("shop::Order::operator std::string() const", &[&convert]),
            ("shop::operator<<", &["shop::operator<<"]),
            ("shop::operator<<(std::ostream&, shop::Order const&)", &["shop::operator<<"]),
            ("shop::operator\"\" _kg", &["shop::operator\"\" _kg"]),
            ("shop::operator\"\"_kg", &["shop::operator\"\" _kg"]),
            ("shop::Order::label(std::string const&)", &["shop::Order::label"]),
            ("shop::Order::count(std::vector<std::string> const&)", &["shop::Order::count"]),
            ("shop::each(int (*)(int))", &["shop::each"]),
            // Arguments of templates given, in part, or not.
            ("shop::scale<int, 3>", &["shop::scale<int, 3>"]),
            ("shop::scale<int>", &["shop::scale<int, 3>"]),
            ("shop::scale", &["shop::scale<int, 3>", "shop::scale<long, 2>"]),
            ("shop::Stack<int>::push", &["shop::Stack<int>::push"]),
            ("shop::Stack<std::string>::push", &[&strings]),
            ("shop::Stack<std::string>::push(std::string)", &[&strings]),
            ("shop::Stack::push", &["shop::Stack<int>::push", &strings]),
            ("std::vector<int>::push_back", &["std::vector<int, std::allocator<int> >::push_back"; 2]),
            ("shop::tagged", &["shop::tagged"]),
            ("shop::Box::open", &["shop::Box::open"]),
            ("(anonymous namespace)::hidden", &["(anonymous namespace)::hidden"]),
            ("(anonymous namespace)::Secret::tell()", &["(anonymous namespace)::Secret::tell"]),
            ("main::{lambda(int)#1}::operator()", &["main::{lambda(int)#1}::operator()"]),
            ("virtual thunk to shop::Order::weight()", &["virtual thunk to shop::Order::weight"]),
            ("plain", &["plain"]),
            // As the linker spells it: that symbol alone.
            ("_ZN4shop4overEi", &["shop::over"]),
            ("_ZN4shop5OrderC1Ei", &["shop::Order::Order"]),
            ("shop::Over", &[]),
        ],
    );
}

#[test]
fn exact_names_of_rust() {
    for (program, is_v0) in [(&PROGRAMS.legacy, false), (&PROGRAMS.v0, true)] {
        // The old mangling records what is generic, but not for what it was made.
        let only = |in_v0: usize, in_legacy: usize| if is_v0 { in_v0 } else { in_legacy };
        let of_trait = "<names::Square<u32> as names::Area>::area";
        check(
            program,
            &[
                (of_trait, &[of_trait]),
                ("<names::Square as names::Area>::area", &[of_trait]),
                ("names::Square<u32>::area", &[of_trait]),
                ("names::Square::area", &[of_trait]),
                ("<[u8] as names::Area>::area", &["<[u8] as names::Area>::area"]),
                ("<[u8]>::area", &["<[u8] as names::Area>::area"]),
                ("names::Guard::drop", &["<names::Guard as core::ops::drop::Drop>::drop"]),
                ("names::apply", &["names::apply"]),
                ("names::main", &["names::main"]),
                ("plain_c", &["plain_c"]),
                ("names::Apply", &[]),
            ],
        );
        for (pattern, count) in [
            ("names::Square::show", 2),
            ("<names::Square<T>>::show", only(0, 2)),
            ("names::Square<T>::show", only(0, 2)),
            ("names::Square<char>::show", only(1, 0)),
            ("<names::Square<char>>::show", only(1, 0)),
            ("names::deep::down::pair", 2),
            ("names::deep::down::pair::<u8, u32>", only(1, 0)),
            ("names::deep::down::pair<u8, u32>", only(1, 0)),
            ("names::main::{{closure}}", 1),
            ("names::main::{closure#0}", 1),
            ("names::main::{closure#7}", 1),
            ("<names::Square<u32> as names::Area>::twice", only(1, 0)),
            ("names::Area::twice", only(0, 1)),
            ("core::fmt::Formatter::pad", 1),
            ("std::rt::lang_start_internal", 1),
        ] {
            let matches = select(program, &[pattern], false).matches;
            assert_eq!(matches.len(), count, "{pattern}: {matches:#?}");
        }
        // Every mangled name finds its own function.
        for function in program.index.functions().filter(|f| f.name.contains("names::")) {
            let matches = select(program, &[function.symbol], false).matches;
            assert!(matches.iter().any(|m| m.what == Matched::Function(function.id)), "{}", function.symbol);
        }
    }
}

#[test]
fn exact_names_of_c() {
    check(
        &PROGRAMS.c,
        &[
            ("twice", &["twice"]),
            // Of two files.
            ("same", &["same", "same"]),
            // What was split off is meant by its own symbol only.
            ("same.cold", &["same", "same"]),
            ("twice.cold", &["twice"]),
            ("versioned", &["versioned", "versioned"]),
            ("versioned@V_1.0", &["versioned"]),
            ("versioned@@V_2.0", &["versioned"]),
            ("versioned@V_2.0", &["versioned"]),
            ("versioned@V_3", &[]),
            ("versioned_new", &["versioned_new"]),
            ("choose", &["choose"]),
            ("Twice", &[]),
        ],
    );
    let address = |pattern: &str| match select(&PROGRAMS.c, &[pattern], false).matches[0].what {
        Matched::Function(id) => PROGRAMS.c.index.function(id).address,
        Matched::Point { address, .. } => address,
    };
    assert_eq!(address("versioned@V_1.0"), address("versioned_old"));
    assert_eq!(address("versioned@V_2.0"), address("versioned_new"));
    // The symbol is the resolver's, and the library does not call what it chooses.
    let chosen = select(&PROGRAMS.c, &["chosen"], true);
    assert!(chosen.matches.is_empty() && chosen.left_out[0].1 == LeftOut::UncalledIfunc);
}
