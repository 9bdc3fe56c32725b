// Package callback has a C function that calls Go, and thread-local variables of C between Go's and the thread pointer.
package callback

/*
extern int goAdd(int, int);
static __thread char before[40];
static __thread int after = 7;
static int c_add(int a, int b) { before[a % 40]++; return goAdd(a, b) + after + before[b % 40]; }
static int __attribute__((noinline)) c_twice(int a) { return c_add(a, a); }
*/
import "C"

// Go calls C, which calls Go.
func Go(n int) int { return int(C.c_twice(C.int(n))) }

//export goAdd
func goAdd(a, b C.int) C.int { return a + b }
