// Package shelf is the program's own internal package, not the standard library's.
package shelf

// Put is called once.
//
//go:noinline
func Put(n int) int { return n + 1 }
