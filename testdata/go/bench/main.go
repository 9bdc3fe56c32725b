// Bench is the Go function of the benchmarks: `bench [-n CALLS_PER_GOROUTINE] [-t GOROUTINES] [--wait]` calls
// main.(*Counter).Hot, a method with a stack check. Prints {"main.(*Counter).Hot": CALLS, "ns_per_call": …,
// "calls_per_s": …}; nothing but the call is measured.
package main

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"git.com/paas/myagent/pkg/truth"
)

// Counter is what Hot is a method of.
type Counter struct{ value uint64 }

// Hot has a frame, hence a stack check: it may call cold.
//
//go:noinline
func (c *Counter) Hot(x uint64) uint64 {
	if x == ^uint64(0) {
		c.cold()
	}
	c.value += x
	return c.value
}

//go:noinline
func (c *Counter) cold() { c.value = 0 }

func main() {
	options := truth.Start()
	goroutines := options.T
	if goroutines == 0 {
		goroutines = 1
	}
	n := options.Or(1000000)
	var all sync.WaitGroup
	counters := make([]Counter, goroutines*8) // 8: one cache line each
	start := time.Now()
	for g := 0; g < goroutines; g++ {
		all.Add(1)
		go func(c *Counter) {
			defer all.Done()
			runtime.LockOSThread()
			for i := 0; i < n; i++ {
				c.Hot(uint64(i))
			}
		}(&counters[g*8])
	}
	all.Wait()
	ns := float64(time.Since(start))
	fmt.Printf("{\"main.(*Counter).Hot\": %d, \"ns_per_call\": %.3f, \"calls_per_s\": %.0f}\n",
		n*goroutines, ns/float64(n), float64(n*goroutines)*1e9/ns)
}
