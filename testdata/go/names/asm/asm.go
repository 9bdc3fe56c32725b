// Package asm has functions with bodies in assembly where there is one for the machine.
package asm

// Twice is assembly that calls nothing.
func Twice(x uint64) uint64

// Through is assembly that jumps to Go.
func Through(x uint64) uint64

//go:noinline
func target(x uint64) uint64 { return x + 1 }
