// A timer interrupts what asks for the time: mostly in the code that the kernel maps into every process.
//
//   vdso [-n SAMPLES]
//
// `handled` is called for each interruption. stdout: a line for each of its calls, from inside out: in whose code it was
// interrupted (vdso, libc, own), and in which function of this program.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/time.h>
#include <time.h>
#include <ucontext.h>

#define WHOLE __attribute__((noipa))

static volatile long handled_so_far;
static const char *volatile asking;
static const char *where[100000], *who[100000];

WHOLE void handled(const char *in) {
    where[handled_so_far] = in;
    who[handled_so_far] = asking;
    handled_so_far = handled_so_far + 1;
}

static uintptr_t vdso, own, libc;

static const char *module_of(uintptr_t ip) {
    // The kernel's and this program's code are smaller than what lies between two modules.
    if (ip - vdso < 0x4000)
        return "vdso";
    return ip - own < 0x10000 ? "own" : ip - libc < 0x400000 ? "libc" : "?";
}

static void on_alarm(int number, siginfo_t *info, void *context) {
    (void)number, (void)info;
    handled(module_of((uintptr_t)((ucontext_t *)context)->uc_mcontext.gregs[REG_RIP]));
    // No tail call.
    __asm__ volatile("");
}

WHOLE void by_clock(void) {
    struct timespec now;
    asking = "by_clock";
    for (int i = 0; i < 20000; i++)
        clock_gettime(CLOCK_MONOTONIC, &now);
    asking = NULL;
}

WHOLE void by_day(void) {
    struct timeval now;
    asking = "by_day";
    for (int i = 0; i < 20000; i++)
        gettimeofday(&now, NULL);
    asking = NULL;
}

static uintptr_t base_of(void *symbol) {
    Dl_info info;
    if (!dladdr(symbol, &info))
        abort();
    return (uintptr_t)info.dli_fbase;
}

int main(int argc, char **argv) {
    long samples = argc > 2 && !strcmp(argv[1], "-n") ? atol(argv[2]) : 1000;
    vdso = getauxval(AT_SYSINFO_EHDR);
    own = base_of((void *)(uintptr_t)main);
    libc = base_of((void *)(uintptr_t)printf);
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = on_alarm;
    action.sa_flags = SA_SIGINFO;
    struct itimerval interval = {{0, 1000}, {0, 1000}};
    if (sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &interval, NULL))
        abort();
    while (handled_so_far < samples) {
        by_clock();
        by_day();
    }
    memset(&interval, 0, sizeof interval);
    setitimer(ITIMER_REAL, &interval, NULL);
    for (long i = 0; i < handled_so_far; i++)
        printf("%s %s\n", where[i], who[i] ? who[i] : "main");
    return 0;
}
