// burst N RATE: waits for a line, starts N short-lived processes of itself, RATE a second, waits for all of them, and says how long that took.
//
// Each calls first_call before it does anything else, and ends: a correct trace of it shows N calls, of N processes.
#define _GNU_SOURCE
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

__attribute__((noipa)) static int first_call(int x) { return x + 1; }

static long now_us(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000L + t.tv_nsec / 1000;
}

int main(int argc, char **argv) {
    if (argc == 1)
        return first_call(-1);
    if (argc < 3)
        return 2;
    int n = atoi(argv[1]), rate = atoi(argv[2]), left = n;
    char line[16], *child_argv[] = {argv[0], NULL}, *none[] = {NULL};
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
        return 2;
    long begin = now_us();
    for (int i = 0; i < n; i++) {
        long wait = begin + (long)i * 1000000 / rate - now_us();
        struct timespec t = {wait / 1000000, wait % 1000000 * 1000};
        if (wait > 0)
            nanosleep(&t, NULL);
        pid_t pid;
        if (posix_spawn(&pid, argv[0], NULL, NULL, child_argv, none))
            return 1;
        int status;
        while (waitpid(-1, &status, WNOHANG) > 0)
            if (status || !left--)
                return 3;
    }
    for (int status; wait(&status) > 0; left--)
        if (status)
            return 3;
    printf("started %d in %ld ms, %d left\n", n, (now_us() - begin) / 1000, left);
    return left != 0;
}
