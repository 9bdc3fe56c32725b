//! What functions are called: names as the file has them, as a person writes them, and what they say of the function.

use std::borrow::Cow;
use std::sync::OnceLock;
use std::sync::atomic::Ordering;

use super::name::{Name, Source};
use super::{Index, Language, LeftOut, function};
use crate::demangle::{self, Scheme};
use crate::go;

/// Bytes of demangled text that are kept, besides eight times the file's length. Beyond, names stay as the file has them.
pub(super) const MIN_TEXT: usize = 64 << 20;

/// One text for each function.
pub(super) type Texts = OnceLock<Box<[OnceLock<Box<str>>]>>;

impl Index {
    /// A name as the file has it.
    pub(super) fn raw(&self, name: &Name) -> &[u8] {
        let found = match name.source() {
            Source::Elf(table) => self.table(table).and_then(|table| table.name(name.position())),
            Source::Go => self.go_function(name).and_then(|f| f.name_bytes()),
            Source::Nameless => None,
        };
        found.unwrap_or_default()
    }

    pub(super) fn language(&self, name: &Name) -> Language {
        self.language_of(name, self.raw(name))
    }

    pub(super) fn language_of(&self, name: &Name, raw: &[u8]) -> Language {
        match name.source() {
            Source::Go if self.go_function(name).is_some_and(|f| f.is_foreign()) => Language::C,
            Source::Go => Language::Go,
            Source::Nameless => Language::C,
            Source::Elf(_) => match demangle::scheme(demangle::base(raw)) {
                Scheme::Rust => Language::Rust,
                Scheme::Itanium => Language::Cpp,
                Scheme::Plain if demangle::is_qualified(raw) => Language::Cpp,
                Scheme::Plain => Language::C,
            },
        }
    }

    /// The name that a function is shown by, as a person writes it, parameters included. Kept, also where the file spells
    /// it so: to find it there again takes longer than most look-ups by address.
    pub(super) fn display(&self, function: usize) -> &str {
        let named = self.functions.len();
        let (texts, count, place) = match function.checked_sub(named) {
            None => (&self.texts, named, function),
            Some(nameless) => (&self.nameless_texts, self.nameless().len(), nameless),
        };
        let texts = texts.get_or_init(|| (0..count).map(|_| OnceLock::new()).collect());
        let Some(place) = texts.get(place) else {
            return "";
        };
        match place.get() {
            Some(text) => text,
            None => self.first_name(function).map_or("", |name| self.keep(place, &name)),
        }
    }

    /// A name as a person writes it, parameters included.
    pub(super) fn full(&self, name: &Name) -> Cow<'_, str> {
        let raw = self.raw(name);
        match name.source() {
            Source::Go => std::str::from_utf8(raw).map_or_else(|_| String::from_utf8_lossy(raw), go::names::unescaped),
            Source::Elf(_) => demangle::full(raw),
            Source::Nameless => Cow::Owned(self.name_of_nameless(name)),
        }
    }

    /// Stores a name's text, unless a hostile file's names fill the memory.
    fn keep<'a>(&'a self, place: &'a OnceLock<Box<str>>, name: &Name) -> &'a str {
        let text = self.full(name);
        let take = |left: usize| left.checked_sub(text.len());
        match (self.text_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take), text) {
            (Ok(_), text) => place.get_or_init(|| text.into()),
            (Err(_), Cow::Borrowed(plain)) => plain,
            (Err(_), Cow::Owned(_)) => valid_beginning(self.raw(name)),
        }
    }

    /// Why globs leave a name out.
    pub(super) fn left_out(&self, name: &Name) -> Option<LeftOut> {
        self.left_out_by(name, self.raw(name))
    }

    pub(super) fn left_out_by(&self, name: &Name, raw: &[u8]) -> Option<LeftOut> {
        if name.is_ifunc() {
            return Some(LeftOut::Ifunc);
        }
        match name.source() {
            Source::Nameless => Some(LeftOut::Nameless),
            _ if raw.is_empty() => Some(LeftOut::Nameless),
            Source::Go => self.go_left_out(name, std::str::from_utf8(raw).unwrap_or_default()),
            Source::Elf(_) if demangle::whole_of_part(raw).is_some() => Some(LeftOut::Part),
            Source::Elf(_) => function::elf_left_out(demangle::unversioned(raw)),
        }
    }

    fn go_left_out(&self, name: &Name, text: &str) -> Option<LeftOut> {
        let wrapper = || {
            let program = self.binary.go()?;
            program.is_wrapper(&program.function(&self.binary, name.position() as usize)?).then_some(LeftOut::GoWrapper)
        };
        let is_of_runtime = || {
            let source = self.line(name.address());
            source.is_some_and(|source| go::names::is_file_of_runtime(source.file))
        };
        match go::names::kind(text) {
            go::names::Kind::Runtime => Some(LeftOut::GoRuntime),
            go::names::Kind::Internal => Some(LeftOut::GoInternal),
            go::names::Kind::Vendor => Some(LeftOut::GoVendor),
            go::names::Kind::Generated => Some(LeftOut::GoWrapper),
            go::names::Kind::Ordinary if go::names::has_no_package(text) => Some(LeftOut::GoRuntime),
            go::names::Kind::Ordinary if go::names::has_lost_package(text) && is_of_runtime() => {
                Some(LeftOut::GoRuntime)
            }
            go::names::Kind::Ordinary => wrapper(),
        }
    }
}

/// The part of a name before its first byte that is no UTF-8.
pub(super) fn valid_beginning(raw: &[u8]) -> &str {
    raw.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}
