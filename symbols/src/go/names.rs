//! How Go's functions are named, and which of them nobody traces unasked.
//!
//! The linker escapes the last element of a package's path (`foo%2ev1.F` for package `foo.v1`), and puts what a generic
//! function was made for in brackets: `main.Gen[...]` in Go 1.18 to 1.20, `main.Gen[go.shape.int]` later.

use std::borrow::Cow;

/// Why a function of Go is left out by default, judged by its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Runtime,
    Internal,
    Vendor,
    /// Made by the compiler: `type:.eq.…`, `go:…`.
    Generated,
    Ordinary,
}

/// The kind of a name, or of the literal beginning of a pattern.
pub(crate) fn kind(name: &str) -> Kind {
    const PREFIXES: [(&str, Kind); 8] = [
        ("runtime.", Kind::Runtime),
        ("runtime/internal/", Kind::Internal),
        ("internal/", Kind::Internal),
        ("vendor/", Kind::Vendor),
        // Go 1.20+ `type:.eq.T`, `go:…`; before, `type..eq.T`, `go.…`.
        ("type:", Kind::Generated),
        ("go:", Kind::Generated),
        ("type..", Kind::Generated),
        ("go.buildid", Kind::Generated),
    ];
    PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix)).map_or(Kind::Ordinary, |&(_, kind)| kind)
}

/// Assembly of the runtime that belongs to no package: `_rt0_amd64`, `memeqbody`, `gogo`.
pub(crate) fn has_no_package(name: &str) -> bool {
    !name.contains('.')
}

/// Whether the name has lost its package: a function literal in a function with a `go:linkname`, inlined elsewhere, is
/// `_.goready.func1`, whosever it is. Go 1.27: cmd/compile/internal/ir, closureName; base.Linkname.
pub(crate) fn has_lost_package(name: &str) -> bool {
    name.starts_with("_.")
}

/// Whether a source file is of the package `runtime`: in GOROOT, or with `-trimpath` below nothing.
pub(crate) fn is_file_of_runtime(path: &str) -> bool {
    let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
    folder == "runtime" || folder.ends_with("/src/runtime")
}

/// A name as the source spells it: `foo%2ev1.F` is `foo.v1.F`. Go: cmd/internal/objabi.PathToPrefix.
pub(crate) fn unescaped(name: &str) -> Cow<'_, str> {
    if !name.contains('%') {
        return Cow::Borrowed(name);
    }
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = if first == b'%' { after.get(..2).and_then(hex) } else { None };
        out.push(code.unwrap_or(first));
        rest = if code.is_some() { after.get(2..).unwrap_or_default() } else { after };
    }
    String::from_utf8(out).map_or(Cow::Borrowed(name), Cow::Owned)
}

fn hex(digits: &[u8]) -> Option<u8> {
    let text = std::str::from_utf8(digits).ok().filter(|t| t.bytes().all(|b| b.is_ascii_hexdigit()))?;
    u8::from_str_radix(text, 16).ok()
}

/// A name with each bracketed list of type arguments replaced. `None` if it has none.
pub(crate) fn with_type_arguments(name: &str, replacement: &str) -> Option<String> {
    if !name.contains('[') {
        return None;
    }
    let mut out = String::with_capacity(name.len());
    let mut depth = 0usize;
    for c in name.chars() {
        match c {
            '[' => {
                if depth == 0 {
                    out.push_str(replacement);
                }
                depth += 1;
            }
            ']' => depth = depth.saturating_sub(1),
            _ if depth == 0 => out.push(c),
            _ => {}
        }
    }
    Some(out)
}

/// A name with the marks of pointer receivers removed: `main.(*T).M` is `main.T.M`.
pub(crate) fn without_receiver_marks(name: &str) -> Option<String> {
    let at = name.find("(*")?;
    let (before, receiver) = (name.get(..at)?, name.get(at + 2..)?);
    let close = receiver.find(").")?;
    Some(format!("{before}{}{}", receiver.get(..close)?, receiver.get(close + 1..)?))
}

/// Type arguments as the table separates them: `Map[int, string]` is `Map[int,string]`.
pub(crate) fn closed_up(text: &str) -> Cow<'_, str> {
    if text.contains(", ") { Cow::Owned(text.replace(", ", ",")) } else { Cow::Borrowed(text) }
}

/// A name as it is called where its package is imported: the major version at the end of a path is no part of the
/// package's name (`example.org/dep/v2.F`, `gopkg.in/yaml%2ev3.F`: `dep.F`, `yaml.F`). `None` without one.
pub(crate) fn without_major_version(name: &str) -> Option<String> {
    let path = name.find(['(', '[']).and_then(|end| name.get(..end)).unwrap_or(name);
    let last = path.rfind('/').map_or(0, |slash| slash + 1);
    let end = last + path.get(last..)?.find('.')?;
    let package = path.get(..end)?;
    let (kept, version) = package.rsplit_once("/v").or_else(|| package.rsplit_once("%2ev"))?;
    let is_number = !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| format!("{kept}{}", name.get(end..).unwrap_or_default()))
}

/// All spellings by which a person may mean a name: as it is, without escapes, without or with abridged type
/// arguments, type arguments without the compiler's `go.shape.`.
pub(crate) fn spellings(name: &str) -> Vec<Cow<'_, str>> {
    let plain = unescaped(name);
    let mut all = vec![Cow::Borrowed(name)];
    if plain != name {
        all.push(plain.clone());
    }
    if plain.contains('[') {
        all.extend(with_type_arguments(&plain, "").map(Cow::Owned));
        all.extend(with_type_arguments(&plain, "[...]").map(Cow::Owned));
        all.push(Cow::Owned(plain.replace("go.shape.", "")));
    }
    all
}

/// Places in a name at which a tail may begin: after a `/` or `.` outside brackets.
pub(crate) fn element_starts(name: &str) -> impl Iterator<Item = usize> + '_ {
    let mut depth = 0usize;
    name.bytes().enumerate().filter_map(move |(at, byte)| {
        match byte {
            b'[' | b'(' => depth += 1,
            b']' | b')' => depth = depth.saturating_sub(1),
            b'/' | b'.' if depth == 0 => return Some(at + 1),
            _ => {}
        }
        None
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_every_spelling() {
        let all = spellings("example.com/ge.v2/foo%2ev1.(*List[go.shape.string]).Push");
        for expected in [
            "example.com/ge.v2/foo%2ev1.(*List[go.shape.string]).Push",
            "example.com/ge.v2/foo.v1.(*List).Push",
            "example.com/ge.v2/foo.v1.(*List[...]).Push",
            "example.com/ge.v2/foo.v1.(*List[string]).Push",
        ] {
            assert!(all.iter().any(|s| s == expected), "{expected} not in {all:?}");
        }
    }

    #[test]
    fn a_package_is_called_without_its_major_version() {
        for (name, expected) in [
            ("example.org/dep/v2.Weigh", Some("example.org/dep.Weigh")),
            ("gopkg.in/yaml%2ev3.(*Decoder).Decode", Some("gopkg.in/yaml.(*Decoder).Decode")),
            ("a/v2.Map[go.shape.struct { x/v3.T }]", Some("a.Map[go.shape.struct { x/v3.T }]")),
            ("a/v2/b.F", None),
            ("example.com/view.F", None),
            ("main.F[a/v2.T]", None),
            ("v2.F", None),
        ] {
            assert_eq!(without_major_version(name).as_deref(), expected, "{name}");
        }
    }

    #[test]
    fn files_of_the_runtime_are_told_from_others() {
        for path in ["/usr/local/go/src/runtime/proc.go", "runtime/proc.go"] {
            assert!(is_file_of_runtime(path), "{path}");
        }
        for path in
            ["/home/me/app/runtime/proc.go", "example.org/app/runtime/proc.go", "/go/src/runtime/debug/a.go", "a.go"]
        {
            assert!(!is_file_of_runtime(path), "{path}");
        }
    }

    #[test]
    fn broken_escapes_are_left_alone() {
        for name in ["a%", "a%2", "a%zz.F", "%"] {
            assert_eq!(unescaped(name), name);
        }
    }

    #[test]
    fn receivers_lose_their_star() {
        assert_eq!(without_receiver_marks("main.(*Store).Get").as_deref(), Some("main.Store.Get"));
        assert_eq!(without_receiver_marks("main.Get"), None);
    }
}
