//! The form in which names of C++ and Rust are compared, and the comparison: spelling differences removed, template
//! and generic arguments optional.
//!
//! Both the pattern and the name pass through [`key`]: spaces that separate nothing go, `::<` and `<T>::` of Rust go, closures
//! are spelt one way, inline namespaces of the C++ library go, `std::string` is written out. [`same`] then walks both at once.

/// Stand-ins for the brackets in the names of operators, so that every other `<` opens arguments and every other `(`
/// parameters. Private to this comparison; control characters occur in no name.
const OPERATOR_BRACKETS: [(u8, u8); 6] = [(b'<', 1), (b'>', 2), (b'(', 3), (b')', 4), (b'[', 5), (b']', 6)];

/// Operators with brackets, longest first.
const OPERATORS: [&str; 13] = ["<=>", "<<=", ">>=", "->*", "<<", ">>", "<=", ">=", "->", "()", "[]", "<", ">"];

/// Typedefs of the C++ library that demanglers and people use for templates.
const STD_TYPEDEFS: [(&str, &str); 4] = [
    ("string", "basic_string<char,std::char_traits<char>,std::allocator<char>>"),
    ("ostream", "basic_ostream<char,std::char_traits<char>>"),
    ("istream", "basic_istream<char,std::char_traits<char>>"),
    ("iostream", "basic_iostream<char,std::char_traits<char>>"),
];

/// Namespaces of the C++ library that nobody writes.
const INLINE_NAMESPACES: [&str; 4] = ["__cxx11", "__1", "__ndk1", "_V2"];

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | 0x80..)
}

/// The comparable form of a name or pattern. `\x` is passed through (patterns only).
pub(crate) fn key(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        rest = if u8::try_from(first).is_ok_and(is_word) || !first.is_ascii() {
            word(rest, &mut out)
        } else {
            mark(rest, first, &mut out)
        };
    }
    unqualified(&out)
}

fn word<'a>(rest: &'a str, out: &mut String) -> &'a str {
    let end = rest.bytes().position(|b| !is_word(b)).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    let in_std = out.strip_suffix("std::").is_some_and(|before| !before.bytes().last().is_some_and(is_word_or_colon));
    // `std::filesystem::__cxx11` too. Such words are reserved for the library.
    if INLINE_NAMESPACES.contains(&word) && after.starts_with("::") && out.ends_with("::") && out.contains("std::") {
        return after.get(2..).unwrap_or_default();
    }
    if in_std && let Some((_, long)) = STD_TYPEDEFS.iter().find(|(short, _)| *short == word) {
        out.push_str(long);
        return after;
    }
    // Rust's `as` keeps its space behind a bracket too, so that arguments before it can be left out.
    if word == "as" && after.starts_with(' ') && !out.ends_with(' ') {
        out.push(' ');
    }
    if let Some(template) = constructor_of_typedef(word, out) {
        out.push_str(template);
        return after;
    }
    out.push_str(word);
    if word == "as" && after.starts_with(' ') {
        out.push(' ');
        return after.trim_start_matches(' ');
    }
    if word == "operator" { operator(after, out) } else { after }
}

/// `basic_string` for the second word of `std::string::string`, and of `std::string::~string`.
fn constructor_of_typedef(word: &str, out: &str) -> Option<&'static str> {
    let (_, long) = STD_TYPEDEFS.iter().find(|(short, _)| *short == word)?;
    let class = out.strip_suffix('~').unwrap_or(out).strip_suffix("::")?;
    class.ends_with(long).then(|| long.split('<').next()).flatten()
}

fn is_word_or_colon(byte: u8) -> bool {
    is_word(byte) || byte == b':'
}

/// Bytes of the sign behind the word `operator`; 0 if what follows is no sign with brackets.
pub(crate) fn operator_len(after: &str) -> usize {
    let symbol = after.trim_start_matches(' ');
    let found = OPERATORS.iter().find(|o| symbol.starts_with(**o));
    found.map_or(0, |o| after.len() - symbol.len() + o.len())
}

fn operator<'a>(after: &'a str, out: &mut String) -> &'a str {
    let symbol = after.trim_start_matches(' ');
    let Some(found) = OPERATORS.iter().find(|o| symbol.starts_with(**o)) else {
        return after;
    };
    for byte in found.bytes() {
        let stand_in = OPERATOR_BRACKETS.iter().find(|(b, _)| *b == byte).map_or(byte, |(_, s)| *s);
        out.push(char::from(stand_in));
    }
    symbol.get(found.len()..).unwrap_or_default()
}

fn mark<'a>(rest: &'a str, first: char, out: &mut String) -> &'a str {
    let after = rest.get(first.len_utf8()..).unwrap_or_default();
    if first == ' ' {
        let next = after.trim_start_matches(' ');
        let separates = out.bytes().last().is_some_and(is_word) && next.bytes().next().is_some_and(is_word);
        if separates {
            out.push(' ');
        }
        return next;
    }
    if first == '\\' {
        out.push('\\');
        let escaped = after.chars().next().map_or(0, char::len_utf8);
        out.push_str(after.get(..escaped).unwrap_or_default());
        return after.get(escaped..).unwrap_or_default();
    }
    // Rust: the turbofish; `::<impl Trait for T>` is an element of its own.
    if let Some(turbofish) = rest.strip_prefix("::<")
        && !turbofish.starts_with("impl ")
        && !out.is_empty()
    {
        out.push('<');
        return turbofish;
    }
    if let Some(numbered) = rest.strip_prefix("{closure#")
        && let Some((_, after)) = numbered.split_once('}')
    {
        out.push_str("{{closure}}");
        return after;
    }
    out.push(first);
    after
}

/// `<T>::m` as `T::m`, if it begins so.
fn unqualified(text: &str) -> String {
    let mut text = text.to_owned();
    // Each round takes one pair of brackets away, so the length bounds the rounds; real names have one or two.
    while text.starts_with('<')
        && let Some(close) = closing(text.as_bytes(), 0)
        && text.get(close + 1..).is_some_and(|rest| rest.starts_with("::"))
        && text.get(1..close).is_some_and(|inner| split_as(inner).is_none() && !inner.starts_with("impl "))
    {
        text.remove(close);
        text.remove(0);
    }
    text
}

/// `T::m` for Rust's `<T as Trait>::m` and `path::<impl Trait for T>::m`: how a person would call it.
pub(crate) fn by_self_type(key: &str) -> Option<String> {
    if key.starts_with('<') {
        let (own, _, rest) = qualified(key)?;
        return Some(unqualified(&format!("{own}{rest}")));
    }
    let at = key.find("::<impl ")?;
    let close = closing(key.as_bytes(), at + 2)?;
    let inner = key.get(at + 8..close)?;
    let own = inner.rsplit_once(" for ").map_or(inner, |(_, own)| own);
    Some(format!("{own}{}", key.get(close + 1..)?))
}

/// Whether a pattern's key means a name's key or a tail of it.
pub(crate) fn is_tail(pattern: &str, name: &str) -> bool {
    element_starts(name).any(|at| name.get(at..).is_some_and(|tail| same(pattern, tail)))
}

/// Whether both have the form `<T as Trait>::m`, and the pattern's type and trait are tails of the name's.
pub(crate) fn is_qualified_tail(pattern: &str, name: &str) -> bool {
    let fits = |pattern, name| same(pattern, name) || is_tail(pattern, name);
    match (qualified(pattern), qualified(name)) {
        (Some(p), Some(n)) => fits(p.0, n.0) && fits(p.1, n.1) && same(p.2, n.2),
        _ => false,
    }
}

/// `T`, `Trait` and `::m` of `<T as Trait>::m`.
fn qualified(key: &str) -> Option<(&str, &str, &str)> {
    let close = key.starts_with('<').then(|| closing(key.as_bytes(), 0))??;
    let (own, of) = split_as(key.get(1..close)?)?;
    Some((own, of, key.get(close + 1..)?))
}

/// `T as Trait` cut at the top level.
fn split_as(inner: &str) -> Option<(&str, &str)> {
    let bytes = inner.as_bytes();
    let mut depth = 0usize;
    for at in 0..bytes.len() {
        match bytes.get(at)? {
            b'<' | b'(' | b'[' | b'{' => depth += 1,
            b'>' if at > 0 && bytes.get(at - 1) == Some(&b'-') => {}
            b'>' | b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b' ' if depth == 0 && inner.get(at..).is_some_and(|rest| rest.starts_with(" as ")) => {
                return Some((inner.get(..at)?, inner.get(at + 4..)?));
            }
            _ => {}
        }
    }
    None
}

/// The place of the bracket that closes the one at `open`.
fn closing(text: &[u8], open: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in text.iter().enumerate().skip(open) {
        match byte {
            b'<' | b'(' | b'[' | b'{' => depth += 1,
            b'>' if at > 0 && text.get(at - 1) == Some(&b'-') => {}
            b'>' | b')' | b']' | b'}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => {}
        }
    }
    None
}

/// Places in a key at which an element begins after a top-level `::`.
pub(crate) fn element_starts(key: &str) -> impl Iterator<Item = usize> {
    let bytes = key.as_bytes();
    let (mut at, mut depth) = (0, 0usize);
    std::iter::from_fn(move || {
        while let Some(byte) = bytes.get(at) {
            at += 1;
            match byte {
                b'<' | b'(' | b'[' | b'{' => depth += 1,
                b'>' if at > 1 && bytes.get(at - 2) == Some(&b'-') => {}
                b'>' | b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                b':' if depth == 0 && bytes.get(at) == Some(&b':') => {
                    at += 1;
                    return Some(at);
                }
                _ => {}
            }
        }
        None
    })
}

/// Whether a pattern's key means a name's key. Arguments that the pattern leaves out are passed over in the name: a whole
/// `<…>`, or the end of one.
pub(crate) fn same(pattern: &str, name: &str) -> bool {
    let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
    let (mut p, mut n) = (0, 0);
    loop {
        match (pattern.get(p), name.get(n)) {
            (Some(a), Some(b)) if a == b => (p, n) = (p + 1, n + 1),
            (wanted, Some(b'<')) if wanted != Some(&b'<') && opens_arguments(name, n) => match closing(name, n) {
                Some(close) => n = close + 1,
                None => return false,
            },
            (Some(b'>'), Some(b',')) => match end_of_arguments(name, n) {
                Some(close) => n = close,
                None => return false,
            },
            (None, None) => return true,
            // Qualifiers of a member function behind its parameters.
            (None, Some(_)) => {
                return pattern.ends_with(b")") && is_qualifier(name.get(n..).unwrap_or_default());
            }
            _ => return false,
        }
    }
}

fn is_qualifier(rest: &[u8]) -> bool {
    matches!(rest, b"const" | b"volatile" | b"const volatile" | b"&" | b"&&" | b"const&" | b"const&&")
}

/// A `<` behind a name opens its arguments; one at the start of an element belongs to `<T as Trait>`.
fn opens_arguments(name: &[u8], at: usize) -> bool {
    let before = at.checked_sub(1).and_then(|i| name.get(i));
    before.is_some_and(|&b| is_word(b) || matches!(b, b'}' | b')' | 1..=6))
}

/// From a `,` inside arguments to the `>` that ends them.
fn end_of_arguments(name: &[u8], comma: usize) -> Option<usize> {
    let mut depth = 0usize;
    for (at, byte) in name.iter().enumerate().skip(comma) {
        match byte {
            b'<' | b'(' | b'[' | b'{' => depth += 1,
            b'>' if name.get(at.wrapping_sub(1)) == Some(&b'-') => {}
            b'>' if depth == 0 => return Some(at),
            b'>' | b')' | b']' | b'}' => depth = depth.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

/// A key without any template or generic arguments at its top level. `None` if it has none.
pub(crate) fn without_arguments(key: &str) -> Option<String> {
    let bytes = key.as_bytes();
    let mut out = String::new();
    let (mut from, mut at, mut found) = (0, 0, false);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'<' if opens_arguments(bytes, at) => {
                let close = closing(bytes, at)?;
                out.push_str(key.get(from..at)?);
                (from, at, found) = (close + 1, close + 1, true);
            }
            b'<' | b'(' | b'[' | b'{' => at = closing(bytes, at)? + 1,
            _ => at += 1,
        }
    }
    out.push_str(key.get(from..)?);
    found.then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_name_have_one_key() {
        for (a, b) in [
            ("std::vector<int, std::allocator<int> >::at", "std::vector<int,std::allocator<int>>::at"),
            (
                "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >::append",
                "std::string::append",
            ),
            ("std::filesystem::__cxx11::path::path", "std::filesystem::path::path"),
            ("s::gen_fn::<u8, 4>", "s::gen_fn<u8, 4>"),
            ("<s::Sq>::scale", "s::Sq::scale"),
            ("s::mid::{closure#0}", "s::mid::{{closure}}"),
            ("A::operator ()", "A::operator()"),
            (
                "std::string::~string",
                "std::basic_string<char, std::char_traits<char>, std::allocator<char> >::~basic_string",
            ),
        ] {
            assert_eq!(key(a), key(b));
        }
    }

    #[test]
    fn arguments_may_be_missing_in_the_pattern_only() {
        for (pattern, name, expected) in [
            ("std::vector::push_back", "std::vector<int, std::allocator<int> >::push_back", true),
            ("std::vector<int>::push_back", "std::vector<int, std::allocator<int> >::push_back", true),
            ("std::vector<char>::push_back", "std::vector<int, std::allocator<int> >::push_back", false),
            ("std::vector<int>::push_back", "std::vector::push_back", false),
            ("f", "f<int>", true),
            ("operator<<", "operator<< <char>", true),
            ("operator<", "operator<< <char>", false),
            ("A::operator->", "A<int>::operator->", true),
            ("f(int)", "f(int) const", true),
            ("f(int)", "f(int, int)", false),
            ("<Vec<T> as core::fmt::Write>::write_str", "<Vec<T> as core::fmt::Write>::write_str", true),
            ("<Vec as core::fmt::Write>::write_str", "<Vec<T> as core::fmt::Write>::write_str", true),
        ] {
            assert_eq!(same(&key(pattern), &key(name)), expected, "{pattern} / {name}");
        }
    }

    #[test]
    fn types_and_traits_may_be_written_without_their_paths() {
        for (pattern, name, expected) in [
            ("<Sq as Shape>::area", "<s::Sq as s::shape::Shape>::area", true),
            ("<Sq as shape::Shape>::area", "<s::Sq as s::shape::Shape>::area", true),
            ("<Vec as Debug>::fmt", "<alloc::vec::Vec<T> as core::fmt::Debug>::fmt", true),
            ("<Sq as Shape>::area", "<s::Square as s::Shape>::area", false),
            ("<Sq as Shape>::area", "<s::Sq as s::Shape>::area_of", false),
            ("<Sq as Shape>::area", "<s::Sq as s::Solid>::area", false),
            ("<Sq>::area", "<s::Sq as s::Shape>::area", false),
        ] {
            assert_eq!(is_qualified_tail(&key(pattern), &key(name)), expected, "{pattern} / {name}");
        }
    }

    #[test]
    fn trait_methods_are_found_by_their_type() {
        for (name, expected) in [
            ("<s::Sq as s::Shape>::area", "s::Sq::area"),
            ("<alloc::vec::Vec<T> as core::fmt::Debug>::fmt", "alloc::vec::Vec<T>::fmt"),
            ("core::str::<impl str>::len", "str::len"),
            ("alloc::str::<impl alloc::borrow::ToOwned for str>::to_owned", "str::to_owned"),
        ] {
            assert_eq!(by_self_type(&key(name)).as_deref(), Some(expected));
        }
    }
}
