//! Programs and their debug files apart from each other.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use symbols::binary::Binary;
use symbols::debugfile::DebugSearch;

use super::common;

pub(crate) fn objcopy(arguments: &[&str], from: &Path, to: &Path) {
    common::run(Command::new("objcopy").args(arguments).arg(from).arg(to));
}

/// Looks nowhere but where a test says.
pub(crate) fn search(path: &Path) -> DebugSearch {
    DebugSearch { path: Some(path.to_owned()), folders: Vec::new(), ..DebugSearch::default() }
}

pub(crate) fn open(path: &Path) -> Arc<Binary> {
    Arc::new(Binary::open(path).unwrap())
}
