//! Names of Rust's v0 symbols, written in one pass.
//!
//! rustc_demangle first reads a symbol for whether it is one, then writes it piece by piece through formatters: most of
//! what listing 100,000 functions takes. Here both is one pass into a buffer. What is rare is left to rustc_demangle
//! (the answer is `None`): identifiers in punycode, lifetimes with a name, constants other than numbers.
//!
//! Source: The Rust Reference of symbol mangling v0 (RFC 2603).

use super::{MAX_DEPTH, MAX_NAME};

/// The name without the hashes that tell crates apart, as `{:#}` of rustc_demangle, of a symbol that begins with `_R`.
pub(super) fn bare(base: &[u8]) -> Option<String> {
    let symbol = base.strip_prefix(b"_R")?;
    let mut writer = Writer { symbol, at: 0, out: Vec::with_capacity(base.len()), silent: false, depth: 0 };
    writer.path(true)?;
    // The crate that instantiates a generic function.
    if writer.at < symbol.len() {
        writer.silent = true;
        writer.path(false)?;
    }
    let text = String::from_utf8(writer.out).ok()?;
    (writer.at == symbol.len()).then_some(text)
}

struct Writer<'s> {
    /// What follows `_R`: back references count from there.
    symbol: &'s [u8],
    at: usize,
    out: Vec<u8>,
    /// What is read is not written.
    silent: bool,
    depth: u32,
}

impl<'s> Writer<'s> {
    fn peek(&self) -> Option<u8> {
        self.symbol.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    fn take(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    /// A few letters can mean any amount of text.
    fn write(&mut self, text: &[u8]) -> Option<()> {
        if !self.silent {
            self.out.extend_from_slice(text);
        }
        (self.out.len() <= MAX_NAME).then_some(())
    }

    fn deeper<T>(&mut self, work: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.depth += 1;
        let done = if self.depth > MAX_DEPTH { None } else { work(self) };
        self.depth -= 1;
        done
    }

    /// `<base-62-number>`: `_` is 0, `0_` is 1.
    fn number(&mut self) -> Option<usize> {
        let mut number = 0usize;
        if self.take(b'_') {
            return Some(0);
        }
        loop {
            let digit = match self.next()? {
                b'_' => return number.checked_add(1),
                digit @ b'0'..=b'9' => digit - b'0',
                digit @ b'a'..=b'z' => digit - b'a' + 10,
                digit @ b'A'..=b'Z' => digit - b'A' + 36,
                _ => return None,
            };
            number = number.checked_mul(62)?.checked_add(digit.into())?;
        }
    }

    /// `[s <number>]`
    fn disambiguator(&mut self) -> Option<usize> {
        if self.take(b's') { self.number()?.checked_add(1) } else { Some(0) }
    }

    /// `<decimal number> [_] <bytes>`
    fn identifier(&mut self) -> Option<&'s [u8]> {
        let mut len = 0usize;
        let first = self.peek().filter(u8::is_ascii_digit)?;
        while let Some(digit @ b'0'..=b'9') = self.peek() {
            self.at += 1;
            len = len.checked_mul(10)?.checked_add((digit - b'0').into())?;
            if first == b'0' {
                break;
            }
        }
        self.take(b'_');
        let end = self.at.checked_add(len)?;
        let name = self.symbol.get(self.at..end)?;
        self.at = end;
        Some(name)
    }

    /// `B <number>`, behind the `B`: what stood there is read again.
    fn back(&mut self, again: impl FnOnce(&mut Self) -> Option<()>) -> Option<()> {
        let here = self.at.checked_sub(1)?;
        let place = self.number().filter(|&place| place < here)?;
        if self.silent {
            return Some(());
        }
        let after = std::mem::replace(&mut self.at, place);
        self.deeper(again)?;
        self.at = after;
        Some(())
    }

    /// Anything up to an `E`; how many there were.
    fn list(&mut self, between: &[u8], one: impl Fn(&mut Self) -> Option<()>) -> Option<usize> {
        let mut count = 0;
        while !self.take(b'E') {
            if count > 0 {
                self.write(between)?;
            }
            one(self)?;
            count += 1;
        }
        Some(count)
    }

    fn path(&mut self, in_value: bool) -> Option<()> {
        self.deeper(|writer| writer.path_here(in_value))
    }

    fn path_here(&mut self, in_value: bool) -> Option<()> {
        match self.next()? {
            b'C' => {
                self.disambiguator()?;
                let name = self.identifier()?;
                self.write(name)
            }
            b'N' => self.nested(in_value),
            kind @ (b'M' | b'X' | b'Y') => {
                if kind != b'Y' {
                    // Where the `impl` stands.
                    self.disambiguator()?;
                    let before = std::mem::replace(&mut self.silent, true);
                    self.path(false)?;
                    self.silent = before;
                }
                self.write(b"<")?;
                self.a_type()?;
                if kind != b'M' {
                    self.write(b" as ")?;
                    self.path(false)?;
                }
                self.write(b">")
            }
            b'I' => {
                self.path(in_value)?;
                self.write(if in_value { b"::<" } else { b"<" })?;
                self.list(b", ", Self::generic_argument)?;
                self.write(b">")
            }
            b'B' => self.back(|writer| writer.path(in_value)),
            _ => None,
        }
    }

    /// `N <namespace> <path> <identifier>`
    fn nested(&mut self, in_value: bool) -> Option<()> {
        let namespace = self.next().filter(u8::is_ascii_alphabetic)?;
        self.path(in_value)?;
        let number = self.disambiguator()?;
        let name = self.identifier()?;
        if namespace.is_ascii_lowercase() {
            return if name.is_empty() { Some(()) } else { self.write(b"::").and_then(|()| self.write(name)) };
        }
        self.write(b"::{")?;
        match namespace {
            b'C' => self.write(b"closure")?,
            b'S' => self.write(b"shim")?,
            other => self.write(&[other])?,
        }
        if !name.is_empty() {
            self.write(b":")?;
            self.write(name)?;
        }
        self.write(b"#")?;
        self.write(number.to_string().as_bytes())?;
        self.write(b"}")
    }

    fn generic_argument(&mut self) -> Option<()> {
        if self.take(b'L') {
            return if self.number()? == 0 { self.write(b"'_") } else { None };
        }
        if self.take(b'K') { self.constant() } else { self.a_type() }
    }

    fn a_type(&mut self) -> Option<()> {
        self.deeper(Self::a_type_here)
    }

    fn a_type_here(&mut self) -> Option<()> {
        let kind = self.next()?;
        if let Some((_, name)) = BASIC.iter().find(|(code, _)| *code == kind) {
            return self.write(name.as_bytes());
        }
        match kind {
            b'R' | b'Q' => {
                if self.take(b'L') && self.number()? != 0 {
                    return None;
                }
                self.write(if kind == b'R' { b"&" } else { b"&mut " })?;
                self.a_type()
            }
            b'P' | b'O' => {
                self.write(if kind == b'P' { b"*const " } else { b"*mut " })?;
                self.a_type()
            }
            b'A' | b'S' => {
                self.write(b"[")?;
                self.a_type()?;
                if kind == b'A' {
                    self.write(b"; ")?;
                    self.constant()?;
                }
                self.write(b"]")
            }
            b'T' => {
                self.write(b"(")?;
                let count = self.list(b", ", Self::a_type)?;
                self.write(if count == 1 { b",)" } else { b")" })
            }
            b'F' => self.function(),
            b'D' => self.object(),
            b'B' => self.back(Self::a_type),
            b'C' | b'N' | b'M' | b'X' | b'Y' | b'I' => {
                // It belongs to the path.
                self.at -= 1;
                self.path(false)
            }
            _ => None,
        }
    }

    /// `F [U] [K C] <type>* E <type>`, behind the `F`. Binders (`G`) are no type.
    fn function(&mut self) -> Option<()> {
        if self.take(b'U') {
            self.write(b"unsafe ")?;
        }
        if self.take(b'K') {
            self.take(b'C').then_some(())?;
            self.write(b"extern \"C\" ")?;
        }
        self.write(b"fn(")?;
        self.list(b", ", Self::a_type)?;
        self.write(b")")?;
        if self.take(b'u') {
            return Some(());
        }
        self.write(b" -> ")?;
        self.a_type()
    }

    /// `D <trait>* E L _`, behind the `D`.
    fn object(&mut self) -> Option<()> {
        self.write(b"dyn ")?;
        self.list(b" + ", Self::object_trait)?;
        (self.take(b'L') && self.number()? == 0).then_some(())
    }

    /// A trait, and what its associated types are: `dyn Iterator<Item = u8>`.
    fn object_trait(&mut self) -> Option<()> {
        let mut open = self.open_path()?;
        while self.take(b'p') {
            self.write(if open { b", " } else { b"<" })?;
            open = true;
            let name = self.identifier()?;
            self.write(name)?;
            self.write(b" = ")?;
            if self.take(b'K') { self.constant()? } else { self.a_type()? }
        }
        if open { self.write(b">") } else { Some(()) }
    }

    /// A path whose generic arguments are not closed; whether it has any.
    fn open_path(&mut self) -> Option<bool> {
        if self.take(b'B') {
            let mut open = false;
            self.back(|writer| writer.open_path().map(|is_open| open = is_open))?;
            return Some(open);
        }
        if !self.take(b'I') {
            return self.path(false).map(|()| false);
        }
        self.path(false)?;
        self.write(b"<")?;
        self.list(b", ", Self::generic_argument)?;
        Some(true)
    }

    fn constant(&mut self) -> Option<()> {
        match self.next()? {
            b'p' => self.write(b"_"),
            b'h' | b't' | b'm' | b'y' | b'o' | b'j' => {
                self.hexadecimal().and_then(|n| self.write(n.to_string().as_bytes()))
            }
            b'a' | b's' | b'l' | b'x' | b'n' | b'i' => {
                if self.take(b'n') {
                    self.write(b"-")?;
                }
                self.hexadecimal().and_then(|n| self.write(n.to_string().as_bytes()))
            }
            b'b' => match self.hexadecimal()? {
                0 => self.write(b"false"),
                1 => self.write(b"true"),
                _ => None,
            },
            b'B' => self.back(Self::constant),
            _ => None,
        }
    }

    /// `<hexadecimal digit>* _`
    fn hexadecimal(&mut self) -> Option<u64> {
        let mut number = 0u64;
        loop {
            let digit = match self.next()? {
                b'_' => return Some(number),
                digit @ b'0'..=b'9' => digit - b'0',
                digit @ b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            number = number.checked_mul(16)?.checked_add(digit.into())?;
        }
    }
}

/// `<basic-type>`
const BASIC: [(u8, &str); 21] = [
    (b'a', "i8"),
    (b'b', "bool"),
    (b'c', "char"),
    (b'd', "f64"),
    (b'e', "str"),
    (b'f', "f32"),
    (b'h', "u8"),
    (b'i', "isize"),
    (b'j', "usize"),
    (b'l', "i32"),
    (b'm', "u32"),
    (b'n', "i128"),
    (b'o', "u128"),
    (b'p', "_"),
    (b's', "i16"),
    (b't', "u16"),
    (b'u', "()"),
    (b'v', "..."),
    (b'x', "i64"),
    (b'y', "u64"),
    (b'z', "!"),
];
