// Names has a function of every kind that Go's compiler and linker name. Called with -n N, it calls the method Add of
// package foo.v1 so often and says so in the form of ../pkg/truth.
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"example.com/ge.v2/asm"
	"example.com/ge.v2/callback"
	foo "example.com/ge.v2/foo.v1"
	"example.com/ge.v2/internal/shelf"
	dep "example.org/dep/v2"
)

type Store struct{ m map[string]int }

//go:noinline
func (s *Store) Get(k string) int { return s.m[k] + s.size() }

//go:noinline
func (s Store) Len() int { return len(s.m) }

func (s *Store) size() int { return len(s.m) }

type getter interface{ Get(string) int }
type lener interface{ Len() int }

// Shop has the methods of Store through wrappers.
type Shop struct{ *Store }

type List[T any] struct{ items []T }

//go:noinline
func (l *List[T]) Push(t T) {
	l.items = append(l.items, t)
	func() { touch(len(l.items)) }()
}

//go:noinline
func (l List[T]) First() T { return l.items[0] }

type Pair[K comparable, V any] struct {
	key   K
	value V
}

//go:noinline
func (p *Pair[K, V]) Swap(k K, v V) (K, V) {
	p.key, k = k, p.key
	p.value, v = v, p.value
	return k, v
}

//go:noinline
func Gen[T any](t T) string {
	show := func() string { return fmt.Sprint(t) }
	return apply(show)
}

//go:noinline
func Map[K comparable, V any](m map[K]V, f func(K, V) V) {
	for k, v := range m {
		m[k] = f(k, v)
	}
}

//go:noinline
func apply(f func() string) string { return f() }

var touched int

//go:noinline
func touch(n int) { touched += n }

// hook's function belongs to no function.
var hook = func(n int) int { return n + len(os.Args) }

func init() { touch(1) }

func init() { touch(hook(2)) }

//go:noinline
func nested(n int) func() func() int {
	return func() func() int {
		touch(n)
		return func() int {
			touch(n + 1)
			return n
		}
	}
}

//go:noinline
func deferred(s *Store, n int) (result int) {
	defer touch(n)
	defer s.Get("d")
	defer func() {
		if recovered := recover(); recovered != nil {
			result = -1
		}
	}()
	done := make(chan bool)
	go send(done, n > 0)
	<-done
	return s.m["a"] / n
}

//go:noinline
func send(done chan bool, value bool) { done <- value }

func main() {
	if len(os.Args) > 4 {
		// Never called: it keeps what the standard library vendors.
		fmt.Println(net.LookupHost(os.Args[4]))
	}
	s := &Store{map[string]int{"a": shelf.Put(1)}}
	var g getter = Shop{s}
	var l lener = s
	var ints List[int]
	ints.Push(1)
	var texts List[string]
	texts.Push("x")
	pair := Pair[string, float64]{"k", 1}
	pair.Swap("l", 2)
	Map(map[string]int{"a": 1}, func(k string, n int) int { return n + len(k) })
	Map(map[int]string{1: "a"}, func(k int, t string) string { return t + strconv.Itoa(k) })
	method, expression := s.Get, (*Store).Get
	touch(method("a") + expression(s, "a") + g.Get("a") + l.Len())
	touch(nested(1)()() + deferred(s, 0) + overEvens(s) + callback.Go(3) + dep.Weigh("a"))
	touch(int(asm.Twice(2)+asm.Through(3)) + ints.First() + len(texts.First()))
	fmt.Println(Gen(1), Gen("x"), Gen(s != nil), strings.ToUpper("done"), touched > 0)
	var counter foo.Counter
	for i := 0; i < times(); i++ {
		touch(counter.Add(i))
	}
	fmt.Printf("{\"example.com/ge.v2/foo.v1.(*Counter).Add\":%d}\n", counter.Calls())
}

// times is N of -n N.
func times() int {
	for i, arg := range os.Args {
		if arg == "-n" && i+1 < len(os.Args) {
			n, _ := strconv.Atoi(os.Args[i+1])
			return n
		}
	}
	return 1
}
