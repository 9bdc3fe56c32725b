#include <stdlib.h>
static int __attribute__((noinline)) same(int x) { if (__builtin_expect(x == 11, 0)) abort(); return x + 11; }
int one(int x) { return same(x); }
