//! The event ABI: every type, limit and map name that the kernel half and the reading half share.
//!
//! No dependencies, no allocation. Types are `repr(C)`, of fixed width, with explicit padding.
#![cfg_attr(target_arch = "bpf", no_std)]

pub mod abi;
pub mod deferred;
