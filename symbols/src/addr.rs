//! A type for each address space. Only [`crate::binary::Binary`] turns a [`Vaddr`] into a [`FileOffset`] or back,
//! and only [`LoadBias`] turns a [`RuntimeAddr`] into a [`Vaddr`] or back.

use std::fmt;

/// A place in the file, in bytes from its start. What the kernel's uprobes take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileOffset(pub u64);

/// An address as the ELF file states it: what `nm` and `objdump` show.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Vaddr(pub u64);

/// An address in a running process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RuntimeAddr(pub u64);

/// What the loader added to every [`Vaddr`] of a file to place it in a process (wrapping arithmetic).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LoadBias(u64);

/// A return address: the instruction *after* a call, which may already belong to another line or function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReturnAddr(pub RuntimeAddr);

impl Vaddr {
    /// The address `bytes` further on; `None` past the end of the address space.
    pub fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }
}

impl ReturnAddr {
    /// An address inside the call instruction: what to look up for the caller's function and line.
    pub fn for_lookup(self) -> RuntimeAddr {
        RuntimeAddr(self.0.0.wrapping_sub(1))
    }
}

impl LoadBias {
    /// The bias of a file of which `vaddr` was seen at `runtime`.
    pub fn between(vaddr: Vaddr, runtime: RuntimeAddr) -> Self {
        Self(runtime.0.wrapping_sub(vaddr.0))
    }

    /// The file's address of a running address.
    pub fn to_vaddr(self, runtime: RuntimeAddr) -> Vaddr {
        Vaddr(runtime.0.wrapping_sub(self.0))
    }

    /// The running address of a file's address.
    pub fn to_runtime(self, vaddr: Vaddr) -> RuntimeAddr {
        RuntimeAddr(vaddr.0.wrapping_add(self.0))
    }
}

macro_rules! display_as_hex {
    ($($t:ty),*) => {$(
        impl fmt::Display for $t {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    )*};
}
display_as_hex!(FileOffset, Vaddr, RuntimeAddr);
