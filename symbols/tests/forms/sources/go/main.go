package main

import (
	"fmt"
	"iter"
	"os"
	"slices"

	foo "example.com/ge.v2/foo.v1"
	"example.com/ge.v2/internal/deep"
)

type Store struct{ m map[string]int }

//go:noinline
func (s *Store) Get(k string) int { return s.m[k] }

//go:noinline
func (s Store) Len() int { return len(s.m) }

type Shop struct{ *Store }

type List[T any] struct{ items []T }

//go:noinline
func (l *List[T]) Push(t T) { l.items = append(l.items, t) }

//go:noinline
func (l *List[T]) All() iter.Seq[T] {
	return func(yield func(T) bool) {
		for _, item := range l.items {
			if !yield(item) {
				return
			}
		}
	}
}

type Pair[K comparable, V any] struct {
	k K
	v V
}

//go:noinline
func (p Pair[K, V]) Swap() (V, K) { return p.v, p.k }

//go:noinline
func Gen[T any](t T) string { return fmt.Sprint(t) }

//go:noinline
func ranged(l *List[int]) (sum int) {
	for n := range l.All() {
		defer func() { sum++ }()
		sum += n
	}
	return sum
}

//go:noinline
func closures(n int) func() int {
	return func() int {
		inner := func() int { return n + len(os.Args) }
		return call(inner)
	}
}

//go:noinline
func call(f func() int) int { return f() }

//go:noinline
func Größe() int { return len(os.Args) }

type getter interface{ Get(string) int }
type lener interface{ Len() int }

var hook = func(n int) int { return n + len(os.Args) }

var table = map[string]int{}

func init() { table["a"] = len(os.Args) }

func init() { table["b"] = len(os.Args) }

func main() {
	s := &Store{map[string]int{"a": foo.F()}}
	var g getter = Shop{s}
	var l lener = s
	var list List[string]
	var numbers List[int]
	list.Push("x")
	numbers.Push(deep.Down())
	done := make(chan int)
	get := s.Get
	go func() { done <- get("a") }()
	go g.Get("b")
	v, k := Pair[string, int]{"k", 1}.Swap()
	items := slices.Collect(list.All())
	slices.SortFunc(items, func(a, b string) int { return len(a) - len(b) })
	fmt.Println(g.Get("a"), l.Len(), Gen(1), Gen("x"), Gen(struct{}{}), items, v, k, ranged(&numbers))
	fmt.Println(hook(1), call(closures(2)), Größe(), <-done)
}
