// maps N [--wait]: maps N pieces of memory that may be executed, no two of which the kernel joins, waits for a line if it is
// to, and calls work 1000 times.
//
// A correct trace of it shows 1000 calls of work, made by call_work, made by main.
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>

static volatile int sink;

__attribute__((noipa)) static int work(int x) { return x + 1; }

__attribute__((noipa)) static void call_work(void) {
    for (int i = 0; i < 1000; i++)
        sink = work(i);
}

int main(int argc, char **argv) {
    long n = argc > 1 ? atol(argv[1]) : 0;
    char line[16], *room = mmap(NULL, n * 8192 + 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED)
        return 1;
    // Between two pieces lies one that may not be executed: each counts, too.
    for (long i = 0; i < n; i += 2)
        if (mprotect(room + i * 4096, 4096, PROT_READ | PROT_EXEC))
            return 1;
    puts("ready");
    fflush(stdout);
    if (argc > 2 && !fgets(line, sizeof line, stdin))
        return 2;
    call_work();
    return 0;
}
