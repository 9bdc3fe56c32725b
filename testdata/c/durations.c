// A program that knows how long its calls took, without what a probe costs: `durations INNER [-n CALLS] [--wait]` calls
// outer, which calls inner INNER times.
//
// Each function reads the clock after its first instructions and before its last ones, and outer around each call of
// inner: what lies between these readings is all of a call's own work, and all probes lie elsewhere. Prints a line with
// each call's time in ns, in order, then the line of truth.
#include "truth.h"

enum { OUTER, INNER, FUNCTIONS };
static const char *const names[] = {"outer", "inner"};
// Of outer's two parts and of inner's one: so much and up to twice as much.
enum { OUTER_NS = 8000, INNER_NS = 2000 };

static uint64_t own_ns, clock_ns, seed = 1;

// Keeps two calls from being alike.
static uint64_t varied(uint64_t ns) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return ns + (seed >> 33) % ns;
}

// Half of each reading lies outside of its interval: together one.
static inline __attribute__((always_inline)) void work(uint64_t ns) {
    uint64_t start = now_ns(), now;
    do
        now = now_ns();
    while (now < start + ns);
    own_ns += now - start + clock_ns;
}

TRACED void inner(uint64_t ns) {
    COUNT(INNER);
    work(ns);
}

TRACED void outer(uint64_t calls) {
    COUNT(OUTER);
    work(varied(OUTER_NS));
    for (uint64_t i = 0; i < calls; i++)
        inner(varied(INNER_NS));
    work(varied(OUTER_NS));
}

static uint64_t clock_cost(void) {
    uint64_t least = UINT64_MAX;
    for (int i = 0; i < 1000; i++) {
        uint64_t start = now_ns(), took = now_ns() - start;
        least = took < least ? took : least;
    }
    return least;
}

int main(int argc, char **argv) {
    struct options options = truth_start(argc, argv, FUNCTIONS);
    uint64_t calls = options.n ? options.n : 1000, inner_calls = strtoull(options.mode, NULL, 0);
    uint64_t *took_ns = (uint64_t *)calloc(calls, sizeof *took_ns);
    if (!took_ns)
        abort();
    clock_ns = clock_cost();
    for (uint64_t i = 0; i < calls; i++) {
        own_ns = 0;
        outer(inner_calls);
        took_ns[i] = own_ns;
    }
    for (uint64_t i = 0; i < calls; i++)
        printf("%lu\n", (unsigned long)took_ns[i]);
    truth_print(names, FUNCTIONS);
    return 0;
}
