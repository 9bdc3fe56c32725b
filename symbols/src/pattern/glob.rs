//! Globs: `*` any run, `?` one character, `[ab]`, `[a-z]`, `[!a]` one of a class, `{a,b}` alternatives. What looks like one
//! of these and is part of a name stays literal: the star of `(*Ident`, `[...]`, braces of closures, and whatever stands
//! behind a `\`. `[int]` could be a class or the arguments of a generic: it matches both.

use std::fmt::Write as _;

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
            Token::Class(end) | Token::Alternatives(end) => (None, end + 1 - at),
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
    /// Ends at this `]`.
    Class(usize),
    /// Ends at this `}`.
    Alternatives(usize),
}

fn token(chars: &[char], at: usize, depth: usize) -> Token {
    let (c, next) = (chars.get(at).copied().unwrap_or('\0'), chars.get(at + 1).copied());
    let previous = at.checked_sub(1).and_then(|i| chars.get(i)).copied();
    match c {
        '\\' => next.map_or(Token::Literal('\\', 1), |next| Token::Literal(next, 2)),
        '*' if previous == Some('(') && next.is_some_and(|n| n.is_alphabetic() || n == '_') => Token::Literal('*', 1),
        '*' => Token::Run,
        '?' => Token::One,
        '[' => class_end(chars, at).map_or(Token::Literal('[', 1), Token::Class),
        '{' if depth < MAX_DEPTH && !after_path_separator(chars, at) => {
            alternatives_end(chars, at).map_or(Token::Literal('{', 1), Token::Alternatives)
        }
        c => Token::Literal(c, 1),
    }
}

fn after_path_separator(chars: &[char], at: usize) -> bool {
    at >= 2 && chars.get(at - 2..at) == Some(&[':', ':'])
}

/// The closing bracket of a class: letters, digits, `_` and rising ranges of them, `!` or `^` before them.
fn class_end(chars: &[char], open: usize) -> Option<usize> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut at = open + 1 + usize::from(matches!(chars.get(open + 1), Some('!' | '^')));
    let first = at;
    while let Some(&from) = chars.get(at).filter(|&&c| is_word(c)) {
        at += 1;
        if chars.get(at) == Some(&'-') {
            chars.get(at + 1).filter(|&&to| is_word(to) && from <= to)?;
            at += 2;
        }
    }
    (at > first && chars.get(at) == Some(&']')).then_some(at)
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
            Token::Class(end) => {
                class(chars.get(at + 1..end).unwrap_or_default(), out);
                at = end;
            }
            Token::Alternatives(end) => {
                alternatives(chars.get(at + 1..end).unwrap_or_default(), depth, out);
                at = end;
            }
        }
        (at, special) = (at + 1, true);
    }
    special
}

fn class(inner: &[char], out: &mut String) {
    let text: String = inner.iter().collect();
    let (negation, members) = text.strip_prefix(['!', '^']).map_or(("", &*text), |members| ("^", members));
    // Writing to a string cannot fail.
    let _ = write!(out, "(?:[{negation}{members}]|{})", regex::escape(&format!("[{text}]")));
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
            ("*[Ss]tore*", "main.(*Store).Get", true),
            ("*[Ss]tore*", "main.restored", true),
            ("*[Ss]tore*", "main.(*Tore).Get", false),
            ("func_[a-c]", "func_b", true),
            ("func_[a-c]", "func_d", false),
            ("func_[!a-c]", "func_d", true),
            ("func_[!a-c]", "func_b", false),
            ("main.Gen[int]*", "main.Gen[int].func1", true),
            ("main.Gen[int]*", "main.Gen[uint].func1", false),
            ("<[T]>::*", "<[T]>::sort", true),
            ("main.{Get,Set}", "main.Set", true),
            ("main.{Get,Set{A,B}}", "main.SetB", true),
            ("main.Gen[...]*", "main.Gen[...].func1", true),
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
            "operator[]",
            "a[c-a]",
            "a[a-]",
            "a[!]",
            "a[b",
            "List[go.shape.int]",
            "main.(*Store).Get",
            "s::{closure#0}",
            "a::{b,c}",
            r"f\*",
            "main.Gen[...]",
            "{{closure}}",
        ] {
            assert_eq!(regex(name), None, "{name}");
        }
    }

    #[test]
    fn literal_text_is_what_every_match_contains() {
        assert_eq!(literals("runtime.gc*Mark{a,b}c"), ["runtime.gc", "Mark", "c"]);
        assert_eq!(literals("a[bc]d"), ["a", "d"]);
    }
}
