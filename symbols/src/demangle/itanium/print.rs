//! Writing nodes as text.

use super::super::MAX_NAME;
use super::{Id, List, Mark, Node, Show, Suffix};

/// Nodes that are written at most. A few letters can mean any amount of text, and any amount of work that writes nothing.
const MAX_STEPS: u32 = 1 << 20;

/// Nodes within nodes. By substitutions they can be as many as the symbol has letters.
const MAX_LEVELS: u32 = 256;

pub(super) fn text(nodes: &[Node<'_>], lists: &[Id], root: Id, show: Show) -> Option<String> {
    let out = Vec::with_capacity(nodes.len() * 8);
    let mut printer = Printer {
        nodes,
        lists,
        out,
        is_bare: show == Show::Bare,
        scopes: Vec::new(),
        scope: None,
        lambdas: 0,
        pack: Pack::None,
        steps: 0,
        level: 0,
    };
    printer.function(root, show == Show::Full, show != Show::Bare)?;
    let mut text = String::from_utf8(printer.out).ok()?;
    // Many are kept, and half of what a growing string has may be unused.
    text.shrink_to_fit();
    Some(text)
}

struct Printer<'n, 's> {
    nodes: &'n [Node<'s>],
    lists: &'n [Id],
    out: Vec<u8>,
    is_bare: bool,
    /// Arguments of the templates whose functions are being written, each with the scope around it.
    scopes: Vec<(List, Option<usize>)>,
    /// Where template parameters are looked up.
    scope: Option<usize>,
    /// Lambdas whose parameters are being written: there a template parameter is `auto`.
    lambdas: u32,
    pack: Pack,
    steps: u32,
    level: u32,
}

/// What is known of the pack that an expansion repeats.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pack {
    /// There is no expansion.
    None,
    /// None has been met so far.
    Unknown,
    /// The pack has so many members, and this one's turn it is.
    Of { len: u32, member: u32 },
}

/// What a type is under its qualifiers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shape {
    Plain,
    Array,
    Function,
}

impl<'s> Printer<'_, 's> {
    fn write(&mut self, text: &[u8]) -> Option<()> {
        if self.out.len() + text.len() > MAX_NAME {
            return None;
        }
        self.out.extend_from_slice(text);
        Some(())
    }

    fn step(&mut self) -> Option<()> {
        self.steps += 1;
        (self.steps <= MAX_STEPS).then_some(())
    }

    fn get(&mut self, id: Id) -> Option<Node<'s>> {
        self.step()?;
        self.nodes.get(id as usize).copied()
    }

    fn members(&self, list: List) -> Option<&[Id]> {
        self.lists.get(list.start as usize..)?.get(..list.len as usize)
    }

    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.level += 1;
        let done = if self.level > MAX_LEVELS { None } else { work(self) };
        self.level -= 1;
        done
    }

    fn both(&mut self, id: Id) -> Option<()> {
        self.left(id)?;
        self.right(id)
    }

    fn left(&mut self, id: Id) -> Option<()> {
        self.deeper(|printer| printer.left_here(id))
    }

    fn right(&mut self, id: Id) -> Option<()> {
        self.deeper(|printer| printer.right_here(id))
    }

    /// What stands before a name that is declared with a type; everything of what is no type.
    fn left_here(&mut self, id: Id) -> Option<()> {
        match self.get(id)? {
            Node::Text(text) => self.write(text.as_bytes()),
            Node::Operator(sign) => {
                self.write(b"operator")?;
                self.write(sign.as_bytes())
            }
            Node::Name(name) => self.write(name),
            Node::Numbered(prefix, number) => self.numbered(prefix, number),
            Node::Abbreviation(name) => {
                self.write(b"std::")?;
                self.write(name.as_bytes())
            }
            Node::Joined(prefix, name) => {
                self.both(prefix)?;
                self.write(b"::")?;
                self.both(name)
            }
            Node::Local { function, entity } => {
                self.function(function, false, !self.is_bare)?;
                self.write(b"::")?;
                self.both(entity)
            }
            Node::Tagged(name, tag) => {
                self.both(name)?;
                if self.is_bare {
                    return Some(());
                }
                self.write(b"[abi:")?;
                self.write(tag)?;
                self.write(b"]")
            }
            Node::Instance(template, arguments) => {
                self.both(template)?;
                self.arguments(arguments)
            }
            Node::Lambda { declared, params, number } => self.lambda(declared, params, number),
            Node::Param(index) => self.parameter(index, Self::left),
            Node::Count(index) => {
                let (arguments, _) = *self.scopes.get(self.scope?)?;
                let argument = *self.members(arguments)?.get(usize::try_from(index).ok()?)?;
                let count = if let Node::Pack(list) = self.get(argument)? { list.len } else { 1 };
                self.write(count.to_string().as_bytes())
            }
            Node::Pack(list) | Node::Commas(list) => self.commas(list),
            Node::Expansion(pattern) => self.expansion(pattern),
            Node::Pointer(to, mark) => self.pointer(to, mark),
            Node::Qualified(of, mark) => {
                self.left(of)?;
                // `T const` of a T that is const already.
                if self.is_qualified(of, mark)? { Some(()) } else { self.write(mark.as_bytes()) }
            }
            Node::Member { class, of } => {
                self.left(of)?;
                let opening: &[u8] = match self.shape(of)? {
                    Shape::Function => b"(",
                    Shape::Array => b" (",
                    Shape::Plain => b" ",
                };
                self.write(opening)?;
                self.both(class)?;
                self.write(b"::*")
            }
            Node::Function { returns, .. } => {
                self.left(returns)?;
                if self.has_right(returns)? { Some(()) } else { self.write(b" ") }
            }
            Node::Array { of, .. } => self.left(of),
            Node::Encoding { .. } => self.function(id, true, true),
            Node::Sequence(list) => self.each(list, Self::both),
        }
    }

    /// What stands behind the name.
    fn right_here(&mut self, id: Id) -> Option<()> {
        match self.get(id)? {
            Node::Param(index) if self.lambdas == 0 => self.parameter(index, Self::right),
            Node::Qualified(of, _) => self.right(of),
            Node::Member { of, .. } => self.right_of_pointer(of),
            Node::Pointer(to, mark) => {
                let (to, _, scope) = self.collapsed(to, mark)?;
                let before = std::mem::replace(&mut self.scope, scope);
                self.right_of_pointer(to)?;
                self.scope = before;
                Some(())
            }
            Node::Function { returns, params, suffix, exceptions } => {
                self.write(b"(")?;
                self.commas(params)?;
                self.write(b")")?;
                self.suffix(suffix)?;
                if let Some(exceptions) = exceptions {
                    self.both(exceptions)?;
                }
                self.right(returns)
            }
            Node::Array { size, of } => {
                if !self.out.ends_with(b"]") {
                    self.write(b" ")?;
                }
                self.write(b"[")?;
                if let Some(size) = size {
                    self.both(size)?;
                }
                self.write(b"]")?;
                self.right(of)
            }
            _ => Some(()),
        }
    }

    fn right_of_pointer(&mut self, to: Id) -> Option<()> {
        if self.shape(to)? != Shape::Plain {
            self.write(b")")?;
        }
        self.right(to)
    }

    /// A function, with or without its return type and its parameters, or what belongs to one.
    fn function(&mut self, id: Id, has_returns: bool, has_params: bool) -> Option<()> {
        let (name, returns, params, suffix) = match self.get(id)? {
            Node::Encoding { name, returns, params, suffix } => (name, returns, params, suffix),
            Node::Sequence(list) => {
                return self.each(list, |printer, id| printer.function(id, has_returns, has_params));
            }
            _ => return self.both(id),
        };
        let before = (self.scope, self.lambdas, self.pack);
        (self.lambdas, self.pack) = (0, Pack::None);
        let own = self.own_arguments(name)?;
        if let Some(arguments) = own {
            self.scopes.push((arguments, self.scope));
            self.scope = Some(self.scopes.len() - 1);
        }
        let returns = returns.filter(|_| has_returns);
        if let Some(returns) = returns {
            self.left(returns)?;
            if !self.has_right(returns)? {
                self.write(b" ")?;
            }
        }
        self.both(name)?;
        if let Some(params) = params.filter(|_| has_params) {
            self.write(b"(")?;
            self.commas(params)?;
            self.write(b")")?;
        }
        if let Some(returns) = returns {
            self.right(returns)?;
        }
        if has_params {
            self.suffix(suffix)?;
        }
        if own.is_some() {
            self.scopes.pop();
        }
        (self.scope, self.lambdas, self.pack) = before;
        Some(())
    }

    /// Arguments of the template that a function is an instance of.
    fn own_arguments(&mut self, name: Id) -> Option<Option<List>> {
        let mut name = name;
        loop {
            name = match self.get(name)? {
                Node::Instance(_, arguments) => return Some(Some(arguments)),
                Node::Local { entity, .. } => entity,
                Node::Joined(prefix, entity) if matches!(self.get(prefix)?, Node::Numbered(..)) => entity,
                _ => return Some(None),
            };
        }
    }

    fn each(&mut self, list: List, mut write: impl FnMut(&mut Self, Id) -> Option<()>) -> Option<()> {
        for place in list.start..list.start.checked_add(list.len)? {
            let id = *self.lists.get(place as usize)?;
            write(self, id)?;
        }
        Some(())
    }

    /// A member that is an empty pack is nothing, and needs no comma.
    fn commas(&mut self, list: List) -> Option<()> {
        let mut is_first = true;
        self.each(list, |printer, id| {
            let written = printer.separated(!is_first, |printer| printer.both(id))?;
            is_first &= !written;
            Some(())
        })
    }

    /// Writes behind a comma; whether there was anything to write.
    fn separated(&mut self, has_comma: bool, write: impl FnOnce(&mut Self) -> Option<()>) -> Option<bool> {
        let before = self.out.len();
        if has_comma {
            self.write(b", ")?;
        }
        let start = self.out.len();
        write(self)?;
        let has_written = self.out.len() > start;
        if !has_written {
            self.out.truncate(before);
        }
        Some(has_written)
    }

    fn arguments(&mut self, list: List) -> Option<()> {
        // Behind `operator<`.
        self.write(if self.out.ends_with(b"<") { b" <" } else { b"<" })?;
        self.commas(list)?;
        self.write(if self.out.ends_with(b">") { b" >" } else { b">" })
    }

    fn numbered(&mut self, prefix: &str, number: u64) -> Option<()> {
        self.write(prefix.as_bytes())?;
        match prefix.bytes().next() {
            Some(b'{') => self.write(format!("{number}}}").as_bytes()),
            // A template's parameter: `$T`, `$T0`, `$T1`.
            Some(b'$') => match number.checked_sub(1) {
                Some(number) => self.write(number.to_string().as_bytes()),
                None => Some(()),
            },
            _ => self.write(number.to_string().as_bytes()),
        }
    }

    fn lambda(&mut self, declared: List, params: List, number: u64) -> Option<()> {
        self.write(b"{lambda")?;
        self.lambdas += 1;
        if declared.len > 0 {
            self.write(b"<")?;
            self.commas(declared)?;
            self.write(b">")?;
        }
        self.write(b"(")?;
        self.commas(params)?;
        self.lambdas -= 1;
        self.write(format!(")#{number}}}").as_bytes())
    }

    fn suffix(&mut self, suffix: Suffix) -> Option<()> {
        for (is_there, text) in
            [(suffix.is_const, " const"), (suffix.is_volatile, " volatile"), (suffix.is_restrict, " restrict")]
        {
            if is_there {
                self.write(text.as_bytes())?;
            }
        }
        self.write(suffix.reference.as_bytes())
    }

    fn parameter(&mut self, index: u64, write: impl FnOnce(&mut Self, Id) -> Option<()>) -> Option<()> {
        if self.lambdas > 0 {
            self.write(b"auto:")?;
            return self.write(index.checked_add(1)?.to_string().as_bytes());
        }
        let Some((argument, scope)) = self.argument(index)? else {
            return Some(());
        };
        let before = std::mem::replace(&mut self.scope, scope);
        write(self, argument)?;
        self.scope = before;
        Some(())
    }

    /// What a template parameter stands for, and the scope in which that is to be read; nothing, if it is an empty pack.
    fn argument(&mut self, index: u64) -> Option<Option<(Id, Option<usize>)>> {
        let (arguments, around) = *self.scopes.get(self.scope?)?;
        let argument = *self.members(arguments)?.get(usize::try_from(index).ok()?)?;
        let Node::Pack(list) = self.get(argument)? else {
            return Some(Some((argument, around)));
        };
        let member = match self.pack {
            Pack::None => return Some(Some((argument, around))),
            Pack::Unknown => {
                self.pack = Pack::Of { len: list.len, member: 0 };
                0
            }
            Pack::Of { member, .. } => member,
        };
        Some(self.members(list)?.get(member as usize).map(|&id| (id, around)))
    }

    /// What a pattern is for each member of the pack that it is about.
    fn expansion(&mut self, pattern: Id) -> Option<()> {
        let before = std::mem::replace(&mut self.pack, Pack::Unknown);
        let start = self.out.len();
        self.both(pattern)?;
        match self.pack {
            Pack::Of { len: 0, .. } => self.out.truncate(start),
            Pack::Of { len, .. } => {
                for member in 1..len {
                    self.pack = Pack::Of { len, member };
                    self.separated(true, |printer| printer.both(pattern))?;
                }
            }
            Pack::None | Pack::Unknown => {
                if !matches!(self.get(pattern)?, Node::Name(_) | Node::Joined(..) | Node::Numbered(..)) {
                    self.out.insert(start, b'(');
                    self.write(b")")?;
                }
                self.write(b"...")?;
            }
        }
        self.pack = before;
        Some(())
    }

    fn pointer(&mut self, to: Id, mark: Mark) -> Option<()> {
        let (to, mark, scope) = self.collapsed(to, mark)?;
        let before = std::mem::replace(&mut self.scope, scope);
        self.left(to)?;
        let opening: &[u8] = match self.shape(to)? {
            Shape::Plain => b"",
            Shape::Array => b" (",
            Shape::Function => b"(",
        };
        self.scope = before;
        self.write(opening)?;
        self.write(match mark {
            Mark::Pointer => b"*",
            Mark::Reference => b"&",
            Mark::RvalueReference => b"&&",
        })
    }

    /// A reference to a parameter that stands for a reference is one reference: what it leads to, and where that is read.
    fn collapsed(&mut self, to: Id, mark: Mark) -> Option<(Id, Mark, Option<usize>)> {
        if mark == Mark::Pointer {
            return Some((to, mark, self.scope));
        }
        let (argument, scope) = self.resolved(to)?;
        match self.get(argument)? {
            Node::Pointer(inner, Mark::Reference) => Some((inner, Mark::Reference, scope)),
            Node::Pointer(inner, Mark::RvalueReference) => Some((inner, mark, scope)),
            _ => Some((to, mark, self.scope)),
        }
    }

    /// What a type is that may be a template parameter, and the scope in which to read it.
    fn resolved(&mut self, id: Id) -> Option<(Id, Option<usize>)> {
        let (mut id, before) = (id, self.scope);
        while self.lambdas == 0
            && let Node::Param(index) = self.get(id)?
        {
            let Some((argument, around)) = self.argument(index)? else { break };
            (id, self.scope) = (argument, around);
        }
        let scope = std::mem::replace(&mut self.scope, before);
        Some((id, scope))
    }

    fn shape(&mut self, id: Id) -> Option<Shape> {
        let before = self.scope;
        let mut id = id;
        let shape = loop {
            (id, self.scope) = self.resolved(id)?;
            match self.get(id)? {
                Node::Qualified(of, _) => id = of,
                Node::Function { .. } => break Shape::Function,
                Node::Array { .. } => break Shape::Array,
                _ => break Shape::Plain,
            }
        };
        self.scope = before;
        Some(shape)
    }

    /// Whether anything of a type stands behind the name that it declares.
    fn has_right(&mut self, id: Id) -> Option<bool> {
        let before = self.scope;
        let mut id = id;
        let has_right = loop {
            (id, self.scope) = self.resolved(id)?;
            match self.get(id)? {
                Node::Qualified(of, _) | Node::Pointer(of, _) | Node::Member { of, .. } => id = of,
                Node::Function { .. } | Node::Array { .. } => break true,
                _ => break false,
            }
        };
        self.scope = before;
        Some(has_right)
    }

    /// Whether a type already has this qualifier.
    fn is_qualified(&mut self, id: Id, mark: &str) -> Option<bool> {
        let before = self.scope;
        let mut id = id;
        let is_qualified = loop {
            (id, self.scope) = self.resolved(id)?;
            match self.get(id)? {
                Node::Qualified(_, same) if same == mark => break true,
                Node::Qualified(of, _) => id = of,
                _ => break false,
            }
        };
        self.scope = before;
        Some(is_qualified)
    }
}
