//! What a person types to name functions, parsed.
//!
//! Input: one pattern. Output: a [`Pattern`], which [`crate::index::Index::select`] applies to a file.

pub(crate) mod canonical;
mod glob;
mod needle;

use std::fmt;
use std::str::FromStr;

use regex::Regex;

use crate::addr::Vaddr;

/// A function, a set of functions, or a point in one.
///
/// ```
/// use symbols::pattern::Pattern;
///
/// let methods: Pattern = "main.(*Store).*".parse()?;
/// assert!(!methods.is_negation());
/// assert!("!runtime.*".parse::<Pattern>()?.is_negation());
/// assert!("/unclosed(/".parse::<Pattern>().is_err());
/// # Ok::<(), symbols::pattern::PatternError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Pattern {
    typed: String,
    negated: bool,
    pub(crate) form: Form,
}

/// Why a pattern cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing was typed, or nothing behind the `!` or `@`.
    #[error("the pattern {0:?} is empty")]
    Empty(String),
    /// Not a regular expression.
    #[error("failed to read {pattern:?} as a regular expression: {why}")]
    Regex {
        /// What was typed.
        pattern: String,
        /// The parser's complaint.
        why: String,
    },
    /// The number behind `0x` or `+0x` is none, or too large.
    #[error("{0:?} is not an address: up to 16 hexadecimal digits may follow 0x")]
    Address(String),
    /// The line behind `@FILE:` is 0 or too large.
    #[error("{0:?} is not a line: lines count from 1")]
    Line(String),
}

#[derive(Clone, Debug)]
pub(crate) enum Form {
    Name(Name),
    Regex(Expression),
    File { path: String, line: Option<u32> },
    Address(Vaddr),
    Offset(Name, u64),
}

/// A regular expression.
#[derive(Clone, Debug)]
pub(crate) struct Expression {
    pub(crate) regex: Regex,
    /// What every match begins with.
    pub(crate) beginning: String,
    /// What must occur in a symbol that matches.
    pub(crate) words: Vec<String>,
}

/// A name, to be taken exactly, as a tail, or as a glob.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    /// Without the `\`s.
    pub(crate) literal: String,
    /// `GLIBC_2.14` of `memcpy@GLIBC_2.14`; `literal` goes without.
    pub(crate) version: Option<String>,
    /// [`canonical::key`] of it.
    pub(crate) key: String,
    /// It says which parameters.
    pub(crate) with_parameters: bool,
    /// What must occur in a symbol, mangled or not, that this names.
    pub(crate) words: Vec<String>,
    pub(crate) glob: Option<Glob>,
}

#[derive(Clone, Debug)]
pub(crate) struct Glob {
    /// Over names as they are.
    pub(crate) plain: Regex,
    /// Over canonical keys.
    pub(crate) key: Regex,
    /// What every match begins with.
    pub(crate) beginning: String,
    /// What must occur in a symbol that matches.
    pub(crate) words: Vec<String>,
    /// Nothing but stars.
    pub(crate) is_everything: bool,
}

impl Pattern {
    /// Whether it takes away what it matches.
    pub fn is_negation(&self) -> bool {
        self.negated
    }

    /// Whether it is a bare address, which says nothing of another file.
    pub fn is_address(&self) -> bool {
        matches!(self.form, Form::Address(_))
    }

    /// What all matches of a glob or regular expression begin with.
    pub(crate) fn beginning(&self) -> &str {
        match &self.form {
            Form::Name(name) | Form::Offset(name, _) => name.glob.as_ref().map_or("", |glob| &glob.beginning),
            Form::Regex(expression) => &expression.beginning,
            Form::File { .. } | Form::Address(_) => "",
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.typed)
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(typed: &str) -> Result<Self, PatternError> {
        let (negated, text) = typed.strip_prefix('!').map_or((false, typed), |rest| (true, rest));
        if text.trim().is_empty() {
            return Err(PatternError::Empty(typed.to_owned()));
        }
        Ok(Self { typed: typed.to_owned(), negated, form: form(text)? })
    }
}

fn form(text: &str) -> Result<Form, PatternError> {
    if let Some(source) = text.strip_prefix('/').and_then(|t| t.strip_suffix('/')) {
        return regex(text, source);
    }
    if let Some(place) = text.strip_prefix('@') {
        return file(text, place);
    }
    if text.starts_with("0x") {
        return number(text).map(|n| Form::Address(Vaddr(n)));
    }
    if let Some((name, _)) = text.rsplit_once("+0x")
        && let Some(offset) = text.get(name.len() + 1..)
        && !name.is_empty()
        && !name.ends_with("operator")
    {
        let offset = number(offset).map_err(|_| PatternError::Address(text.to_owned()))?;
        return Ok(Form::Offset(Name::new(name)?, offset));
    }
    Name::new(text).map(Form::Name)
}

fn regex(typed: &str, source: &str) -> Result<Form, PatternError> {
    if source.is_empty() {
        return Err(PatternError::Empty(typed.to_owned()));
    }
    let regex = compile(typed, source)?;
    let (beginning, words) = (literal_beginning(source), needle::words_of_expression(source));
    Ok(Form::Regex(Expression { regex, beginning, words }))
}

/// The plain text that an anchored expression begins with.
fn literal_beginning(source: &str) -> String {
    let mut out = String::new();
    let mut chars = source.strip_prefix('^').unwrap_or_default().chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.peek().is_some_and(|n| n.is_ascii_punctuation()) => out.extend(chars.next()),
            c if c.is_alphanumeric() || matches!(c, '_' | '/' | ':' | '-') => out.push(c),
            '?' | '*' | '{' | '|' => {
                // What stands before is optional.
                out.pop();
                break;
            }
            _ => break,
        }
    }
    out
}

fn compile(typed: &str, source: &str) -> Result<Regex, PatternError> {
    Regex::new(source).map_err(|e| PatternError::Regex { pattern: typed.to_owned(), why: e.to_string() })
}

fn file(typed: &str, place: &str) -> Result<Form, PatternError> {
    let (path, line) = match place.rsplit_once(':') {
        Some((path, line)) if !line.is_empty() && line.bytes().all(|b| b.is_ascii_digit()) => {
            let number = line.parse().ok().filter(|&n: &u32| n > 0);
            (path, Some(number.ok_or_else(|| PatternError::Line(typed.to_owned()))?))
        }
        _ => (place, None),
    };
    if path.is_empty() {
        return Err(PatternError::Empty(typed.to_owned()));
    }
    Ok(Form::File { path: path.to_owned(), line })
}

fn number(text: &str) -> Result<u64, PatternError> {
    let digits = text.strip_prefix("0x").filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
    let number = digits.and_then(|d| u64::from_str_radix(d, 16).ok());
    number.ok_or_else(|| PatternError::Address(text.to_owned()))
}

impl Name {
    fn new(text: &str) -> Result<Self, PatternError> {
        let (literal, version) = versioned(unescaped(text));
        let key = canonical::key(&literal);
        let glob = Glob::new(text)?;
        Ok(Self {
            with_parameters: says_parameters(&literal),
            words: needle::own_words(&literal).into_iter().map(str::to_owned).collect(),
            key,
            literal,
            version,
            glob,
        })
    }
}

/// `memcpy@GLIBC_2.14`, `memcpy@@GLIBC_2.14` in two. A PLT stub's `puts@plt` is all name.
fn versioned(literal: String) -> (String, Option<String>) {
    if let Some((name, rest)) = literal.split_once('@') {
        let version = rest.strip_prefix('@').unwrap_or(rest);
        let is_word =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.".contains(&b));
        if is_word(name) && is_word(version) && version != "plt" {
            return (name.to_owned(), Some(version.to_owned()));
        }
    }
    (literal, None)
}

impl Glob {
    /// `None` if nothing in `text` is special.
    fn new(text: &str) -> Result<Option<Self>, PatternError> {
        let Some(plain) = glob::regex(text) else {
            return Ok(None);
        };
        let key = glob::regex(&canonical::key(text)).unwrap_or_else(|| plain.clone());
        let pieces = glob::literals(text);
        let words = pieces.iter().flat_map(|piece| needle::certain_words(piece)).map(str::to_owned).collect();
        Ok(Some(Self {
            plain: compile(text, &plain)?,
            key: compile(text, &key)?,
            words,
            beginning: pieces.into_iter().next().unwrap_or_default(),
            is_everything: text.bytes().all(|b| b == b'*'),
        }))
    }
}

/// A pattern that names every function.
pub(crate) fn everything() -> Pattern {
    "*".parse().expect("`*` is a pattern")
}

fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or('\\') } else { c });
    }
    out
}

/// How demanglers write a namespace without a name.
const ANONYMOUS: &str = "(anonymous namespace)";

/// Whether there is a `(` that is neither Go's receiver nor part of a name.
fn says_parameters(literal: &str) -> bool {
    let mut depth = 0usize;
    let mut at = 0;
    while let Some(c) = literal.get(at..).and_then(|rest| rest.chars().next()) {
        let (before, after) = literal.split_at(at);
        // The brackets of `operator<<` and `operator()` are its name.
        if let Some(name) = after.strip_prefix("operator")
            && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
        {
            at += "operator".len() + canonical::operator_len(name);
            continue;
        }
        if after.starts_with(ANONYMOUS) {
            at += ANONYMOUS.len();
            continue;
        }
        match c {
            '{' | '<' => depth += 1,
            '}' | '>' => depth = depth.saturating_sub(1),
            '(' if depth == 0 => {
                let receiver = after.strip_prefix("(*").and_then(|r| r.chars().next());
                return !receiver.is_some_and(|c| c.is_alphabetic() || c == '_');
            }
            _ => {}
        }
        at += c.len_utf8();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Pattern {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn each_form_is_told_from_the_others() {
        assert!(matches!(parse("main.(*Store).Get").form, Form::Name(n) if n.glob.is_none() && !n.with_parameters));
        assert!(matches!(parse("f(int)").form, Form::Name(n) if n.with_parameters));
        assert!(matches!(parse("A::operator()").form, Form::Name(n) if !n.with_parameters));
        for operator in ["A::operator<<(int)", "operator()(int)", "operator new(unsigned long)", "A::operator->()"] {
            assert!(matches!(parse(operator).form, Form::Name(n) if n.with_parameters), "{operator}");
        }
        assert!(matches!(parse("A::operator<<").form, Form::Name(n) if !n.with_parameters));
        assert!(matches!(parse("net/http.*").form, Form::Name(n) if n.glob.is_some()));
        assert!(
            matches!(parse("f@@V_1.2").form, Form::Name(n) if n.literal == "f" && n.version.as_deref() == Some("V_1.2"))
        );
        assert!(matches!(parse("f@plt").form, Form::Name(n) if n.literal == "f@plt" && n.version.is_none()));
        assert!(matches!(parse("/^main/").form, Form::Regex(..)));
        assert!(matches!(parse("@a/b.go").form, Form::File { line: None, .. }));
        assert!(matches!(parse("@b.go:12").form, Form::File { line: Some(12), .. }));
        assert!(matches!(parse("0x401000").form, Form::Address(Vaddr(0x401000))));
        assert!(matches!(parse("main.main+0x12").form, Form::Offset(_, 0x12)));
        assert!(parse("!main.*").is_negation());
        assert_eq!(parse("!main.*").to_string(), "!main.*");
    }

    #[test]
    fn nonsense_is_refused() {
        for text in ["", "!", "//", "/(/", "@", "@x.go:0", "0x", "0xzz", "f+0x", "0x11112222333344445"] {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
    }

    #[test]
    fn the_beginning_of_an_anchored_expression_is_known() {
        for (source, beginning) in [("^runtime\\.gc", "runtime.gc"), ("runtime", ""), ("^ab?c", "a"), ("^a(b)", "a")] {
            assert_eq!(literal_beginning(source), beginning);
        }
    }
}
