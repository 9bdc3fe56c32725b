//! A file that becomes shorter while it is mapped, in a process that wants to survive that.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

#[path = "common/fuzz.rs"]
mod fuzz;

use std::sync::Arc;

use fuzz::container::{self, GLOBAL_FUNCTION, Parts, SLOT, Symbol};
use symbols::addr::Vaddr;
use symbols::binary::Binary;
use symbols::index::Index;
use symbols::truncation;

#[test]
fn what_went_of_a_mapped_file_reads_as_zeros_and_the_file_is_named() {
    const KEPT: usize = 8192;
    truncation::survive().unwrap();
    truncation::survive().unwrap();
    let function = Symbol { name: 1, info: GLOBAL_FUNCTION, address: SLOT, size: 4 << 20 };
    let file = Parts::default().with(".text", vec![0xc3; 4 << 20]).with(".symtab", container::symbols(&[function]));
    let file = file.with(".strtab", b"\0f\0".to_vec()).file();
    let dir = tempfile::tempdir().unwrap();
    let [cut, whole] = ["cut", "whole"].map(|name| dir.path().join(name));
    let [first, second, other] = [&cut, &cut, &whole].map(|path| {
        std::fs::write(path, &file).unwrap();
        Arc::new(Binary::open(path).unwrap())
    });
    assert_eq!((truncation::shortened(), first.data() == file), (Vec::new(), true));
    std::fs::File::options().write(true).open(&cut).unwrap().set_len(KEPT as u64).unwrap();
    // Nothing was read of it since.
    assert_eq!(truncation::shortened(), Vec::<std::path::PathBuf>::new());
    // From several threads, in any order.
    std::thread::scope(|scope| {
        for at in [file.len() - 1, KEPT, file.len() / 2] {
            let data = first.data();
            scope.spawn(move || assert_eq!(data[at], 0));
        }
    });
    assert!(first.data()[..KEPT] == file[..KEPT] && first.data()[KEPT..].iter().all(|byte| *byte == 0));
    assert_eq!(truncation::shortened(), std::slice::from_ref(&cut));
    // What is indexed of another mapping ends, whatever it finds.
    let found = Index::new(second).map(|index| index.at(Vaddr(SLOT)).map(|function| function.size));
    assert!(matches!(found, Err(_) | Ok(None | Some(4_194_304))), "{found:?}");
    assert!(other.data() == file);
    drop(first);
    assert_eq!(truncation::shortened(), [cut]);
}

/// Set where the test runs itself in another process.
const WITHIN: &str = "PROBE_TEST_BUS_ERROR";

/// A mapping that is not this library's raises SIGBUS as ever.
#[test]
#[allow(unsafe_code)]
fn what_goes_of_others_mappings_ends_the_process() {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::process::ExitStatusExt as _;
    if std::env::var_os(WITHIN).is_some() {
        truncation::survive().unwrap();
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        // SAFETY: a new mapping, of which one byte is read.
        let byte = unsafe {
            let place = libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_PRIVATE, file.as_raw_fd(), 0);
            assert_ne!(place, libc::MAP_FAILED);
            file.set_len(0).unwrap();
            place.cast::<u8>().read_volatile()
        };
        panic!("{byte} was read");
    }
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "what_goes_of_others_mappings_ends_the_process"]).env(WITHIN, "1");
    let output = child.output().unwrap();
    assert_eq!(output.status.signal(), Some(libc::SIGBUS), "{output:?}");
}
