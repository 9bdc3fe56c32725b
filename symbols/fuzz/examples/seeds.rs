//! `seeds FOLDER` writes the inputs that each target starts from to `FOLDER/TARGET/`. They are made of what gcc, nm, objcopy
//! and xz say on this machine, so that nothing has to be committed.

use std::path::{Path, PathBuf};
use std::process::Command;

use symbols::binary::Binary;
use symbols_fuzz::container::{self, COMPRESSED_DEBUG, DEBUG_FILE, Parts, SPLIT_OBJECT};
use symbols_fuzz::go_table::{self, Function, Layout};

type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let folder = PathBuf::from(std::env::args_os().nth(1).ok_or("seeds FOLDER")?);
    let work = folder.join("work");
    std::fs::create_dir_all(&work)?;
    let mut files = Vec::new();
    let mut parts = |target: &str, name: &str, parts: &Parts| {
        files.push(parts.file());
        write(&folder, target, name, &parts.encode())
    };
    for (name, program) in go_programs() {
        parts("pclntab", &name, &program)?;
    }
    for (name, program) in debug_programs(&work)? {
        parts("dwarf", &name, &program)?;
        parts("code", &name, &without_debug(program))?;
    }
    let (plain, apart) = separated(&work)?;
    parts("debugfile", "mini", &plain)?;
    parts("debugfile", "apart", &apart)?;
    for (n, file) in files.iter().enumerate() {
        write(&folder, "elf", &format!("made-{n}"), file)?;
    }
    for (n, text) in SYMBOLS.iter().enumerate() {
        write(&folder, "demangle", &n.to_string(), text.as_bytes())?;
        for (m, pattern) in PATTERNS.iter().enumerate() {
            write(&folder, "patterns", &format!("{n}-{m}"), format!("{pattern}\n{text}").as_bytes())?;
        }
    }
    std::fs::remove_dir_all(&work)?;
    Ok(())
}

fn write(folder: &Path, target: &str, name: &str, bytes: &[u8]) -> Result<(), Error> {
    let folder = folder.join(target);
    std::fs::create_dir_all(&folder)?;
    Ok(std::fs::write(folder.join(format!("seed-{name}")), bytes)?)
}

fn run(command: &mut Command) -> Result<(), Error> {
    let status = command.status()?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}").into()) }
}

fn go_programs() -> Vec<(String, Parts)> {
    let functions = [
        Function { inlined: vec![(-1, 8), (0, 8), (1, 16)], ..Function::plain("main.main", 32) },
        Function { lines: vec![(3, 4), (4, 12)], ..Function::plain("main.(*Store[go.shape.int]).Get", 16) },
        Function::plain("main.inner", 16),
        Function::plain("runtime.malg", 16),
    ];
    let mut made = Vec::new();
    for layout in [Layout::Go1_16, Layout::Go1_18, Layout::Go1_20] {
        let program = go_table::program(layout, &functions, &[(2, 0), (1, 9)]);
        for flags in [0, container::NO_SECTIONS, container::SHARED] {
            made.push((format!("{layout:?}-{flags}"), Parts { flags, ..program.clone() }));
        }
    }
    made
}

const SOURCE: &str = "
static volatile int sink;
static inline __attribute__((always_inline)) int innermost(int x) { sink = x; return x * 3; }
static inline __attribute__((always_inline)) int middle(int x) { return x > 100 ? innermost(x) : x; }
__attribute__((noinline)) int outer(int x) { switch (x) { case 1: return middle(x); case 2: return 7; case 3: return sink;
  case 4: return x * sink; case 5: return middle(sink); } return middle(x) + middle(x * 2); }
__attribute__((noinline)) int leaf(int x) { return outer(x) + 1; }
void _start(void) { sink = leaf(sink); for (;;); }
";

/// Where the container puts them: then the addresses inside are right.
const PLACED: [&str; 4] = [".text", ".rodata", ".eh_frame", ".eh_frame_hdr"];

fn gcc(work: &Path, flags: &[&str]) -> Result<PathBuf, Error> {
    let source = work.join("inlined.c");
    std::fs::write(&source, SOURCE)?;
    let (object, program) = (work.join("x.o"), work.join("program"));
    run(Command::new("gcc").current_dir(work).args(["-O2", "-g", "-c", "-o", "x.o"]).args(flags).arg("inlined.c"))?;
    let places = PLACED.iter().map(|name| format!("-Wl,--section-start={name}={:#x}", container::address(name)));
    let mut link = Command::new("gcc");
    run(link.args(["-nostdlib", "-static", "-Wl,--eh-frame-hdr", "-o"]).arg(&program).args(places).arg(object))?;
    Ok(program)
}

fn debug_programs(work: &Path) -> Result<Vec<(String, Parts)>, Error> {
    let mut made = Vec::new();
    for version in ["-gdwarf-4", "-gdwarf-5"] {
        let program = gcc(work, &[version])?;
        made.push((version.to_owned(), Parts::of(&Binary::open(&program)?)));
        for kind in ["zlib", "zstd"] {
            let packed = work.join("packed");
            let flag = format!("--compress-debug-sections={kind}");
            run(Command::new("objcopy").arg(flag).arg(&program).arg(&packed))?;
            let parts = Parts::of(&Binary::open(&packed)?);
            made.push((format!("{version}-{kind}"), Parts { flags: COMPRESSED_DEBUG, ..parts }));
        }
        let program = gcc(work, &[version, "-gsplit-dwarf"])?;
        let mut parts = Parts::of(&Binary::open(&program)?);
        parts.parts.push((SPLIT_OBJECT, split_object(&work.join("x.dwo"), work)?.encode()));
        made.push((format!("{version}-split"), parts));
    }
    Ok(made)
}

/// A relocatable object's sections, for which [`Binary`] has no use: copied out one by one.
fn split_object(object: &Path, work: &Path) -> Result<Parts, Error> {
    let mut parts = Parts::default();
    for name in [".debug_abbrev", ".debug_info", ".debug_line", ".debug_str", ".debug_rnglists", ".debug_str_offsets"] {
        let out = work.join("section");
        let _ = std::fs::remove_file(&out);
        let dump = format!("--dump-section={name}.dwo={}", out.display());
        let status = Command::new("objcopy").arg(dump).arg(object).arg(work.join("unused")).output()?.status;
        if let (true, Ok(bytes)) = (status.success(), std::fs::read(&out)) {
            parts = parts.with(&format!("{name}.dwo"), bytes);
        }
    }
    Ok(parts)
}

fn without_debug(mut parts: Parts) -> Parts {
    parts.parts.retain(|(number, _)| {
        [".text", ".symtab", ".strtab", ".rodata", ".eh_frame", ".eh_frame_hdr"]
            .iter()
            .any(|name| container::number(name) == Some(*number))
    });
    parts
}

/// A stripped program with mini-debuginfo, and one whose symbols are in a debug file of the same build ID.
fn separated(work: &Path) -> Result<(Parts, Parts), Error> {
    let program = gcc(work, &["-gdwarf-5"])?;
    let mini = work.join("mini");
    run(Command::new("objcopy").arg("--strip-debug").arg(&program).arg(&mini))?;
    run(Command::new("xz").args(["-f", "-k"]).arg(&mini))?;
    let full = Parts::of(&Binary::open(&program)?);
    let mut stripped = without_debug(full.clone());
    stripped
        .parts
        .retain(|(number, _)| ![container::number(".symtab"), container::number(".strtab")].contains(&Some(*number)));
    let note = b"\x04\0\0\0\x14\0\0\0\x03\0\0\0GNU\x000123456789abcdefghij";
    let link = [&b"x.debug\0"[..], &[0; 4]].concat();
    let plain = stripped.clone().with(".gnu_debugdata", std::fs::read(work.join("mini.xz"))?);
    let mut apart = stripped.with(".note.gnu.build-id", *note).with(".gnu_debuglink", link);
    apart.parts.push((DEBUG_FILE, full.with(".note.gnu.build-id", *note).encode()));
    Ok((plain, apart))
}

const SYMBOLS: [&str; 6] = [
    "_ZN4shop5Order5priceEi\n_ZN4shop5StackINSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEEE4pushES6_\n_ZTv0_n24_N1A1fEv",
    "_ZNSt6vectorIiSaIiEE9push_backEOi\n_ZZ4mainENKUliE_clEi\n_ZN4shoplsERSoRKNS_5OrderE\n_ZN1AIXadL_Z1fvEEE1gEv",
    "_ZN4core3fmt9Formatter9write_str17h0123456789abcdefE\n_ZN55_$LT$s..Sq$u20$as$u20$s..Shape$GT$4area17h0123456789abcdefE",
    "_RNvMs_Cs4fqI2P2rA04_7mycrateNtB4_3Foo3bar\n_RNCNvCs4fqI2P2rA04_1a1b0\n_RINvCs4fqI2P2rA04_1a1fNtB2_1TKj4_E",
    "example.com/ge.v2/foo%2ev1.(*List[go.shape.string]).Push\nmain.main.func1\nmain.main-range1\ntype:.eq.main.T",
    "memcpy@@GLIBC_2.14\nf.part.0.cold\nf.constprop.0.isra.1\nf.llvm.123\n$x\n.Lx\n__libc_start_main",
];

const PATTERNS: [&str; 14] = [
    "main.(*Store).*",
    "*List[[]string].P?sh",
    "{shop,std}::*::push*",
    "shop::Order::price(int)",
    "<s::Sq as s::Shape>::area",
    "/^_?ma(in)+[^x]*$/",
    "@foo/bar.go:12",
    "@bar.c",
    "0x100010",
    "main+0x4",
    "!runtime.*",
    "memcpy@GLIBC_2.14",
    "a::b::{{closure}}",
    "operator<<",
];
