//! Offsets of the fields of Go's runtime structures that name a goroutine, found in any build.
//!
//! Neither DWARF nor a symbol is needed: `runtime.malg` makes a `runtime.g`, so its code names the type, and type data
//! stays in every binary because the garbage collector and `reflect` need it. Where g itself is kept, its switching
//! code says. The table of versions at the end is only for binaries whose code was changed by a tool.

use iced_x86::{Decoder, DecoderOptions, Instruction, Mnemonic, OpKind, Register};
use rustc_hash::FxHashMap;

use super::Program;
use crate::Error;
use crate::addr::Vaddr;
use crate::binary::{Binary, Machine};
use crate::bytes::{u32_at, u64_at};

/// Where the tracer reads a goroutine's identity, in bytes from the start of each structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RuntimeOffsets {
    /// `g.goid`
    pub goid: u32,
    /// `g.stack.lo`
    pub stack_lo: u32,
    /// `g.stack.hi`
    pub stack_hi: u32,
    /// `g.m`
    pub m: u32,
    /// `m.curg`
    pub m_curg: u32,
    /// `g.sched.sp`: where the goroutine's stack pointer is while it does not run.
    pub sched_sp: u32,
    /// `g.syscallsp`: where Go's frames end while the goroutine is in a system call or in C.
    pub syscall_sp: Option<u32>,
    /// `g.parentGoid`, Go 1.21+
    pub parent_goid: Option<u32>,
    /// `g.gopc`
    pub gopc: Option<u32>,
    /// g is at `*(fsbase + tls)`.
    pub tls: i64,
}

// Go 1.19+: src/internal/abi/type.go (before 1.20 src/runtime/type.go): Type, StructType, StructField, PtrType.
const TYPE_KIND: u64 = 23;
const KIND_MASK: u8 = 0x1f;
const KIND_POINTER: u8 = 22;
const KIND_STRUCT: u8 = 25;
const POINTER_ELEM: u64 = 48;
const STRUCT_FIELDS: u64 = 56;
const STRUCT_FIELD_COUNT: u64 = 64;
const FIELD_SIZE: u64 = 24;

/// runtime.g has about 60 fields, runtime.m 80.
const MAX_FIELDS: u64 = 512;
/// The longest function looked into, in bytes.
const MAX_CODE: u64 = 4096;
/// Assembly that loads or stores g in thread-local storage, in every version.
const SWITCHES: [&str; 5] = ["gogo", "runtime.gogo", "runtime.mcall", "runtime.systemstack", "runtime.asmcgocall"];

impl Program {
    /// Where a goroutine's identity is kept.
    pub fn runtime_offsets(&self, binary: &Binary) -> Result<RuntimeOffsets, Error> {
        if binary.machine() != Machine::X86_64 {
            return Err(Error::Unsupported(binary.machine()));
        }
        if is_shared_library(binary) {
            return Err(missing("the thread-local g", "the loader chooses its place anew in a shared library"));
        }
        let tls = tls_offset(self, binary).ok_or_else(|| missing("the thread-local g", "no code tells its place"))?;
        from_types(self, binary, tls).or_else(|| from_version(self.version()?, tls)).ok_or_else(|| {
            missing("the layout of runtime.g", "runtime.malg names no such type, and the Go version is not known")
        })
    }
}

fn missing(what: &'static str, why: &str) -> Error {
    Error::GoRuntime { what, why: why.to_owned() }
}

/// Neither a position-independent program (it has an interpreter) nor a static one (it needs nothing).
fn is_shared_library(binary: &Binary) -> bool {
    binary.is_pie() && binary.interpreter().is_none() && !binary.needed().is_empty()
}

fn code_of(program: &Program, binary: &Binary, name: &str) -> Vec<Instruction> {
    let function = program.function_named(binary, name);
    let code = function.and_then(|f| Some((f.address, binary.bytes_at(f.address, f.size().min(MAX_CODE))?)));
    let Some((address, bytes)) = code else { return Vec::new() };
    Decoder::with_ip(64, bytes, address.0, DecoderOptions::NONE).into_iter().collect()
}

fn from_types(program: &Program, binary: &Binary, tls: i64) -> Option<RuntimeOffsets> {
    let malg = code_of(program, binary, "runtime.malg");
    let named = malg.iter().filter(|i| i.mnemonic() == Mnemonic::Lea && i.is_ip_rel_memory_operand());
    named.map(|i| Vaddr(i.ip_rel_memory_address())).find_map(|at| offsets(binary, at, tls))
}

fn offsets(binary: &Binary, g: Vaddr, tls: i64) -> Option<RuntimeOffsets> {
    let g = Struct::read(binary, g)?;
    let stack = g.field("stack")?;
    let bounds = Struct::read(binary, stack.kind)?;
    let m = g.field("m")?;
    let machine = Struct::read(binary, pointee(binary, m.kind)?)?;
    let sched = g.field("sched")?;
    let saved = Struct::read(binary, sched.kind)?;
    let in_stack = |name| u32::checked_add(stack.offset, bounds.field(name)?.offset);
    Some(RuntimeOffsets {
        goid: g.field("goid")?.offset,
        stack_lo: in_stack("lo")?,
        stack_hi: in_stack("hi")?,
        m: m.offset,
        m_curg: machine.field("curg")?.offset,
        sched_sp: sched.offset.checked_add(saved.field("sp")?.offset)?,
        syscall_sp: g.field("syscallsp").map(|f| f.offset),
        parent_goid: g.field("parentGoid").map(|f| f.offset),
        gopc: g.field("gopc").map(|f| f.offset),
        tls,
    })
}

#[derive(Clone, Copy)]
struct Field {
    kind: Vaddr,
    offset: u32,
}

/// A struct type's fields by name.
struct Struct<'a>(FxHashMap<&'a [u8], Field>);

impl<'a> Struct<'a> {
    fn read(binary: &'a Binary, at: Vaddr) -> Option<Self> {
        (kind(binary, at)? == KIND_STRUCT).then_some(())?;
        let count = word(binary, at.checked_add(STRUCT_FIELD_COUNT)?)?;
        if count == 0 || count > MAX_FIELDS {
            return None;
        }
        let start = binary.pointer_at(at.checked_add(STRUCT_FIELDS)?)?;
        let bytes = binary.bytes_at(start, count.checked_mul(FIELD_SIZE)?)?;
        let end = start.checked_add(bytes.len() as u64)?;
        let moved: FxHashMap<_, _> = binary.relocations_in(start..end).iter().copied().collect();
        let pointer = |at: usize| {
            let place = start.checked_add(at as u64)?;
            moved.get(&place).copied().or_else(|| u64_at(bytes, at).map(Vaddr))
        };
        let fields = (0..bytes.len()).step_by(FIELD_SIZE as usize).filter_map(|at| {
            let offset = u32::try_from(u64_at(bytes, at.checked_add(16)?)?).ok()?;
            Some((name(binary, pointer(at)?)?, Field { kind: pointer(at.checked_add(8)?)?, offset }))
        });
        Some(Self(fields.collect()))
    }

    fn field(&self, name: &str) -> Option<Field> {
        self.0.get(name.as_bytes()).copied()
    }
}

fn kind(binary: &Binary, at: Vaddr) -> Option<u8> {
    binary.bytes_at(at.checked_add(TYPE_KIND)?, 1)?.first().map(|kind| kind & KIND_MASK)
}

fn pointee(binary: &Binary, at: Vaddr) -> Option<Vaddr> {
    (kind(binary, at)? == KIND_POINTER).then_some(())?;
    binary.pointer_at(at.checked_add(POINTER_ELEM)?)
}

fn word(binary: &Binary, at: Vaddr) -> Option<u64> {
    u64_at(binary.bytes_at(at, 8)?, 0)
}

/// Go 1.17+: src/internal/abi/type.go, Name: a byte of flags, the length as a varint, the bytes.
fn name(binary: &Binary, at: Vaddr) -> Option<&[u8]> {
    let length = *binary.bytes_at(at.checked_add(1)?, 1)?.first()?;
    // A field of the runtime has no name of 128 bytes.
    (length < 0x80).then_some(())?;
    binary.bytes_at(at.checked_add(2)?, u64::from(length))
}

/// `fsbase + offset` is where g's address is, as the code that switches goroutines says.
fn tls_offset(program: &Program, binary: &Binary) -> Option<i64> {
    let in_code = SWITCHES.iter().find_map(|name| {
        let code = code_of(program, binary, name);
        let at = code.iter().position(|i| i.memory_segment() == Register::FS)?;
        let (before, access) = (code.get(..at)?, code.get(at)?);
        match access.memory_base() {
            Register::None => Some(access.memory_displacement64().cast_signed()),
            base => loaded_offset(binary, before, base)?.checked_add(access.memory_displacement64().cast_signed()),
        }
    });
    in_code.filter(|offset| *offset < 0).or_else(|| from_symbol(binary))
}

/// What `register` was last loaded with: a constant, or a word of the global offset table.
fn loaded_offset(binary: &Binary, before: &[Instruction], register: Register) -> Option<i64> {
    let load = before.iter().rev().find(|i| i.op0_kind() == OpKind::Register && i.op0_register() == register)?;
    if load.mnemonic() != Mnemonic::Mov {
        return None;
    }
    if load.is_ip_rel_memory_operand() {
        let place = Vaddr(load.ip_rel_memory_address());
        return thread_relocation(binary, place).or_else(|| word(binary, place).map(u64::cast_signed));
    }
    load.try_immediate(1).ok().map(u64::cast_signed)
}

/// The offset that the loader writes at `place` (`R_X86_64_TPOFF64`), for the program itself, whose thread-local
/// storage ends at the thread pointer (ELF Handling For Thread-Local Storage, variant II).
fn thread_relocation(binary: &Binary, place: Vaddr) -> Option<i64> {
    const R_X86_64_TPOFF64: u64 = 18;
    let (start, len) = binary.layout().rela?;
    let table = binary.data().get(start..start.checked_add(len)?)?;
    let entry = table.chunks_exact(24).find(|e| u64_at(e, 0) == Some(place.0))?;
    (u64::from(u32_at(entry, 8)?) == R_X86_64_TPOFF64).then_some(())?;
    // With a symbol, its value would come on top: another module's variable, which is not Go's.
    (u32_at(entry, 12)? == 0).then_some(())?;
    u64_at(entry, 16)?.cast_signed().checked_sub(block_size(binary)?)
}

/// Bytes from the start of the program's thread-local storage to the thread pointer.
fn block_size(binary: &Binary) -> Option<i64> {
    let tls = binary.tls()?;
    i64::try_from(tls.mem_size.checked_next_multiple_of(tls.align.max(1))?).ok()
}

/// Go 1.4+: src/cmd/link/internal/ld/sym.go: without a TLS segment g is the word below the thread pointer.
fn from_symbol(binary: &Binary) -> Option<i64> {
    let Some(size) = block_size(binary) else { return Some(-8) };
    let start = match binary.symbol_value("runtime.tlsg") {
        Some(value) => i64::try_from(value).ok()?,
        // One word: there is nothing but g.
        None if size == 8 => 0,
        None => return None,
    };
    start.checked_sub(size)
}

/// Offsets by version, from the DWARF of programs built with each.
fn from_version(version: &str, tls: i64) -> Option<RuntimeOffsets> {
    let minor: u32 = version.strip_prefix("go1.")?.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    let (goid, m_curg, parent_goid, gopc) = match minor {
        19 => (0x98, 0xc0, None, Some(0x128)),
        20 => (0x98, 0xc0, None, None),
        21 | 22 => (0x98, 0xc0, Some(0x110), Some(0x118)),
        23 | 24 => (0xa0, 0xc0, Some(0x118), Some(0x120)),
        25 => (0x98, 0xb8, Some(0x110), Some(0x118)),
        26 | 27 => (0x98, 0xb8, Some(0x118), Some(0x120)),
        _ => return None,
    };
    // Go 1.25: gobuf has no `ret` any more.
    let syscall_sp = Some(if minor < 25 { 0x70 } else { 0x68 });
    let (stack_lo, stack_hi, m, sched_sp) = (0, 8, 0x30, 0x38);
    Some(RuntimeOffsets { goid, stack_lo, stack_hi, m, m_curg, sched_sp, syscall_sp, parent_goid, gopc, tls })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_out_of_the_table_are_not_guessed() {
        assert!(from_version("go1.28.1", -8).is_none());
        assert!(from_version("devel", -8).is_none());
        assert_eq!(from_version("go1.24rc1 X:foo", -8).map(|o| o.goid), Some(0xa0));
    }

    /// The table is written from DWARF; the Go tool itself is a Go program.
    #[test]
    fn type_data_says_what_the_table_of_versions_says() {
        let default = concat!(env!("CARGO_MANIFEST_DIR"), "/../.testdeps/go1.27/go/bin/go");
        let file = std::env::var("PROBE_TEST_GO").unwrap_or_else(|_| default.to_owned());
        let binary = Binary::open(file.as_ref()).expect("Go is installed");
        let program = binary.go().expect("a Go program");
        let found = from_types(program, &binary, -8).expect("type data");
        assert_eq!(Some(found), program.version().and_then(|version| from_version(version, -8)));
    }
}
