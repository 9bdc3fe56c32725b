//go:build !cgo

package callback

// Go stands for C.
//
//go:noinline
func Go(n int) int { return n + n }
