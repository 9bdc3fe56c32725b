// A chain of calls to see whole: `probe -x ./test '*' -- ./test`.
//
// A correct trace shows, for each of its rounds (an argument, 1 by default), func_a → func_b → func_c → func_d, and at
// func_d the callers func_c func_b func_a main __libc_start_main _start (`test`: built with frame pointers;
// `test-O2`, without: the immediate caller, then the reason why the stack is cut).
#include "truth.h"

enum { A, B, C, D, FUNCTION_COUNT };
static const char *const names[] = {"func_a", "func_b", "func_c", "func_d"};
static volatile int sink;

TRACED int func_d(int x) {
    COUNT(D);
    spin_ns(20000);
    return x + 1;
}

TRACED int func_c(int x) {
    COUNT(C);
    sink = func_d(x);
    return sink + 1;
}

TRACED int func_b(int x) {
    COUNT(B);
    sink = func_c(x);
    return sink + 1;
}

TRACED int func_a(int x) {
    COUNT(A);
    sink = func_b(x);
    return sink + 1;
}

int main(int argc, char **argv) {
    struct options options = truth_start(argc, argv, FUNCTION_COUNT);
    uint64_t rounds = options.n ? options.n : options.mode[0] ? strtoull(options.mode, NULL, 0) : 1;
    for (uint64_t i = 0; i < rounds; i++)
        sink = func_a((int)i);
    truth_print(names, FUNCTION_COUNT);
    return 0;
}
