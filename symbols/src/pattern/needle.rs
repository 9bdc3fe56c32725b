//! The words that must occur in a symbol for a pattern to match: what spares demangling the rest.

use regex_syntax::hir::{Hir, HirKind};

/// Words of C++'s library that a mangled name may have only as an abbreviation, and namespaces that are passed over.
const ABBREVIATED: [&str; 14] = [
    "std",
    "string",
    "allocator",
    "basic_string",
    "istream",
    "ostream",
    "iostream",
    "basic_istream",
    "basic_ostream",
    "basic_iostream",
    "__cxx11",
    "__1",
    "__ndk1",
    "_V2",
];

/// The identifiers of a name outside brackets: they stand in the symbol as they are, however the rest is mangled.
pub(super) fn own_words(literal: &str) -> Vec<&str> {
    let mut words = Vec::new();
    if !literal.is_ascii() {
        return words;
    }
    let mut depth = 0usize;
    let mut start = None;
    for (at, c) in literal.char_indices().chain([(literal.len(), '.')]) {
        if depth == 0 && (c.is_ascii_alphanumeric() || c == '_') {
            start = start.or(Some(at));
        } else if let Some(word) = start.take().and_then(|from: usize| literal.get(from..at)) {
            // What follows is a sign, or a type.
            if word == "operator" {
                break;
            }
            if is_own(word) {
                words.push(word);
            }
        }
        match c {
            // Parameters: what follows is not the function's name.
            '(' if !literal.get(at..).is_some_and(|r| r.starts_with("(*") || r.starts_with("(anonymous")) => {
                break;
            }
            '<' | '[' | '{' | '(' => depth += 1,
            '>' | ']' | '}' | ')' => depth = depth.saturating_sub(1),
            // `virtual thunk to f`: a sentence of the demangler's.
            ' ' if depth == 0 => return Vec::new(),
            _ => {}
        }
    }
    words
}

fn is_own(word: &str) -> bool {
    !word.starts_with(|c: char| c.is_ascii_digit())
        && !ABBREVIATED.contains(&word)
        && !is_written(|written| written == word)
}

fn is_written(fits: impl Fn(&str) -> bool) -> bool {
    WRITTEN_BY_DEMANGLERS.iter().chain(&MORE_WRITTEN_BY_DEMANGLERS).any(|written| fits(written))
}

/// Words that demanglers write without their being in the symbol.
const WRITTEN_BY_DEMANGLERS: [&str; 60] = [
    "abi",
    "allocator",
    "anonymous",
    "as",
    "auto",
    "basic_iostream",
    "basic_istream",
    "basic_ostream",
    "basic_string",
    "bool",
    "char",
    "char_traits",
    "clone",
    "closure",
    "const",
    "construction",
    "covariant",
    "decltype",
    "default",
    "delete",
    "double",
    "dyn",
    "extern",
    "false",
    "float",
    "guard",
    "impl",
    "initializer",
    "int",
    "iostream",
    "istream",
    "lambda",
    "long",
    "namespace",
    "new",
    "non",
    "nullptr_t",
    "offset",
    "operator",
    "ostream",
    "override",
    "return",
    "shim",
    "short",
    "signed",
    "std",
    "string",
    "thunk",
    "to",
    "transaction",
    "true",
    "typeinfo",
    "u128",
    "unnamed",
    "unsigned",
    "usize",
    "virtual",
    "volatile",
    "vtable",
    "wchar_t",
];
const MORE_WRITTEN_BY_DEMANGLERS: [&str; 32] = [
    "__int128",
    "__float128",
    "noexcept",
    "throw",
    "typeid",
    "co_await",
    "unsafe",
    "mut",
    "str",
    "char16_t",
    "char32_t",
    "char8_t",
    "for",
    "fn",
    "isize",
    "i128",
    "u8",
    "i8",
    "u16",
    "u32",
    "u64",
    "i16",
    "i32",
    "i64",
    "f32",
    "f64",
    "restrict",
    "this",
    "complex",
    "imaginary",
    "alignof",
    "sizeof",
];

/// Identifiers, or parts of some, in a piece of a glob that can only come from the symbol's own text.
pub(super) fn certain_words(piece: &str) -> impl Iterator<Item = &str> {
    piece.split(|c: char| !(c.is_alphanumeric() || c == '_')).filter(|word| {
        let own = word.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') && word.is_ascii();
        own && !is_written(|written| written.contains(word)) && !ends_in_digit(word)
    })
}

/// Words that must occur in a symbol in whose name the regular expression is found.
pub(super) fn words_of_expression(source: &str) -> Vec<String> {
    let mut pieces = Vec::new();
    if let Ok(parsed) = regex_syntax::parse(source) {
        add_literals(&parsed, &mut pieces);
    }
    pieces.iter().flat_map(|piece| certain_words(piece)).map(str::to_owned).collect()
}

/// The texts that stand in every match. The parser bounds how deep expressions are nested.
fn add_literals(expression: &Hir, pieces: &mut Vec<String>) {
    match expression.kind() {
        HirKind::Literal(literal) => pieces.extend(String::from_utf8(literal.0.to_vec())),
        HirKind::Capture(group) => add_literals(&group.sub, pieces),
        HirKind::Repetition(repeated) if repeated.min > 0 => add_literals(&repeated.sub, pieces),
        HirKind::Concat(all) => all.iter().for_each(|one| add_literals(one, pieces)),
        _ => {}
    }
}

/// A word that ends in a digit may end in the length that a mangled name puts before the next one.
fn ends_in_digit(word: &str) -> bool {
    word.ends_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_are_those_that_stand_in_the_symbol() {
        for (text, words) in [
            ("main.(*Store).Get", &["main", "Get"][..]),
            ("std::vector<int, std::allocator<int> >::push_back", &["vector", "push_back"]),
            ("<alloc::string::String as core::fmt::Write>::write_str", &["write_str"]),
            ("s::mid::{{closure}}", &["s", "mid"]),
            ("u32::pow", &["pow"]),
            ("f(int)", &["f"]),
            ("A::operator<<", &["A"]),
            ("A::operator int", &["A"]),
            ("std::__cxx11::basic_string<char>::append", &["append"]),
            ("virtual thunk to A::f()", &[]),
            ("main.Gen[...]", &["main", "Gen"]),
            ("example.com/ge.v2/foo%2ev1.F", &["example", "com", "ge", "v2", "foo", "F"]),
        ] {
            assert_eq!(own_words(text), words, "{text}");
        }
    }

    #[test]
    fn the_words_of_an_expression_are_those_of_every_match() {
        for (source, words) in [
            (r"^net/http\.\(\*conn\)\.serve$", &["net", "http", "conn", "serve"][..]),
            ("Store.*Get", &["Store", "Get"]),
            ("(Store)+::Get", &["Store", "Get"]),
            ("reg(exec|comp)", &["reg"]),
            ("colou?r", &["colo"]),
            ("(?i)store", &[]),
            ("Store|Order", &[]),
            ("(Store)*", &[]),
            ("[Ss]tore", &["tore"]),
            // The demangler writes these, and these may be a part of what it writes.
            ("closure", &[]),
            ("clos", &[]),
            // The digit may be of the length of the next element.
            ("f1", &[]),
        ] {
            assert_eq!(words_of_expression(source), words, "{source}");
        }
    }
}
