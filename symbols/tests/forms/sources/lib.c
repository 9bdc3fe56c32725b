#include <stdlib.h>
int __attribute__((noinline)) twice(int x) { if (__builtin_expect(x > 1000, 0)) abort(); return x * 2; }
int func_a(int x) { return x; }
int func_b(int x) { return x + 1; }
int func_c(int x) { return x + 2; }
int func_d(int x) { return x + 3; }
int func_e(int x) { return x + 4; }
__asm__(".symver versioned_old,versioned@V_1.0\n.symver versioned_new,versioned@@V_2.0");
int versioned_old(int x) { return x + 5; }
int versioned_new(int x) { return x + 6; }
static int (*choose(void))(int) { return func_a; }
int chosen(int) __attribute__((ifunc("choose")));
int puts(const char *);
int one(int), two(int);
int calls(int x) { puts("x"); return one(x) + two(x) + twice(x) + chosen(x); }
