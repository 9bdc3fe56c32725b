package main

import "git.com/paas/myagent/pkg/truth"

// Go's compiler makes tail calls only in wrappers; by hand they stand in assembler.

var (
	innerTailedCalls = truth.Of("main.(*Inner).Tailed")
	asmTargetCalls   = truth.Of("main.asmTarget")
)

// Inner has a method that Outer promotes.
type Inner struct{ n uint64 }

// Outer gets Tailed by a wrapper that (from Go 1.24 or earlier on) ends in a jump.
type Outer struct{ *Inner }

// Tailer hides which type it is, so that the wrapper is really called.
type Tailer interface{ Tailed(x uint64) uint64 }

// Tailed is what the wrapper jumps to.
//
//go:noinline
func (i *Inner) Tailed(x uint64) uint64 {
	innerTailedCalls.Here()
	i.n++
	return i.n + x
}

// asmTarget is reached from asmFrom by a jump to its ABI0 wrapper.
//
//go:noinline
func asmTarget(x uint64) uint64 {
	asmTargetCalls.Here()
	return x + 1
}

var tailer Tailer = &Outer{&Inner{}}

func tail(options truth.Options) {
	n := options.Or(10000)
	for i := 0; i < n; i++ {
		sink += tailer.Tailed(uint64(i))
	}
	asmTail(n)
}
