// The function of the stacks benchmark: `deep [-n CALLS] [-t DEPTH]` calls hot from DEPTH frames below main. Compiled with
// frame pointers and without. Prints the line of push.c.
#include "truth.h"

TRACED uint64_t hot(uint64_t x) { return x * 3; }

static volatile uint64_t sink;

static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

TRACED void run(uint64_t n) {
    uint64_t start = now_ns(), cpu_start = cpu_ns();
    for (uint64_t i = 0; i < n; i++)
        sink = hot(i);
    double ns = (double)(now_ns() - start), cpu = (double)(cpu_ns() - cpu_start), calls = (double)n;
    printf("{\"hot\": %.0f, \"ns_per_call\": %.3f, \"cpu_ns_per_call\": %.3f, \"calls_per_s\": %.0f}\n", calls, ns / calls,
           cpu / calls, calls * 1e9 / ns);
}

static uint64_t (*volatile deeper)(uint64_t left, uint64_t n);

// Calls itself by way of a pointer: of a plain recursion the compiler makes a loop.
TRACED uint64_t descend(uint64_t left, uint64_t n) {
    if (!left) {
        run(n);
        return 0;
    }
    uint64_t below = deeper(left - 1, n);
    return below * left + n;
}

int main(int argc, char **argv) {
    struct options options = truth_start(argc, argv, 0);
    // run, descend(0) and main are frames too.
    uint64_t frames = options.threads > 3 ? options.threads - 3 : 0;
    deeper = descend;
    sink = descend(frames, options.n ? options.n : 100000);
    return 0;
}
