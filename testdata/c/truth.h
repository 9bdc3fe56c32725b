// What the C and C++ programs share: counters, the one line of truth, options, a clock.
//
// Counters lie in memory shared with children, so that a fork's calls count too. The last line on stdout is JSON with
// whole numbers only: "NAME": how often NAME was called (names as a person writes them; functions never called are
// absent); keys with a leading _ are no functions: "_tailcall:NAME", "_unwind:NAME", "_exit:NAME", … say how many calls
// of NAME end that way instead of returning, "_ns:NAME" how long all calls of NAME took by the program's own clock.
#pragma once
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

// noipa (gcc): no inlining, no clones such as NAME.constprop.0, no knowledge about the body in its callers.
#define TRACED __attribute__((noipa))

enum { MAX_NOTES = 32 };

// Not static: hand-written assembler counts here too.
uint64_t *counted __attribute__((visibility("default")));
static struct {
    const char *kind, *name;
    uint64_t value;
} truth_notes[MAX_NOTES];
static int truth_note_count;

// What only optimised code does: notes about tail calls are left out at -O0.
#ifdef __OPTIMIZE__
enum { OPTIMISED = 1 };
#else
enum { OPTIMISED = 0 };
#endif

#define COUNT(which) ((void)__atomic_fetch_add(&counted[which], 1, __ATOMIC_RELAXED))

static inline void truth_note(const char *kind, const char *name, uint64_t value) {
    if (truth_note_count == MAX_NOTES)
        abort();
    truth_notes[truth_note_count].kind = kind;
    truth_notes[truth_note_count].name = name;
    truth_notes[truth_note_count++].value = value;
}

static inline void truth_print(const char *const *names, int functions) {
    const char *separator = "{";
    for (int i = 0; i < functions; i++)
        if (counted[i]) {
            printf("%s\"%s\": %lu", separator, names[i], (unsigned long)counted[i]);
            separator = ", ";
        }
    for (int i = 0; i < truth_note_count; i++) {
        printf("%s\"_%s:%s\": %lu", separator, truth_notes[i].kind, truth_notes[i].name,
               (unsigned long)truth_notes[i].value);
        separator = ", ";
    }
    printf("%s}\n", *separator == '{' ? "{" : "");
    fflush(stdout);
}

// CLOCK_MONOTONIC in nanoseconds, the clock of bpf_ktime_get_ns().
static inline uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline void spin_ns(uint64_t duration) {
    uint64_t end = now_ns() + duration;
    while (now_ns() < end) {
    }
}

struct options {
    const char *mode;
    uint64_t n;       // 0: the mode's own default
    uint64_t threads; // 0: the program's own default
};

// PROGRAM MODE [-n N] [-t THREADS] [--wait]. --wait: says "ready" and waits for a line or the end of stdin.
static inline struct options truth_start(int argc, char **argv, int functions) {
    struct options options = {argc > 1 && argv[1][0] != '-' ? argv[1] : "", 0, 0};
    int wait = 0;
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--wait"))
            wait = 1;
        if (!strcmp(argv[i], "-n") && i + 1 < argc)
            options.n = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "-t") && i + 1 < argc)
            options.threads = strtoull(argv[++i], NULL, 0);
    }
    void *memory = mmap(NULL, (size_t)(functions + 1) * sizeof *counted, PROT_READ | PROT_WRITE,
                        MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        abort();
    counted = (uint64_t *)memory;
    if (wait) {
        puts("ready");
        fflush(stdout);
        for (int c = getchar(); c != EOF && c != '\n'; c = getchar()) {
        }
    }
    return options;
}
