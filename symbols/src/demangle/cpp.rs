//! Names of C++ functions, written straight from the symbol in one pass.
//!
//! A tree of the whole symbol ([`itanium`](super::itanium)) takes four times as long, and to list a library of 50,000
//! symbols is little else. Most symbols need no tree: in names, classes, plain types and literals the text comes in the
//! order of the symbol, and what a substitution stands for is a part of what has been written. What would need one, such
//! as pointers to functions, expressions, lambdas and local names, is left to it: the answer is `None`.
//!
//! Source: Itanium C++ ABI, 5.1 "External Names (a.k.a. Mangling)".

use std::ops::Range;

use super::{MAX_DEPTH, MAX_NAME};

/// The name without parameters, return type and ABI tags, of a symbol that begins with `_Z`.
pub(super) fn bare(base: &[u8]) -> Option<String> {
    let out = Vec::with_capacity(base.len() * 2);
    let mut writer = Writer { rest: base.strip_prefix(b"_Z")?, out, known: Vec::new(), depth: 0 };
    if writer.take(b"N") {
        writer.nested()?
    } else {
        writer.unscoped()?
    }
    String::from_utf8(writer.out).ok()
}

struct Writer<'s> {
    rest: &'s [u8],
    out: Vec<u8>,
    /// What `S_`, `S0_` … stand for: parts of `out`.
    known: Vec<(Range<usize>, Shape)>,
    depth: u32,
}

/// Whether `*`, `&` and `const` are simply written behind a type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Plain,
    Reference,
    /// They would go inside.
    Function,
}

impl<'s> Writer<'s> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn take(&mut self, what: &[u8]) -> bool {
        let after = self.rest.strip_prefix(what);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn write(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    /// Writes once more what stands at a place. A few letters can mean any amount of text.
    fn repeat(&mut self, text: Range<usize>) -> Option<()> {
        if self.out.len() + text.len() > MAX_NAME {
            return None;
        }
        self.out.extend_from_within(text);
        Some(())
    }

    fn remember(&mut self, start: usize, shape: Shape) {
        self.known.push((start..self.out.len(), shape));
    }

    /// `<unscoped-name> [<template-args>]`
    fn unscoped(&mut self) -> Option<()> {
        let start = self.out.len();
        if self.take(b"St") {
            self.write("std::");
        }
        self.unqualified()?;
        if self.peek() == Some(b'I') {
            self.remember(start, Shape::Plain);
            self.template_arguments()?;
        }
        Some(())
    }

    /// `N [<qualifiers>] <prefix> <unqualified-name> E`, behind the `N`. Each prefix is remembered, the whole is not.
    fn nested(&mut self) -> Option<()> {
        while matches!(self.peek()?, b'r' | b'V' | b'K' | b'R' | b'O') {
            self.rest = self.rest.get(1..)?;
        }
        let start = self.out.len();
        let mut class = None;
        if self.take(b"St") {
            self.write("std");
        } else if self.peek()? == b'S' {
            class = self.substitution()?.0;
        } else {
            class = self.element(start, class)?;
            self.remember_prefix(start)?;
        }
        while !self.take(b"E") {
            class = self.element(start, class)?;
            self.remember_prefix(start)?;
        }
        Some(())
    }

    fn remember_prefix(&mut self, start: usize) -> Option<()> {
        if self.peek()? != b'E' {
            self.remember(start, Shape::Plain);
        }
        Some(())
    }

    /// One element of a nested name that begins at `start`, or its template arguments; where the class's own name stands
    /// that a constructor or destructor would repeat.
    fn element(&mut self, start: usize, class: Option<Range<usize>>) -> Option<Option<Range<usize>>> {
        let is_first = self.out.len() == start;
        match self.rest {
            [b'I', ..] if !is_first => {
                self.template_arguments()?;
                return Some(class);
            }
            [kind @ (b'C' | b'D'), b'0'..=b'5', rest @ ..] => {
                self.rest = rest;
                self.write(if *kind == b'C' { "::" } else { "::~" });
                self.repeat(class?)?;
                return Some(None);
            }
            _ => {}
        }
        if !is_first {
            self.write("::");
        }
        let name = self.out.len();
        self.unqualified()?;
        Some(Some(name..self.out.len()))
    }

    /// `<source-name>` or `<operator-name>`, and tags, which are left out.
    fn unqualified(&mut self) -> Option<()> {
        if let [b'a'..=b'z', _, rest @ ..] = self.rest {
            let operator = OPERATORS.iter().find(|(code, _)| self.rest.starts_with(code))?.1;
            self.rest = rest;
            self.write("operator");
            self.write(operator);
            // `operator<< <int>` has a space, `operator()<int>` has none.
            return (self.peek() != Some(b'I')).then_some(());
        }
        self.take(b"L");
        let name = self.source_name()?;
        match name {
            b"_GLOBAL__N_1" => self.write("(anonymous namespace)"),
            name if name.starts_with(b"_GLOBAL_") => return None,
            name => self.out.extend_from_slice(name),
        }
        while self.take(b"B") {
            self.source_name()?;
        }
        Some(())
    }

    /// `<length> <identifier>`
    fn source_name(&mut self) -> Option<&'s [u8]> {
        let (name, rest) = self.rest_after_number()?;
        self.rest = rest;
        (!name.is_empty()).then_some(name)
    }

    fn rest_after_number(&self) -> Option<(&'s [u8], &'s [u8])> {
        let digits = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at_checked(digits)?;
        let len: usize = std::str::from_utf8(digits).ok()?.parse().ok()?;
        rest.split_at_checked(len)
    }

    /// `I <template-arg>+ E`
    fn template_arguments(&mut self) -> Option<()> {
        self.write("<");
        self.take(b"I");
        self.deeper(|writer| writer.list(Self::template_argument))?;
        let closes = if self.out.ends_with(b">") { " >" } else { ">" };
        self.write(closes);
        Some(())
    }

    /// At least one of something, up to an `E`.
    fn list(&mut self, one: impl Fn(&mut Self) -> Option<()>) -> Option<()> {
        one(self)?;
        while !self.take(b"E") {
            self.write(", ");
            one(self)?;
        }
        Some(())
    }

    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.depth += 1;
        let done = if self.depth > MAX_DEPTH { None } else { work(self) };
        self.depth -= 1;
        done
    }

    fn template_argument(&mut self) -> Option<()> {
        match self.peek()? {
            b'L' => self.literal(),
            // A pack of arguments. Where it is empty, a comma would be too many.
            b'J' if !self.rest.starts_with(b"JE") => {
                self.take(b"J");
                self.deeper(|writer| writer.list(Self::template_argument))
            }
            _ => self.a_type().map(|_| ()),
        }
    }

    /// `L <type> <number> E`
    fn literal(&mut self) -> Option<()> {
        self.take(b"L");
        let kind = self.peek()?;
        let suffix = INTEGERS.iter().find(|(code, _)| *code == kind).map(|(_, suffix)| *suffix);
        for (truth, text) in [(b"b0E", "false"), (b"b1E", "true")] {
            if self.take(truth) {
                self.write(text);
                return Some(());
            }
        }
        if suffix.is_some() {
            self.rest = self.rest.get(1..)?;
        } else {
            self.write("(");
            self.a_type()?;
            self.write(")");
        }
        if self.take(b"n") {
            self.write("-");
        }
        let digits = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (number, rest) = self.rest.split_at_checked(digits).filter(|_| digits > 0)?;
        self.out.extend_from_slice(number);
        self.rest = rest;
        self.write(suffix.unwrap_or_default());
        self.take(b"E").then_some(())
    }

    fn a_type(&mut self) -> Option<Shape> {
        self.deeper(Self::a_type_here)
    }

    fn a_type_here(&mut self) -> Option<Shape> {
        let start = self.out.len();
        let (kind, rest) = self.rest.split_first()?;
        if let Some((_, name)) = BUILT_IN.iter().find(|(code, _)| code == kind) {
            self.rest = rest;
            self.write(name);
            return Some(Shape::Plain);
        }
        let shape = match kind {
            b'P' | b'R' | b'O' | b'K' => self.qualified()?,
            b'N' => {
                self.rest = rest;
                self.nested()?;
                Shape::Plain
            }
            b'F' => self.function()?,
            b'S' if rest.first() != Some(&b't') => {
                let (_, shape) = self.substitution()?;
                if self.peek() != Some(b'I') {
                    return Some(shape);
                }
                self.template_arguments()?;
                Shape::Plain
            }
            b'S' | b'0'..=b'9' => {
                self.unscoped()?;
                Shape::Plain
            }
            _ => return None,
        };
        self.remember(start, shape);
        Some(shape)
    }

    /// A pointer, a reference, or `const`.
    fn qualified(&mut self) -> Option<Shape> {
        let (kind, rest) = self.rest.split_first()?;
        self.rest = rest;
        // `const volatile` is one qualification, and rare.
        if *kind == b'K' && matches!(self.peek()?, b'V' | b'r' | b'K') {
            return None;
        }
        if self.a_type()? != Shape::Plain {
            return None;
        }
        let (text, shape) = match kind {
            b'P' => ("*", Shape::Plain),
            b'R' => ("&", Shape::Reference),
            b'O' => ("&&", Shape::Reference),
            _ => (" const", Shape::Plain),
        };
        self.write(text);
        Some(shape)
    }

    /// `F <return type> <parameter>+ E`
    fn function(&mut self) -> Option<Shape> {
        self.take(b"F");
        if self.a_type()? == Shape::Function {
            return None;
        }
        self.write(" (");
        if !self.take(b"vE") {
            self.list(|writer| writer.a_type().map(|_| ()))?;
        }
        self.write(")");
        Some(Shape::Function)
    }

    /// `S <number> _` or an abbreviation; where a class's own name stands.
    fn substitution(&mut self) -> Option<(Option<Range<usize>>, Shape)> {
        let rest = self.rest.strip_prefix(b"S")?;
        if let Some((code, name)) = ABBREVIATIONS.iter().find(|(code, _)| rest.first() == Some(code)) {
            self.rest = rest.get(1..)?;
            self.write("std::");
            let start = self.out.len();
            self.write(name);
            // The constructor of `std::string` is that of `basic_string`.
            let class = matches!(code, b'a' | b'b').then_some(start..self.out.len());
            return Some((class, Shape::Plain));
        }
        let end = rest.iter().position(|&b| b == b'_')?;
        let (digits, rest) = rest.split_at_checked(end)?;
        self.rest = rest.get(1..)?;
        let number = match std::str::from_utf8(digits).ok()? {
            "" => 0,
            digits => usize::from_str_radix(digits, 36).ok()?.checked_add(1)?,
        };
        let (text, shape) = self.known.get(number)?.clone();
        self.repeat(text)?;
        Some((None, shape))
    }
}

/// Those whose literals are a number and a suffix.
pub(super) const INTEGERS: [(u8, &str); 6] =
    [(b'i', ""), (b'j', "u"), (b'l', "l"), (b'm', "ul"), (b'x', "ll"), (b'y', "ull")];

/// `<builtin-type>` of one letter, but for what is written otherwise by some.
pub(super) const BUILT_IN: [(u8, &str); 21] = [
    (b'v', "void"),
    (b'w', "wchar_t"),
    (b'b', "bool"),
    (b'c', "char"),
    (b'a', "signed char"),
    (b'h', "unsigned char"),
    (b's', "short"),
    (b't', "unsigned short"),
    (b'i', "int"),
    (b'j', "unsigned int"),
    (b'l', "long"),
    (b'm', "unsigned long"),
    (b'x', "long long"),
    (b'y', "unsigned long long"),
    (b'n', "__int128"),
    (b'o', "unsigned __int128"),
    (b'f', "float"),
    (b'd', "double"),
    (b'e', "long double"),
    (b'g', "__float128"),
    (b'z', "..."),
];

/// `Sa` and so on, without `std::`.
pub(super) const ABBREVIATIONS: [(u8, &str); 6] = [
    (b'a', "allocator"),
    (b'b', "basic_string"),
    (b's', "string"),
    (b'i', "istream"),
    (b'o', "ostream"),
    (b'd', "iostream"),
];

/// `<operator-name>`
pub(super) const OPERATORS: [(&[u8], &str); 48] = [
    (b"nw", " new"),
    (b"na", " new[]"),
    (b"dl", " delete"),
    (b"da", " delete[]"),
    (b"aw", " co_await"),
    (b"ps", "+"),
    (b"ng", "-"),
    (b"ad", "&"),
    (b"de", "*"),
    (b"co", "~"),
    (b"pl", "+"),
    (b"mi", "-"),
    (b"ml", "*"),
    (b"dv", "/"),
    (b"rm", "%"),
    (b"an", "&"),
    (b"or", "|"),
    (b"eo", "^"),
    (b"aS", "="),
    (b"pL", "+="),
    (b"mI", "-="),
    (b"mL", "*="),
    (b"dV", "/="),
    (b"rM", "%="),
    (b"aN", "&="),
    (b"oR", "|="),
    (b"eO", "^="),
    (b"ls", "<<"),
    (b"rs", ">>"),
    (b"lS", "<<="),
    (b"rS", ">>="),
    (b"eq", "=="),
    (b"ne", "!="),
    (b"lt", "<"),
    (b"gt", ">"),
    (b"le", "<="),
    (b"ge", ">="),
    (b"ss", "<=>"),
    (b"nt", "!"),
    (b"aa", "&&"),
    (b"oo", "||"),
    (b"pp", "++"),
    (b"mm", "--"),
    (b"cm", ","),
    (b"pm", "->*"),
    (b"pt", "->"),
    (b"cl", "()"),
    (b"ix", "[]"),
];
