//! From a symbol as the linker spells it to the name a person writes.
//!
//! Three steps that callers take as they need them: the *base* (no version, no clone suffix), the *full* name (as
//! `nm -C` shows it, without Rust's hash), and the *bare* name (no parameters, return type or ABI tags), which is what
//! patterns are compared with. Most bare names are written in one pass (`cpp`, `rust`); `itanium` (by way of a tree) and
//! rustc_demangle do the rest, and full names of C++. Output is bounded: a few hundred hostile bytes can describe a name of gigabytes.

mod cpp;
mod itanium;
mod rust;

use std::borrow::Cow;
use std::fmt::{self, Write};

use itanium::Show;

/// Names of 12,000 bytes are real (node); what is longer than this stays mangled.
const MAX_NAME: usize = 64 << 10;
/// Nesting of types; node's deepest names need 80. Each level costs stack.
const MAX_DEPTH: u32 = 192;

/// How a symbol is mangled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Not at all: C, assembly, `extern "C"`.
    Plain,
    /// `_ZN…17h<hash>E`, or `_R…`.
    Rust,
    /// `_Z…` of C++.
    Itanium,
}

/// Suffixes that compilers put behind a function's name, most with a number after them.
/// GCC: cgraph clones (`.part`, `.isra`, `.constprop`, `.lto_priv`, `.cold`, `.localalias`); LLVM: `.llvm`, `.cold`,
/// `.specialized`, `.__uniq`; BOLT: `.cold`, `.warm`.
const CLONE_SUFFIXES: [&[u8]; 11] = [
    b".cold",
    b".warm",
    b".part",
    b".isra",
    b".constprop",
    b".lto_priv",
    b".localalias",
    b".llvm",
    b".clone",
    b".specialized",
    b".__uniq",
];

/// A symbol without its version (`@GLIBC_2.14`) and clone suffixes.
pub(crate) fn base(symbol: &[u8]) -> &[u8] {
    let mut name = unversioned(symbol);
    while let Some(shorter) = without_clone_suffix(name) {
        name = shorter;
    }
    name
}

/// A symbol without its version. What makes a stub of its name (`puts@plt`) is no version.
pub(crate) fn unversioned(symbol: &[u8]) -> &[u8] {
    match memchr::memchr(b'@', symbol) {
        Some(at) if at > 0 && symbol.get(at..) != Some(PLT) => symbol.get(..at).unwrap_or(symbol),
        _ => symbol,
    }
}

/// What `objdump` puts behind the name of the function that a stub calls.
pub(crate) const PLT: &[u8] = b"@plt";

/// What `demangle` makes of a symbol; of a stub's, of the function's that it calls.
fn with_plt<'a>(symbol: &'a [u8], demangle: impl Fn(&'a [u8]) -> Cow<'a, str>) -> Cow<'a, str> {
    match symbol.strip_suffix(PLT) {
        Some(called) if scheme(called) != Scheme::Plain => Cow::Owned(format!("{}@plt", demangle(called))),
        _ => demangle(symbol),
    }
}

/// The symbol of the function whose part this is: `f` of `f.cold` and `f.cold.1`, and of BOLT's `f.warm`.
pub(crate) fn whole_of_part(symbol: &[u8]) -> Option<&[u8]> {
    let name = without_number(unversioned(symbol));
    name.strip_suffix(b".cold").or_else(|| name.strip_suffix(b".warm")).filter(|rest| !rest.is_empty())
}

fn without_clone_suffix(name: &[u8]) -> Option<&[u8]> {
    let shorter = without_number(name);
    CLONE_SUFFIXES.iter().find_map(|suffix| shorter.strip_suffix(*suffix)).filter(|rest| !rest.is_empty())
}

fn without_number(name: &[u8]) -> &[u8] {
    let digits = name.iter().rev().take_while(|b| b.is_ascii_digit()).count();
    match name.split_at_checked(name.len() - digits) {
        Some((head, _)) if digits > 0 => head.strip_suffix(b".").unwrap_or(name),
        _ => name,
    }
}

/// The mangling of a [`base`] symbol.
pub(crate) fn scheme(base: &[u8]) -> Scheme {
    match base {
        [b'_', b'R', b'A'..=b'Z' | b'0'..=b'9', ..] => Scheme::Rust,
        [b'_', b'Z', ..] if has_rust_hash(base) => Scheme::Rust,
        [b'_', b'Z', ..] => Scheme::Itanium,
        _ => Scheme::Plain,
    }
}

/// Whether a symbol that is not mangled is a name of C++ as the source has it: debug information has such.
pub(crate) fn is_qualified(symbol: &[u8]) -> bool {
    memchr::memmem::find(symbol, b"::").is_some()
}

/// Whether a symbol is the name itself.
pub(crate) fn is_of_c(symbol: &[u8]) -> bool {
    scheme(base(symbol)) == Scheme::Plain && !is_qualified(symbol)
}

/// `…17h0123456789abcdefE`
fn has_rust_hash(base: &[u8]) -> bool {
    let Some(tail) = base.len().checked_sub(20).and_then(|at| base.get(at..)) else {
        return false;
    };
    let hash = tail.strip_prefix(b"17h").and_then(|t| t.strip_suffix(b"E"));
    hash.is_some_and(|h| h.iter().all(u8::is_ascii_hexdigit))
}

/// The full name. Borrowed where nothing has to be demangled.
pub(crate) fn full(symbol: &[u8]) -> Cow<'_, str> {
    with_plt(symbol, |symbol| name(symbol, Show::Full))
}

/// The full name without the return type.
pub(crate) fn with_parameters(symbol: &[u8]) -> Cow<'_, str> {
    with_plt(symbol, |symbol| name(symbol, Show::WithoutReturnType))
}

/// The name without parameters, return type and ABI tags.
pub(crate) fn bare(symbol: &[u8]) -> Cow<'_, str> {
    with_plt(symbol, |symbol| name(symbol, Show::Bare))
}

fn name(symbol: &[u8], show: Show) -> Cow<'_, str> {
    let base = base(symbol);
    let demangled = match scheme(base) {
        Scheme::Plain => None,
        Scheme::Rust => rust(base),
        Scheme::Itanium if show == Show::Bare => cpp::bare(base).or_else(|| itanium::name(base, show)),
        Scheme::Itanium => itanium::name(base, show),
    };
    demangled.map_or_else(|| String::from_utf8_lossy(base), Cow::Owned)
}

fn rust(base: &[u8]) -> Option<String> {
    rust::bare(base).or_else(|| rust_by_parsing(base))
}

fn rust_by_parsing(base: &[u8]) -> Option<String> {
    let demangled = rustc_demangle::try_demangle(std::str::from_utf8(base).ok()?).ok()?;
    let mut out = Bounded(String::with_capacity(base.len()));
    write!(out, "{demangled:#}").ok()?;
    // Many are kept, and half of what a growing string has may be unused.
    out.0.shrink_to_fit();
    Some(out.0)
}

/// A string that refuses to grow beyond [`MAX_NAME`].
struct Bounded(String);

impl Write for Bounded {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        if self.0.len().saturating_add(s.len()) > MAX_NAME {
            return Err(fmt::Error);
        }
        self.0.push_str(s);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clone_suffixes_and_versions_are_dropped() {
        for (symbol, expected) in [
            ("memcpy@@GLIBC_2.14", "memcpy"),
            ("f.cold", "f"),
            ("f.part.0.cold", "f"),
            ("f.constprop.0.isra.1", "f"),
            ("f.llvm.1234567890", "f"),
            ("f.specialized.1", "f"),
            ("v1.2", "v1.2"),
            ("puts@plt", "puts@plt"),
            (".cold", ".cold"),
        ] {
            assert_eq!(base(symbol.as_bytes()), expected.as_bytes());
        }
        assert_eq!(whole_of_part(b"f.part.0.cold"), Some(&b"f.part.0"[..]));
        assert_eq!(whole_of_part(b"f.warm"), Some(&b"f"[..]));
        assert_eq!(whole_of_part(b"f.part.0"), None);
    }

    /// The functions of a file whose symbols begin so.
    fn symbols(file: &std::path::Path, beginning: &str) -> Vec<String> {
        let binary = std::sync::Arc::new(crate::binary::Binary::open(file).expect("testdata/setup.sh installs it"));
        let index = crate::index::Index::new(binary).expect("it has functions");
        let all = (0..index.len() as u32).flat_map(|id| index.symbols(crate::index::FunctionId(id)));
        let symbols = all.filter(|symbol| symbol.starts_with(beginning));
        symbols.map(|symbol| String::from_utf8_lossy(base(symbol.as_bytes())).into_owned()).collect()
    }

    /// What `c++filt` calls them, without parameters.
    fn filtered(symbols: &[String]) -> Vec<String> {
        let mut command = std::process::Command::new("c++filt");
        command.arg("--no-params").stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().expect("testdata/setup.sh installs it");
        let (mut stdin, text) = (child.stdin.take().expect("it is piped"), symbols.join("\n"));
        let writer = std::thread::spawn(move || std::io::Write::write_all(&mut stdin, text.as_bytes()));
        let out = child.wait_with_output().expect("it runs").stdout;
        writer.join().expect("no panic").expect("it reads all");
        let names = String::from_utf8_lossy(&out);
        // It spells out what a member's class is, `std::string`, but not what a type is.
        let short = |name: &str| {
            let name =
                name.replace("std::basic_string<char, std::char_traits<char>, std::allocator<char> >", "std::string");
            ["istream", "ostream", "iostream"].iter().fold(name, |name, stream| {
                name.replace(&format!("std::basic_{stream}<char, std::char_traits<char> >"), &format!("std::{stream}"))
            })
        };
        let without_tags = |name: &str| {
            let mut parts = name.split("[abi:");
            let first = parts.next().unwrap_or_default().to_owned();
            parts.fold(first, |name, part| name + part.split_once(']').map_or("", |(_, rest)| rest))
        };
        names.lines().map(|name| short(&without_tags(name)).replace("std::string >", "std::string>")).collect()
    }

    #[test]
    fn a_stub_is_called_as_what_it_calls() {
        for (symbol, expected) in [
            ("puts@plt", "puts@plt"),
            ("_ZN4shop5Order5priceEi@plt", "shop::Order::price@plt"),
            ("_ZSt3maxIiE@plt", "std::max<int>@plt"),
        ] {
            assert_eq!(bare(symbol.as_bytes()), expected);
        }
        assert_eq!(full(b"_ZN4shop5Order5priceEi@plt"), "shop::Order::price(int)@plt");
    }

    #[test]
    fn names_written_directly_are_those_of_cppfilt() {
        for library in ["libLLVM.so.22.1", "libstdc++.so.6"] {
            let symbols = symbols(&std::path::Path::new("/usr/lib/x86_64-linux-gnu").join(library), "_Z");
            let mut direct = 0;
            for (symbol, theirs) in symbols.iter().zip(filtered(&symbols)) {
                if let Some(ours) = cpp::bare(symbol.as_bytes()) {
                    assert_eq!(ours, theirs, "{symbol}");
                    assert_eq!(itanium::name(symbol.as_bytes(), Show::Bare), Some(ours), "{symbol}");
                    direct += 1;
                }
            }
            // Few need a parser: that is what this is for.
            assert!(direct * 10 > symbols.len() * 9, "{library}: {direct} of {}", symbols.len());
        }
    }

    #[test]
    fn names_of_rust_written_directly_are_those_of_rustc_demangle() {
        let sysroot = std::process::Command::new("rustc").args(["--print", "sysroot"]).output().expect("rustc runs");
        let libraries = std::path::Path::new(String::from_utf8_lossy(&sysroot.stdout).trim()).join("lib");
        let mut files = std::fs::read_dir(libraries).expect("rustc has libraries").flatten().map(|entry| entry.path());
        let driver = files.find(|path| path.to_string_lossy().contains("librustc_driver-"));
        let symbols = symbols(&driver.expect("rustc is dynamically linked"), "_R");
        let mut direct = 0;
        for symbol in &symbols {
            if let Some(ours) = rust::bare(symbol.as_bytes()) {
                assert_eq!(Some(ours), rust_by_parsing(symbol.as_bytes()), "{symbol}");
                direct += 1;
            }
        }
        assert!(direct * 10 > symbols.len() * 9, "{direct} of {}", symbols.len());
    }

    #[test]
    fn symbols_of_rust_are_read_to_their_end_and_no_further() {
        for (symbol, expected) in [
            ("_RNvCs1234_4shop4sell", Some("shop::sell")),
            ("_RNCNvCs1234_4shop4sells_0Cs5678_4main", Some("shop::sell::{closure#1}")),
            ("_RINvCs1234_4shop4sellNtB2_5OrdertKj1f_E", Some("shop::sell::<shop::Order, u16, 31>")),
            ("_RNvXCs1234_4shopNtB2_5OrderNtB2_5Price5price", Some("<shop::Order as shop::Price>::price")),
            ("_RINvCs1234_4shop4sellDNtB2_5PriceEL_E", Some("shop::sell::<dyn shop::Price>")),
            // A lifetime with a name, punycode, a string.
            ("_RINvCs1234_4shop4sellFG_RL0_hEuE", None),
            ("_RNvCs1234_4shopu8gdel_5qa", None),
            ("_RINvCs1234_4shop4sellKRe616263_E", None),
            // Cut, too long, going round in circles, of another version.
            ("_RNvCs1234_4shop4sel", None),
            ("_RNvCs1234_4shop4sellx", None),
            ("_RNvCs1234_4shop99sell", None),
            ("_RNvNvB_4sell4sell", None),
            ("_RNvB2_4sell", None),
            ("_R1NvC4shop4sell", None),
            ("_R", None),
        ] {
            assert_eq!(rust::bare(symbol.as_bytes()).as_deref(), expected, "{symbol}");
            if expected.is_some() {
                assert_eq!(rust_by_parsing(symbol.as_bytes()).as_deref(), expected, "{symbol}");
            }
        }
    }

    #[test]
    fn a_short_symbol_of_rust_of_a_huge_name_stays_mangled() {
        let digit = |n: usize| char::from(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[n]);
        // Places count from behind the `_R`.
        let back = |place: usize| format!("B{}{}_", digit((place - 1) / 62), digit((place - 1) % 62));
        let pairs = |levels: usize| {
            let mut symbol = String::from("_RINvC4shop4sell");
            let mut before = "hh".to_owned();
            for _ in 0..levels {
                let place = symbol.len() - 2;
                symbol.push_str(&format!("T{before}E"));
                before = back(place).repeat(2);
            }
            symbol + "E"
        };
        assert_eq!(full(pairs(2).as_bytes()), "shop::sell::<(u8, u8), ((u8, u8), (u8, u8))>");
        // Each argument is a pair of the one before: 2^40 letters.
        assert_eq!(full(pairs(40).as_bytes()), pairs(40));
    }

    #[test]
    fn what_needs_a_tree_is_not_written_directly() {
        for (symbol, expected) in [
            ("_ZN4shop5ScaleIiE4pushEi", Some("shop::Scale<int>::push")),
            ("_ZN4shop5OrderD0Ev", Some("shop::Order::~Order")),
            ("_ZN12_GLOBAL__N_16hiddenEi", Some("(anonymous namespace)::hidden")),
            ("_ZL6statici", Some("static")),
            ("_ZN4shop6taggedB2v2Ev", Some("shop::tagged")),
            ("_ZN4shoplsERSoi", Some("shop::operator<<")),
            ("_ZN4shop3useIPFviEEEvT_", None),
            ("_ZN4shop3useIXadL_ZNS_1fEvEEEEvv", None),
            ("_ZNSs6appendEPKc", Some("std::string::append")),
            ("_ZN4shop", None),
            ("_ZN4shopC", None),
            ("_ZNC1Ev", None),
            ("_ZN4shopIE1fEv", None),
            ("_ZN4shopI", None),
            ("_ZNS5_1fEv", None),
            ("_ZN99shop4overEi", None),
        ] {
            assert_eq!(cpp::bare(symbol.as_bytes()).as_deref(), expected, "{symbol}");
            if let Some(expected) = expected {
                assert_eq!(itanium::name(symbol.as_bytes(), Show::Bare).as_deref(), Some(expected), "{symbol}");
            }
        }
    }

    /// Oracle: `c++filt` of binutils 2.40.
    #[test]
    fn an_empty_pack_leaves_nothing() {
        for (symbol, expected) in [
            ("_Z1fIJEEvDpOT_", "void f<>()"),
            ("_Z1fIiJEEvT_DpOT0_", "void f<int>(int)"),
            ("_Z1fIiJEEvT_DpRKT0_", "void f<int>(int)"),
            ("_Z1fIJEiEvRA2_KcT0_DpOT_", "void f<int>(char const (&) [2], int)"),
            ("_ZN1aI1bIJEEE1cEv", "a<b<> >::c()"),
            ("_ZN1aI1bIiJEEE1cEv", "a<b<int> >::c()"),
            ("_ZN1agtERS_OA3_i", "a::operator>(a&, int (&&) [3])"),
        ] {
            assert_eq!(full(symbol.as_bytes()), expected, "{symbol}");
        }
    }

    #[test]
    fn deep_symbols_fit_the_stack() {
        let deep = ["P", "1aI", "ZN1aE", "FvPFi", "DTcl", "M1aFv", "IXad", "IXcvi", "N1aI"];
        let symbols = deep.map(|level| format!("_Z1f{}i", level.repeat(MAX_NAME / level.len())));
        let work = move || symbols.map(|symbol| assert_eq!(full(symbol.as_bytes()), symbol));
        let thread = std::thread::Builder::new().stack_size(crate::parallel::STACK).spawn(work).unwrap();
        thread.join().unwrap();
    }

    #[test]
    fn operators_and_lambdas_are_called_as_in_the_source() {
        for (symbol, expected) in [
            ("_ZN4shopli3_kgEy", "shop::operator\"\" _kg"),
            ("_Zli3_kgy", "operator\"\" _kg"),
            ("_ZZ4mainENKUliE_clEi", "main::{lambda(int)#1}::operator()"),
            ("_ZN4shop5OrderixEi", "shop::Order::operator[]"),
            ("_ZNK4shop5OrdercviEv", "shop::Order::operator int"),
            ("_ZN1AnwEm", "A::operator new"),
        ] {
            assert_eq!(bare(symbol.as_bytes()), expected);
        }
    }

    #[test]
    fn a_short_symbol_of_a_huge_name_stays_mangled() {
        // Each argument is a pair of the one before: 2^40 letters.
        let mut symbol = String::from("_Z1f4PairIiiE");
        for level in 0..40 {
            let back = if level == 0 { "S1_".to_owned() } else { format!("S{level}_") };
            symbol.push_str(&format!("S_I{back}{back}E"));
        }
        assert!(full(symbol.as_bytes()).len() <= MAX_NAME);
    }
}
