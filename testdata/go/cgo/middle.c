#include <stdint.h>
#include "_cgo_export.h"

uint64_t c_counted[2];

#define TRACED __attribute__((noipa))
#define COUNT(which) ((void)__atomic_fetch_add(&c_counted[which], 1, __ATOMIC_RELAXED))

TRACED uint64_t c_middle(uint64_t x) {
    COUNT(0);
    return goInner(x) + 1;
}

TRACED uint64_t c_leaf(uint64_t x) {
    COUNT(1);
    return x * 3;
}
