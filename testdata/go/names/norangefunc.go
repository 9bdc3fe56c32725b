//go:build !go1.23

package main

//go:noinline
func overEvens(s *Store) (n int) { return s.Get("a") }
