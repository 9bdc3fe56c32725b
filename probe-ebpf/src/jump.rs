//! Jumps that may leave their function: whether this one does, now.

use aya_ebpf::programs::ProbeContext;
use probe_ebpf::abi::{Cookie, Jump, NO_REGISTER};

use crate::{maps::JUMPS, memory, regs};

/// Whether the jump about to be executed leaves the function.
#[inline(always)]
pub(crate) fn leaves(ctx: &ProbeContext, cookie: Cookie) -> bool {
    if let Some(code) = cookie.condition()
        && !holds(code, regs::flags(ctx))
    {
        return false;
    }
    !cookie.is_indirect() || goes_outside(ctx, cookie).unwrap_or(false)
}

/// Intel SDM vol. 1, appendix B: condition codes; odd ones are the negation of the even one before.
#[inline(always)]
fn holds(code: u8, flags: u64) -> bool {
    let carry = flags & 1 != 0;
    let parity = flags & 1 << 2 != 0;
    let zero = flags & 1 << 6 != 0;
    let sign = flags & 1 << 7 != 0;
    let overflow = flags & 1 << 11 != 0;
    let even = match code >> 1 {
        0 => overflow,
        1 => carry,
        2 => zero,
        3 => carry || zero,
        4 => sign,
        5 => parity,
        6 => sign != overflow,
        _ => zero || sign != overflow,
    };
    even != (code & 1 != 0)
}

#[inline(always)]
fn goes_outside(ctx: &ProbeContext, cookie: Cookie) -> Option<bool> {
    // SAFETY: a copy of a value that is written once, before the probes are attached.
    let jump: Jump = unsafe { *JUMPS.get_ptr(&cookie.point())? };
    let ip = regs::ip(ctx);
    let distance = target(ctx, &jump, ip)?.wrapping_sub(ip) as i64;
    let [first, second] = jump.own;
    let inside = |range: [i64; 2]| distance >= range[0] && distance < range[1];
    Some(!inside(first) && !inside(second))
}

#[inline(always)]
fn target(ctx: &ProbeContext, jump: &Jump, ip: u64) -> Option<u64> {
    let mut address = jump.displacement as u64;
    if jump.ip_relative != 0 {
        address = address.wrapping_add(ip);
    }
    if jump.base != NO_REGISTER {
        address = address.wrapping_add(regs::at(ctx, jump.base)?);
    }
    if jump.index != NO_REGISTER {
        address = address.wrapping_add(regs::at(ctx, jump.index)?.wrapping_mul(u64::from(jump.scale)));
    }
    if jump.memory != 0 { memory::user(address) } else { Some(address) }
}
