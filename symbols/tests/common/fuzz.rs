//! What the fuzz targets are made of: files put together by hand, and the targets themselves.
#![allow(dead_code, unreachable_pub, reason = "shared with the fuzz targets; each test file uses its own part of it")]

#[path = "../../fuzz/src/container.rs"]
pub mod container;
#[path = "../../fuzz/src/go_table.rs"]
pub mod go_table;
#[path = "../../fuzz/src/targets.rs"]
pub mod targets;
