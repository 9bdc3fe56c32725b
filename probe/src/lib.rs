//! The `probe` command as a library.
pub mod args;
pub mod calls;
pub mod output;
pub mod request;
