//! How the names of real programs are spelt, compared with the demanglers of binutils and LLVM.
//!
//! Each name that neither would write needs a [`Rule`], which is checked; what none explains fails, and so does a rule that
//! excuses nothing. Which tool is right where they differ stands with the rule.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;

use symbols::binary::Binary;
use symbols::index::{FunctionId, Index, Language, LeftOut, Matched};

/// Why a name is not as binutils has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rule {
    /// Rust, legacy: binutils keeps the hash. It names nothing in the source, and changes with the compiler.
    RustHash,
    /// Rust, v0: binutils shows the crates' disambiguators and the types of constants; LLVM neither, as the source has it.
    RustCrates,
    /// C++: binutils writes `std::ostream` and its like in full, others by their name; and separates the parentheses of a
    /// function type with a space. Both are right.
    Spelling,
    /// C++: a constraint at the end of a symbol (`requires …`), which binutils 2.40 does not read. It is not shown: what it
    /// says is no part of what the source calls the function. LLVM shows it.
    Constraint,
    /// C++: a constraint that LLVM does not read either.
    Unread,
    /// C++: a substitution for a parameter that depends on a template, in a function within another one's arguments.
    /// Binutils and LLVM write what it stood for in the inner function. What the name begins with is the same.
    LateSubstitution,
}

use Rule::*;

const PROGRAMS: [&str; 10] = [
    "rg-dwarf",
    "py-spy",
    "cargo",
    "librustc_driver.so",
    "libLLVM.so",
    "node",
    "libstdc++.so",
    "libc.so.6",
    "python3.11",
    "redis-server",
];

/// Names that these rules may excuse: all are of node.
const MOST_LATE: usize = 10;
const MOST_CONSTRAINED: usize = 170;

/// Without what compilers and linkers put behind a name, which binutils shows as `[clone .cold]`.
fn base(symbol: &str) -> &str {
    let mut name = symbol.split_once('@').map_or(symbol, |(name, _)| name);
    const MARKS: [&str; 8] = [".cold", ".warm", ".part", ".isra", ".constprop", ".localalias", ".llvm", ".specialized"];
    while let Some(shorter) = {
        let unnumbered = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let unnumbered = unnumbered.strip_suffix('.').filter(|_| unnumbered.len() < name.len()).unwrap_or(name);
        MARKS.iter().find_map(|mark| unnumbered.strip_suffix(mark))
    } {
        name = shorter;
    }
    name
}

fn is_rust(symbol: &str) -> bool {
    symbol.starts_with("_R") || symbol.len() > 20 && symbol[symbol.len() - 20..].starts_with("17h")
}

/// One spelling for what [`Spelling`] excuses.
fn plain(name: &str) -> String {
    const FULL: [(&str, &str); 4] = [
        ("ostream", "basic_ostream<char,std::char_traits<char>>"),
        ("istream", "basic_istream<char,std::char_traits<char>>"),
        ("iostream", "basic_iostream<char,std::char_traits<char>>"),
        ("string", "basic_string<char,std::char_traits<char>,std::allocator<char>>"),
    ];
    let mut name = name.replace(' ', "");
    for (short, full) in FULL {
        let template = full.split('<').next().unwrap();
        for tilde in ["", "~"] {
            name = name.replace(&format!("std::{short}::{tilde}{short}"), &format!("std::{full}::{tilde}{template}"));
        }
        for end in ["&", "*", ",", ")", "::", ">", "const"] {
            name = name.replace(&format!("std::{short}{end}"), &format!("std::{full}{end}"));
        }
    }
    name
}

/// The identifiers before the first bracket of any kind, without marks of types.
fn beginning(name: &str) -> String {
    let plain = plain(name);
    let identifiers = plain.split(['<', '(', '[']).next().unwrap_or_default();
    identifiers.replace(['*', '&'], "")
}

fn rule(symbol: &str, gnu: &str, llvm: &str, ours: &BTreeSet<&str>) -> Option<Rule> {
    if symbol.starts_with("_R") {
        return ours.contains(llvm).then_some(RustCrates);
    }
    if is_rust(symbol) {
        let (name, hash) = gnu.rsplit_once("::h")?;
        return (hash.len() == 16 && ours.contains(name)).then_some(RustHash);
    }
    let wanted = plain(gnu);
    if ours.iter().any(|name| plain(name) == wanted) {
        return Some(Spelling);
    }
    if gnu == symbol && symbol.contains('Q') && !ours.contains(symbol) {
        // Within another function's arguments LLVM shows return types too, and calls lambdas otherwise.
        let unconstrained = llvm.split_once(" requires ").map(|(name, _)| plain(name));
        let is_same = |name: &&str| Some(plain(name)) == unconstrained || beginning(name) == beginning(llvm);
        return if llvm == symbol { Some(Unread) } else { ours.iter().any(is_same).then_some(Constraint) };
    }
    let is_in_arguments = symbol.contains("IZ") || symbol.contains("IRZ");
    let begins_so = ours.iter().any(|name| beginning(name) == beginning(gnu));
    (is_in_arguments && begins_so).then_some(LateSubstitution)
}

#[test]
fn names_are_spelt_as_binutils_or_llvm_spell_them() {
    let mut used: BTreeMap<Rule, usize> = BTreeMap::new();
    let mut unexplained = Vec::new();
    for program in PROGRAMS {
        let index = Index::new(Arc::new(Binary::open(&common::corpus(program)).unwrap())).unwrap();
        let named = || index.functions().filter(|f| f.left_out != Some(LeftOut::Nameless));
        let symbols: BTreeSet<&str> = named().flat_map(|f| index.symbols(f.id)).map(base).collect();
        let gnu = common::filtered(&mut Command::new("c++filt"), symbols.iter());
        let gnu: BTreeMap<&str, &str> = symbols.iter().copied().zip(gnu.lines()).collect();
        let llvm = common::llvm::demangled(symbols.clone());
        for function in named() {
            let aliases = index.aliases(function.id);
            let ours: BTreeSet<&str> = aliases.iter().map(String::as_str).chain([function.name]).collect();
            for symbol in index.symbols(function.id).map(base).filter(|s| !ours.contains(gnu[s])) {
                let (gnu, llvm) = (gnu[symbol], &llvm[symbol]);
                let why = rule(symbol, gnu, llvm, &ours);
                let Some(why) = why else {
                    unexplained.push(format!("{program}: {symbol}\n{gnu}\n{llvm}\n{ours:#?}"));
                    continue;
                };
                *used.entry(why).or_default() += 1;
            }
        }
    }
    let some: Vec<_> = unexplained.iter().take(9).collect();
    assert!(some.is_empty(), "{} names, such as {some:#?}", unexplained.len());
    assert_eq!(
        used.keys().copied().collect::<Vec<_>>(),
        [RustHash, RustCrates, Spelling, Constraint, Unread, LateSubstitution],
        "{used:?}"
    );
    assert!(used[&LateSubstitution] <= MOST_LATE && used[&Unread] <= MOST_LATE, "{used:?}");
    assert!(used[&Constraint] <= MOST_CONSTRAINED, "{used:?}");
}

/// Those with lambdas, function pointers and expressions, as a person would copy them from `nm -C`.
#[test]
fn names_with_parameters_as_binutils_writes_them_find_their_functions() {
    for program in ["node", "libLLVM.so"] {
        let index = Index::new(Arc::new(Binary::open(&common::corpus(program)).unwrap())).unwrap();
        let whole = index.functions().filter(|f| f.left_out.is_none() && f.language == Language::Cpp);
        let symbols: Vec<(FunctionId, &str)> = whole.map(|f| (f.id, base(f.symbol))).collect();
        let gnu = common::filtered(&mut Command::new("c++filt"), symbols.iter().map(|(_, symbol)| symbol));
        let is_involved = |name: &&str| ["{lambda", "(*)", "decltype (", "&("].iter().any(|sign| name.contains(sign));
        let involved = symbols.iter().zip(gnu.lines()).filter(|(_, name)| is_involved(name) && name.ends_with(')'));
        let mut asked = 0;
        for ((id, symbol), name) in involved.step_by(20) {
            // Without the return type that a function template shows.
            let short = index.short_name(*id);
            let Some(at) = name.find(short.split(['<', '(']).next().unwrap()) else { continue };
            let found = index.select(&[name[at..].parse().unwrap()], false);
            assert!(found.matches.iter().any(|m| m.what == Matched::Function(*id)), "{program}: {symbol}\n{name}");
            asked += 1;
        }
        assert!(asked > 10, "{program}: {asked}");
    }
}
