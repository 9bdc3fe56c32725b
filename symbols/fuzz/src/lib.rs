//! Fuzz targets of the `symbols` library: what they do (`targets`), the files that they make of their inputs (`container`,
//! `go_table`). The crate's tests use the same.
#![allow(missing_docs, reason = "nothing outside the project uses it")]

pub mod container;
pub mod go_table;
pub mod targets;
