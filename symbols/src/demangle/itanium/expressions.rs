//! Expressions: arguments of templates, `decltype`, sizes and conditions.

use super::super::cpp::{INTEGERS, OPERATORS};
use super::{Found, Id, Node, Reader, Suffix};

impl<'s> Reader<'s> {
    pub(super) fn expression(&mut self) -> Option<Id> {
        self.deeper(Self::expression_here)
    }

    fn expression_here(&mut self) -> Option<Id> {
        let is_global = self.take(b"gs");
        let (code, rest) = match self.rest {
            [b'0'..=b'9', ..] => return self.unresolved(is_global),
            [b'L', ..] => return self.primary(),
            [b'T', ..] => return self.template_parameter(),
            [b'f', b'p' | b'L', ..] if self.rest.get(2).is_some_and(|b| !b.is_ascii_lowercase() || *b == b'r') => {
                return self.function_parameter();
            }
            _ => self.rest.split_at_checked(2)?,
        };
        if matches!(code, b"sr" | b"on" | b"dn") {
            return self.unresolved(is_global);
        }
        self.rest = rest;
        match code {
            b"cl" | b"cp" => self.call(),
            b"cv" => self.conversion(),
            b"tl" => {
                let of = self.a_type()?;
                let (list, open, close) = (self.expressions()?, self.text("{")?, self.text("}")?);
                self.sequence(&[of, open, list, close])
            }
            b"il" => {
                let list = self.expressions()?;
                self.between("{", list, "}")
            }
            b"dc" => self.cast("dynamic_cast<"),
            b"sc" => self.cast("static_cast<"),
            b"cc" => self.cast("const_cast<"),
            b"rc" => self.cast("reinterpret_cast<"),
            b"ti" | b"st" | b"at" => {
                let of = self.a_type()?;
                self.between(OF_TYPES.iter().find(|(of, _)| *of == code)?.1, of, ")")
            }
            b"te" | b"sz" | b"az" | b"nx" => {
                let of = self.expression()?;
                self.between(OF_TYPES.iter().find(|(of, _)| *of == code)?.1, of, ")")
            }
            b"sZ" => {
                let of = self.expression()?;
                if let Node::Param(index) = self.get(of)? {
                    return self.node(Node::Count(index));
                }
                let of = self.node(Node::Expansion(of))?;
                self.between("sizeof...(", of, ")")
            }
            b"sP" => {
                let of = self.list_to_end(Self::template_argument)?;
                let of = self.node(Node::Commas(of))?;
                self.between("sizeof...(", of, ")")
            }
            b"sp" => {
                let of = self.expression()?;
                self.node(Node::Expansion(of))
            }
            b"nw" | b"na" => self.allocation(is_global, if code == b"nw" { "new " } else { "new[] " }),
            b"dl" | b"da" => {
                let words = match (is_global, code) {
                    (false, b"dl") => "delete ",
                    (false, _) => "delete[] ",
                    (true, b"dl") => "::delete ",
                    (true, _) => "::delete[] ",
                };
                let of = self.operand()?;
                self.between(words, of, "")
            }
            b"dt" | b"pt" => {
                let (object, dot) = (self.operand()?, self.text(if code == b"dt" { "." } else { "->" })?);
                let member = self.operand()?;
                self.sequence(&[object, dot, member])
            }
            b"tw" => {
                let of = self.operand()?;
                self.between("throw ", of, "")
            }
            b"tr" => self.text("throw"),
            b"fl" | b"fr" | b"fL" | b"fR" => self.fold(code),
            b"qu" => {
                let (condition, mark, yes) = (self.operand()?, self.text("?")?, self.operand()?);
                let (colon, no) = (self.text(" : ")?, self.operand()?);
                self.sequence(&[condition, mark, yes, colon, no])
            }
            b"ix" => {
                let (array, open, index, close) =
                    (self.operand()?, self.text("[")?, self.expression()?, self.text("]")?);
                self.sequence(&[array, open, index, close])
            }
            b"pp" | b"mm" => {
                let text = if code == b"pp" { "++" } else { "--" };
                let is_prefix = self.take(b"_");
                let of = self.operand()?;
                if is_prefix { self.between(text, of, "") } else { self.between("", of, text) }
            }
            b"ad" | b"co" | b"de" | b"ng" | b"nt" | b"ps" | b"aw" => {
                let of = if code == b"ad" { self.address_of()? } else { self.operand()? };
                let text = OPERATORS.iter().find(|(of, _)| *of == code)?.1;
                self.between(text.trim_start_matches(' '), of, "")
            }
            _ => self.binary(code),
        }
    }

    /// An expression, in parentheses unless it is a name.
    fn operand(&mut self) -> Option<Id> {
        let id = self.expression()?;
        self.in_parentheses(id)
    }

    fn in_parentheses(&mut self, id: Id) -> Option<Id> {
        let is_plain = match self.get(id)? {
            // A function whose parameters the symbol leaves out.
            Node::Encoding { name, params: None, .. } => matches!(self.get(name)?, Node::Name(_) | Node::Joined(..)),
            Node::Name(_) | Node::Joined(..) | Node::Numbered(..) | Node::Text("this") => true,
            Node::Sequence(list) => {
                let first = self.lists.get(list.start as usize).and_then(|&id| self.get(id));
                matches!(first, Some(Node::Text("{")))
            }
            _ => false,
        };
        if is_plain { Some(id) } else { self.between("(", id, ")") }
    }

    /// Of the address of a member function only the name is shown.
    fn address_of(&mut self) -> Option<Id> {
        let id = self.expression()?;
        match self.get(id)? {
            Node::Encoding { name, suffix, .. }
                if suffix == Suffix::default() && matches!(self.get(name)?, Node::Joined(..)) =>
            {
                Some(name)
            }
            _ => self.in_parentheses(id),
        }
    }

    /// Up to an `E`, separated by commas.
    fn expressions(&mut self) -> Option<Id> {
        let list = self.list_to_end(Self::braced)?;
        self.node(Node::Commas(list))
    }

    /// `di`, `dx` and `dX` in a braced list, or an expression.
    fn braced(&mut self) -> Option<Id> {
        self.deeper(|reader| match reader.rest {
            [b'd', b'i', ..] => {
                reader.skip(2)?;
                let (dot, name, is) = (reader.text(".")?, reader.identifier()?, reader.text("=")?);
                let value = reader.braced()?;
                reader.sequence(&[dot, name, is, value])
            }
            [b'd', b'x', ..] => {
                reader.skip(2)?;
                let (open, index, is) = (reader.text("[")?, reader.expression()?, reader.text("]=")?);
                let value = reader.braced()?;
                reader.sequence(&[open, index, is, value])
            }
            [b'd', b'X', ..] => {
                reader.skip(2)?;
                let (open, first, to) = (reader.text("[")?, reader.expression()?, reader.text(" ... ")?);
                let (last, is, value) = (reader.expression()?, reader.text("]=")?, reader.braced()?);
                reader.sequence(&[open, first, to, last, is, value])
            }
            _ => reader.expression(),
        })
    }

    fn call(&mut self) -> Option<Id> {
        let called = self.expression()?;
        let called = match self.get(called)? {
            Node::Encoding { name, .. } => name,
            _ => called,
        };
        let called = self.in_parentheses(called)?;
        let (open, list, close) = (self.text("(")?, self.expressions()?, self.text(")")?);
        self.sequence(&[called, open, list, close])
    }

    /// `cv <type> <expression>`, `cv <type> _ <expression>* E`
    fn conversion(&mut self) -> Option<Id> {
        let (open, of, close) = (self.text("(")?, self.a_type()?, self.text(")")?);
        if self.take(b"_") {
            let list = self.expressions()?;
            let list = self.between("(", list, ")")?;
            return self.sequence(&[open, of, close, list]);
        }
        let operand = self.operand()?;
        self.sequence(&[open, of, close, operand])
    }

    fn cast(&mut self, words: &'static str) -> Option<Id> {
        let (words, of, to, value, close) =
            (self.text(words)?, self.a_type()?, self.text(">(")?, self.expression()?, self.text(")")?);
        self.sequence(&[words, of, to, value, close])
    }

    /// `nw <placement>* _ <type> E`, or in place of the `E` `pi <initializer>* E`
    fn allocation(&mut self, is_global: bool, words: &'static str) -> Option<Id> {
        let (global, words) = (self.text(if is_global { "::" } else { "" })?, self.text(words)?);
        let placement =
            self.list(|reader| if reader.take(b"_") { Some(None) } else { reader.expression().map(Some) })?;
        let is_placed = placement.len > 0;
        let placement = self.node(Node::Commas(placement))?;
        let placement = if is_placed { self.between("(", placement, ") ")? } else { placement };
        let of = self.a_type()?;
        let initializer = if self.take(b"pi") {
            let list = self.expressions()?;
            self.between("(", list, ")")?
        } else if self.rest.starts_with(b"il") {
            let list = self.expression()?;
            self.take(b"E");
            list
        } else {
            self.take(b"E").then_some(())?;
            self.text("")?
        };
        self.sequence(&[global, words, placement, of, initializer])
    }

    /// `fl + a`: `(... + a)`; `fr`: `(a + ...)`; with a beginning, `fL + b a`: `(b + ... + a)`.
    fn fold(&mut self, kind: &[u8]) -> Option<Id> {
        let code = self.rest.get(..2)?;
        let text = BINARY.iter().find(|(of, _)| *of == code).map(|(_, text)| *text);
        let text = text.or_else(|| OPERATORS.iter().find(|(of, _)| *of == code).map(|(_, text)| *text))?;
        self.skip(2)?;
        let (open, operator, dots, close) = (self.text("(")?, self.text(text)?, self.text("...")?, self.text(")")?);
        let first = self.operand()?;
        match kind {
            b"fl" => self.sequence(&[open, dots, operator, first, close]),
            b"fr" => self.sequence(&[open, first, operator, dots, close]),
            _ => {
                let second = self.operand()?;
                self.sequence(&[open, first, operator, dots, operator, second, close])
            }
        }
    }

    fn binary(&mut self, code: &[u8]) -> Option<Id> {
        let text = BINARY.iter().find(|(of, _)| *of == code).map(|(_, text)| *text);
        let text = text.or_else(|| OPERATORS.iter().find(|(of, _)| *of == code).map(|(_, text)| *text))?;
        let (left, operator, right) = (self.operand()?, self.text(text)?, self.operand()?);
        let id = self.sequence(&[left, operator, right])?;
        // It would end the template's arguments.
        if text == ">" { self.between("(", id, ")") } else { Some(id) }
    }

    /// `fp [<qualifiers>] [<number>] _`, `fL <level> p …`, `fpT`
    fn function_parameter(&mut self) -> Option<Id> {
        if self.take(b"fpT") {
            return self.text("this");
        }
        if self.take(b"fL") {
            self.number()?;
            self.take(b"p").then_some(())?;
        } else {
            self.take(b"fp").then_some(())?;
        }
        while self.take(b"r") || self.take(b"V") || self.take(b"K") {}
        let number = self.index()?.checked_add(1)?;
        self.node(Node::Numbered("{parm#", number))
    }

    /// A name that depends on the template's arguments.
    fn unresolved(&mut self, is_global: bool) -> Option<Id> {
        let mut so_far = if is_global { Some(self.text("")?) } else { None };
        if self.take(b"srN") {
            so_far = Some(self.scope()?);
            while !self.take(b"E") {
                let level = self.simple()?;
                so_far = Some(self.node(Node::Joined(so_far?, level))?);
            }
        } else if self.take(b"sr") {
            if self.peek()?.is_ascii_digit() {
                while !self.take(b"E") {
                    let level = self.simple()?;
                    so_far = Some(match so_far {
                        Some(before) => self.node(Node::Joined(before, level))?,
                        None => level,
                    });
                }
            } else {
                so_far = Some(self.scope()?);
            }
        }
        let base = self.base()?;
        let name = match so_far {
            Some(before) => self.node(Node::Joined(before, base))?,
            None => base,
        };
        self.instance_of(name)
    }

    /// `<unresolved-type>`: what can stand before the `::` of a dependent name. It is remembered as types are.
    fn scope(&mut self) -> Option<Id> {
        match self.rest {
            [b'T', ..] => {
                let param = self.template_parameter()?;
                self.remember(param);
                self.with_arguments(param)
            }
            [b'D', ..] => {
                let of = self.decltype()?;
                Some(self.remember(of))
            }
            [b'S', second, ..] if *second != b't' => {
                let of = self.substitution()?;
                self.with_arguments(of)
            }
            _ => self.a_type(),
        }
    }

    fn with_arguments(&mut self, template: Id) -> Option<Id> {
        if self.peek() != Some(b'I') {
            return Some(template);
        }
        let arguments = self.template_arguments()?;
        let id = self.node(Node::Instance(template, arguments))?;
        Some(self.remember(id))
    }

    /// An identifier and its arguments, which is not remembered.
    fn simple(&mut self) -> Option<Id> {
        let name = self.identifier()?;
        self.instance_of(name)
    }

    fn instance_of(&mut self, name: Id) -> Option<Id> {
        if self.peek() != Some(b'I') {
            return Some(name);
        }
        let arguments = self.template_arguments()?;
        self.node(Node::Instance(name, arguments))
    }

    /// The last part of a dependent name, without its arguments.
    fn base(&mut self) -> Option<Id> {
        match self.rest {
            [b'0'..=b'9', ..] => self.identifier(),
            [b'd', b'n', ..] => {
                self.skip(2)?;
                let name = if self.peek()?.is_ascii_digit() { self.simple()? } else { self.scope()? };
                self.between("~", name, "")
            }
            _ => {
                self.take(b"on");
                self.operator(&mut Found::default())
            }
        }
    }

    /// `L <type> <value> E`, `L _Z <encoding> E`
    pub(super) fn primary(&mut self) -> Option<Id> {
        self.take(b"L").then_some(())?;
        if self.take(b"_Z") || self.rest.starts_with(b"Z") {
            let of = self.encoding()?;
            return self.take(b"E").then_some(of);
        }
        let kind = self.peek()?;
        for (truth, text) in [(b"b0E", "false"), (b"b1E", "true")] {
            if self.take(truth) {
                return self.text(text);
            }
        }
        if let Some((_, suffix)) = INTEGERS.iter().find(|(code, _)| *code == kind) {
            self.skip(1)?;
            let (sign, value) = self.value()?;
            let suffix = self.text(suffix)?;
            return self.sequence(&[sign, value, suffix]);
        }
        let of = self.a_type()?;
        if self.take(b"E") {
            // A string, a lambda, or a null pointer.
            return Some(of);
        }
        let (open, close) = (self.text("(")?, self.text(")")?);
        if matches!(kind, b'f' | b'd' | b'e' | b'g') {
            let len = self.rest.iter().position(|&b| b == b'E')?;
            let (hexadecimal, rest) = self.rest.split_at_checked(len)?;
            self.rest = rest.get(1..)?;
            let value = self.node(Node::Name(hexadecimal))?;
            let value = self.between("[", value, "]")?;
            return self.sequence(&[open, of, close, value]);
        }
        let (sign, value) = self.value()?;
        self.sequence(&[open, of, close, sign, value])
    }

    /// A number and its sign, up to an `E`.
    fn value(&mut self) -> Option<(Id, Id)> {
        let sign = if self.take(b"n") { "-" } else { "" };
        let sign = self.text(sign)?;
        let digits = self.digits();
        let value = self.node(Node::Name(digits))?;
        (!digits.is_empty() && self.take(b"E")).then_some((sign, value))
    }
}

/// What is written before a type or expression in parentheses.
const OF_TYPES: [(&[u8], &str); 7] = [
    (b"ti", "typeid("),
    (b"te", "typeid("),
    (b"st", "sizeof ("),
    (b"sz", "sizeof ("),
    (b"at", "alignof ("),
    (b"az", "alignof ("),
    (b"nx", "noexcept ("),
];

/// Operators that are written otherwise between their operands than in a function's name.
const BINARY: [(&[u8], &str); 2] = [(b"ds", ".*"), (b"pm", "->*")];
