//! Functions and variables, and their names.

use super::super::cpp::{ABBREVIATIONS, OPERATORS};
use super::{Found, Id, List, Node, Reader, Suffix};

impl<'s> Reader<'s> {
    /// `<encoding>`: a name and, of a function, the types of its parameters.
    pub(super) fn encoding(&mut self) -> Option<Id> {
        self.deeper(|reader| match reader.peek()? {
            b'T' | b'G' => reader.special(),
            _ => reader.function_or_variable(),
        })
    }

    fn function_or_variable(&mut self) -> Option<Id> {
        let mut found = Found::default();
        let name = self.name(Some(&mut found))?;
        if self.is_at_end() {
            return self.node(Node::Encoding { name, returns: None, params: None, suffix: found.suffix });
        }
        let has_return_type = found.ends_with_arguments && !found.has_no_return_type;
        let returns = if has_return_type { Some(self.a_type()?) } else { None };
        let params = self.parameters(found.has_explicit_object)?;
        // A constraint is not shown.
        if self.take(b"Q") {
            self.expression()?;
        }
        self.node(Node::Encoding { name, returns, params: Some(params), suffix: found.suffix })
    }

    fn is_at_end(&self) -> bool {
        matches!(self.peek(), None | Some(b'E' | b'.' | b'_' | b'Q'))
    }

    fn parameters(&mut self, has_explicit_object: bool) -> Option<List> {
        if self.take(b"v") {
            return Some(List::default());
        }
        let mut is_object = has_explicit_object;
        self.list(|reader| {
            if reader.is_at_end() {
                return Some(None);
            }
            let param = reader.a_type()?;
            let is_object = std::mem::take(&mut is_object);
            Some(Some(if is_object { reader.between("this ", param, "")? } else { param }))
        })
    }

    /// Tables of the compiler's, thunks and guards.
    fn special(&mut self) -> Option<Id> {
        let (kind, rest) = self.rest.split_at_checked(2)?;
        if let [b'T', b'h' | b'v' | b'c'] = kind {
            return self.thunk();
        }
        self.rest = rest;
        if let Some((_, words)) = OF_TYPES.iter().find(|(code, _)| *code == kind) {
            let of = self.a_type()?;
            return self.between(words, of, "");
        }
        if let Some((_, words)) = OF_NAMES.iter().find(|(code, _)| *code == kind) {
            let of = self.name(None)?;
            return self.between(words, of, "");
        }
        match kind {
            b"TC" => {
                let of = self.a_type()?;
                self.number()?;
                self.take(b"_").then_some(())?;
                let (words, base, within) =
                    (self.text("construction vtable for ")?, self.a_type()?, self.text("-in-")?);
                self.sequence(&[words, base, within, of])
            }
            b"TA" => {
                let of = self.template_argument()?;
                self.between("template parameter object for ", of, "")
            }
            b"GR" => {
                let of = self.name(None)?;
                // `<seq-id> _`, which early compilers left out.
                let number = self.rest.iter().take_while(|&&b| b != b'_').count();
                let number = if number < self.rest.len() { self.sequence_number()? } else { 0 };
                let (words, within) =
                    (self.node(Node::Numbered("reference temporary #", number))?, self.text(" for ")?);
                self.sequence(&[words, within, of])
            }
            b"GT" => {
                let words = if self.take(b"n") { "non-transaction clone for " } else { "transaction clone for " };
                self.take(b"t");
                let of = self.encoding()?;
                self.between(words, of, "")
            }
            _ => None,
        }
    }

    /// `Th <offset> _`, `Tv <offset> _ <offset> _`, `Tc <call offset> <call offset>`, and the function that it leads to.
    fn thunk(&mut self) -> Option<Id> {
        let words = match self.second()? {
            b'h' => "non-virtual thunk to ",
            b'v' => "virtual thunk to ",
            _ => "covariant return thunk to ",
        };
        self.skip(1)?;
        if self.take(b"c") {
            self.call_offset()?;
        }
        self.call_offset()?;
        let of = self.encoding()?;
        self.between(words, of, "")
    }

    fn call_offset(&mut self) -> Option<()> {
        let numbers = match self.peek()? {
            b'h' => 1,
            b'v' => 2,
            _ => return None,
        };
        self.skip(1)?;
        for _ in 0..numbers {
            self.take(b"n");
            self.number()?;
            self.take(b"_").then_some(())?;
        }
        Some(())
    }

    /// `<name>`. What it says about the rest of a symbol is noted in `found`.
    pub(super) fn name(&mut self, found: Option<&mut Found>) -> Option<Id> {
        let mut unused = Found::default();
        let found = found.unwrap_or(&mut unused);
        self.deeper(|reader| match reader.rest {
            [b'N', ..] => reader.nested(found),
            [b'Z', ..] => reader.local(found),
            [b'S', second, ..] if *second != b't' => {
                let template = reader.substitution()?;
                reader.instance(template, found)
            }
            _ => {
                let name = reader.unscoped(found)?;
                if reader.peek() != Some(b'I') {
                    return Some(name);
                }
                reader.remember(name);
                reader.instance(name, found)
            }
        })
    }

    fn unscoped(&mut self, found: &mut Found) -> Option<Id> {
        if !self.take(b"St") {
            return self.unqualified(found);
        }
        let (std, name) = (self.text("std")?, self.unqualified(found)?);
        self.node(Node::Joined(std, name))
    }

    /// A template's arguments, behind its name.
    fn instance(&mut self, template: Id, found: &mut Found) -> Option<Id> {
        let arguments = self.template_arguments()?;
        found.ends_with_arguments = true;
        self.node(Node::Instance(template, arguments))
    }

    /// `Z <function> E <entity> [<discriminator>]`
    fn local(&mut self, found: &mut Found) -> Option<Id> {
        self.take(b"Z");
        let function = self.encoding()?;
        self.take(b"E").then_some(())?;
        let entity = if self.take(b"s") {
            self.text("string literal")?
        } else if self.take(b"d") {
            // From the last parameter on.
            let number = self.index()?.checked_add(1)?;
            let (default, name) = (self.node(Node::Numbered("{default arg#", number))?, self.name(Some(found))?);
            self.node(Node::Joined(default, name))?
        } else {
            self.name(Some(found))?
        };
        self.discriminator();
        self.node(Node::Local { function, entity })
    }

    /// `_ <digit>` or `__ <number> _`, of which nothing is shown.
    fn discriminator(&mut self) {
        match self.rest {
            [b'_', b'_', ..] => {
                let before = self.rest;
                self.rest = before.get(2..).unwrap_or_default();
                if self.digits().is_empty() || !self.take(b"_") {
                    self.rest = before;
                }
            }
            [b'_', b'0'..=b'9', rest @ ..] => self.rest = rest,
            _ => {}
        }
    }

    /// `N [<qualifiers>] <prefix> <unqualified-name> E`. Each prefix is remembered, the whole is not.
    fn nested(&mut self, found: &mut Found) -> Option<Id> {
        self.take(b"N");
        found.has_explicit_object = self.take(b"H");
        found.suffix = self.suffix();
        let mut so_far = if self.take(b"St") { Some(self.text("std")?) } else { None };
        while !self.take(b"E") {
            // A member whose initializer contains a lambda.
            if so_far.is_some() && self.take(b"M") {
                continue;
            }
            let is_substitution = self.peek()? == b'S';
            so_far = Some(self.element(so_far, found)?);
            if !is_substitution && self.peek()? != b'E' {
                self.remember(so_far?);
            }
        }
        so_far
    }

    /// Qualifiers of a member function, before its name.
    fn suffix(&mut self) -> Suffix {
        let (is_restrict, is_volatile, is_const) = (self.take(b"r"), self.take(b"V"), self.take(b"K"));
        let reference = match self.peek() {
            Some(b'R') => " &",
            Some(b'O') => " &&",
            _ => "",
        };
        if !reference.is_empty() {
            self.take(b"R");
            self.take(b"O");
        }
        Suffix { is_restrict, is_volatile, is_const, reference }
    }

    /// One more element of a nested name, or its arguments.
    fn element(&mut self, so_far: Option<Id>, found: &mut Found) -> Option<Id> {
        if self.peek()? == b'I' {
            return self.instance(so_far?, found);
        }
        found.ends_with_arguments = false;
        let element = match self.rest {
            [b'S', second, ..] if so_far.is_none() && *second != b't' => return self.substitution(),
            [b'T', ..] if so_far.is_none() => return self.template_parameter(),
            [b'D', b't' | b'T', ..] if so_far.is_none() => return self.decltype(),
            [b'C', b'1'..=b'5' | b'I', ..] | [b'D', b'0'..=b'5', ..] => self.structor(so_far?, found)?,
            _ => self.unqualified(found)?,
        };
        match so_far {
            Some(prefix) => self.node(Node::Joined(prefix, element)),
            None => Some(element),
        }
    }

    /// A constructor or destructor, which repeats the class's own name.
    fn structor(&mut self, class: Id, found: &mut Found) -> Option<Id> {
        let is_destructor = self.peek()? == b'D';
        self.skip(1)?;
        let is_inherited = self.take(b"I");
        self.skip(1)?;
        if is_inherited {
            self.a_type()?;
        }
        found.has_no_return_type = true;
        let own = self.own_name(class)?;
        let name = if is_destructor { self.between("~", own, "")? } else { own };
        self.tags(name)
    }

    fn own_name(&mut self, class: Id) -> Option<Id> {
        let mut class = class;
        // Each step leads to an earlier node.
        loop {
            class = match self.get(class)? {
                Node::Joined(_, name) | Node::Instance(name, _) | Node::Tagged(name, _) => name,
                Node::Local { entity, .. } => entity,
                Node::Abbreviation(name) => return self.text(name),
                _ => return Some(class),
            };
        }
    }

    /// An identifier, operator, lambda or type without a name, and its ABI tags.
    fn unqualified(&mut self, found: &mut Found) -> Option<Id> {
        // Of internal linkage; a friend's.
        self.take(b"L");
        self.take(b"F");
        let module = self.module()?;
        let name = match self.rest {
            [b'0'..=b'9', ..] => self.identifier()?,
            [b'U', b'l', ..] => self.lambda()?,
            [b'U', b't' | b'b', ..] => self.unnamed()?,
            [b'D', b'C', ..] => {
                self.skip(2)?;
                let names = self.list_to_end(Self::identifier)?;
                let names = self.node(Node::Commas(names))?;
                self.between("[", names, "]")?
            }
            _ => self.operator(found)?,
        };
        let name = match module {
            Some(module) => {
                let at = self.text("@")?;
                self.sequence(&[name, at, module])?
            }
            None => name,
        };
        self.tags(name)
    }

    /// `W <name>` and `W P <name>`, of C++ modules.
    fn module(&mut self) -> Option<Option<Id>> {
        let mut module = None;
        while self.take(b"W") {
            let separator = if self.take(b"P") { ":" } else { "." };
            let name = self.identifier()?;
            let so_far = match module {
                Some(before) => {
                    let separator = self.text(separator)?;
                    self.sequence(&[before, separator, name])?
                }
                None => name,
            };
            module = Some(self.remember(so_far));
        }
        Some(module)
    }

    fn tags(&mut self, name: Id) -> Option<Id> {
        let mut name = name;
        while self.take(b"B") {
            let tag = self.letters()?;
            name = self.node(Node::Tagged(name, tag))?;
        }
        Some(name)
    }

    /// `<length> <letters>`
    fn letters(&mut self) -> Option<&'s [u8]> {
        let len = usize::try_from(self.number()?).ok()?;
        let (letters, rest) = self.rest.split_at_checked(len).filter(|_| len > 0)?;
        self.rest = rest;
        Some(letters)
    }

    pub(super) fn identifier(&mut self) -> Option<Id> {
        match self.letters()? {
            [b'_', b'G', b'L', b'O', b'B', b'A', b'L', b'_', b'_' | b'.' | b'$', b'N', ..] => {
                self.text("(anonymous namespace)")
            }
            letters => self.node(Node::Name(letters)),
        }
    }

    pub(super) fn operator(&mut self, found: &mut Found) -> Option<Id> {
        if self.take(b"cv") {
            found.has_no_return_type = true;
            let before = std::mem::replace(&mut self.in_conversion, true);
            let wanted = self.a_type();
            self.in_conversion = before;
            return self.between("operator ", wanted?, "");
        }
        if self.take(b"li") {
            let name = self.identifier()?;
            return self.between("operator\"\" ", name, "");
        }
        if let [b'v', b'0'..=b'9', rest @ ..] = self.rest {
            self.rest = rest;
            let name = self.identifier()?;
            return self.between("operator ", name, "");
        }
        let (_, text) = OPERATORS.iter().find(|(code, _)| self.rest.starts_with(code))?;
        self.skip(2)?;
        self.node(Node::Operator(text))
    }

    /// `Ul <declared parameters> <parameters> E [<number>] _`
    fn lambda(&mut self) -> Option<Id> {
        self.skip(2)?;
        let mut count = [0; 3];
        let declared = self.list(|reader| match reader.rest {
            [b'T', b'y' | b'n' | b't' | b'p' | b'k', ..] => reader.declaration(&mut count).map(Some),
            _ => Some(None),
        })?;
        let params = if self.take(b"vE") { List::default() } else { self.list_to_end(Self::a_type)? };
        let number = self.index()?.checked_add(1)?;
        self.node(Node::Lambda { declared, params, number })
    }

    /// A parameter of a template, as it is declared; `count` of each kind before it.
    pub(super) fn declaration(&mut self, count: &mut [u64; 3]) -> Option<Id> {
        let kind = self.second()?;
        self.skip(2)?;
        let mut name = |reader: &mut Self, kind: usize, prefix| {
            let before = count.get_mut(kind)?;
            *before += 1;
            reader.node(Node::Numbered(prefix, *before - 1))
        };
        match kind {
            b'y' => {
                let name = name(self, 0, "$T")?;
                self.between("typename ", name, "")
            }
            b'k' => {
                let mut found = Found::default();
                let (concept, space) = (self.name(Some(&mut found))?, self.text(" ")?);
                let name = name(self, 0, "$T")?;
                self.sequence(&[concept, space, name])
            }
            b'n' => {
                let (of, space) = (self.a_type()?, self.text(" ")?);
                let name = name(self, 1, "$N")?;
                self.sequence(&[of, space, name])
            }
            b't' => {
                let mut inner = [0; 3];
                let declared = self.deeper(|reader| {
                    reader.list_to_end(|reader| match reader.rest {
                        [b'T', ..] => reader.declaration(&mut inner),
                        _ => None,
                    })
                })?;
                let name = name(self, 2, "$TT")?;
                let (before, declared, after) =
                    (self.text("template<")?, self.node(Node::Commas(declared))?, self.text("> typename ")?);
                self.sequence(&[before, declared, after, name])
            }
            b'p' if self.peek()? == b'T' => {
                let declared = self.deeper(|reader| reader.declaration(count))?;
                self.between("", declared, "...")
            }
            _ => None,
        }
    }

    /// `Ut [<number>] _`, and Apple's `Ub` for blocks.
    fn unnamed(&mut self) -> Option<Id> {
        let what = if self.second()? == b't' { "{unnamed type#" } else { "{block#" };
        self.skip(2)?;
        let number = self.index()?.checked_add(1)?;
        self.node(Node::Numbered(what, number))
    }

    /// `S <number> _` or an abbreviation, which may have ABI tags.
    pub(super) fn substitution(&mut self) -> Option<Id> {
        self.take(b"S").then_some(())?;
        if let Some((_, name)) = ABBREVIATIONS.iter().find(|(code, _)| self.peek() == Some(*code)) {
            self.skip(1)?;
            let plain = self.node(Node::Abbreviation(name))?;
            let tagged = self.tags(plain)?;
            return Some(if tagged == plain { plain } else { self.remember(tagged) });
        }
        let number = usize::try_from(self.sequence_number()?).ok()?;
        self.known.get(number).copied()
    }

    /// `_`, `0_` … `Z_`, `10_`: a number in base 36, plus one.
    fn sequence_number(&mut self) -> Option<u64> {
        let end = self.rest.iter().position(|&b| b == b'_')?;
        let digits = std::str::from_utf8(self.rest.get(..end)?).ok()?;
        self.skip(end + 1)?;
        match digits {
            "" => Some(0),
            digits => u64::from_str_radix(digits, 36).ok()?.checked_add(1),
        }
    }

    /// `I <template-arg>* E`
    pub(super) fn template_arguments(&mut self) -> Option<List> {
        self.take(b"I").then_some(())?;
        self.deeper(|reader| {
            reader.list(|reader| {
                // A constraint is not shown.
                if reader.take(b"Q") {
                    reader.expression()?;
                }
                if reader.take(b"E") { Some(None) } else { reader.template_argument().map(Some) }
            })
        })
    }

    pub(super) fn template_argument(&mut self) -> Option<Id> {
        self.deeper(|reader| match reader.rest {
            [b'X', ..] => {
                reader.skip(1)?;
                let expression = reader.expression()?;
                reader.take(b"E").then_some(expression)
            }
            [b'L', ..] => reader.primary(),
            // `J`; compilers before 2011 wrote `I`.
            [b'J' | b'I', ..] => {
                reader.skip(1)?;
                let pack = reader.list_to_end(Self::template_argument)?;
                reader.node(Node::Pack(pack))
            }
            // How the parameter was declared; the argument follows.
            [b'T', b'y' | b'n' | b't' | b'p' | b'k', ..] => {
                reader.declaration(&mut [0; 3])?;
                reader.template_argument()
            }
            _ => reader.a_type(),
        })
    }
}

/// What a table or function of the compiler's is called, that belongs to a type.
const OF_TYPES: [(&[u8], &str); 4] =
    [(b"TV", "vtable for "), (b"TT", "VTT for "), (b"TI", "typeinfo for "), (b"TS", "typeinfo name for ")];

/// What belongs to a variable.
const OF_NAMES: [(&[u8], &str); 3] =
    [(b"GV", "guard variable for "), (b"TH", "TLS init function for "), (b"TW", "TLS wrapper function for ")];
