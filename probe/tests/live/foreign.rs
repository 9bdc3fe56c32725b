//! Stripped Go programs that nobody here wrote: as many calls as bpftrace counts at the same offsets of the same file,
//! in the same run of it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    harness::{Process, probe},
    trace::Trace,
};

fn esbuild() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/esbuild/bin/esbuild");
    let path = std::env::var_os("PROBE_TEST_ESBUILD").map_or_else(default, PathBuf::from);
    path.canonicalize().unwrap_or_else(|e| panic!("{}: {e}; `testdata/setup.sh test` installs it", path.display()))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Where each function's entry probe sits in the file, by the plan.
fn entries(program: &str, functions: &[&str]) -> BTreeMap<String, String> {
    let plan = probe(&[&["--dry-run", "-x", program], functions].concat()).success();
    let (mut entries, mut function) = (BTreeMap::new(), None);
    for line in plan.lines() {
        if !line.starts_with(' ') {
            function = functions.iter().find(|name| line.contains(&format!(" {name} ")));
        } else if let (Some(name), Some(rest)) = (function, line.trim().strip_prefix("entry ")) {
            let offset = rest.split_once("offset ").and_then(|(_, o)| o.split(',').next()).expect("an offset");
            entries.insert((*name).to_owned(), offset.to_owned());
        }
    }
    assert_eq!(entries.len(), functions.len(), "{plan}");
    entries
}

/// Runs a command under `probe`, and all of that under bpftrace, whose probes are in place before. The trace's laws
/// hold, nothing is lost, and per process and function both counts are equal. Returns the trace.
fn compare(program: &str, functions: &[&str], command: &[&str], folder: &Path) -> Trace {
    let entries = entries(program, functions);
    let script: String =
        entries.values().map(|o| format!("uprobe:{program}:{o} {{ @[\"{o}\", pid] = count(); }}\n")).collect();
    // bpftrace splits its command at every space, and runs nothing but ELF files: a shell reads it from a file.
    let (run, file) = (folder.join("run"), folder.join("trace"));
    let words = [env!("CARGO_BIN_EXE_probe"), "--json", "--stack=none", "--buffer", "256M", "-x", program, "-o"];
    let words = words.iter().copied().chain([file.to_str().expect("UTF-8")]).chain(functions.iter().copied());
    let words: Vec<String> = words.chain(["--"]).chain(command.iter().copied()).map(quoted).collect();
    fs::write(&run, format!("exec {}\n", words.join(" "))).expect("it can be written");
    let mut bpftrace = Command::new("bpftrace");
    // Unsafe: it cannot tell where instructions start in a stripped file. The plan's offsets are such starts.
    bpftrace.args(["--unsafe", "-B", "none", "-e", &script, "-c", &format!("/bin/sh {}", run.display())]);
    bpftrace.env("GOCACHE", folder.join("cache")).env("GOFLAGS", "-mod=mod").env("GOTOOLCHAIN", "local");
    let ended = Process::start(bpftrace).finish();
    assert!(file.exists(), "{ended:?}");
    let trace = Trace::read(&file);
    assert_eq!(trace.summary["lost"], 0, "{}", ended.stderr);
    let mut ours: BTreeMap<(String, u32), u64> = BTreeMap::new();
    for call in &trace.calls {
        *ours.entry((entries[&*call.function].clone(), call.pid)).or_default() += 1;
    }
    let mut theirs = counts_of(&ended.stdout);
    // It counts everyone who runs the file.
    let pids: Vec<u32> = ours.keys().map(|(_, pid)| *pid).collect();
    theirs.retain(|(_, pid), _| pids.contains(pid));
    assert_eq!(ours, theirs, "{}", ended.stderr);
    for function in functions {
        assert!(trace.calls.iter().any(|call| &*call.function == *function), "{function} was never called");
    }
    trace
}

/// `@[0x31ca2f, 4711]: 12` of bpftrace.
fn counts_of(stdout: &str) -> BTreeMap<(String, u32), u64> {
    let parse = |line: &str| {
        let (key, count) = line.strip_prefix("@[")?.split_once("]: ")?;
        let (offset, pid) = key.split_once(", ")?;
        Some(((offset.to_owned(), pid.parse().ok()?), count.parse().ok()?))
    };
    stdout.lines().filter_map(parse).collect()
}

#[test]
fn debians_stripped_go_command_listing_packages() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let functions = [
        "go/build.(*Context).matchFile",
        "go/build.(*Context).openFile",
        "go/build.(*importReader).readImport",
        "go/build.isGoBuildComment",
        "cmd/go/internal/load.loadImport",
        "cmd/go/internal/load.FindVendor",
    ];
    let go = "/usr/lib/go-1.19/bin/go";
    let trace = compare(go, &functions, &[go, "list", "std"], folder.path());
    assert!(trace.calls.len() > 10_000, "{}", trace.calls.len());
}

#[test]
fn esbuild_bundling_typescript() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for module in 0..20 {
        let next = format!("import * as next from './m{}'; console.log(next.f1(2));\n", module + 1);
        let class = |n: usize| {
            format!(
                "export class C{n} {{ private x: number = {n}; get(): number {{ return this.x + {module} }} }}\n\
                 export const f{n} = (a: number, b = {n}) => a ** b + new C{n}().get();\n"
            )
        };
        let text: String = (0..10).map(class).chain((module < 19).then_some(next)).collect();
        fs::write(folder.path().join(format!("m{module}.ts")), text).expect("it can be written");
    }
    let package = "github.com/evanw/esbuild/internal";
    let names = [
        "js_lexer.(*Lexer).Next",
        "js_parser.(*parser).parseStmt",
        "js_parser.(*parser).visitExprInOut",
        "js_parser.(*parser).declareSymbol",
    ]
    .map(|name| format!("{package}/{name}"));
    let functions: Vec<&str> = names.iter().map(String::as_str).collect();
    let (esbuild, entry) = (esbuild(), folder.path().join("m0.ts"));
    let out = format!("--outfile={}", folder.path().join("out.js").display());
    let program = esbuild.to_str().expect("UTF-8");
    let command = [program, entry.to_str().expect("UTF-8"), "--bundle", &out];
    let trace = compare(program, &functions, &command, folder.path());
    assert!(trace.calls.len() > 10_000, "{}", trace.calls.len());
    assert!(trace.calls.iter().any(|call| call.depth > 5), "statements lie in statements");
}
