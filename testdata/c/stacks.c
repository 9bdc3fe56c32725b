// Calls on other stacks than a thread's own, interrupted calls, deep and endless ones. Usage and the form of the last
// line: truth.h.
//
// A correct trace of `stacks MODE` shows exactly the counts of that line, and:
//   coroutine   4 coroutines take turns, each on a stack of its own (static, heap, mmap, far above and below each other),
//               and give way amid produce, 2 frames deep; produce is inside generator, consume is inside nothing
//   migrate     the same, resumed by 2 threads in turn
//   altstack    on_signal runs on an alternate stack and is inside interrupted, which raised the signal; 2 threads
//   signal      on_signal interrupts work (on the same stack) 500 times, whenever a timer wants
//   mutual      even and odd call each other, 10,000 deep
//   forever     never_returns is open when the program ends; exit status 0
//   threads     n threads of 5 calls each, 8 at a time
//   before      entered_before waits for stdin inside of its only call: a return without an entry
#include "truth.h"
#include <signal.h>
#include <sys/time.h>
#include <ucontext.h>

#define FUNCTIONS(F)                                                                                                   \
    F(generator) F(produce) F(consume) F(interrupted) F(on_signal) F(leaf) F(work) F(even) F(odd) F(never_returns)     \
    F(threaded) F(entered_before)
#include "counted.h"

static volatile uint64_t sink;

TRACED uint64_t leaf(uint64_t x) {
    HERE(leaf);
    return x * 3;
}

TRACED uint64_t work(uint64_t x) {
    HERE(work);
    uint64_t result = 0;
    for (int i = 0; i < 3; i++)
        result += leaf(x);
    return result;
}

// Coroutines.

enum { COROUTINES = 4, STACK_BYTES = 64 << 10 };

static struct coroutine {
    ucontext_t context;
    uint64_t produced, wanted;
    int done;
} coroutines[COROUTINES];
static ucontext_t resumer;
static __thread uint64_t now_running;
static char static_stack[STACK_BYTES];

// Not traced: gives way to whoever resumed this coroutine.
static __attribute__((noinline)) void give_way(struct coroutine *self) { swapcontext(&self->context, &resumer); }

TRACED uint64_t produce(struct coroutine *self) {
    HERE(produce);
    uint64_t before = leaf(self->produced);
    give_way(self);
    return before + leaf(self->produced);
}

TRACED uint64_t generator(struct coroutine *self) {
    HERE(generator);
    uint64_t sum = 0;
    while (self->produced < self->wanted) {
        sum += produce(self);
        self->produced++;
    }
    return sum;
}

static void run(int which) {
    struct coroutine *self = &coroutines[which];
    sink = generator(self);
    self->done = 1;
    for (;;)
        give_way(self);
}

TRACED uint64_t consume(uint64_t x) {
    HERE(consume);
    return leaf(x) + 1;
}

static void *stack_of(int which) {
    if (which == 0)
        return static_stack;
    if (which == 1)
        return mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return malloc(STACK_BYTES);
}

static void make_coroutine(int which, uint64_t wanted) {
    struct coroutine *made = &coroutines[which];
    made->wanted = wanted;
    if (getcontext(&made->context))
        abort();
    made->context.uc_stack.ss_sp = stack_of(which);
    made->context.uc_stack.ss_size = STACK_BYTES;
    if (!made->context.uc_stack.ss_sp || made->context.uc_stack.ss_sp == MAP_FAILED)
        abort();
    makecontext(&made->context, (void (*)(void))run, 1, which);
}

static void make_coroutines(uint64_t n) {
    for (int i = 0; i < COROUTINES; i++)
        make_coroutine(i, n / COROUTINES);
}

// Whether any coroutine is not done yet.
static int resume_all(void) {
    int left = 0;
    for (int i = 0; i < COROUTINES; i++) {
        if (coroutines[i].done)
            continue;
        now_running = (uint64_t)i;
        swapcontext(&resumer, &coroutines[i].context);
        sink = consume(now_running);
        left |= !coroutines[i].done;
    }
    return left;
}

static void coroutine(uint64_t n) {
    make_coroutines(n);
    while (resume_all()) {
    }
}

static pthread_mutex_t turn_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t turn_changed = PTHREAD_COND_INITIALIZER;
static int turn, none_left;

static void *resume_in_turn(void *mine) {
    pthread_mutex_lock(&turn_lock);
    while (!none_left) {
        while (turn != (int)(intptr_t)mine && !none_left)
            pthread_cond_wait(&turn_changed, &turn_lock);
        if (!none_left)
            none_left = !resume_all();
        turn = 1 - turn;
        pthread_cond_broadcast(&turn_changed);
    }
    pthread_mutex_unlock(&turn_lock);
    return NULL;
}

static void migrate(uint64_t n) {
    make_coroutines(n);
    pthread_t ids[2];
    for (intptr_t i = 0; i < 2; i++)
        if (pthread_create(&ids[i], NULL, resume_in_turn, (void *)i))
            abort();
    for (int i = 0; i < 2; i++)
        pthread_join(ids[i], NULL);
}

// Signals.

TRACED void on_signal(int number) {
    HERE(on_signal);
    sink = leaf((uint64_t)number);
}

static void handle(int number, int flags) {
    struct sigaction action = {.sa_flags = flags | SA_RESTART};
    action.sa_handler = on_signal;
    if (sigaction(number, &action, NULL))
        abort();
}

TRACED uint64_t interrupted(uint64_t x) {
    HERE(interrupted);
    raise(SIGUSR1);
    return leaf(x) + 1;
}

static void *interrupt(void *n) {
    stack_t alternate = {.ss_size = STACK_BYTES, .ss_sp = malloc(STACK_BYTES)};
    if (!alternate.ss_sp || sigaltstack(&alternate, NULL))
        abort();
    for (uint64_t i = 0; i < (uint64_t)n; i++)
        sink = interrupted(i);
    alternate.ss_flags = SS_DISABLE;
    sigaltstack(&alternate, NULL);
    free(alternate.ss_sp);
    return NULL;
}

static void altstack(uint64_t n) {
    handle(SIGUSR1, SA_ONSTACK);
    pthread_t other;
    if (pthread_create(&other, NULL, interrupt, (void *)(n / 2)))
        abort();
    interrupt((void *)(n - n / 2));
    pthread_join(other, NULL);
}

static void signals(uint64_t n) {
    handle(SIGALRM, 0);
    struct itimerval often = {{0, 500}, {0, 500}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &often, NULL);
    for (uint64_t i = 0; i < n || counted[COUNT_on_signal] < 500; i++)
        sink = work(i);
    setitimer(ITIMER_REAL, &never, NULL);
}

// Deep and endless.

TRACED uint64_t odd(uint64_t x);

TRACED uint64_t even(uint64_t x) {
    HERE(even);
    uint64_t below = x == 0 ? 1 : odd(x - 1);
    sink = below; // a write that must come after the call
    return below + 1;
}

TRACED uint64_t odd(uint64_t x) {
    HERE(odd);
    uint64_t below = x == 0 ? 0 : even(x - 1);
    sink = below;
    return below + 1;
}

static pthread_barrier_t inside;

TRACED void never_returns(void) {
    HERE(never_returns);
    pthread_barrier_wait(&inside);
    for (;;)
        pause();
}

static void *endless(void *unused) {
    never_returns();
    return unused;
}

static void forever(uint64_t n) {
    pthread_barrier_init(&inside, NULL, 2);
    pthread_t other;
    if (pthread_create(&other, NULL, endless, NULL))
        abort();
    pthread_barrier_wait(&inside);
    for (uint64_t i = 0; i < n; i++)
        sink = leaf(i);
    truth_note("exit", "never_returns", 1);
}

TRACED void *threaded(void *x) {
    HERE(threaded);
    sink = work((uint64_t)x);
    return x;
}

static void threads(uint64_t n) {
    pthread_t ids[8];
    for (uint64_t i = 0; i < n; i += 8) {
        for (uint64_t k = 0; k < 8; k++)
            if (pthread_create(&ids[k], NULL, threaded, (void *)k))
                abort();
        for (uint64_t k = 0; k < 8; k++)
            pthread_join(ids[k], NULL);
    }
}

TRACED uint64_t entered_before(uint64_t n) {
    HERE(entered_before);
    puts("inside");
    fflush(stdout);
    for (int c = getchar(); c != EOF && c != '\n'; c = getchar()) {
    }
    uint64_t sum = 0;
    for (uint64_t i = 0; i < n; i++)
        sum += leaf(i);
    return sum;
}

int main(int argc, char **argv) {
    struct options options = truth_start(argc, argv, FUNCTION_COUNT);
    const char *mode = options.mode;
    uint64_t n = options.n;
#define OR(standard) (n ? n : (standard))
    if (!strcmp(mode, "coroutine")) {
        coroutine(OR(20000));
    } else if (!strcmp(mode, "migrate")) {
        migrate(OR(20000));
    } else if (!strcmp(mode, "altstack")) {
        altstack(OR(30000));
    } else if (!strcmp(mode, "signal")) {
        signals(OR(30000));
    } else if (!strcmp(mode, "mutual")) {
        for (uint64_t i = 0; i < OR(10); i++)
            sink = even(9999);
    } else if (!strcmp(mode, "forever")) {
        forever(OR(100000));
    } else if (!strcmp(mode, "threads")) {
        threads(OR(20000));
    } else if (!strcmp(mode, "before")) {
        sink = entered_before(OR(100000));
    } else {
        fprintf(stderr, "usage: stacks coroutine|migrate|altstack|signal|mutual|forever|threads|before [-n N] [--wait]\n");
        return 2;
    }
    truth_print(names, FUNCTION_COUNT);
    return 0;
}
