// Calls that do not return, and when they ended. Usage: windows.h.
//
//   longjmp    jump_catcher → jump_a → jump_b → jump_c: longjmp back to jump_catcher, which returns
//   signal     sig_catcher → sig_work, interrupted by sig_handler → sig_deep: siglongjmp back to sig_catcher
//   altsignal  the same with the handler on a stack of its own
//   exit       exit_a → exit_b: pthread_exit; both end with the thread
//   cancel     cancel_a → cancel_b: cancelled while it waits; both end with the thread
#include "windows.h"
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>

static volatile uint64_t sink;
static jmp_buf landing;

TRACED void jump_c(uint64_t before) {
    enter("jump_c", before);
    leave_ns = now_ns();
    longjmp(landing, 1);
}

TRACED void jump_b(uint64_t before) {
    enter("jump_b", before);
    jump_c(now_ns());
    sink = 1;
}

TRACED void jump_a(uint64_t before) {
    enter("jump_a", before);
    jump_b(now_ns());
    sink = 1;
}

TRACED void jump_catcher(uint64_t before) {
    enter("jump_catcher", before);
    if (setjmp(landing) == 0)
        jump_a(now_ns());
    over(3, "unwind");
    leave_ns = now_ns();
}

static sigjmp_buf signal_landing;
static volatile uint64_t raised_ns;

TRACED void sig_deep(uint64_t before) {
    enter("sig_deep", before);
    leave_ns = now_ns();
    siglongjmp(signal_landing, 1);
}

TRACED void sig_handler(int signal) {
    (void)signal;
    enter("sig_handler", raised_ns);
    sig_deep(now_ns());
    sink = 1;
}

TRACED void sig_work(uint64_t before) {
    enter("sig_work", before);
    raised_ns = now_ns();
    raise(SIGUSR1);
    sink = 1;
}

TRACED void sig_catcher(uint64_t before) {
    enter("sig_catcher", before);
    if (sigsetjmp(signal_landing, 1) == 0)
        sig_work(now_ns());
    over(3, "unwind");
    leave_ns = now_ns();
}

static void watch_signal(int flags) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = sig_handler;
    action.sa_flags = flags;
    static char stack[1 << 16];
    stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    if (sigaction(SIGUSR1, &action, NULL) || (flags & SA_ONSTACK && sigaltstack(&alternate, NULL)))
        abort();
}

TRACED void exit_b(uint64_t before) {
    enter("exit_b", before);
    leave_ns = now_ns();
    pthread_exit(NULL);
}

TRACED void exit_a(uint64_t before) {
    enter("exit_a", before);
    exit_b(now_ns());
    sink = 1;
}

static void *exits(void *nothing) {
    exit_a(now_ns());
    return nothing;
}

static sem_t waits;

TRACED void cancel_b(uint64_t before) {
    enter("cancel_b", before);
    sem_post(&waits);
    for (;;)
        pause();
}

TRACED void cancel_a(uint64_t before) {
    enter("cancel_a", before);
    cancel_b(now_ns());
    sink = 1;
}

static void *waits_for_its_end(void *nothing) {
    cancel_a(now_ns());
    return nothing;
}

static void thread(void *(*body)(void *), int cancel) {
    pthread_t id;
    if (pthread_create(&id, NULL, body, NULL))
        abort();
    if (cancel) {
        sem_wait(&waits);
        leave_ns = now_ns();
        pthread_cancel(id);
    }
    pthread_join(id, NULL);
    over(2, "exit");
}

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    const char *kind = argv[1];
    uint64_t n = strtoull(argv[2], NULL, 0);
    windows_start(n * 4);
    sem_init(&waits, 0, 0);
    int alternate = !strcmp(kind, "altsignal");
    if (alternate || !strcmp(kind, "signal"))
        watch_signal(alternate ? SA_ONSTACK : 0);
    for (uint64_t i = 0; i < n; i++) {
        if (!strcmp(kind, "longjmp")) {
            jump_catcher(now_ns());
            over(1, "return");
        } else if (!strcmp(kind, "exit")) {
            thread(exits, 0);
        } else if (!strcmp(kind, "cancel")) {
            thread(waits_for_its_end, 1);
        } else {
            sig_catcher(now_ns());
            over(1, "return");
        }
    }
    windows_write(argv[3]);
    return 0;
}
