//! What calls through a file's procedure linkage table lead to: the stubs `puts@plt`, and the implementations that IFUNC
//! resolvers chose.
//!
//! A stub jumps to where a word of the global offset table points. Which function that word is for, its relocation says.
//! Sources: x86-64 psABI 5.2, AArch64 ELF ABI 5.7.1 (relocations 1025, 1026, 1032); the stubs of GNU ld, gold, lld and
//! mold, with and without `-z now` and `-z ibtplt` or BTI.

use std::borrow::Cow;

use goblin::elf::reloc;

use crate::addr::Vaddr;
use crate::binary::{Binary, Machine};
use crate::bytes::{c_bytes, u32_at, u64_at};
use crate::debugfile::{AddressMap, DebugFile, Made, Origin};
use crate::demangle::PLT;

/// Bytes of a relocation with addend, in an ELF64 file.
const RELA_SIZE: usize = 24;
/// The longest stubs have 24 bytes (AArch64 with BTI and PAC).
const MAX_STUB: u64 = 24;

/// A relocation of a word that calls go through.
#[derive(Clone, Copy)]
struct Slot {
    place: Vaddr,
    kind: u32,
    symbol: u32,
    addend: u64,
}

impl Slot {
    fn read(entry: &[u8]) -> Option<Self> {
        let info = u64_at(entry, 8)?;
        let (kind, symbol) = (info as u32, (info >> 32) as u32);
        Some(Self { place: Vaddr(u64_at(entry, 0)?), kind, symbol, addend: u64_at(entry, 16)? })
    }

    fn calls_symbol(&self, machine: Machine) -> bool {
        match machine {
            Machine::X86_64 => [reloc::R_X86_64_JUMP_SLOT, reloc::R_X86_64_GLOB_DAT].contains(&self.kind),
            Machine::Aarch64 => [reloc::R_AARCH64_JUMP_SLOT, reloc::R_AARCH64_GLOB_DAT].contains(&self.kind),
        }
    }

    fn calls_resolver(&self, machine: Machine) -> bool {
        self.kind
            == match machine {
                Machine::X86_64 => reloc::R_X86_64_IRELATIVE,
                Machine::Aarch64 => reloc::R_AARCH64_IRELATIVE,
            }
    }
}

fn slots(binary: &Binary) -> impl Iterator<Item = Slot> {
    // Of hundreds of thousands of relative ones, which come first, none is for a call.
    let tables = [(".rela.plt", 0), (".rela.dyn", binary.layout().relative)];
    let entries = tables.into_iter().filter_map(|(name, skipped)| {
        let (_, table) = binary.section(name)?;
        Some(table.chunks_exact(RELA_SIZE).skip(skipped))
    });
    entries.flatten().filter_map(Slot::read)
}

/// The words that hold, when the program runs, what a resolver chose: (the word, the resolver).
pub(crate) fn resolved(binary: &Binary) -> Vec<(Vaddr, Vaddr)> {
    let machine = binary.machine();
    slots(binary).filter(|s| s.calls_resolver(machine)).map(|s| (s.place, Vaddr(s.addend))).collect()
}

/// The stubs as a symbol table: `puts@plt`.
pub(crate) fn stubs(binary: &Binary) -> Option<DebugFile> {
    let machine = binary.machine();
    if binary.plt().is_empty() {
        return None;
    }
    let mut slots: Vec<Slot> = slots(binary).filter(|s| s.calls_symbol(machine)).collect();
    slots.sort_unstable_by_key(|s| s.place);
    let symbols = binary.symbol_tables().find(|table| table.dynamic)?;
    let strings = binary.data().get(symbols.strings.clone())?;
    let mut made = Made::default();
    // Names may be the ends of others, but not all of them of long ones.
    let mut left = strings.len().saturating_mul(2).saturating_add(64 << 10);
    for &(start, len) in binary.plt() {
        let found: Vec<(Vaddr, Vaddr)> = stubs_in(binary, start, len).collect();
        for (number, &(stub, place)) in found.iter().enumerate() {
            let end = found.get(number + 1).map_or(start.0.saturating_add(len), |next| next.0.0);
            let Ok(slot) = slots.binary_search_by_key(&place, |s| s.place) else { continue };
            let symbol = slots.get(slot).and_then(|slot| symbols.symbol(binary.data(), slot.symbol));
            let name = symbol.and_then(|symbol| c_bytes(strings, usize::try_from(symbol.name).ok()?));
            let Some(name) = name else { continue };
            left = left.checked_sub(name.len() + PLT.len())?;
            made.function(&Cow::Borrowed(name), PLT, stub.0, (end.saturating_sub(stub.0)).min(MAX_STUB));
        }
    }
    made.finish(AddressMap::default(), Origin::Plt)
}

/// Stubs in a section: where each begins, and the word it jumps through.
fn stubs_in(binary: &Binary, start: Vaddr, len: u64) -> impl Iterator<Item = (Vaddr, Vaddr)> {
    let bytes = binary.bytes_at(start, len).unwrap_or_default();
    // Stubs of `.plt.got` have 8 bytes on x86-64; AArch64's begin anywhere.
    let machine = binary.machine();
    let step = if machine == Machine::X86_64 { 8 } else { 4 };
    let mut after = 0;
    (0..bytes.len()).step_by(step).filter_map(move |at| {
        if at < after {
            return None;
        }
        let address = start.checked_add(at as u64)?;
        let code = bytes.get(at..)?;
        let place = match machine {
            Machine::X86_64 => x86_64(code, address.0)?,
            Machine::Aarch64 => aarch64(code, address.0)?,
        };
        // `bti c` belongs to the stub: the `adrp` behind it is none of its own.
        after = at + step + 1;
        Some((address, place))
    })
}

/// `[endbr64] [bnd] jmp *disp(%rip)`
fn x86_64(code: &[u8], address: u64) -> Option<Vaddr> {
    let mut at = 0;
    for prefix in [&[0xf3, 0x0f, 0x1e, 0xfa][..], &[0xf2]] {
        if code.get(at..)?.starts_with(prefix) {
            at += prefix.len();
        }
    }
    code.get(at..)?.strip_prefix(&[0xff, 0x25])?;
    let displacement = i64::from(u32_at(code, at + 2)? as i32);
    Some(Vaddr(address.wrapping_add(at as u64 + 6).wrapping_add_signed(displacement)))
}

/// `[bti c]; adrp x16, page; ldr x17, [x16, #offset]`
fn aarch64(code: &[u8], address: u64) -> Option<Vaddr> {
    const BTI_C: u32 = 0xd503_245f;
    let skipped = if u32_at(code, 0)? == BTI_C { 4 } else { 0 };
    let (adrp, ldr) = (u32_at(code, skipped)?, u32_at(code, skipped + 4)?);
    if adrp & 0x9f00_001f != 0x9000_0010 || ldr & 0xffc0_03ff != 0xf940_0211 {
        return None;
    }
    let pages = (adrp >> 5 & 0x7_ffff) << 2 | adrp >> 29 & 3;
    // 21 bits with a sign.
    let pages = i64::from((pages << 11) as i32 >> 11);
    let page = (address.wrapping_add(skipped as u64) & !0xfff).wrapping_add_signed(pages << 12);
    Some(Vaddr(page.wrapping_add(u64::from(ldr >> 10 & 0xfff) * 8)))
}
