package main

import "git.com/paas/myagent/pkg/truth"

// asmFrom jumps to asmTarget: tail_amd64.s.
func asmFrom(x uint64) uint64

func asmTail(n int) {
	for i := 0; i < n; i++ {
		sink += asmFrom(uint64(i))
	}
	truth.Note("tailcall", "main.asmFrom", uint64(n))
}
