//! The children of a `probe`: the holder of its links, and commands.
#![allow(dead_code, reason = "each kind of tests uses its own part of it")]

use std::fs;

/// A process's direct children.
fn all(pid: i64) -> Vec<i64> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().map(|id| id.parse().expect("an id")).collect::<Vec<_>>()).collect()
}

/// Whether a process holds the links of a `probe`.
fn is_holder(pid: i64) -> bool {
    fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim_end() == "links-holder")
}

/// The process that holds a `probe`'s links, if there is one.
pub(crate) fn holder_of(pid: i64) -> Option<i64> {
    all(pid).into_iter().find(|&child| is_holder(child))
}

/// A `probe`'s commands: its children but for the holder of its links.
pub(crate) fn commands(pid: i64) -> Vec<i64> {
    all(pid).into_iter().filter(|&child| !is_holder(child)).collect()
}
