// Load sends requests to ../server over kept-alive connections and reports one JSON line:
// {"requests", "failures", "hung", "slowest_ns", "mean_ns", "per_second"}. Requests counts all that were sent; a failure
// is any error or unexpected answer, hung (also a failure) one that took over 5 s. Exit status 1 if anything failed.
//
// With -s it adds "begin_ns", by CLOCK_MONOTONIC, and "tenths", of which each is a tenth of a second from then on:
// [requests answered in it, that of them which took longest, in ns].
//
//	load -addr 127.0.0.1:PORT [-c CONNECTIONS] (-n REQUESTS | -s SECONDS [-r REQUESTS A SECOND])
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"
	"unsafe"
)

const hungAfter = 5 * time.Second

const tenth = time.Second / 10

type result struct {
	requests, failures, hung int
	slowest, total           time.Duration
	tenths                   []answered
}

// answered within some time.
type answered struct {
	requests int
	slowest  time.Duration
}

func (a *answered) add(other answered) {
	a.requests += other.requests
	if other.slowest > a.slowest {
		a.slowest = other.slowest
	}
}

func (r *result) tenth(number int) *answered {
	for len(r.tenths) <= number {
		r.tenths = append(r.tenths, answered{})
	}
	return &r.tenths[number]
}

func (r *result) add(other result) {
	r.requests += other.requests
	r.failures += other.failures
	r.hung += other.hung
	r.total += other.total
	if other.slowest > r.slowest {
		r.slowest = other.slowest
	}
	for number, other := range other.tenths {
		r.tenth(number).add(other)
	}
}

// monotonic is CLOCK_MONOTONIC, in ns: the clock of traces.
func monotonic() int64 {
	var now syscall.Timespec
	if _, _, errno := syscall.Syscall(syscall.SYS_CLOCK_GETTIME, 1, uintptr(unsafe.Pointer(&now)), 0); errno != 0 {
		panic(errno)
	}
	return now.Nano()
}

var errorsShown sync.Once

// request sends the i-th request: every tenth a PUT.
func request(client *http.Client, base string, i int) error {
	url := fmt.Sprintf("%s/orders/%d", base, i%1000)
	method, body, want := http.MethodGet, io.Reader(nil), http.StatusOK
	if i%10 == 0 {
		method, body, want = http.MethodPut, strings.NewReader(`{"customer":"load","items":["bolt"],"cents":7}`), http.StatusNoContent
	}
	message, err := http.NewRequest(method, url, body)
	if err != nil {
		return err
	}
	answer, err := client.Do(message)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != want {
		return fmt.Errorf("%s %s: %s", method, url, answer.Status)
	}
	if want == http.StatusOK && !json.Valid(text) {
		return fmt.Errorf("%s %s: not JSON: %q", method, url, text)
	}
	return nil
}

// connection sends requests one after the other until `more` says no, no sooner than `every` after the last one.
func connection(base string, begin time.Time, every time.Duration, more func(sent int) bool) (r result) {
	client := &http.Client{Timeout: hungAfter, Transport: &http.Transport{MaxConnsPerHost: 1}}
	for ; more(r.requests); r.requests++ {
		start := time.Now()
		if every > 0 && r.requests > 0 {
			time.Sleep(time.Until(begin.Add(time.Duration(r.requests) * every)))
			start = time.Now()
		}
		err := request(client, base, r.requests)
		took := time.Since(start)
		if err != nil {
			r.failures++
			errorsShown.Do(func() { fmt.Fprintln(os.Stderr, "load: first failure:", err) })
		}
		if took >= hungAfter {
			r.hung++
		}
		if took > r.slowest {
			r.slowest = took
		}
		r.total += took
		r.tenth(int(time.Since(begin) / tenth)).add(answered{1, took})
	}
	return r
}

func main() {
	address := flag.String("addr", "", "the server")
	connections := flag.Int("c", 8, "connections, each with one request at a time")
	requests := flag.Int("n", 0, "requests in all")
	seconds := flag.Float64("s", 0, "seconds to run, instead of -n")
	rate := flag.Float64("r", 0, "with -s: requests a second at most, of all connections")
	flag.Parse()
	if *address == "" || (*requests == 0) == (*seconds == 0) || *connections < 1 {
		flag.Usage()
		os.Exit(2)
	}
	var every time.Duration
	if *rate > 0 {
		every = time.Duration(float64(time.Second) * float64(*connections) / *rate)
	}
	begin, start := monotonic(), time.Now()
	end := start.Add(time.Duration(*seconds * float64(time.Second)))
	var all sync.WaitGroup
	var mu sync.Mutex
	var sum result
	for c := 0; c < *connections; c++ {
		share := *requests / *connections
		if c < *requests%*connections {
			share++
		}
		more := func(sent int) bool { return sent < share }
		if *requests == 0 {
			more = func(int) bool { return time.Now().Before(end) }
		}
		all.Add(1)
		go func() {
			defer all.Done()
			r := connection("http://"+*address, start, every, more)
			mu.Lock()
			defer mu.Unlock()
			sum.add(r)
		}()
	}
	all.Wait()
	elapsed := time.Since(start)
	mean := int64(0)
	if sum.requests > 0 {
		mean = int64(sum.total) / int64(sum.requests)
	}
	fmt.Printf("{\"requests\": %d, \"failures\": %d, \"hung\": %d, \"slowest_ns\": %d, \"mean_ns\": %d, \"per_second\": %.1f",
		sum.requests, sum.failures, sum.hung, int64(sum.slowest), mean, float64(sum.requests)/elapsed.Seconds())
	if *seconds != 0 {
		fmt.Printf(", \"begin_ns\": %d, \"tenths\": [", begin)
		for number, tenth := range sum.tenths {
			separator := ", "
			if number == 0 {
				separator = ""
			}
			fmt.Printf("%s[%d, %d]", separator, tenth.requests, int64(tenth.slowest))
		}
		fmt.Print("]")
	}
	fmt.Println("}")
	if sum.failures > 0 {
		os.Exit(1)
	}
}
