//! The matrix: `testdata/go/names` by each version of Go, in each way of linking, each way of stripping.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use symbols::binary::Binary;
use symbols::index::Index;

use crate::common;

/// Ways of linking: by Go, position-independent, by gcc, both.
pub(crate) const LINKS: [&str; 4] = ["exe", "pie", "cgo", "cgo-pie"];

/// Calls a function with each version of Go: a test for each.
macro_rules! for_each_version {
    ($check:path) => {
        #[test]
        fn go_1_19() {
            $check("go1.19");
        }
        #[test]
        fn go_1_21() {
            $check("go1.21");
        }
        #[test]
        fn go_1_22() {
            $check("go1.22");
        }
        #[test]
        fn go_1_23() {
            $check("go1.23");
        }
        #[test]
        fn go_1_24() {
            $check("go1.24");
        }
        #[test]
        fn go_1_25() {
            $check("go1.25");
        }
        #[test]
        fn go_1_26() {
            $check("go1.26");
        }
        #[test]
        fn go_1_27() {
            $check("go1.27");
        }
    };
}
pub(crate) use for_each_version;

/// What was taken away after, or while, linking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stripping {
    Nothing,
    /// `-ldflags '-s -w'`
    Flags,
    /// `strip`
    Strip,
    /// `strip`, and the section headers.
    Sections,
}

pub(crate) const STRIPPINGS: [Stripping; 4] =
    [Stripping::Nothing, Stripping::Flags, Stripping::Strip, Stripping::Sections];

/// A program with all its symbols and debug information, as the oracles read it.
pub(crate) fn twin(version: &str, link: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/build/names").join(version).join(link);
    assert!(path.exists(), "{} is missing: `make programs` builds it", path.display());
    path
}

/// The same program after it was stripped.
pub(crate) fn index(twin: &Path, stripping: Stripping) -> Index {
    let bytes = match stripping {
        Stripping::Nothing => std::fs::read(twin).unwrap(),
        Stripping::Flags => std::fs::read(format!("{}-s", twin.display())).unwrap(),
        Stripping::Strip => stripped(twin),
        Stripping::Sections => without_section_headers(stripped(twin)),
    };
    Index::new(Arc::new(Binary::from_bytes(bytes).unwrap())).unwrap()
}

pub(crate) fn read(path: &Path) -> Index {
    Index::new(Arc::new(Binary::open(path).unwrap())).unwrap()
}

fn stripped(twin: &Path) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let bare = dir.path().join("bare");
    common::run(Command::new("strip").arg("-o").arg(&bare).arg(twin));
    std::fs::read(bare).unwrap()
}

/// ELF-64: e_shoff, e_shentsize, e_shnum, e_shstrndx. The headers stand at the end of the file.
fn without_section_headers(mut bytes: Vec<u8>) -> Vec<u8> {
    let start = u64::from_le_bytes(bytes[0x28..0x30].try_into().unwrap());
    bytes.truncate(usize::try_from(start).unwrap());
    bytes[0x28..0x30].fill(0);
    bytes[0x3a..0x40].fill(0);
    bytes
}
