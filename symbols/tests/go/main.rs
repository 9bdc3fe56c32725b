//! Programs of Go 1.19 and 1.21 to 1.27, linked and stripped in every way, compared with Go's own tools and with LLVM's.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

#[path = "../common/mod.rs"]
mod common;

mod cells;
mod corpus;
mod functions;
mod names;
mod places;
mod runtime;
