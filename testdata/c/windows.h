// When each call began and ended, by the program's own clock: what unwind.c and ../cpp/unwind.cpp know of themselves.
//
// PROGRAM KIND N FILE: FILE gets a line for each call, in the order of the calls:
//   NAME END BEFORE INSIDE LEAVE AFTER
// BEFORE the call, INSIDE it as the first thing, as the last thing before it LEAVEs, AFTER it is over: CLOCK_MONOTONIC
// in nanoseconds. END: return, unwind, exit. A call that is open when the program ends is AFTER 0.
#include "truth.h"

struct window {
    const char *name, *end;
    uint64_t before, inside, leave, after;
};

static struct window *windows;
static size_t window_count, window_room;
// Calls that are open, by their place in `windows`.
static size_t open_windows[64], open_count;
// When what ends the open calls was begun.
static volatile uint64_t leave_ns;

static inline void enter(const char *name, uint64_t before) {
    if (window_count == window_room || open_count == 64)
        abort();
    struct window window = {name, "open", before, now_ns(), 0, 0};
    open_windows[open_count++] = window_count;
    windows[window_count++] = window;
}

// The innermost so many open calls are over.
static inline void over(int calls, const char *end) {
    uint64_t after = now_ns();
    while (calls--) {
        struct window *window = &windows[open_windows[--open_count]];
        window->end = end;
        window->leave = leave_ns;
        window->after = after;
    }
}

static inline void windows_start(size_t calls) {
    window_room = calls;
    windows = (struct window *)calloc(calls, sizeof *windows);
}

static inline void windows_write(const char *path) {
    FILE *file = fopen(path, "w");
    if (!file)
        abort();
    for (struct window *w = windows; w < windows + window_count; w++)
        fprintf(file, "%s %s %lu %lu %lu %lu\n", w->name, w->end, (unsigned long)w->before, (unsigned long)w->inside,
                (unsigned long)w->leave, (unsigned long)w->after);
    fclose(file);
}
