// Counts counts its own calls. Usage and the form of the last line: ../pkg/truth.
//
// A correct trace of `counts MODE` shows exactly the counts of that line, and:
//
//	calls    4 goroutines that move between threads inside calls: every entry finds its return
//	grow     stacks that are moved while calls are open; the slow path of the stack check is no second call
//	recurse  main.recurse nested 200 deep
//	panic    main.panicMiddle and main.panicDeep end as unwound, main.panicAbove (which recovers) returns; the deferred
//	         main.panicCleanup runs while main.panicMiddle is unwound
//	goexit   main.goexitOuter and main.goexitInner end as unwound
//	exit     main.exitOuter and main.exitInner end as exit; exit status 3
//	exec     main.execOuter and main.execInner end as exec
//	nested   the durations of main.nestedA, B and C nest in, and nearly sum to, main.nestedParent's
//	tail     main.asmFrom ends at its JMP and main.asmTarget is its sibling; (*main.Inner).Tailed is reached through
//	         the wrapper main.(*Outer).Tailed, which is left out by default
package main

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"
	"time"

	"git.com/paas/myagent/pkg/storage"
	"git.com/paas/myagent/pkg/truth"
)

var sink uint64

func main() {
	modes := map[string]func(truth.Options){
		"calls": calls, "grow": grow, "recurse": recursion, "panic": panics, "goexit": goexits,
		"exit": exits, "exec": execs, "nested": nested, "tail": tail,
	}
	options := truth.Start()
	mode, known := modes[options.Mode]
	if !known {
		fmt.Fprintln(os.Stderr, "usage: counts calls|grow|recurse|panic|goexit|exit|exec|nested|tail [-n N] [-t GOROUTINES] [--wait]")
		os.Exit(2)
	}
	mode(options)
	truth.Print()
}

// each runs f in goroutines and waits for them.
func each(goroutines int, f func(goroutine int)) {
	var all sync.WaitGroup
	for i := 0; i < goroutines; i++ {
		all.Add(1)
		go func(i int) {
			defer all.Done()
			f(i)
		}(i)
	}
	all.Wait()
}

func calls(options truth.Options) {
	goroutines := options.T
	if goroutines == 0 {
		goroutines = 4
	}
	n := options.Or(1000000) / goroutines
	store := storage.New()
	each(goroutines, func(goroutine int) {
		info := storage.Info{Addr: "127.0.0.1", Port: uint16(goroutine + 1)}
		for i := 0; i < n; i++ {
			// Tied to its thread for some calls: the scheduler must hand threads over, and goroutines move.
			if i%1000 == 0 {
				runtime.LockOSThread()
			} else if i%1000 == 100 {
				runtime.UnlockOSThread()
			}
			if _, err := store.SaveNetworkLocateInfo(i, info); err != nil {
				panic(err)
			}
		}
	})
}

var growFrameCalls = truth.Of("main.growFrame")

//go:noinline
func growFrame(depth int) byte {
	growFrameCalls.Here()
	var frame [512]byte
	frame[depth%512] = byte(depth)
	if depth > 1 {
		frame[0] += growFrame(depth - 1)
	}
	return frame[depth%512] + frame[0]
}

// Fresh goroutines begin with 2 KB (later the average): 50 frames of 0.5 KB make each grow several times.
func grow(options truth.Options) {
	const depth, batch = 50, 8
	for i := 0; i < options.Or(300000)/depth/batch; i++ {
		each(batch, func(int) { growFrame(depth) })
	}
}

var recurseCalls = truth.Of("main.recurse")

//go:noinline
func recurse(depth int) uint64 {
	recurseCalls.Here()
	if depth > 1 {
		return recurse(depth-1)*2 + 1
	}
	return 1
}

func recursion(options truth.Options) {
	for i := 0; i < options.Or(100); i++ {
		sink += recurse(200)
	}
}

var (
	panicAboveCalls   = truth.Of("main.panicAbove")
	panicMiddleCalls  = truth.Of("main.panicMiddle")
	panicDeepCalls    = truth.Of("main.panicDeep")
	panicCleanupCalls = truth.Of("main.panicCleanup")
)

//go:noinline
func panicCleanup(n int) {
	panicCleanupCalls.Here()
	sink += uint64(n)
}

//go:noinline
func panicDeep(n int) {
	panicDeepCalls.Here()
	panic(n)
}

//go:noinline
func panicMiddle(n int) {
	panicMiddleCalls.Here()
	defer panicCleanup(n)
	panicDeep(n)
	sink++
}

//go:noinline
func panicAbove(n int) (recovered int) {
	panicAboveCalls.Here()
	defer func() { recovered, _ = recover().(int) }()
	panicMiddle(n)
	return -1
}

func panics(options truth.Options) {
	n := options.Or(10000)
	for i := 0; i < n; i++ {
		if panicAbove(i) != i {
			panic("not recovered")
		}
	}
	truth.Note("unwind", "main.panicMiddle", uint64(n))
	truth.Note("unwind", "main.panicDeep", uint64(n))
}

var (
	goexitOuterCalls = truth.Of("main.goexitOuter")
	goexitInnerCalls = truth.Of("main.goexitInner")
)

//go:noinline
func goexitInner() {
	goexitInnerCalls.Here()
	runtime.Goexit()
}

//go:noinline
func goexitOuter() {
	goexitOuterCalls.Here()
	goexitInner()
	sink++
}

func goexits(options truth.Options) {
	n := options.Or(10000)
	for i := 0; i < n/10; i++ {
		each(10, func(int) { goexitOuter() })
	}
	// Their deferred calls are done; the program's end could still overtake their own.
	for runtime.NumGoroutine() > 1 {
		runtime.Gosched()
	}
	truth.Note("unwind", "main.goexitOuter", uint64(n/10*10))
	truth.Note("unwind", "main.goexitInner", uint64(n/10*10))
}

var (
	exitOuterCalls = truth.Of("main.exitOuter")
	exitInnerCalls = truth.Of("main.exitInner")
)

//go:noinline
func exitInner() {
	exitInnerCalls.Here()
	truth.Note("exit", "main.exitOuter", 1)
	truth.Note("exit", "main.exitInner", 1)
	truth.Print()
	os.Exit(3)
}

//go:noinline
func exitOuter() {
	exitOuterCalls.Here()
	exitInner()
	sink++
}

func exits(truth.Options) { exitOuter() }

var (
	execOuterCalls = truth.Of("main.execOuter")
	execInnerCalls = truth.Of("main.execInner")
)

//go:noinline
func execInner() {
	execInnerCalls.Here()
	truth.Note("exec", "main.execOuter", 1)
	truth.Note("exec", "main.execInner", 1)
	truth.Print()
	panic(syscall.Exec("/bin/true", []string{"true"}, os.Environ()))
}

//go:noinline
func execOuter() {
	execOuterCalls.Here()
	execInner()
	sink++
}

func execs(truth.Options) { execOuter() }

var (
	nestedParentCalls = truth.Of("main.nestedParent")
	nestedACalls      = truth.Of("main.nestedA")
	nestedBCalls      = truth.Of("main.nestedB")
	nestedCCalls      = truth.Of("main.nestedC")
	spent             [4]time.Duration
)

//go:noinline
func nestedA() {
	nestedACalls.Here()
	truth.Spin(300 * time.Microsecond)
}

//go:noinline
func nestedB() {
	nestedBCalls.Here()
	time.Sleep(500 * time.Microsecond)
}

//go:noinline
func nestedC() {
	nestedCCalls.Here()
	truth.Spin(100 * time.Microsecond)
}

func timed(which int, f func()) {
	start := time.Now()
	f()
	spent[which] += time.Since(start)
}

//go:noinline
func nestedParent() {
	nestedParentCalls.Here()
	timed(0, nestedA)
	timed(1, nestedB)
	timed(2, nestedC)
}

func nested(options truth.Options) {
	for i := 0; i < options.Or(50); i++ {
		timed(3, nestedParent)
	}
	for i, name := range []string{"main.nestedA", "main.nestedB", "main.nestedC", "main.nestedParent"} {
		truth.Note("ns", name, uint64(spent[i]))
	}
}
