// Unwind makes calls that do not return, and knows when they ended. Usage and the file's form: ../../c/windows.h.
//
//	recover   main.catcher → panicA → panicB → panicC panics, catcher recovers and returns
//	repanic   main.outer → middle → deep panics; what middle deferred recovers and panics again, outer recovers
//	deferred  main.deferOuter → deferMiddle → deferDeep panics; what deferMiddle deferred, main.deferPanics, panics too
//	nil       main.nilCatcher → nilDeep reads through a nil pointer; nilCatcher recovers
//	goexit    main.goexitA → goexitB → goexitC: runtime.Goexit
//	exit      goroutines wait in main.exitA → exitB, then os.Exit
package main

import (
	"bufio"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"syscall"
	"unsafe"
)

type window struct {
	name, end                    string
	before, inside, leave, after int64
}

var (
	windows []window
	open    []int
	// When what ends the open calls was begun, and when it was seen to be over.
	leave, landed int64
	sink          int
)

// now reads CLOCK_MONOTONIC in nanoseconds, which package time does not tell.
func now() int64 {
	var t syscall.Timespec
	syscall.RawSyscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&t)), 0)
	return t.Nano()
}

func enter(name string, before int64) {
	open = append(open, len(windows))
	windows = append(windows, window{name: name, end: "open", before: before, inside: now()})
}

// over ends the innermost so many open calls.
func over(calls int, end string, after int64) {
	for ; calls > 0; calls-- {
		w := &windows[open[len(open)-1]]
		open = open[:len(open)-1]
		w.end, w.leave, w.after = end, leave, after
	}
}

// seen runs after recover, in the frame that recovered.
func seen() { landed = now() }

//go:noinline
func panicC(before int64) {
	enter("main.panicC", before)
	leave = now()
	panic("c")
}

//go:noinline
func panicB(before int64) {
	enter("main.panicB", before)
	defer func() { sink++ }()
	panicC(now())
}

//go:noinline
func panicA(before int64) {
	enter("main.panicA", before)
	panicB(now())
	sink++
}

//go:noinline
func catcher(before int64) {
	enter("main.catcher", before)
	defer seen()
	defer func() { _ = recover() }()
	panicA(now())
}

//go:noinline
func deep(before int64) {
	enter("main.deep", before)
	leave = now()
	panic("deep")
}

//go:noinline
func middle(before int64) {
	enter("main.middle", before)
	defer func() {
		again := recover()
		leave = now()
		panic(again)
	}()
	deep(now())
}

//go:noinline
func outer(before int64) {
	enter("main.outer", before)
	defer seen()
	defer func() { _ = recover() }()
	middle(now())
}

//go:noinline
func deferPanics(before int64) {
	enter("main.deferPanics", before)
	leave = now()
	panic("deferred")
}

//go:noinline
func deferDeep(before int64) {
	enter("main.deferDeep", before)
	panic("deep")
}

//go:noinline
func deferMiddle(before int64) {
	enter("main.deferMiddle", before)
	defer func() { deferPanics(now()) }()
	deferDeep(now())
}

//go:noinline
func deferOuter(before int64) {
	enter("main.deferOuter", before)
	defer seen()
	defer func() { _ = recover() }()
	deferMiddle(now())
}

//go:noinline
func nilDeep(before int64, nothing *int) {
	enter("main.nilDeep", before)
	leave = now()
	sink += *nothing
}

//go:noinline
func nilCatcher(before int64) {
	enter("main.nilCatcher", before)
	defer seen()
	defer func() { _ = recover() }()
	nilDeep(now(), nil)
}

//go:noinline
func goexitC(before int64) {
	enter("main.goexitC", before)
	leave = now()
	runtime.Goexit()
}

//go:noinline
func goexitB(before int64) {
	enter("main.goexitB", before)
	defer func() { sink++ }()
	goexitC(now())
}

//go:noinline
func goexitA(before int64) {
	enter("main.goexitA", before)
	goexitB(now())
	sink++
}

//go:noinline
func exitB(before int64, inside chan<- bool) {
	enter("main.exitB", before)
	inside <- true
	select {}
}

//go:noinline
func exitA(before int64, inside chan<- bool) {
	enter("main.exitA", before)
	exitB(now(), inside)
	sink++
}

// recovers calls a function that recovers from what the so many calls below it do.
func recovers(function func(int64), calls int) func() {
	return func() {
		function(now())
		over(calls, "unwind", landed)
		over(1, "return", now())
	}
}

func goexit() {
	others := runtime.NumGoroutine()
	go func() { goexitA(now()) }()
	for runtime.NumGoroutine() > others || len(open) < 3 {
		runtime.Gosched()
	}
	over(3, "unwind", now())
}

func exit() {
	inside := make(chan bool)
	go func() { exitA(now(), inside) }()
	<-inside
}

func write(path string) {
	file, err := os.Create(path)
	if err != nil {
		panic(err)
	}
	out := bufio.NewWriter(file)
	for _, w := range windows {
		fmt.Fprintln(out, w.name, w.end, w.before, w.inside, w.leave, w.after)
	}
	if err := out.Flush(); err != nil {
		panic(err)
	}
}

func main() {
	kinds := map[string]func(){
		"recover": recovers(catcher, 3), "repanic": recovers(outer, 2), "deferred": recovers(deferOuter, 3),
		"nil": recovers(nilCatcher, 1), "goexit": goexit, "exit": exit,
	}
	if len(os.Args) != 4 || kinds[os.Args[1]] == nil {
		os.Exit(2)
	}
	kind, path := os.Args[1], os.Args[3]
	n, _ := strconv.Atoi(os.Args[2])
	windows = make([]window, 0, 4*n)
	for i := 0; i < n; i++ {
		kinds[kind]()
	}
	if kind == "exit" {
		leave = now()
		over(2*n, "exit", 0)
	}
	write(path)
	os.Exit(0)
}
