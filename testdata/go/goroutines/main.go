// Goroutines makes goroutines in goroutines, and knows of each who made it. Usage and the form of the last line: ../pkg/truth.
//
// Before that line stands one for each goroutine that called main.work, as the runtime itself tells it:
//
//	origin GOID PARENT FUNCTION FILE:LINE
//
// PARENT is 0 where the runtime does not keep it (before Go 1.21). A correct trace of `goroutines calls` shows main.work
// three times in each of them, main.inner once in each main.work, and with --goroutines at every call the goroutine's line.
package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"

	"git.com/paas/myagent/pkg/truth"
)

var (
	workCalls  = truth.Of("main.work")
	innerCalls = truth.Of("main.inner")
	lines      sync.Mutex
	made       sync.WaitGroup
)

//go:noinline
func inner(x int) int {
	innerCalls.Here()
	return x * 3
}

//go:noinline
func work(x int) int {
	workCalls.Here()
	return inner(x) + 1
}

// body is what every goroutine does.
func body(x int) {
	defer made.Done()
	tell()
	for i := 0; i < 3; i++ {
		runtime.Gosched()
		x = work(x)
	}
}

// tell prints what runtime.Stack says of the running goroutine: "goroutine 7 [running]:", at the end
// "created by main.spawn in goroutine 1", and a line with the place.
func tell() {
	stack := make([]byte, 1<<16)
	all := bytes.Split(bytes.TrimSpace(stack[:runtime.Stack(stack, false)]), []byte("\n"))
	id := strings.Fields(string(all[0]))[1]
	by := strings.TrimPrefix(string(all[len(all)-2]), "created by ")
	function, parent, known := strings.Cut(by, " in goroutine ")
	if !known {
		parent = "0"
	}
	place := strings.Fields(string(all[len(all)-1]))[0]
	lines.Lock()
	fmt.Println("origin", id, parent, function, place)
	lines.Unlock()
}

//go:noinline
func branch(x int) {
	go body(x)
	body(x)
}

//go:noinline
func spawn(x int) {
	made.Add(2)
	go branch(x)
}

func main() {
	options := truth.Start()
	if options.Mode != "calls" {
		fmt.Fprintln(os.Stderr, "usage: goroutines calls [-n N] [--wait]")
		os.Exit(2)
	}
	for i := 0; i < options.Or(500); i++ {
		spawn(i)
		made.Add(1)
		go func() { body(i) }()
	}
	made.Wait()
	truth.Print()
}
