#include <stdlib.h>
static int __attribute__((noinline)) same(int x) { if (__builtin_expect(x == 22, 0)) abort(); return x + 22; }
int two(int x) { return same(x); }
