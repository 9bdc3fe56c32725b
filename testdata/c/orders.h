// Orders on stdin, a line at a time, for programs that do what they are told.
#pragma once
#include <stdio.h>
#include <string.h>

// Whoever gives orders can begin. They are read no further than is asked for: what comes after an order to execute is for
// the other program.
static void ready_for_orders(void) {
    setvbuf(stdin, NULL, _IONBF, 0);
    puts("ready");
    fflush(stdout);
}

// The next order, in `line`; what stands behind its first word, which may be nothing, or NULL when there are no more.
static char *next_order(char *line, int size) {
    if (!fgets(line, size, stdin))
        return NULL;
    line[strcspn(line, "\n")] = 0;
    char *rest = line + strcspn(line, " ");
    if (*rest)
        *rest++ = 0;
    return rest;
}
