//! Programs built for the tests, and the oracles they are compared with.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// The Go toolchain of the tests: `PROBE_TEST_GO`, or where `make test` puts it.
pub fn go_tool() -> PathBuf {
    std::env::var_os("PROBE_TEST_GO").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.testdeps/go1.27/go/bin/go"),
        PathBuf::from,
    )
}

/// Runs a command that must succeed; its standard output.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|e| panic!("failed to start {command:?}: {e}"));
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{complaint}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
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
        "/*\nint c_add(int a, int b) { return a + b; }\n*/\nimport \"C\"\n\nfunc c() int { return int(C.c_add(1, 2)) }\n"
    } else {
        "func c() int { return 0 }\n"
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
