//! The text that must occur in a symbol for a pattern to match: what spares demangling the rest.

/// Words of C++'s library that a mangled name may have only as an abbreviation.
const ABBREVIATED: [&str; 11] = [
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
    "operator",
];

/// The last identifier outside brackets: it stands in the symbol as it is, however the rest is mangled.
pub(super) fn last_word(literal: &str) -> Option<&str> {
    if literal.contains("operator") || !literal.is_ascii() {
        return None;
    }
    let mut depth = 0usize;
    let mut found = None;
    let mut start = None;
    for (at, c) in literal.char_indices().chain([(literal.len(), ' ')]) {
        let in_word = depth == 0 && (c.is_ascii_alphanumeric() || c == '_');
        if in_word {
            start = start.or(Some(at));
        } else if let Some(from) = start.take() {
            found = literal.get(from..at).filter(|w| !w.starts_with(|c: char| c.is_ascii_digit())).or(found);
        }
        match c {
            // Parameters: what follows is not the function's name.
            '(' if !literal.get(at..).is_some_and(|r| r.starts_with("(*") || r.starts_with("(anonymous")) => {
                break;
            }
            '<' | '[' | '{' | '(' => depth += 1,
            '>' | ']' | '}' | ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    found.filter(|word| !ABBREVIATED.contains(word))
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
const MORE_WRITTEN_BY_DEMANGLERS: [&str; 30] = [
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
        let mut written = WRITTEN_BY_DEMANGLERS.iter().chain(&MORE_WRITTEN_BY_DEMANGLERS);
        own && !written.any(|w| w.contains(word)) && !ends_in_digit(word)
    })
}

/// A word that ends in a digit may end in the length that a mangled name puts before the next one.
fn ends_in_digit(word: &str) -> bool {
    word.ends_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_needle_is_the_functions_own_name() {
        for (text, needle) in [
            ("main.(*Store).Get", Some("Get")),
            ("std::vector<int, std::allocator<int> >::push_back", Some("push_back")),
            ("<alloc::string::String as core::fmt::Write>::write_str", Some("write_str")),
            ("s::mid::{{closure}}", Some("mid")),
            ("f(int)", Some("f")),
            ("A::operator<<", None),
            ("main.Gen[...]", Some("Gen")),
        ] {
            assert_eq!(last_word(text), needle, "{text}");
        }
    }
}
