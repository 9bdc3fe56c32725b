//! Names of C++ functions of every form, by way of a tree.
//!
//! A symbol is read into nodes, and the nodes are written as binutils writes them (`nm -C`). What a template parameter
//! stands for is looked up when it is written, as binutils does: the same part of a symbol, named by a substitution, can
//! stand for one thing in a lambda's parameters and for another in its operator's.
//!
//! Source: Itanium C++ ABI, 5.1 "External Names (a.k.a. Mangling)".

mod expressions;
mod names;
mod print;
#[cfg(test)]
mod tests;
mod types;

use super::MAX_DEPTH;

/// How much of a name is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Show {
    /// All of it.
    Full,
    /// Without the return type of the function itself.
    WithoutReturnType,
    /// Without parameters, qualifiers and return types, also of the functions that a local name is in, and without ABI tags.
    Bare,
}

/// The name of a symbol that begins with `_Z`, if it is one of C++, not nested too deep, and not too long.
pub(super) fn name(base: &[u8], show: Show) -> Option<String> {
    let rest = base.strip_prefix(b"_Z")?;
    let mut reader = Reader { rest, ..Reader::default() };
    reader.nodes.reserve(rest.len() / 2);
    let root = reader.encoding()?;
    if !reader.rest.is_empty() {
        return None;
    }
    print::text(&reader.nodes, &reader.lists, root, show)
}

/// A node's place among all of a symbol.
type Id = u32;

/// Nodes that belong together: a range of `Reader::lists`.
#[derive(Clone, Copy, Default)]
struct List {
    start: u32,
    len: u32,
}

#[derive(Clone, Copy)]
enum Node<'s> {
    Text(&'static str),
    /// Letters of the symbol itself.
    Name(&'s [u8]),
    /// `{parm#1}`
    Numbered(&'static str, u64),
    /// `std::string` and its like: what stands behind `std::`.
    Abbreviation(&'static str),
    /// `a::b`
    Joined(Id, Id),
    /// What is within a function.
    Local {
        function: Id,
        entity: Id,
    },
    /// An ABI tag.
    Tagged(Id, &'s [u8]),
    /// A template with its arguments.
    Instance(Id, List),
    Operator(&'static str),
    Lambda {
        declared: List,
        params: List,
        number: u64,
    },
    /// A template parameter, by its number.
    Param(u64),
    /// Arguments for a pack of parameters.
    Pack(List),
    Expansion(Id),
    /// A pointer or a reference.
    Pointer(Id, Mark),
    /// A type and what stands behind it: ` const`.
    Qualified(Id, &'static str),
    Member {
        class: Id,
        of: Id,
    },
    Function {
        returns: Id,
        params: List,
        suffix: Suffix,
        exceptions: Option<Id>,
    },
    /// How many arguments a pack has, that of the template parameter of this number.
    Count(u64),
    Array {
        size: Option<Id>,
        of: Id,
    },
    /// A function, or without parameters a variable.
    Encoding {
        name: Id,
        returns: Option<Id>,
        params: Option<List>,
        suffix: Suffix,
    },
    /// One behind the other.
    Sequence(List),
    /// Separated by commas.
    Commas(List),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Pointer,
    Reference,
    RvalueReference,
}

/// Qualifiers of a member function.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Suffix {
    is_restrict: bool,
    is_volatile: bool,
    is_const: bool,
    reference: &'static str,
}

/// What reading a function's own name finds out about the rest of its symbol.
#[derive(Clone, Copy, Default)]
struct Found {
    /// Constructors, destructors and conversions have no return type.
    has_no_return_type: bool,
    ends_with_arguments: bool,
    has_explicit_object: bool,
    suffix: Suffix,
}

#[derive(Default)]
struct Reader<'s> {
    rest: &'s [u8],
    nodes: Vec<Node<'s>>,
    lists: Vec<Id>,
    /// Members of lists that are not yet complete.
    open: Vec<Id>,
    /// What `S_`, `S0_` … stand for.
    known: Vec<Id>,
    /// In the type of a conversion, `T_I…E` are the function's own arguments.
    in_conversion: bool,
    depth: u32,
}

impl<'s> Reader<'s> {
    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn second(&self) -> Option<u8> {
        self.rest.get(1).copied()
    }

    fn take(&mut self, what: &[u8]) -> bool {
        let after = self.rest.strip_prefix(what);
        self.rest = after.unwrap_or(self.rest);
        after.is_some()
    }

    fn skip(&mut self, count: usize) -> Option<()> {
        self.rest = self.rest.get(count..)?;
        Some(())
    }

    fn node(&mut self, node: Node<'s>) -> Option<Id> {
        let id = u32::try_from(self.nodes.len()).ok()?;
        self.nodes.push(node);
        Some(id)
    }

    fn text(&mut self, text: &'static str) -> Option<Id> {
        self.node(Node::Text(text))
    }

    fn get(&self, id: Id) -> Option<Node<'s>> {
        self.nodes.get(id as usize).copied()
    }

    fn remember(&mut self, id: Id) -> Id {
        self.known.push(id);
        id
    }

    /// A list of what `read` reads until there is no more.
    fn list(&mut self, read: impl FnMut(&mut Self) -> Option<Option<Id>>) -> Option<List> {
        let start = self.open.len();
        self.list_from(start, read)
    }

    fn list_from(&mut self, start: usize, mut read: impl FnMut(&mut Self) -> Option<Option<Id>>) -> Option<List> {
        while let Some(id) = read(self)? {
            self.open.push(id);
        }
        let first = u32::try_from(self.lists.len()).ok()?;
        let len = u32::try_from(self.open.len().checked_sub(start)?).ok()?;
        self.lists.extend(self.open.drain(start..));
        Some(List { start: first, len })
    }

    /// A list up to an `E`.
    fn list_to_end(&mut self, mut one: impl FnMut(&mut Self) -> Option<Id>) -> Option<List> {
        self.list(|reader| if reader.take(b"E") { Some(None) } else { one(reader).map(Some) })
    }

    fn sequence(&mut self, parts: &[Id]) -> Option<Id> {
        let start = u32::try_from(self.lists.len()).ok()?;
        self.lists.extend(parts);
        self.node(Node::Sequence(List { start, len: u32::try_from(parts.len()).ok()? }))
    }

    /// A node between two texts.
    fn between(&mut self, before: &'static str, id: Id, after: &'static str) -> Option<Id> {
        let (before, after) = (self.text(before)?, self.text(after)?);
        self.sequence(&[before, id, after])
    }

    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.depth += 1;
        let done = if self.depth > MAX_DEPTH { None } else { work(self) };
        self.depth -= 1;
        done
    }

    fn digits(&mut self) -> &'s [u8] {
        let count = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let (digits, rest) = self.rest.split_at_checked(count).unwrap_or_default();
        self.rest = rest;
        digits
    }

    fn number(&mut self) -> Option<u64> {
        std::str::from_utf8(self.digits()).ok()?.parse().ok()
    }

    /// `_` is 0, `0_` is 1, `1_` is 2.
    fn index(&mut self) -> Option<u64> {
        if self.take(b"_") {
            return Some(0);
        }
        let number = self.number()?;
        self.take(b"_").then_some(number.checked_add(1)?)
    }
}
