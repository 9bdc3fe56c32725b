// Go calls C, which calls Go, which calls C. Usage and the form of the last line: ../pkg/truth.
//
// A correct trace of `cgo calls` shows exactly the counts of that line, for each goroutine as one tree:
// main.outer → c_middle → main.inner → c_leaf. main.inner's stack grows, and is moved, while the others are open.
package main

/*
#include <stdint.h>
extern uint64_t c_counted[2];
uint64_t c_middle(uint64_t x);
uint64_t c_leaf(uint64_t x);
*/
import "C"

import (
	"fmt"
	"os"
	"runtime"
	"sync"

	"git.com/paas/myagent/pkg/truth"
)

var (
	outerCalls = truth.Of("main.outer")
	innerCalls = truth.Of("main.inner")
)

//go:noinline
func outer(x uint64) uint64 {
	outerCalls.Here()
	return uint64(C.c_middle(C.uint64_t(x))) + 1
}

//export goInner
func goInner(x uint64) uint64 { return inner(x, int(x%64)) }

//go:noinline
func inner(x uint64, deep int) uint64 {
	innerCalls.Here()
	if deep == 1 {
		runtime.Gosched()
	}
	return grow(deep) + uint64(C.c_leaf(C.uint64_t(x)))
}

//go:noinline
func grow(deep int) uint64 {
	var room [512]byte
	if deep == 0 {
		return uint64(room[0])
	}
	room[deep%512] = 1
	return grow(deep-1) + uint64(room[deep%512])
}

func main() {
	options := truth.Start()
	if options.Mode != "calls" {
		fmt.Fprintln(os.Stderr, "usage: cgo calls [-n N] [-t GOROUTINES] [--wait]")
		os.Exit(2)
	}
	goroutines := 4
	if options.T > 0 {
		goroutines = options.T
	}
	var all sync.WaitGroup
	for i := 0; i < goroutines; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for x := 0; x < options.Or(40000)/goroutines; x++ {
				outer(uint64(x))
			}
		}()
	}
	all.Wait()
	truth.Count("c_middle", uint64(C.c_counted[0]))
	truth.Count("c_leaf", uint64(C.c_counted[1]))
	truth.Print()
}
