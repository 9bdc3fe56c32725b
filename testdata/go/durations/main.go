// Durations knows how long its calls took, without what a probe costs: `durations INNER [-n CALLS] [--wait]` calls
// main.outer, which calls main.inner INNER times.
//
// Each function reads the clock after its first instructions and before its last ones, and outer around each call of
// inner: what lies between these readings is all of a call's own work, and all probes lie elsewhere. Prints a line with
// each call's time in ns, in order, then the line of truth.
//
// Between calls the goroutine yields. Else the runtime would take it off its thread by a signal every 10 ms (Go 1.27:
// runtime.sysmon, forcePreemptNS), with probes mostly within one of their traps: time of a call that no reading has in it.
package main

import (
	"fmt"
	"math"
	"runtime"
	"strconv"
	"time"

	"git.com/paas/myagent/pkg/truth"
)

// Of outer's two parts and of inner's one: so much and up to twice as much.
const (
	outerNs = 8000
	innerNs = 2000
)

var (
	begin                  = time.Now()
	ownNs, clockNs         uint64
	seed                   uint64 = 1
	outerCalls, innerCalls uint64
)

func now() uint64 { return uint64(time.Since(begin)) }

// Keeps two calls from being alike.
func varied(ns uint64) uint64 {
	seed = seed*6364136223846793005 + 1442695040888963407
	return ns + (seed>>33)%ns
}

// Half of each reading lies outside of its interval: together one.
func work(ns uint64) {
	start := now()
	end := start
	for end < start+ns {
		end = now()
	}
	ownNs += end - start + clockNs
}

//go:noinline
func inner(ns uint64) {
	innerCalls++
	work(ns)
}

//go:noinline
func outer(calls int) {
	outerCalls++
	work(varied(outerNs))
	for i := 0; i < calls; i++ {
		inner(varied(innerNs))
	}
	work(varied(outerNs))
}

func clockCost() uint64 {
	least := uint64(math.MaxUint64)
	for i := 0; i < 1000; i++ {
		start := now()
		if took := now() - start; took < least {
			least = took
		}
	}
	return least
}

func main() {
	options := truth.Start()
	calls, err := strconv.Atoi(options.Mode)
	if err != nil {
		calls = 0
	}
	clockNs = clockCost()
	took := make([]uint64, options.Or(1000))
	for i := range took {
		ownNs = 0
		outer(calls)
		took[i] = ownNs
		runtime.Gosched()
	}
	for _, ns := range took {
		fmt.Println(ns)
	}
	fmt.Printf("{\"main.outer\": %d, \"main.inner\": %d}\n", outerCalls, innerCalls)
}
