//go:build go1.23

package main

// evens yields to the body of a loop, which becomes a function of its own: main.overEvens-range1.
func evens(yield func(int) bool) {
	for i := 0; i < 10; i += 2 {
		if !yield(i) {
			return
		}
	}
}

//go:noinline
func overEvens(s *Store) (n int) {
	for i := range evens {
		defer s.Get("x")
		for j := range evens {
			func() { n += s.Get("a") * i * j }()
		}
	}
	return n
}
