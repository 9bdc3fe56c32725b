// The C function of the benchmarks: `push [-n CALLS_PER_THREAD] [-t THREADS] [--wait]` calls hot_push, whose first
// instruction is a push (which the kernel emulates); `push lea …` calls hot_lea, whose first instruction is a lea (which
// it single-steps). Prints {"hot_push": CALLS, "ns_per_call": …, "cpu_ns_per_call": …, "calls_per_s": …}: all
// by the clock but the CPU time, to which other processes do not add; no counter in the functions: the loop's own count
// is exact, and nothing but the call is measured.
#include "truth.h"

TRACED uint64_t hot_push(uint64_t x, uint64_t y) {
    __asm__ volatile("" ::: "rbx"); // a register that must be saved: push %rbx; lea …; pop %rbx; ret
    return x * 2 + y;
}

TRACED uint64_t hot_lea(uint64_t x, uint64_t y) { return x * 2 + y; }

static uint64_t calls_per_thread;
static uint64_t (*hot)(uint64_t, uint64_t);
static volatile uint64_t sink;

static void *run(void *unused) {
    uint64_t sum = 0, n = calls_per_thread;
    for (uint64_t i = 0; i < n; i++)
        sum = hot(i, sum);
    sink = sum;
    return unused;
}

static uint64_t cpu_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

int main(int argc, char **argv) {
    struct options options = truth_start(argc, argv, 0);
    uint64_t threads = options.threads ? options.threads : 1;
    pthread_t ids[64];
    calls_per_thread = options.n ? options.n : 1000000;
    int lea = !strcmp(options.mode, "lea");
    hot = lea ? hot_lea : hot_push;
    if (threads > 64)
        return 2;
    uint64_t start = now_ns(), cpu_start = cpu_ns();
    for (uint64_t i = 0; i < threads; i++)
        if (pthread_create(&ids[i], NULL, run, NULL))
            abort();
    for (uint64_t i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
    double ns = (double)(now_ns() - start), cpu = (double)(cpu_ns() - cpu_start);
    double calls = (double)(calls_per_thread * threads);
    printf("{\"%s\": %.0f, \"ns_per_call\": %.3f, \"cpu_ns_per_call\": %.3f, \"calls_per_s\": %.0f}\n",
           lea ? "hot_lea" : "hot_push", calls, ns / (double)calls_per_thread, cpu / calls, calls * 1e9 / ns);
    return 0;
}
