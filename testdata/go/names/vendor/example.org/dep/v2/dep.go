// Package dep is vendored, and its path has a version.
package dep

// Weigh belongs to the second version.
//
//go:noinline
func Weigh(s string) int { return 2 * len(s) }
