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
    // What comes after an order to execute is for the other program.
    setvbuf(stdin, NULL, _IONBF, 0);
    puts("ready");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        line[strcspn(line, "\n")] = 0;
        char *rest = strchr(line, ' ');
        rest = rest ? rest + 1 : line + strlen(line);
        if (!strncmp(line, "open ", 5)) {
            open_it(rest);
        } else if (!strncmp(line, "call ", 5)) {
            call_it(atoi(rest));
        } else if (!strcmp(line, "close")) {
            dlclose(library);
        } else if (!strncmp(line, "loop ", 5)) {
            char *path = strchr(rest, ' ');
            for (int n = atoi(rest); path && n > 0; n--) {
                open_it(path + 1);
                call_it(1);
                dlclose(library);
            }
        } else if (!strncmp(line, "name ", 5)) {
            prctl(PR_SET_NAME, rest);
        } else if (!strncmp(line, "thread ", 7) && strchr(rest, ' ')) {
            pthread_t id;
            if (pthread_create(&id, NULL, in_thread, rest) || pthread_join(id, NULL))
                exit(1);
        } else if (!strncmp(line, "exec ", 5)) {
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
