// Loads libraries as it is told, a line at a time, and answers each line with "done": a test never has to guess where it is.
//
//   open PATH      dlopen's it                           call N       calls plugged of the library N times
//   close          dlclose's it                          loop N PATH  N times: open, one call, close
//   exec PATH      becomes another program               name TEXT    renames its first thread
//   thread TEXT N  a thread of that name calls it N times
//   the end of stdin: exits
//
// A correct trace of the library's `plugged` shows as many calls as were ordered.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "orders.h"

static void *library;
static int (*plugged)(int);
static volatile int sink;

static void need(const void *result) {
    if (!result) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
}

static void open_it(const char *path) {
    need(library = dlopen(path, RTLD_NOW));
    plugged = (int (*)(int))dlsym(library, "plugged");
    need(*(void **)&plugged);
}

__attribute__((noipa)) static void call_it(int n) {
    for (int i = 0; i < n; i++)
        sink = plugged(i);
}

static void *in_thread(void *text) {
    char *n = strchr(text, ' ');
    *n = 0;
    prctl(PR_SET_NAME, text);
    call_it(atoi(n + 1));
    return NULL;
}

int main(void) {
    char line[4096];
    ready_for_orders();
    for (char *rest; (rest = next_order(line, sizeof line));) {
        if (!strcmp(line, "open")) {
            open_it(rest);
        } else if (!strcmp(line, "call")) {
            call_it(atoi(rest));
        } else if (!strcmp(line, "close")) {
            dlclose(library);
        } else if (!strcmp(line, "loop")) {
            char *path = strchr(rest, ' ');
            for (int n = atoi(rest); path && n > 0; n--) {
                open_it(path + 1);
                call_it(1);
                dlclose(library);
            }
        } else if (!strcmp(line, "name")) {
            prctl(PR_SET_NAME, rest);
        } else if (!strcmp(line, "thread") && strchr(rest, ' ')) {
            pthread_t id;
            if (pthread_create(&id, NULL, in_thread, rest) || pthread_join(id, NULL))
                exit(1);
        } else if (!strcmp(line, "exec")) {
            execl(rest, rest, NULL);
            exit(1);
        } else {
            exit(2);
        }
        puts("done");
        fflush(stdout);
    }
    return 0;
}
