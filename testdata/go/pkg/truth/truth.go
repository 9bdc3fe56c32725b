// Package truth is what the Go programs share: counters, the one line of truth, options, a clock.
//
// The last line on stdout is JSON with whole numbers only: "NAME": how often NAME was called (functions never called
// are absent); keys with a leading _ are no functions: "_unwind:NAME", "_exit:NAME", "_exec:NAME", "_tailcall:NAME" say
// how many calls of NAME end that way instead of returning, "_ns:NAME" how long all calls of NAME took.
package truth

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

// Counter counts the calls of one function. Padded: neighbours do not slow each other down.
type Counter struct {
	name  string
	calls uint64
	_     [40]byte
}

var (
	counters []*Counter
	notes    = map[string]uint64{}
)

// Of makes the counter of a function; for package-level variables only.
func Of(name string) *Counter {
	c := &Counter{name: name}
	counters = append(counters, c)
	return c
}

// Here counts a call.
func (c *Counter) Here() { atomic.AddUint64(&c.calls, 1) }

// Count tells of calls that were counted elsewhere.
func Count(name string, calls uint64) { notes[name] = calls }

// Note adds a fact that is no count of calls: kind as in the package's comment.
func Note(kind, name string, value uint64) { notes["_"+kind+":"+name] = value }

// Print writes the line of truth.
func Print() {
	line := map[string]uint64{}
	for _, c := range counters {
		if n := atomic.LoadUint64(&c.calls); n > 0 {
			line[c.name] = n
		}
	}
	for k, v := range notes {
		line[k] = v
	}
	text, err := json.Marshal(line)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
}

// Options of a program: PROGRAM MODE [-n N] [-t THREADS] [--wait].
type Options struct {
	Mode string
	N    int // 0: the mode's own default
	T    int // 0: the program's own default
}

// Or is N, or the default of a mode.
func (o Options) Or(standard int) int {
	if o.N > 0 {
		return o.N
	}
	return standard
}

// Start reads the options; with --wait it says "ready" and waits for a line or the end of stdin.
func Start() Options {
	var o Options
	wait := false
	for i := 1; i < len(os.Args); i++ {
		arg := os.Args[i]
		switch {
		case arg == "--wait":
			wait = true
		case (arg == "-n" || arg == "-t") && i+1 < len(os.Args):
			i++
			value, err := strconv.Atoi(os.Args[i])
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(2)
			}
			if arg == "-n" {
				o.N = value
			} else {
				o.T = value
			}
		default:
			o.Mode = arg
		}
	}
	if wait {
		fmt.Println("ready")
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
	}
	return o
}

// Spin burns CPU for d.
func Spin(d time.Duration) {
	for end := time.Now().Add(d); time.Now().Before(end); {
	}
}
