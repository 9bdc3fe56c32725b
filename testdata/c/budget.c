// What a budget is for: `budget [-n STEPS] [-t THREADS] [--wait]` calls step STEPS times in each of THREADS threads; each
// step calls hot for five milliseconds, as often as it can, and rare once in its middle. A trace that sheds hot misses no
// call of step and rare.
#include "truth.h"

enum { STEP, RARE, HOT, FUNCTIONS };

static const char *const names[FUNCTIONS] = {"step", "rare", "hot"};

static uint64_t steps;
static volatile uint64_t sink;

TRACED uint64_t hot(uint64_t x) {
    COUNT(HOT);
    return x * 2 + 1;
}

TRACED uint64_t rare(uint64_t x) {
    COUNT(RARE);
    return hot(x) + 1;
}

TRACED void step(void) {
    COUNT(STEP);
    for (int half = 0; half < 2; half++) {
        uint64_t end = now_ns() + 2500000;
        while (now_ns() < end)
            sink = hot(sink);
        if (!half)
            sink = rare(sink);
    }
}

static void *run(void *unused) {
    for (uint64_t i = 0; i < steps; i++)
        step();
    return unused;
}

int main(int argc, char **argv) {
    struct options options = truth_start(argc, argv, FUNCTIONS);
    uint64_t threads = options.threads ? options.threads : 1;
    pthread_t ids[64];
    steps = options.n ? options.n : 1000;
    if (threads > 64)
        return 2;
    for (uint64_t t = 0; t < threads; t++)
        if (pthread_create(&ids[t], NULL, run, NULL))
            return 1;
    for (uint64_t t = 0; t < threads; t++)
        pthread_join(ids[t], NULL);
    truth_print(names, FUNCTIONS);
    return 0;
}
