//! Whether one name fits one pattern, in each language's way.

use std::borrow::Cow;

use super::Index;
use super::function::{LeftOut, elf_left_out};
use super::name::{Name as Entry, Source};
use crate::demangle::{self, Scheme};
use crate::go::names as go_names;
use crate::pattern::{Glob, Name, canonical};

/// How well a name fits a pattern.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fit {
    Tail,
    Exact,
}

impl Index {
    /// All spellings of a name that globs and regular expressions are tried on.
    pub(super) fn spellings(&self, entry: &Entry) -> Vec<Cow<'_, str>> {
        let raw = self.raw(entry);
        match entry.source() {
            Source::Go => std::str::from_utf8(raw).map(go_names::spellings).unwrap_or_default(),
            Source::Elf(_) => vec![demangle::bare(raw)],
            Source::Nameless => vec![Cow::Owned(self.name_of_nameless(entry))],
        }
    }

    pub(super) fn fits_glob(&self, entry: &Entry, glob: &Glob) -> bool {
        glob_fits(glob, &self.spellings(entry), || self.is_mangled(entry))
    }

    fn is_mangled(&self, entry: &Entry) -> bool {
        !entry.is_go() && !demangle::is_of_c(self.raw(entry))
    }

    pub(super) fn fit(&self, entry: &Entry, name: &Name) -> Option<Fit> {
        let raw = self.raw(entry);
        match entry.source() {
            Source::Go => fit_go(std::str::from_utf8(raw).ok()?, &name.literal),
            Source::Nameless => None,
            Source::Elf(_) => fit_elf(raw, name),
        }
    }

    /// A name as it is shown: no parameters, hash, version or escapes.
    pub(super) fn bare(&self, entry: &Entry) -> String {
        self.bare_of(entry, self.raw(entry))
    }

    pub(super) fn bare_of(&self, entry: &Entry, raw: &[u8]) -> String {
        match entry.source() {
            Source::Go => go_names::unescaped(&String::from_utf8_lossy(raw)).into_owned(),
            Source::Elf(_) if entry.is_ifunc() => String::from_utf8_lossy(demangle::unversioned(raw)).into_owned(),
            Source::Elf(_) => demangle::bare(raw).into_owned(),
            Source::Nameless => self.name_of_nameless(entry),
        }
    }
}

/// Whether a glob matches one of a name's spellings, or for mangled names another way to write them.
pub(super) fn glob_fits(glob: &Glob, spellings: &[Cow<'_, str>], is_mangled: impl Fn() -> bool) -> bool {
    if spellings.iter().any(|s| glob.plain.is_match(s)) {
        return true;
    }
    if !is_mangled() {
        return false;
    }
    let key = spellings.first().map(|s| canonical::key(s)).unwrap_or_default();
    let by_type = canonical::by_self_type(&key);
    [Some(&key), by_type.as_ref()]
        .into_iter()
        .flatten()
        .any(|key| glob.key.is_match(key) || canonical::without_arguments(key).is_some_and(|k| glob.key.is_match(&k)))
}

/// How well a symbol fits.
pub(super) fn fit_elf(raw: &[u8], name: &Name) -> Option<Fit> {
    match demangle::scheme(demangle::base(raw)) {
        Scheme::Plain if demangle::is_qualified(raw) => fit_key(&canonical::key(&demangle::bare(raw)), &name.key),
        Scheme::Plain => (demangle::base(raw) == name.literal.as_bytes()).then_some(Fit::Exact),
        Scheme::Rust => fit_key(&canonical::key(&demangle::bare(raw)), &name.key),
        Scheme::Itanium => {
            let full = name.with_parameters;
            let text = if full { demangle::with_parameters(raw) } else { demangle::bare(raw) };
            let key = canonical::key(&text);
            // A thunk jumps to the function that its name ends with: one call would count twice.
            if elf_left_out(raw) == Some(LeftOut::Thunk) {
                return canonical::same(&name.key, &key).then_some(Fit::Exact);
            }
            fit_key(&key, &name.key)
        }
    }
}

/// How well a name of Go's function table fits.
pub(super) fn fit_go(name: &str, wanted: &str) -> Option<Fit> {
    let (wanted, name) = (go_names::closed_up(wanted), go_names::closed_up(name));
    let spellings = go_names::spellings(&name);
    if spellings.contains(&wanted) {
        return Some(Fit::Exact);
    }
    let is_tail = |s: &str| go_names::element_starts(s).any(|at| s.get(at..) == Some(&wanted));
    let fits = |s: &Cow<'_, str>| {
        // `Store.Get` finds `(*Store).Get` too.
        let flat = go_names::without_receiver_marks(s);
        is_tail(s) || flat.is_some_and(|flat| flat == wanted || is_tail(&flat))
    };
    // `dep.F` finds `example.org/dep/v2.F`. Never exactly: there may be a `dep.F` of the first version.
    let imported = || go_names::without_major_version(&name);
    let fits_imported = |name: &str| go_names::spellings(name).iter().any(|s| *s == wanted || fits(s));
    let found = spellings.iter().any(fits) || imported().is_some_and(|name| fits_imported(&name));
    found.then_some(Fit::Tail)
}

/// How well a canonical key fits that of a pattern.
pub(super) fn fit_key(name: &str, wanted: &str) -> Option<Fit> {
    if canonical::same(wanted, name) {
        return Some(Fit::Exact);
    }
    let by_type = || {
        let key = canonical::by_self_type(name);
        key.is_some_and(|key| canonical::same(wanted, &key) || canonical::is_tail(wanted, &key))
    };
    let fits = canonical::is_tail(wanted, name) || canonical::is_qualified_tail(wanted, name) || by_type();
    fits.then_some(Fit::Tail)
}
