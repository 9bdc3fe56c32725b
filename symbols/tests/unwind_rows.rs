//! Rows of real unwind tables, beside framehop: for registers and memory made up at random, both find the same caller.

use std::num::NonZeroU64;
use std::path::Path;

use framehop::x86_64::{CacheX86_64, UnwindRegsX86_64, UnwinderX86_64};
use framehop::{ExplicitModuleSectionInfo, FrameAddress, Module, Unwinder as _};
use symbols::addr::Vaddr;
use symbols::binary::Binary;
use symbols::unwind::{Registers, Rule, Stop, Tables, register};

const SP: u64 = 0x7ffc_0000_0000;
const FP: u64 = 0x7ffc_0001_0000;

/// Memory that differs from word to word.
fn memory(address: u64) -> u64 {
    address.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 17 | 8
}

fn framehop_of(binary: &Binary) -> UnwinderX86_64<Vec<u8>> {
    let section =
        |name| binary.section(name).map(|(start, bytes)| (start.0..start.0 + bytes.len() as u64, bytes.to_vec()));
    let (eh_frame_svma, eh_frame) = section(".eh_frame").unzip();
    let (eh_frame_hdr_svma, eh_frame_hdr) = section(".eh_frame_hdr").unzip();
    let sections =
        ExplicitModuleSectionInfo { eh_frame_svma, eh_frame, eh_frame_hdr_svma, eh_frame_hdr, ..Default::default() };
    let mut unwinder = UnwinderX86_64::new();
    unwinder.add_module(Module::new(String::new(), 0..u64::from(u32::MAX), 0, sections));
    unwinder
}

/// The caller by framehop: its address, stack pointer and frame pointer; `None` where a stack ends.
fn framehops_caller(unwinder: &UnwinderX86_64<Vec<u8>>, v: u64) -> Option<(u64, u64, u64)> {
    let address = FrameAddress::ReturnAddress(NonZeroU64::new(v + 1).expect("not 0"));
    let mut registers = UnwindRegsX86_64::new(v + 1, SP, FP);
    let mut read = |address| Ok(memory(address));
    let found = unwinder.unwind_frame(address, &mut registers, &mut CacheX86_64::new(), &mut read).ok()?;
    found.map(|ip| (ip, registers.sp(), registers.bp()))
}

#[test]
fn a_row_leads_to_the_caller_that_framehop_finds() {
    for file in ["/lib/x86_64-linux-gnu/libc.so.6", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6", "/usr/bin/gdb"] {
        let binary = Binary::open(Path::new(file)).expect("Debian has it");
        let (tables, framehop) = (Tables::of(&binary, None), framehop_of(&binary));
        let code = binary.segments().iter().filter(|s| s.executable);
        let (mut same, mut irregular) = (0_u32, 0_u32);
        // Not aligned to anything: prologues, bodies, epilogues and what lies between.
        for v in code.flat_map(|s| (s.vaddr.0..s.vaddr.0 + s.mem_size).step_by(463)) {
            let Rule::Row(row) = tables.rule(&binary, None, Vaddr(v)) else { continue };
            let mut registers = Registers::new(v + 1, SP, FP);
            let found = match row.step(&mut registers, &mut |address| Some(memory(address))) {
                Ok(()) => Some((registers.ip, registers.sp(), registers.get(register::RBP))),
                Err(Stop::End) => None,
                Err(stop) => {
                    // It wants a register that the callee did not keep: framehop guesses.
                    assert_eq!(stop, Stop::Senseless, "{file} {v:#x}");
                    irregular += 1;
                    continue;
                }
            };
            if row.is_regular() {
                let expected = framehops_caller(&framehop, v).map(|(ip, sp, fp)| (ip, sp, Some(fp)));
                assert_eq!(found, expected, "{file} {v:#x}: {row:?}");
                same += 1;
            } else {
                irregular += 1;
            }
        }
        assert!(same > 1000 && irregular < same / 20, "{file}: {same} the same, {irregular} others");
    }
}

/// glibc describes a signal's frame by expressions that read memory.
#[test]
fn a_signals_frame_is_found_by_its_expressions() {
    let binary = Binary::open(Path::new("/lib/x86_64-linux-gnu/libc.so.6")).expect("Debian has it");
    let code = binary.segments().iter().find(|s| s.executable).expect("it has code");
    let bytes = binary.bytes_at(code.vaddr, code.file_size).expect("it is in the file");
    let trampoline = [0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05];
    let at = bytes.windows(trampoline.len()).position(|window| window == trampoline).expect("glibc has it");
    let Rule::Row(row) = Tables::of(&binary, None).rule(&binary, None, Vaddr(code.vaddr.0 + at as u64)) else {
        panic!("glibc's __restore_rt has a row")
    };
    // A ucontext_t stands at SP; rip is its word 21, rsp 20, rbp 15, rbx 16.
    let word = |n: u64| memory(SP + 8 * n);
    let mut registers = Registers::new(1, SP, FP);
    row.step(&mut registers, &mut |address| Some(memory(address))).expect("all can be read");
    assert_eq!(registers.ip, word(21));
    let found = [register::RSP, register::RBP, register::RBX].map(|number| registers.get(number));
    assert_eq!(found, [20, 15, 16].map(|n| Some(word(n))));
}
