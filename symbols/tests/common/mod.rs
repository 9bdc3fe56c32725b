//! Programs built for the tests, and the oracles they are compared with.
#![allow(dead_code, unreachable_pub, reason = "each test file uses its own part of it")]
#![allow(clippy::unwrap_used, reason = "an error fails the test")]

pub mod llvm;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The Go toolchain of the tests: `PROBE_TEST_GO`, or where `make test` puts it.
pub fn go_tool() -> PathBuf {
    std::env::var_os("PROBE_TEST_GO")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/go1.27/go/bin/go"), PathBuf::from)
}

/// Runs a command that must succeed; its standard output.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("failed to start {command:?}: {e}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{complaint}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a command that must succeed, with lines to read; its standard output.
pub fn filtered(command: &mut Command, lines: impl Iterator<Item = impl std::fmt::Display>) -> String {
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
    let mut child = spawned.unwrap_or_else(|e| panic!("failed to start {command:?}: {e}"));
    let mut input = child.stdin.take().unwrap();
    let text: String = lines.map(|line| format!("{line}\n")).collect();
    let writer = std::thread::spawn(move || input.write_all(text.as_bytes()).unwrap());
    let output = child.wait_with_output().unwrap();
    writer.join().unwrap();
    assert!(output.status.success(), "{command:?}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A program that nobody here wrote: `testdata/corpus.sh`.
pub fn corpus(name: &str) -> PathBuf {
    let path = corpus_folder().join("bin").join(name);
    path.canonicalize().unwrap_or_else(|e| panic!("{}: {e}: `testdata/corpus.sh` brings it", path.display()))
}

/// Where the corpus's programs (`bin`) and their debug files (`debug`) are.
pub fn corpus_folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/corpus")
}

pub fn go(dir: &Path) -> Command {
    go_with(&go_tool(), dir)
}

pub fn go_with(tool: &Path, dir: &Path) -> Command {
    assert!(tool.exists(), "{} is missing: `make test` installs it", tool.display());
    let mut command = Command::new(tool);
    command.current_dir(dir).env("GOTOOLCHAIN", "local").env("GOPROXY", "off").env("GOFLAGS", "-mod=mod");
    command
}

/// A Go module with methods, generics, closures, an escaped path element, and, if wanted, cgo.
pub fn write_go_program(dir: &Path, cgo: bool) {
    std::fs::create_dir_all(dir.join("foo.v1")).unwrap();
    std::fs::write(dir.join("go.mod"), "module example.com/ge.v2\n\ngo 1.19\n").unwrap();
    std::fs::write(dir.join("foo.v1/foo.go"), "package foo\n\n//go:noinline\nfunc F() int { return 3 }\n").unwrap();
    let c = if cgo {
        "/*\nint c_add(int a, int b) { return a + b; }\n*/\nimport \"C\"\n\n//go:noinline\nfunc c() int { return int(C.c_add(1, 2)) }\n"
    } else {
        "//go:noinline\nfunc c() int { return 0 }\n"
    };
    std::fs::write(dir.join("c.go"), format!("package main\n\n{c}")).unwrap();
    std::fs::write(dir.join("main.go"), GO_PROGRAM).unwrap();
}

pub const GO_PROGRAM: &str = r#"package main

import (
	"fmt"
	"os"
	"strings"

	foo "example.com/ge.v2/foo.v1"
)

type Store struct{ m map[string]int }

//go:noinline
func (s *Store) Get(k string) int { return s.m[k] }

//go:noinline
func (s Store) Len() int { return len(s.m) }

type List[T any] struct{ items []T }

//go:noinline
func (l *List[T]) Push(t T) { l.items = append(l.items, t) }

//go:noinline
func Gen[T any](t T) string { return fmt.Sprint(t) }

type getter interface{ Get(string) int }
type lener interface{ Len() int }

var hook = func(n int) int { return n + len(os.Args) }

func main() {
	s := &Store{map[string]int{"a": foo.F()}}
	var g getter = s
	var l lener = s
	var list List[string]
	list.Push("x")
	get := s.Get
	defer func() { fmt.Println(strings.ToUpper("done"), hook(1), c()) }()
	go func() { fmt.Println(get("a")) }()
	fmt.Println(g.Get("a"), l.Len(), Gen(1), Gen("x"), len(list.items))
}
"#;

/// A C++ program whose names have templates, operators, overloads, lambdas, constructors and thunks.
pub fn cpp_program(dir: &Path) -> PathBuf {
    let (source, program) = (dir.join("names.cc"), dir.join("names-cc"));
    std::fs::write(&source, CPP_PROGRAM).unwrap();
    run(Command::new("g++").args(["-std=c++17", "-O0", "-o"]).arg(&program).arg(&source));
    program
}

const CPP_PROGRAM: &str = r#"
#include <map>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>
namespace shop {
struct Base { virtual ~Base() {} virtual int price(int n) const { return n; } };
struct Other { virtual ~Other() {} virtual int weight() { return 1; } };
struct Order : Base, Other {
    explicit Order(int n) : n(n) {}
    explicit Order(std::string s) : n(s.size()) {}
    int price(int m) const override { return n * m; }
    int weight() override { return n; }
    int operator()(int k) { return k + n; }
    bool operator<(Order const &o) const { return n < o.n; }
    std::string label() const { return std::to_string(n); }
    int n;
};
std::ostream &operator<<(std::ostream &s, Order const &o) { return s << o.n; }
template <typename T> struct Stack { std::vector<T> items; void push(T t) { items.push_back(t); } };
template <typename T, int N> T scale(T t) { return t * N; }
int over(int a) { return a; }
int over(int a, char const *) { return a + 1; }
[[gnu::abi_tag("v2")]] int tagged() { return 2; }
}
namespace { int hidden(int x) { return x + 1; } }
extern "C" int plain(int x) { return x; }
int main(int argc, char **argv) {
    shop::Order o(argc), p{std::string(argv[0])};
    shop::Stack<int> s; s.push(o(1));
    shop::Stack<std::string> t; t.push(o.label());
    std::map<std::string, std::vector<int>> m; m["a"].push_back(1);
    auto f = [&](int x) { return x + o.n; };
    std::ostringstream out; out << o << (o < p);
    std::string text = out.str(); text.append("x");
    shop::Other *other = &o;
    return shop::scale<int, 3>(1) + shop::over(1) + shop::over(1, "") + hidden(f(2)) + plain(1) + shop::tagged()
        + o.price(1) + other->weight() + s.items.size() + text.size();
}
"#;

/// A C program with a split function, and two static functions of one name, each split.
pub fn c_program(dir: &Path) -> PathBuf {
    let program = dir.join("names-c");
    let body = r#"
#include <stdlib.h>
static int __attribute__((noinline)) same(int x) { if (__builtin_expect(x == NUMBER, 0)) abort(); return x + NUMBER; }
int NAME(int x) { return same(x); }
"#;
    let mut sources = Vec::new();
    for (name, number) in [("one", "11"), ("two", "22")] {
        let source = dir.join(format!("{name}.c"));
        std::fs::write(&source, body.replace("NAME", name).replace("NUMBER", number)).unwrap();
        sources.push(source);
    }
    let main = dir.join("main.c");
    let text = r#"
#include <stdlib.h>
int one(int), two(int);
int __attribute__((noinline)) twice(int x) { if (__builtin_expect(x > 1000, 0)) abort(); return x * 2; }
int main(int argc, char **argv) { return one(argc) + two(argc) + twice(argc); }
"#;
    std::fs::write(&main, text).unwrap();
    run(Command::new("gcc").args(["-O2", "-o"]).arg(&program).arg(&main).args(&sources));
    program
}
