// Bench is the Go function of the benchmarks: `bench [-n CALLS_PER_GOROUTINE] [-t GOROUTINES] [--wait]` calls
// main.(*Counter).Hot, a method with a stack check. Prints {"main.(*Counter).Hot": CALLS, "ns_per_call": …,
// "cpu_ns_per_call": …, "calls_per_s": …}: all by the clock but the CPU time, to which other processes do not add; nothing
// but the call is measured.
package main

import (
	"fmt"
	"runtime"
	"sync"
	"syscall"
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

func cpuTime() time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		panic(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

func main() {
	options := truth.Start()
	goroutines := options.T
	if goroutines == 0 {
		goroutines = 1
	}
	n := options.Or(1000000)
	var all sync.WaitGroup
	counters := make([]Counter, goroutines*8) // 8: one cache line each
	start, cpuStart := time.Now(), cpuTime()
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
	ns, cpu := float64(time.Since(start)), float64(cpuTime()-cpuStart)
	calls := float64(n * goroutines)
	fmt.Printf("{\"main.(*Counter).Hot\": %.0f, \"ns_per_call\": %.3f, \"cpu_ns_per_call\": %.3f, \"calls_per_s\": %.0f}\n",
		calls, ns/float64(n), cpu/calls, calls*1e9/ns)
}
