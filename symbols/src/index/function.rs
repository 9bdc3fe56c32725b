//! What is known of one function, and why globs leave some out.

use std::fmt;

use crate::addr::Vaddr;

/// A function's place in the order of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FunctionId(pub u32);

/// The language of a function, judged by how its symbol is mangled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Language {
    /// In Go's function table.
    Go,
    /// Legacy or v0 mangling.
    Rust,
    /// Itanium mangling.
    Cpp,
    /// Not mangled: C, assembly, `extern "C"` of any language.
    C,
}

impl Language {
    /// What people call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Go => "Go",
            Self::Rust => "Rust",
            Self::Cpp => "C++",
            Self::C => "C",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a glob or regular expression does not take a function in by default.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum LeftOut {
    /// `runtime.*`, and assembly without a package.
    GoRuntime,
    /// `internal/*`
    GoInternal,
    /// `vendor/*`
    GoVendor,
    /// Method, `-fm`, `defer` and `go` wrappers, `type:.eq.*`, `go:*`.
    GoWrapper,
    /// Adjusts `this` and jumps to the real function.
    Thunk,
    /// What the C runtime starts and ends a program with.
    Startup,
    /// `puts@plt`: jumps to a function of another file.
    PltStub,
    /// A part (`.cold`) of another function.
    Part,
    /// Known only by its bounds.
    Nameless,
    /// The symbol is an IFUNC: its address is that of the resolver, which runs once, not of the function it chooses.
    /// Its name selects that function, if [`super::Index::learn_ifuncs`] was told which it is, and else nothing.
    Ifunc,
    /// The same, and the file does not call it: no word of it holds what was chosen, in no process.
    UncalledIfunc,
}

impl LeftOut {
    /// Whether such a function is never selected itself, not even with `all`.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Ifunc | Self::UncalledIfunc)
    }
}

impl fmt::Display for LeftOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GoRuntime => "Go's runtime",
            Self::GoInternal => "Go's internal packages",
            Self::GoVendor => "Go's vendored packages",
            Self::GoWrapper => "a wrapper made by the Go compiler",
            Self::Thunk => "a thunk made by the C++ compiler",
            Self::Startup => "a stub of the C runtime",
            Self::PltStub => "a PLT stub",
            Self::Part => "a part of another function",
            Self::Nameless => "a function without a name",
            Self::Ifunc => "an indirect function: the symbol names its resolver",
            Self::UncalledIfunc => {
                "an indirect function that its own file never calls: no part of it tells what the resolver chose"
            }
        })
    }
}

/// One function.
#[derive(Clone, Copy, Debug)]
pub struct Function<'a> {
    /// Its place in the index.
    pub id: FunctionId,
    /// Where it begins.
    pub address: Vaddr,
    /// Bytes of code; 0 if the file does not say.
    pub size: u64,
    /// As a person writes it: demangled, C++ with parameters, Rust without its hash, Go with unescaped package paths.
    pub name: &'a str,
    /// As the file spells it.
    pub symbol: &'a str,
    /// What it is written in.
    pub language: Language,
    /// Why globs leave it out by default.
    pub left_out: Option<LeftOut>,
    /// Go: written in assembly.
    pub go_asm: bool,
    /// Go: the outermost frame of a stack.
    pub go_top_frame: bool,
}

/// One function without its name as a person writes it, which for C++ and Rust is what takes time.
#[derive(Clone, Copy, Debug)]
pub struct Outline {
    /// Where it begins.
    pub address: Vaddr,
    /// Bytes of code; 0 if the file does not say.
    pub size: u64,
    /// From Go's function table.
    pub is_go: bool,
    /// Go: written in assembly.
    pub go_asm: bool,
}

/// What gcc's crtbegin.o, glibc's and musl's crt1.o and crti.o, and the linker bring along.
const STARTUP: [&[u8]; 14] = [
    b"_start",
    b"__start",
    b"_start_c",
    b"_init",
    b"_fini",
    b"frame_dummy",
    b"register_tm_clones",
    b"deregister_tm_clones",
    b"__do_global_dtors_aux",
    b"__do_global_ctors_aux",
    b"_dl_relocate_static_pie",
    b"__libc_csu_init",
    b"__libc_csu_fini",
    b"call_weak_fn",
];

/// Why globs leave a symbol of an ELF table out, judged by its name.
pub(super) fn elf_left_out(symbol: &[u8]) -> Option<LeftOut> {
    if STARTUP.contains(&symbol) {
        return Some(LeftOut::Startup);
    }
    if symbol.ends_with(b"@plt") || symbol.ends_with(b"$plt") {
        return Some(LeftOut::PltStub);
    }
    // Itanium ABI 5.1.4: _ZTh, _ZTv, _ZTc.
    let thunk = [&b"_ZTh"[..], b"_ZTv", b"_ZTc"].iter().any(|prefix| symbol.starts_with(prefix));
    thunk.then_some(LeftOut::Thunk)
}
