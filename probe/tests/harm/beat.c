// Does what it is told, a line at a time, and answers each line with one: a test never has to guess where it is.
//
//   beat N       calls beat N times                      lib N        calls lib_beat N times, in libbeat.so
//   name TEXT    renames itself (backslash n and e mean a newline and an escape)
//   exec PATH    becomes another program                 spin MS      calls beat for so long
//   anything else, and the end of stdin: exits with status 7
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "../../../testdata/c/orders.h"

int lib_beat(int x);
static volatile int sink;

__attribute__((noipa)) int beat(int x) {
    sink += x;
    return x + 1;
}

__attribute__((noipa)) int beat_all(int n) {
    for (int i = 0; i < n; i++)
        sink = beat(i);
    return sink;
}

static long now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static void rename_to(char *text) {
    char name[64] = "";
    for (size_t to = 0; *text && to < sizeof name - 1; text++)
        if (text[0] == '\\' && text[1])
            name[to++] = *++text == 'n' ? '\n' : '\033';
        else
            name[to++] = *text;
    prctl(PR_SET_NAME, name);
}

int main(void) {
    char line[4096];
    ready_for_orders();
    for (char *argument; (argument = next_order(line, sizeof line)) && *argument;) {
        if (!strcmp(line, "beat"))
            beat_all(atoi(argument));
        else if (!strcmp(line, "lib"))
            for (int i = atoi(argument); i > 0; i--)
                sink = lib_beat(i);
        else if (!strcmp(line, "spin"))
            for (long end = now_ms() + atoi(argument); now_ms() < end;)
                beat_all(100);
        else if (!strcmp(line, "name"))
            rename_to(argument);
        else if (!strcmp(line, "exec"))
            execl(argument, argument, (char *)NULL);
        printf("%s %s\n", line, argument);
        fflush(stdout);
    }
    return 7;
}
