//! Files that cannot be traced: what they are, and what to do next.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use super::{Folder, fails, probe, program, text};

fn counts() -> Vec<u8> {
    fs::read(program("c/counts")).expect("the program")
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> usize {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(&bytes[at..at + N]);
    u64::from_le_bytes(wide) as usize
}

/// Ends of the loadable segments in the file (ELF-64: e_phoff at 32, e_phnum at 56, headers of 56 bytes).
fn segment_ends(elf: &[u8]) -> Vec<usize> {
    let (table, count) = (number::<8>(elf, 32), number::<2>(elf, 56));
    let headers = (0..count).map(|n| table + n * 56).filter(|&at| number::<4>(elf, at) == 1);
    headers.map(|at| number::<8>(elf, at + 8) + number::<8>(elf, at + 32)).collect()
}

/// As a target to trace, and as one to list.
#[track_caller]
fn refused(path: &str, words: &[&str]) {
    fails(&["-x", path, "work"], 1, &[&[path][..], words].concat());
    fails(&["list", "-x", path, "work"], 1, &[&[path][..], words].concat());
    fails(&["-x", path, "work", "--", "/bin/true"], 1, &[&[path][..], words].concat());
}

#[test]
fn what_is_no_program_is_named_as_what_it_is() {
    let folder = Folder::new();
    refused(&folder.file("empty", b""), &["the file is empty"]);
    refused(&folder.file("text", b"hello\n"), &["not an ELF file"]);
    refused(&folder.file("zeros", &[0; 10_000]), &["not an ELF file"]);
    refused(&folder.file("script", b"#!/bin/sh\necho\n"), &["a script (#!/bin/sh)", "-x"]);
    refused(folder.0.path().to_str().expect("UTF-8"), &["not a regular file"]);
    refused("/dev/null", &["not a regular file"]);
    refused("/nowhere/program", &["No such file or directory"]);
}

#[test]
fn a_fifo_does_not_make_it_wait() {
    let folder = Folder::new();
    let path = folder.0.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&path).status().expect("mkfifo runs").success());
    let output = Command::new("timeout")
        .args(["10", env!("CARGO_BIN_EXE_probe"), "list", "-x"])
        .arg(&path)
        .output()
        .expect("timeout runs");
    assert_eq!(output.status.code(), Some(1), "124: it waited for a writer");
    assert!(text(&output.stderr).contains("not a regular file"));
}

#[test]
fn a_truncated_file_is_said_to_be_truncated_and_where() {
    let folder = Folder::new();
    let elf = counts();
    let headers = number::<8>(&elf, 32) + number::<2>(&elf, 56) * 56;
    refused(&folder.file("ident", &elf[..20]), &["truncated", "ELF header", "byte 20"]);
    refused(&folder.file("header", &elf[..63]), &["truncated", "ELF header", "byte 63"]);
    refused(&folder.file("table", &elf[..headers - 1]), &["truncated", "program header"]);
    for end in segment_ends(&elf) {
        refused(&folder.file("segment", &elf[..end - 1]), &["truncated", "segment", &format!("byte {}", end - 1)]);
    }
}

/// It runs, and exports what it did; most names are gone with its end.
#[test]
fn a_file_that_ends_before_its_section_headers_is_truncated_and_one_without_them_is_stripped() {
    let folder = Folder::new();
    let elf = counts();
    // ELF-64: e_shoff at 40, e_shnum at 60, headers of 64 bytes.
    let end = number::<8>(&elf, 40) + number::<2>(&elf, 60) * 64;
    let truncated = format!("is truncated: the section header table ends at byte {end}, the file at byte ");
    for length in [end - 1, number::<8>(&elf, 40), *segment_ends(&elf).iter().max().expect("segments")] {
        let path = folder.file("cut", &elf[..length]);
        refused(&path, &[&truncated, &length.to_string()]);
        assert!(!text(&probe(&["list", "-x", &path, "work"]).stderr).contains("stripped"));
    }
    let mut without = elf;
    for field in [40..48, 60..64] {
        without[field].fill(0);
    }
    refused(&folder.file("sstripped", &without), &["is stripped", "no debug file"]);
}

/// Behind the last segment lie symbols and section headers: without them less is known, or nothing.
#[test]
fn no_length_makes_it_crash() {
    let folder = Folder::new();
    let elf = counts();
    let last = *segment_ends(&elf).iter().max().expect("segments");
    for length in (0..last).step_by(last / 20).chain((last..elf.len()).step_by((elf.len() - last) / 40)) {
        let path = folder.file("cut", &elf[..length]);
        let output = probe(&["list", "-x", &path, "--all"]);
        let stderr = text(&output.stderr);
        assert!(matches!(output.status.code(), Some(0 | 1)), "{length}: {stderr}");
        assert!(output.status.success() || stderr.contains(&path), "{length}: {stderr}");
        assert!(!stderr.contains("panicked"), "{length}: {stderr}");
    }
}

#[test]
fn a_file_for_another_machine_says_for_which() {
    let folder = Folder::new();
    let patched = |name: &str, at: usize, byte: u8| {
        let mut elf = counts();
        elf[at] = byte;
        folder.file(name, &elf)
    };
    refused(&patched("elf32", 4, 1), &["another machine", "32-bit"]);
    refused(&patched("big", 5, 2), &["another machine", "big-endian"]);
    refused(&patched("riscv", 18, 243), &["another machine", "RISCV"]);
    let other = if cfg!(target_arch = "aarch64") { ("x86-64", 62) } else { ("aarch64", 183) };
    fails(&["-x", &patched("other", 18, other.1), "work"], 1, &["another machine", other.0, "this one is"]);
}

#[test]
fn an_object_file_is_said_to_be_one() {
    let folder = Folder::new();
    let (source, object) = (folder.file("m.c", b"int work(void) { return 1; }"), folder.0.path().join("m.o"));
    let built = Command::new("gcc").args(["-c", "-o"]).arg(&object).arg(source).status();
    assert!(built.expect("gcc is installed").success());
    refused(object.to_str().expect("UTF-8"), &["a relocatable object file, not a program or library"]);
}

#[test]
fn a_stripped_program_says_where_its_debug_file_was_looked_for() {
    let path = program("c/counts-stripped");
    let path = path.to_str().expect("UTF-8");
    let words = ["counts-stripped is stripped", "no debug file", "build id", "/usr/lib/debug/.build-id/"];
    refused(path, &words);
    // That everything is left out is for want of names.
    fails(&["-x", path, "*"], 1, &[&["left out by default; --all takes them in\n"][..], &words].concat());
    let list = probe(&["list", "-x", path, "*"]);
    let stderr = text(&list.stderr);
    assert_eq!((list.status.code(), text(&list.stdout)), (Some(0), String::new()), "{stderr}");
    assert!(stderr.contains("0 matched") && words.iter().all(|word| stderr.contains(word)), "{stderr}");
}

#[test]
fn a_command_that_is_not_there_is_127_and_one_that_cannot_be_traced_is_1() {
    let folder = Folder::new();
    fails(&["f", "--", "no-such-program-here"], 127, &["no-such-program-here", "PATH"]);
    fails(&["f", "--", "./no-such-program-here"], 127, &["./no-such-program-here", "no such file"]);
    fails(&["f", "--", "/nowhere/program"], 127, &["/nowhere/program", "no such file"]);
    let script = folder.file("script", b"#!/bin/sh\nexit 7\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("chmod");
    fails(&["f", "--", &script], 1, &["a script (#!/bin/sh)"]);
}

#[test]
fn processes_that_are_not_there_or_run_nothing_are_named() {
    fails(&["-p", "4194304", "f"], 1, &["no process 4194304"]);
    fails(&["--tid", "4194304", "f"], 1, &["no thread 4194304"]);
    fails(&["list", "-p", "4194304"], 1, &["no process 4194304"]);
}

/// What is in a file's first line or in its name must not reach a terminal as it is.
#[test]
fn hostile_file_names_are_escaped_in_errors() {
    let folder = Folder::new();
    let hostile = folder.file("a\x1b[2Jb", b"#!\x1b[31m\n");
    let output = probe(&["-x", &hostile, "f"]);
    let stderr = text(&output.stderr);
    assert!(stderr.contains(r"a\x1b[2Jb") && stderr.contains(r"#!\x1b[31m"), "{stderr}");
    assert!(!stderr.contains('\x1b'), "{stderr:?}");
}
