//! Globs: `*` any run, `?` one character, `{a,b}` alternatives, `[Ss]` one of a few. What looks like one of these and is
//! part of a name stays literal: the star of `(*Ident`, brackets of Go, Rust and C++, braces of closures, and whatever
//! stands behind a `\`.

/// Alternatives inside alternatives; deeper braces are literal.
const MAX_DEPTH: usize = 8;

/// A glob as an anchored regular expression. `None` if `text` has nothing of a glob.
pub(super) fn regex(text: &str) -> Option<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::from("(?s)^");
    let special = translate(&chars, 0, &mut out);
    out.push('$');
    special.then_some(out)
}

/// What every match begins with, and the rest of the literal text in pieces.
pub(super) fn literals(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut pieces = vec![String::new()];
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let (literal, step) = match token(&chars, at, 0) {
            Token::Literal(c, step) => (Some(c), step),
            Token::Run | Token::One => (None, 1),
            Token::Alternatives(end) | Token::Class(end) => (None, end + 1 - at),
        };
        match (literal, pieces.last_mut()) {
            (Some(literal), Some(piece)) => piece.push(literal),
            _ => pieces.push(String::new()),
        }
        debug_assert!(step > 0, "{c} is passed");
        at += step;
    }
    pieces
}

enum Token {
    Literal(char, usize),
    Run,
    One,
    /// Ends at this `}`.
    Alternatives(usize),
    /// Ends at this `]`.
    Class(usize),
}

fn token(chars: &[char], at: usize, depth: usize) -> Token {
    let (c, next) = (chars.get(at).copied().unwrap_or('\0'), chars.get(at + 1).copied());
    let previous = at.checked_sub(1).and_then(|i| chars.get(i)).copied();
    match c {
        '\\' => next.map_or(Token::Literal('\\', 1), |next| Token::Literal(next, 2)),
        '*' if previous == Some('(') && next.is_some_and(|n| n.is_alphabetic() || n == '_') => Token::Literal('*', 1),
        '*' => Token::Run,
        '?' => Token::One,
        '{' if depth < MAX_DEPTH && !after_path_separator(chars, at) => {
            alternatives_end(chars, at).map_or(Token::Literal('{', 1), Token::Alternatives)
        }
        '[' => class_end(chars, at).map_or(Token::Literal('[', 1), Token::Class),
        c => Token::Literal(c, 1),
    }
}

/// The `]` of a class. Names have brackets of their own, which stay literal: Go's `Gen[...]`, `Gen[int]` and `map[int]T`,
/// Rust's `<[u8]>::len`, C++'s `operator[]` and `f[abi:cxx11]`. A class holds letters only and is a part of a word: a word
/// goes on behind it. Or it says what no name can: a range, or `!`.
fn class_end(chars: &[char], open: usize) -> Option<usize> {
    let negated = matches!(chars.get(open + 1), Some('!' | '^'));
    let from = open + 1 + usize::from(negated);
    let len = chars.get(from..)?.iter().position(|&c| c == ']').filter(|&len| len > 0)?;
    let inside = chars.get(from..from + len)?;
    let is_plain = inside.iter().all(|&c| is_word(c) || c == '-');
    let says_it = negated || inside.get(1..).is_some_and(|rest| rest.contains(&'-'));
    let before = chars.get(..open).unwrap_or_default();
    let in_word = before.last().is_some_and(|&c| is_word(c));
    let starts_word = before.last().is_none_or(|c| "*?./:}]".contains(*c));
    let after = chars.get(from + len + 1);
    let goes_on = after.is_some_and(|&c| is_word(c) || starts_word && matches!(c, '*' | '?' | '['));
    let in_name = (in_word && !before.ends_with(&['m', 'a', 'p']) || starts_word) && goes_on;
    (is_plain && (says_it || in_name)).then_some(from + len)
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// A class as an expression's. Only word characters and `-` are in it.
fn class(inside: &[char], out: &mut String) {
    let negated = matches!(inside.first(), Some('!' | '^'));
    let letters = inside.get(usize::from(negated)..).unwrap_or_default();
    out.push_str(if negated { "[^" } else { "[" });
    for (at, &c) in letters.iter().enumerate() {
        // A `-` at either end is itself.
        if c == '-' && (at == 0 || at + 1 == letters.len()) {
            out.push('\\');
        }
        out.push(c);
    }
    out.push(']');
}

fn after_path_separator(chars: &[char], at: usize) -> bool {
    at >= 2 && chars.get(at - 2..at) == Some(&[':', ':'])
}

/// The closing brace, if there is a comma at the top level before it.
fn alternatives_end(chars: &[char], open: usize) -> Option<usize> {
    let (mut depth, mut comma, mut at) = (0usize, false, open);
    while let Some(c) = chars.get(at) {
        match c {
            '\\' => at += 1,
            '{' => depth += 1,
            '}' => {
                depth = depth.checked_sub(1)?;
                if depth == 0 {
                    return comma.then_some(at);
                }
            }
            ',' if depth == 1 => comma = true,
            _ => {}
        }
        at += 1;
    }
    None
}

fn translate(chars: &[char], depth: usize, out: &mut String) -> bool {
    let (mut at, mut special) = (0, false);
    while at < chars.len() {
        match token(chars, at, depth) {
            Token::Literal(c, step) => {
                out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
                at += step;
                continue;
            }
            Token::Run => out.push_str(".*"),
            Token::One => out.push('.'),
            Token::Alternatives(end) => {
                alternatives(chars.get(at + 1..end).unwrap_or_default(), depth, out);
                at = end;
            }
            Token::Class(end) => {
                class(chars.get(at + 1..end).unwrap_or_default(), out);
                at = end;
            }
        }
        (at, special) = (at + 1, true);
    }
    special
}

fn alternatives(inner: &[char], depth: usize, out: &mut String) {
    out.push_str("(?:");
    let (mut from, mut nested, mut at) = (0, 0usize, 0);
    while let Some(c) = inner.get(at) {
        match c {
            '\\' => at += 1,
            '{' => nested += 1,
            '}' => nested = nested.saturating_sub(1),
            ',' if nested == 0 => {
                translate(inner.get(from..at).unwrap_or_default(), depth + 1, out);
                out.push('|');
                from = at + 1;
            }
            _ => {}
        }
        at += 1;
    }
    translate(inner.get(from..).unwrap_or_default(), depth + 1, out);
    out.push(')');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs_match_what_the_contract_says() {
        for (glob, name, expected) in [
            ("net/http.*", "net/http.(*Server).Serve", true),
            ("main.(*Store).*", "main.(*Store).Get", true),
            ("main.(*Store).*", "main.(*Stores).Get", false),
            ("*Store*", "main.(*Store).Get", true),
            ("main.F?", "main.F1", true),
            ("main.F?", "main.F", false),
            ("main.{Get,Set}", "main.Set", true),
            ("main.{Get,Set{A,B}}", "main.SetB", true),
            ("main.Gen[...]*", "main.Gen[...].func1", true),
            ("main.Gen[int]*", "main.Gen[int].func1", true),
            ("main.Gen[int]*", "main.Geni", false),
            ("main.Gen[map[int]string]*", "main.Gen[map[int]string].func1", true),
            ("<[u8]>::*", "<[u8]>::len", true),
            ("A::operator[]*", "A::operator[]", true),
            ("*[Ss]tore*", "main.(*Store).Get", true),
            ("*[Ss]tore*", "main.restore", true),
            ("*[Ss]tore*", "main.Stop", false),
            ("main.[A-Z]*", "main.Get", true),
            ("main.[A-Z]*", "main.get", false),
            ("main.[!A-Z]*", "main.get", true),
            ("main.Get[RW]*", "main.Get[RW].func1", true),
            ("main.Get[RW]eq*", "main.GetReq", true),
            ("main.[A-Z][a-z]?", "main.Get", true),
            ("a[_-]b", "a-b", true),
            ("*::{{closure}}", "s::mid::{{closure}}", true),
            (r"main.(\*Store).*", "main.(*Store).Get", true),
            (r"a\*b*", "a*bc", true),
            (r"a\*b*", "axbc", false),
            ("a.b*", "axb", false),
        ] {
            let regex = regex::Regex::new(&regex(glob).expect("a glob")).expect("an expression");
            assert_eq!(regex.is_match(name), expected, "{glob} / {name}");
        }
    }

    #[test]
    fn names_are_no_globs() {
        for name in [
            "main.(*Store).Get",
            "s::{closure#0}",
            "a::{b,c}",
            r"f\*",
            "main.Gen[...]",
            "main.Gen[int]",
            "f[abi:cxx11]",
            "{{closure}}",
        ] {
            assert_eq!(regex(name), None, "{name}");
        }
    }

    #[test]
    fn literal_text_is_what_every_match_contains() {
        assert_eq!(literals("runtime.gc*Mark{a,b}c"), ["runtime.gc", "Mark", "c"]);
        assert_eq!(literals("*[Ss]tore*"), ["", "", "tore", ""]);
    }
}
