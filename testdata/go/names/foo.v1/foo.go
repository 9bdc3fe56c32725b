// Package foo has a dot in the last element of its path, which the linker escapes.
package foo

// Counter counts its own calls.
type Counter struct{ calls int }

// Add is the traced function.
//
//go:noinline
func (c *Counter) Add(n int) int {
	c.calls++
	return grown(n)
}

// Calls says how often Add was called.
func (c *Counter) Calls() int { return c.calls }

func grown(n int) int { return doubled(n) + 1 }

func doubled(n int) int { return n + n }
