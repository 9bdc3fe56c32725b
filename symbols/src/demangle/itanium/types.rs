//! Types.

use super::super::cpp::BUILT_IN;
use super::{Id, Mark, Node, Reader, Suffix};

impl<'s> Reader<'s> {
    pub(super) fn a_type(&mut self) -> Option<Id> {
        self.deeper(Self::a_type_here)
    }

    fn a_type_here(&mut self) -> Option<Id> {
        let kind = self.peek()?;
        if let Some((_, name)) = BUILT_IN.iter().find(|(code, _)| *code == kind) {
            self.skip(1)?;
            return self.text(name);
        }
        let id = match kind {
            b'r' | b'V' | b'K' => self.qualified()?,
            b'P' | b'R' | b'O' => self.pointer()?,
            b'F' => self.function()?,
            b'A' => self.array()?,
            b'M' => {
                self.skip(1)?;
                let (class, of) = (self.a_type()?, self.a_type()?);
                self.node(Node::Member { class, of })?
            }
            b'C' | b'G' => {
                self.skip(1)?;
                let of = self.a_type()?;
                self.node(Node::Qualified(of, if kind == b'C' { " _Complex" } else { " _Imaginary" }))?
            }
            b'T' => return self.parameter_or_elaborated(),
            b'D' => match self.second()? {
                b't' | b'T' => self.decltype()?,
                b'p' => {
                    self.skip(2)?;
                    let pattern = self.a_type()?;
                    self.node(Node::Expansion(pattern))?
                }
                b'v' => self.vector()?,
                b'o' | b'O' | b'w' | b'x' => self.function()?,
                b'F' | b'B' | b'U' => return self.sized(),
                b'k' | b'K' => self.constrained()?,
                _ => {
                    let (_, name) = MORE_BUILT_IN.iter().find(|(code, _)| self.second() == Some(*code))?;
                    self.skip(2)?;
                    return self.text(name);
                }
            },
            b'S' if self.second()? != b't' => {
                let of = self.substitution()?;
                if self.peek() != Some(b'I') {
                    return Some(of);
                }
                let arguments = self.template_arguments()?;
                self.node(Node::Instance(of, arguments))?
            }
            b'U' if !matches!(self.second()?, b'l' | b't' | b'b') => self.vendor_qualified()?,
            b'u' => {
                self.skip(1)?;
                let name = self.identifier()?;
                if self.peek() == Some(b'I') {
                    let arguments = self.template_arguments()?;
                    self.node(Node::Instance(name, arguments))?
                } else {
                    name
                }
            }
            _ => self.name(None)?,
        };
        Some(self.remember(id))
    }

    /// `r`, `V` and `K` before a type; before a function, they are part of its type.
    fn qualified(&mut self) -> Option<Id> {
        let marks = self.rest.iter().take_while(|b| matches!(b, b'r' | b'V' | b'K')).count();
        let (marks, rest) = self.rest.split_at_checked(marks)?;
        if matches!(rest, [b'F', ..] | [b'D', b'o' | b'O' | b'w' | b'x', ..]) {
            return self.function();
        }
        self.rest = rest;
        let mut id = self.a_type()?;
        for mark in marks.iter().rev() {
            let text = match mark {
                b'r' => " restrict",
                b'V' => " volatile",
                _ => " const",
            };
            id = self.node(Node::Qualified(id, text))?;
        }
        Some(id)
    }

    fn pointer(&mut self) -> Option<Id> {
        let mark = match self.peek()? {
            b'P' => Mark::Pointer,
            b'R' => Mark::Reference,
            _ => Mark::RvalueReference,
        };
        self.skip(1)?;
        let to = self.a_type()?;
        self.node(Node::Pointer(to, mark))
    }

    /// `[<qualifiers>] [<exceptions>] [Dx] F [Y] <return type> <parameters> [R | O] E`
    fn function(&mut self) -> Option<Id> {
        let (is_restrict, is_volatile, is_const) = (self.take(b"r"), self.take(b"V"), self.take(b"K"));
        let exceptions = if self.take(b"Do") {
            Some(self.text(" noexcept")?)
        } else if self.take(b"DO") {
            let when = self.expression()?;
            self.take(b"E").then_some(())?;
            Some(self.between(" noexcept(", when, ")")?)
        } else if self.take(b"Dw") {
            let types = self.list_to_end(Self::a_type)?;
            let types = self.node(Node::Commas(types))?;
            Some(self.between(" throw(", types, ")")?)
        } else {
            None
        };
        self.take(b"Dx");
        self.take(b"F").then_some(())?;
        self.take(b"Y");
        let returns = self.a_type()?;
        let mut reference = "";
        self.take(b"v");
        let params = self.list(|reader| {
            for (end, text) in [(&b"E"[..], ""), (b"RE", " &"), (b"OE", " &&")] {
                if reader.take(end) {
                    reference = text;
                    return Some(None);
                }
            }
            reader.a_type().map(Some)
        })?;
        self.node(Node::Function {
            returns,
            params,
            suffix: Suffix { is_restrict, is_volatile, is_const, reference },
            exceptions,
        })
    }

    /// `A [<size>] _ <type>`
    fn array(&mut self) -> Option<Id> {
        self.skip(1)?;
        let size = match self.peek()? {
            b'_' => None,
            b'0'..=b'9' => {
                let digits = self.digits();
                Some(self.node(Node::Name(digits))?)
            }
            _ => Some(self.expression()?),
        };
        self.take(b"_").then_some(())?;
        let of = self.a_type()?;
        self.node(Node::Array { size, of })
    }

    /// `Dv <number> _ <type>`, `Dv _ <expression> _ <type>`
    fn vector(&mut self) -> Option<Id> {
        self.skip(2)?;
        let size = match self.peek()? {
            b'0'..=b'9' => {
                let digits = self.digits();
                self.node(Node::Name(digits))?
            }
            _ => {
                self.take(b"_");
                self.expression()?
            }
        };
        self.take(b"_").then_some(())?;
        let of = if self.take(b"p") { self.text("pixel")? } else { self.a_type()? };
        let (before, after) = (self.text(" __vector(")?, self.text(")")?);
        self.sequence(&[of, before, size, after])
    }

    /// `DF <bits> _`, `DB <bits> _`, `DU <bits> _`
    fn sized(&mut self) -> Option<Id> {
        let kind = self.second()?;
        self.skip(2)?;
        let digits = self.digits();
        let bits = self.node(Node::Name(digits))?;
        match (kind, self.peek()?) {
            (b'F', b'b') if digits == b"16" => {
                self.skip(1)?;
                self.text("std::bfloat16_t")
            }
            (b'F', b'x') => {
                self.skip(1)?;
                self.between("_Float", bits, "x")
            }
            (b'F', b'_') => {
                self.skip(1)?;
                self.between("_Float", bits, "")
            }
            (_, b'_') => {
                self.skip(1)?;
                self.between(if kind == b'B' { "_BitInt(" } else { "unsigned _BitInt(" }, bits, ")")
            }
            _ => None,
        }
    }

    /// `Dk <concept>`, `DK <concept>`: a deduced type that is constrained.
    fn constrained(&mut self) -> Option<Id> {
        let is_decltype = self.second()? == b'K';
        self.skip(2)?;
        let concept = self.name(None)?;
        self.between("", concept, if is_decltype { " decltype(auto)" } else { " auto" })
    }

    /// `Dt <expression> E`
    pub(super) fn decltype(&mut self) -> Option<Id> {
        self.skip(2)?;
        let expression = self.expression()?;
        self.take(b"E").then_some(())?;
        self.between("decltype (", expression, ")")
    }

    /// `U <name> [<arguments>] <type>`
    fn vendor_qualified(&mut self) -> Option<Id> {
        self.skip(1)?;
        let name = self.identifier()?;
        let name = if self.peek()? == b'I' {
            let arguments = self.template_arguments()?;
            self.node(Node::Instance(name, arguments))?
        } else {
            name
        };
        let (of, space) = (self.a_type()?, self.text(" ")?);
        self.sequence(&[of, space, name])
    }

    /// `T_` and what it is given; `Ts`, `Tu` and `Te` before the name of a class.
    fn parameter_or_elaborated(&mut self) -> Option<Id> {
        let words = match self.second()? {
            b's' => Some("struct "),
            b'u' => Some("union "),
            b'e' => Some("enum "),
            _ => None,
        };
        if let Some(words) = words {
            self.skip(2)?;
            let name = self.name(None)?;
            let id = self.between(words, name, "")?;
            return Some(self.remember(id));
        }
        let param = self.template_parameter()?;
        self.remember(param);
        if self.peek() != Some(b'I') || self.in_conversion {
            return Some(param);
        }
        let arguments = self.template_arguments()?;
        let id = self.node(Node::Instance(param, arguments))?;
        Some(self.remember(id))
    }

    /// `T_`, `T0_` …, `TL <level> _ <number> _`
    pub(super) fn template_parameter(&mut self) -> Option<Id> {
        self.take(b"T").then_some(())?;
        if self.take(b"L") {
            self.index()?;
        }
        let index = self.index()?;
        self.node(Node::Param(index))
    }
}

/// `D` and a letter.
const MORE_BUILT_IN: [(u8, &str); 10] = [
    (b'a', "auto"),
    (b'c', "decltype(auto)"),
    (b'n', "decltype(nullptr)"),
    (b'd', "decimal64"),
    (b'e', "decimal128"),
    (b'f', "decimal32"),
    (b'h', "half"),
    (b'i', "char32_t"),
    (b's', "char16_t"),
    (b'u', "char8_t"),
];
