//! Files made to take more time or memory than their length warrants. Each is made in two sizes: what four times the size
//! takes more than linearly is found by the processor time of this thread, which the machine's load does not change.
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

#[path = "common/fuzz.rs"]
mod fuzz;
#[path = "common/time.rs"]
mod time;

use std::sync::Arc;
use std::time::Duration;

use fuzz::container::{GLOBAL_FUNCTION, Parts, SLOT, Symbol, push16, push32, push64};
use fuzz::go_table::{Function, Layout};
use fuzz::{container, go_table, targets};
use symbols::addr::Vaddr;
use symbols::binary::Binary;
use symbols::debugfile::DebugSearch;
use symbols::index::Index;
use symbols::pattern::Pattern;
use time::took;

/// Work on four times the size may take four times as long, with room for what is not exact; quadratic work takes sixteen
/// times as long. What is done in no time at all is not compared.
fn grows_linearly<T>(size: usize, make: impl Fn(usize) -> T, work: impl Fn(&T)) {
    let [small, large] = [size, 4 * size].map(|size| {
        let input = make(size);
        took(|| work(&input))
    });
    let most = small * 8 + Duration::from_millis(250);
    assert!(large < most, "{small:?} for {size}, {large:?} for {}", 4 * size);
}

fn copies(index: &Index, pattern: &str) -> usize {
    let patterns = [pattern.parse().unwrap()];
    index.inlined_copies(&patterns, &index.select(&patterns, true), true).len()
}

fn open(file: Vec<u8>) -> Index {
    let nowhere = DebugSearch { folders: Vec::new(), ..DebugSearch::default() };
    Index::with_debug(Arc::new(Binary::from_bytes(file).unwrap()), &nowhere).unwrap()
}

fn select(index: &Index, pattern: &str) -> symbols::index::Selection {
    index.select(&[pattern.parse::<Pattern>().unwrap()], true)
}

/// A program with these symbols and strings, whose code is `text` bytes.
fn with_symbols(text: usize, symbols: &[Symbol], strings: &[u8]) -> Parts {
    let parts = Parts::default().with(".text", vec![0xc3; text]);
    parts.with(".symtab", container::symbols(symbols)).with(".strtab", strings)
}

fn symbol(name: u32, address: u64, size: u64) -> Symbol {
    Symbol { name, info: GLOBAL_FUNCTION, address, size }
}

#[test]
fn many_functions_of_one_name_take_linear_time() {
    let make = |n: usize| {
        let symbols: Vec<Symbol> = (0..n as u64).map(|i| symbol(1, SLOT + i, 1)).collect();
        with_symbols(n, &symbols, b"\0same\0").file()
    };
    grows_linearly(25_000, make, |file| {
        let index = open(file.clone());
        assert_eq!(select(&index, "same").matches.len(), index.len());
        assert_eq!(select(&index, "s?me").matches.len(), index.len());
        assert!(index.functions().all(|f| index.id_at(f.address) == Some(f.id) && f.name == "same"));
    });
}

#[test]
fn many_names_of_one_address_take_linear_time() {
    let make = |n: usize| {
        let (mut strings, mut symbols) = (vec![0], Vec::new());
        for i in 0..n {
            symbols.push(symbol(strings.len() as u32, SLOT, 16));
            strings.extend(format!("name{i}\0").bytes());
        }
        with_symbols(64, &symbols, &strings).file()
    };
    grows_linearly(25_000, make, |file| {
        let index = open(file.clone());
        assert_eq!(index.len(), 1);
        assert_eq!(select(&index, "name7").matches.len(), 1);
        assert_eq!(select(&index, "n*").matches.len(), 1);
        // As many look-ups as there are names.
        let found = (0..file.len() / 32).filter(|i| index.at(Vaddr(SLOT + (*i as u64) % 16)).is_some()).count();
        assert_eq!(found, file.len() / 32);
        assert_eq!(
            index.aliases(index.id_at(Vaddr(SLOT)).unwrap()).len() + 1,
            index.symbols(index.id_at(Vaddr(SLOT)).unwrap()).count()
        );
    });
}

/// A name may be the end of another: thousands of symbols, sixteen thousand letters each, in a file of a few of them.
#[test]
fn names_that_share_their_letters_take_no_more_memory_than_a_multiple_of_the_file() {
    let letters = [&[0][..], &[b'a'; 16 << 10], &[0]].concat();
    let symbols: Vec<Symbol> = (0..6000).map(|i| symbol(1 + i % 64, SLOT + u64::from(i), 1)).collect();
    let file = with_symbols(symbols.len(), &symbols, &letters).file();
    let most = 8 * file.len() + (64 << 20) + 64 * symbols.len();
    let index = open(file);
    let selection = select(&index, "*");
    assert_eq!(selection.matches.len(), symbols.len());
    assert!(selection.matches.iter().map(|m| m.name.len()).sum::<usize>() <= most);
}

#[test]
fn nested_functions_take_linear_time() {
    let make = |n: usize| {
        let n = n as u64;
        // Each begins in the one before and ends before it: all are open at the middle.
        let symbols: Vec<Symbol> = (0..n).map(|i| symbol(1, SLOT + i, 2 * (n - i))).collect();
        with_symbols(2 * n as usize, &symbols, b"\0f\0").file()
    };
    grows_linearly(25_000, make, |file| {
        let index = open(file.clone());
        let (n, last) = (index.len() as u64, Vaddr(SLOT + index.len() as u64 - 1));
        assert_eq!(index.at(last).map(|f| f.address), Some(last));
        assert!((0..n).all(|i| index.id_at(Vaddr(SLOT + i)).is_some()));
        // Behind the innermost: which of them has it is found, or given up after a bounded walk.
        assert!((n..2 * n).step_by(50).filter(|&i| index.id_at(Vaddr(SLOT + i)).is_some()).count() > 0);
    });
}

/// The file with its first section `count` times more, and all names of sections where that one's begins.
fn with_copied_section(file: &[u8], count: usize) -> Vec<u8> {
    let mut out = file.to_vec();
    let table = u64::from_le_bytes(file[40..48].try_into().unwrap()) as usize;
    let header = file[table + 64..table + 128].to_vec();
    (0..count).for_each(|_| out.extend(&header));
    let sections = u16::from_le_bytes(file[60..62].try_into().unwrap()) as usize + count;
    out[60..62].copy_from_slice(&u16::try_from(sections).unwrap().to_le_bytes());
    out
}

#[test]
fn overlapping_sections_take_linear_time() {
    let make = |n: usize| {
        // Functions without a size: where they end, the section says.
        let symbols: Vec<Symbol> = (0..n as u64).map(|i| symbol(1, SLOT + 16 * i, 0)).collect();
        with_copied_section(&with_symbols(16 * n, &symbols, b"\0f\0").file(), n)
    };
    grows_linearly(15_000, make, |file| {
        let index = open(file.clone());
        assert!((0..index.len() as u64).all(|i| index.id_at(Vaddr(SLOT + 16 * i + 3)).is_some()));
        assert!(index.binary().section(".text").is_some() && index.binary().section(".none").is_none());
        assert_eq!(index.line(Vaddr(SLOT)), None);
    });
}

#[test]
fn sections_whose_names_do_not_end_take_linear_time() {
    let make = |n: usize| {
        let file = with_symbols(16, &[symbol(1, SLOT, 16)], b"\0f\0").file();
        let mut file = with_copied_section(&file, n);
        // The last section of all is that of the names: it now is a long text without an end, and its first letter each name.
        let names = file.len();
        file.resize(names + 64 * n, b'x');
        let table = u64::from_le_bytes(file[40..48].try_into().unwrap()) as usize;
        let index = u16::from_le_bytes(file[62..64].try_into().unwrap()) as usize;
        let header = table + 64 * index;
        file[header + 24..header + 32].copy_from_slice(&(names as u64).to_le_bytes());
        file[header + 32..header + 40].copy_from_slice(&(64 * n as u64).to_le_bytes());
        file
    };
    grows_linearly(15_000, make, |file| {
        let index = open(file.clone());
        assert!(index.binary().section(".text").is_none());
        assert!(index.line(Vaddr(SLOT)).is_none());
    });
}

/// `(tag, value)` of a dynamic section.
fn dynamic(entries: &[(u64, u64)]) -> Vec<u8> {
    let mut out = Vec::new();
    entries.iter().for_each(|(tag, value)| push64(&mut out, &[*tag, *value]));
    push64(&mut out, &[0, 0]);
    out
}

#[test]
fn libraries_of_long_names_take_bounded_memory() {
    let strings = [&[0][..], &[b'a'; 1 << 20], &[0]].concat();
    // DT_STRTAB, DT_STRSZ, DT_SONAME, and DT_NEEDED fifty thousand times.
    let first = [(5, container::address(".dynstr")), (10, strings.len() as u64), (14, 1)];
    let entries: Vec<_> = first.into_iter().chain((0..50_000).map(|i| (1, 1 + i % (1 << 20)))).collect();
    let parts = Parts::default().with(".text", [0xc3]).with(".dynstr", strings).with(".dynamic", dynamic(&entries));
    let binary = Binary::from_bytes(parts.file()).unwrap();
    let bytes: usize = binary.needed().iter().map(|name| name.len()).sum();
    assert!(bytes <= 16 << 20, "{bytes}");
}

#[test]
fn files_of_too_many_program_headers_are_refused() {
    let mut file = with_symbols(16, &[symbol(1, SLOT, 16)], b"\0f\0").file();
    file.resize(file.len() + (1 << 20), 0);
    file[56..58].copy_from_slice(&5000u16.to_le_bytes());
    let error = Binary::from_bytes(file).unwrap_err().to_string();
    assert!(error.contains("5000 program headers"), "{error}");
}

#[test]
fn pointers_of_a_program_of_many_relocations_are_found_in_linear_time() {
    let make = |n: usize| {
        let mut relocations = Vec::new();
        let data = container::address(".data");
        for i in (0..n as u64).rev() {
            push64(&mut relocations, &[data + 8 * i, 8, SLOT + i]);
        }
        let (at, len) = (container::address(".rela.dyn"), relocations.len() as u64);
        // DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_RELAENT
        let entries =
            [(5, container::address(".dynstr")), (6, container::address(".dynsym")), (7, at), (8, len), (9, 24)];
        let parts =
            Parts::default().with(".text", vec![0xc3; n]).with(".data", vec![0; 8 * n]).with(".rela.dyn", relocations);
        parts.with(".dynamic", dynamic(&entries)).with(".dynstr", [0]).with(".dynsym", [0; 24]).file()
    };
    grows_linearly(8_000, make, |file| {
        let binary = Binary::from_bytes(file.clone()).unwrap();
        let (data, n) = (container::address(".data"), binary.section(".text").unwrap().1.len() as u64);
        assert!((0..n).all(|i| binary.pointer_at(Vaddr(data + 8 * i)) == Some(Vaddr(SLOT + i))));
    });
}

const LAYOUTS: [Layout; 3] = [Layout::Go1_16, Layout::Go1_18, Layout::Go1_20];

#[test]
fn the_small_go_programs_are_read_as_they_are_meant() {
    for layout in LAYOUTS {
        let inlined = vec![(-1, 8), (1, 24)];
        let main = Function { inlined, lines: vec![(3, 8), (4, 24)], ..Function::plain("main.main", 32) };
        let functions = [main, Function::plain("main.a", 16), Function::plain("main.b", 16)];
        let index = open(go_table::program(layout, &functions, &[(1, 2), (2, 9)]).file());
        assert_eq!(index.len(), 3, "{layout:?}");
        let name = |v| index.inlined(Vaddr(v)).into_iter().map(|frame| frame.name).collect::<Vec<_>>();
        // Record 1 says `main.b`, called at distance 9, where record 1 counts again: a circle, that ends.
        assert_eq!(name(SLOT + 3), ["main.main"], "{layout:?}");
        let circle = name(SLOT + 12);
        assert!(circle.len() > 2 && circle.len() < 1000, "{layout:?}: {}", circle.len());
        assert_eq!((circle[0].as_str(), circle[circle.len() - 1].as_str()), ("main.b", "main.main"), "{layout:?}");
        assert_eq!(index.line(Vaddr(SLOT + 12)).map(|line| line.line), Some(4), "{layout:?}");
    }
}

#[test]
fn functions_of_go_that_share_their_tables_take_linear_time() {
    for layout in LAYOUTS {
        let make = |n: usize| {
            let functions: Vec<_> = (0..n).map(|i| Function::plain(&format!("main.f{i}"), 4)).collect();
            let mut parts = go_table::program(layout, &functions, &[(0, 0)]);
            // All functions read values from the beginning of a table of a run for each byte.
            let table = parts.parts.iter_mut().find(|(number, _)| container::number(".gopclntab") == Some(*number));
            let bytes = &mut table.unwrap().1;
            let at = if layout == Layout::Go1_16 { 48 } else { 56 };
            let values = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
            let end = u64::from_le_bytes(bytes[at + 8..at + 16].try_into().unwrap()) as usize;
            bytes[values + 1..end].fill(2);
            parts.file()
        };
        grows_linearly(3_000, make, |file| {
            let index = open(file.clone());
            let found = index.functions().filter(|f| index.line(f.address).is_some()).count();
            assert!(found <= index.len());
            let _ = (copies(&index, "nothing"), select(&index, "@main.go"));
        });
    }
}

/// (tag, has children, (attribute, form)…)
type Abbreviation = (u8, bool, Vec<(u8, u8)>);

/// Abbreviations, numbered from 1.
fn abbreviations(entries: &[Abbreviation]) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, (tag, children, attributes)) in (1..).zip(entries) {
        out.extend([number, *tag, u8::from(*children)]);
        attributes.iter().for_each(|&(name, form)| out.extend([name, form]));
        out.extend([0, 0]);
    }
    out.push(0);
    out
}

const UNIT: u8 = 0x11;
const SUBPROGRAM: u8 = 0x2e;
const INLINED: u8 = 0x1d;
// (attribute, form)
const LOW: (u8, u8) = (0x11, 1);
const HIGH: (u8, u8) = (0x12, 7);
const ORIGIN: (u8, u8) = (0x31, 0x13);
const SPECIFICATION: (u8, u8) = (0x47, 0x13);
/// Takes no byte in an entry.
const EXTERNAL: (u8, u8) = (0x3f, 0x19);

/// Where the first entry behind the unit's own begins, in the unit.
const FIRST_ENTRY: u32 = 11 + 17;

/// A unit of DWARF 4 whose root is of abbreviation 1, with [`LOW`] and [`HIGH`].
fn unit(size: u64, entries: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push32(&mut out, &[(7 + 17 + entries.len()) as u32]);
    push16(&mut out, &[4]);
    push32(&mut out, &[0]);
    out.extend([8, 1]);
    push64(&mut out, &[SLOT, size]);
    out.extend(entries);
    out
}

fn with_debug(abbreviations: Vec<u8>, info: Vec<u8>) -> Vec<u8> {
    let parts = with_symbols(4096, &[symbol(1, SLOT, 4096)], b"\0f\0");
    parts.with(".debug_abbrev", abbreviations).with(".debug_info", info).file()
}

#[test]
fn attributes_that_take_no_bytes_take_linear_time() {
    let make = |n: usize| {
        let tables = [(UNIT, true, vec![LOW, HIGH]), (SUBPROGRAM, false, vec![EXTERNAL; n])];
        with_debug(abbreviations(&tables), unit(4096, &vec![2; n]))
    };
    grows_linearly(5_000, make, |file| {
        let index = open(file.clone());
        assert!(index.inlined(Vaddr(SLOT)).len() <= 1);
        assert!(copies(&index, "nothing") == 0);
    });
}

#[test]
fn entries_that_refer_to_each_other_in_a_circle_have_no_name_but_the_symbols() {
    let tables = [
        (UNIT, true, vec![LOW, HIGH]),
        (SUBPROGRAM, false, vec![LOW, HIGH, SPECIFICATION]),
        (SUBPROGRAM, false, vec![ORIGIN]),
    ];
    let second = FIRST_ENTRY + 21;
    let mut entries = vec![2];
    push64(&mut entries, &[SLOT, 4096]);
    push32(&mut entries, &[second]);
    entries.push(3);
    push32(&mut entries, &[FIRST_ENTRY]);
    let index = open(with_debug(abbreviations(&tables), unit(4096, &entries)));
    let names: Vec<_> = index.inlined(Vaddr(SLOT + 1)).into_iter().map(|frame| frame.name).collect();
    assert_eq!(names, ["f"]);
}

#[test]
fn deep_inlining_takes_linear_time_and_no_stack() {
    let make = |n: usize| {
        let tables = [
            (UNIT, true, vec![LOW, HIGH]),
            (SUBPROGRAM, true, vec![LOW, HIGH]),
            (INLINED, true, vec![ORIGIN, LOW, HIGH]),
        ];
        let mut entries = vec![2];
        push64(&mut entries, &[SLOT, 4096]);
        for _ in 0..n {
            entries.push(3);
            push32(&mut entries, &[FIRST_ENTRY]);
            push64(&mut entries, &[SLOT, 4096]);
        }
        with_debug(abbreviations(&tables), unit(4096, &entries))
    };
    grows_linearly(25_000, make, |file| {
        let index = open(file.clone());
        let frames = index.inlined(Vaddr(SLOT)).len();
        assert!((100..2000).contains(&frames), "{frames}");
        assert!(copies(&index, "nothing") == 0);
    });
}

#[test]
fn a_compressed_section_that_claims_terabytes_is_not_believed() {
    for format in [1, 2] {
        let mut claim = Vec::new();
        push32(&mut claim, &[format, 0]);
        push64(&mut claim, &[1 << 44, 1]);
        claim.extend([0x78, 0x9c, 0x4b, 0x04, 0, 0, 0x62, 0, 0x62]);
        let mut parts = with_symbols(16, &[symbol(1, SLOT, 16)], b"\0f\0");
        parts.flags = container::COMPRESSED_DEBUG;
        let index = open(parts.with(".debug_abbrev", claim.clone()).with(".debug_info", claim).file());
        assert_eq!(index.line(Vaddr(SLOT)), None);
        assert!(index.inlined(Vaddr(SLOT)).is_empty());
    }
}

#[test]
fn unwind_records_that_share_a_long_common_part_take_linear_time() {
    let make = |n: usize| {
        // Two common parts with long augmentations, which the records use in turn, so that neither can be kept.
        let mut frames = Vec::new();
        for _ in 0..2 {
            push32(&mut frames, &[(4 * n + 16) as u32, 0]);
            frames.extend([1, b'z']);
            frames.extend(vec![b'S'; 4 * n]);
            frames.extend([0, 1, 1, 16, 0, 0, 0, 0, 0, 0]);
        }
        let second = frames.len() / 2;
        for i in 0..n {
            push32(&mut frames, &[24]);
            let back = frames.len() - if i % 2 == 0 { 0 } else { second };
            push32(&mut frames, &[back as u32]);
            push64(&mut frames, &[SLOT + i as u64, 1]);
            frames.extend([0; 4]);
        }
        push32(&mut frames, &[0]);
        Parts::default().with(".text", vec![0xc3; n]).with(".eh_frame", frames).file()
    };
    grows_linearly(4_000, make, |file| {
        let nowhere = DebugSearch { folders: Vec::new(), ..DebugSearch::default() };
        let binary = Arc::new(Binary::from_bytes(file.clone()).unwrap());
        let _ = Index::with_debug(binary.clone(), &nowhere);
        let _ = symbols::unwind::keeps_frame_pointer(&binary, None, Vaddr(SLOT + 2));
    });
}

/// Names that a demangler makes much of: each is shown, and is no longer than what is allowed.
#[test]
fn names_that_explode_are_bounded() {
    let pair = |levels: usize| {
        let back = |level: usize| if level == 0 { "S1_".to_owned() } else { format!("S{level}_") };
        let nested: String = (0..levels).map(|level| format!("S_I{0}{0}E", back(level))).collect();
        format!("_Z1f4PairIiiE{nested}")
    };
    let names = [
        pair(40),
        pair(400),
        format!("_Z1f{}i", "P".repeat(5000)),
        format!("_ZN{}1aE", "1aI".repeat(3000)),
        format!("_Z1fIX{}Li1ELi1EEE", "plLi1E".repeat(2000)),
        format!("_Z1f{}", "ILm1E".repeat(3000)),
        format!("_Z1fI{}Evv", "Lm1E".repeat(3900)),
        format!("_R{}C1a", "INvC1a1bRTB0_B0_".repeat(500)),
        format!("_RINvC1a1f{}E", "TB2_B2_E".repeat(1000)),
        format!("_RINvC1a1f{}", "TB2_B2_B2_B2_".repeat(1000)),
        format!("_R{}1a1b", "N".repeat(8000)),
        format!("_ZN{}17h0123456789abcdefE", "1$".repeat(5000)),
        format!("_ZN{}17h0123456789abcdefE", "16$LT$$GT$$u7e$$C".repeat(700)),
        format!("_RNvC1au{}", "9".repeat(10_000)),
        "f.cold".repeat(2000),
        "f.1".repeat(4000),
    ];
    let file = container::named(names.iter().map(|name| name.as_bytes())).file();
    let time = took(|| {
        let index = open(file);
        assert_eq!(index.len(), names.len());
        for function in index.functions() {
            assert!(function.name.len() <= 64 << 10, "{}", function.name.len());
        }
        for pattern in ["*", "a::b", "f(int)", "a<", "<a as b>::c", "/a.*b/", "f<1ul>", "{a,b}*"] {
            let _ = select(&index, pattern);
        }
    });
    // Exponential work would not end at all.
    assert!(time < Duration::from_secs(60), "{time:?}");
}

#[test]
fn programs_cut_short_are_errors_or_programs() {
    for layout in LAYOUTS {
        let functions = [Function::plain("main.main", 32), Function::plain("main.f", 16)];
        let file = go_table::program(layout, &functions, &[(1, 3)]).file();
        (0..file.len()).step_by(5).for_each(|len| targets::elf(&file[..len]));
    }
    let tables = [(UNIT, true, vec![LOW, HIGH]), (SUBPROGRAM, false, vec![LOW, HIGH])];
    let mut entries = vec![2];
    push64(&mut entries, &[SLOT, 4096]);
    let file = with_debug(abbreviations(&tables), unit(4096, &entries));
    (0..file.len()).for_each(|len| targets::elf(&file[..len]));
}

/// A small file is read: to shorten it afterwards changes nothing.
#[test]
fn a_small_file_may_be_shortened_while_it_is_open() {
    let file = with_symbols(4096, &[symbol(1, SLOT, 4096)], b"\0f\0").file();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("program");
    std::fs::write(&path, &file).unwrap();
    let binary = Binary::open(&path).unwrap();
    std::fs::File::create(&path).unwrap();
    assert_eq!(binary.data(), file);
    assert_eq!(Index::new(Arc::new(binary)).unwrap().functions().next().unwrap().name, "f");
}
