// Counts its own calls. Usage and the form of the last line: truth.h.
//
// A correct trace of `counts MODE` shows exactly the counts of that line, and:
//   calls          4 threads, work → leaf for every fourth call; all return
//   recurse        recurse nested 200 deep, n times over
//   tail           tail_from ends at its jmp (with -O2; at -O0 it returns); tail_to is its sibling under tail_caller
//   cond           cond_from (hand-written: jne cond_to) returns for even arguments, ends in a tail call for odd ones
//   indirect       register_from ends at jmp *%rax, memory_from at jmp *(%rax,%rsi,8); at -O0 both return
//   switch         switched leaves by a jump table *inside* itself and returns: no tail call
//   longjmp        jump_middle and jump_deep end as unwound, jump_catcher returns
//   refused        lock_first begins with `lock inc`, which the kernel refuses to probe: said by name, or seen by a
//                  probe behind it; lock_caller is not touched by that
//   loop           loop_head's loop branches back to its first instruction: one call, not one per round
//   nested         the durations of nested_a, nested_b and nested_c nest in, and nearly sum to, nested_parent's
//   fork           forker is entered once and returns twice, in two processes; work is called in both
//   vfork          vforker's child calls work on its parent's stack, then runs /bin/true
//   exec           exec_outer and exec_inner end as exec
//   exit           exit_outer and exit_inner end as exit; exit status 3
//   thread_exit    thread_outer and thread_inner are open when their thread ends by pthread_exit
#include "truth.h"
#include <setjmp.h>
#include <sys/wait.h>

#define FUNCTIONS(F)                                                                                                   \
    F(cond_from) /* 0: known to the assembler below */                                                                 \
    F(cond_to) F(work) F(leaf) F(recurse) F(tail_caller) F(tail_from) F(tail_to) F(cond_caller) F(register_from)       \
    F(memory_from) F(indirect_a) F(indirect_b) F(switched) F(jump_catcher) F(jump_middle) F(jump_deep) F(loop_head)    \
    F(nested_parent) F(nested_a) F(nested_b) F(nested_c) F(forker) F(vforker) F(exec_outer) F(exec_inner)              \
    F(exit_outer) F(exit_inner) F(thread_outer) F(thread_inner)              \
    F(lock_first) F(lock_caller)
#include "counted.h"

static volatile uint64_t sink;

static void finish(void) { truth_print(names, FUNCTION_COUNT); }

TRACED uint64_t leaf(uint64_t x) {
    HERE(leaf);
    return x * 3;
}

TRACED uint64_t work(uint64_t x) {
    HERE(work);
    if (x % 4 == 0)
        return leaf(x) + 1; // + 1: no tail call here
    return x ^ 0x55;
}

static void *call_work(void *n) {
    uint64_t sum = 0;
    for (uint64_t i = 0; i < (uint64_t)n; i++)
        sum += work(i);
    sink = sum;
    return NULL;
}

static void calls(uint64_t n, uint64_t threads) {
    pthread_t ids[64];
    if (threads == 0 || threads > 64)
        threads = 4;
    for (uint64_t i = 0; i < threads; i++)
        if (pthread_create(&ids[i], NULL, call_work, (void *)(n / threads)))
            abort();
    for (uint64_t i = 0; i < threads; i++)
        pthread_join(ids[i], NULL);
}

TRACED uint64_t recurse(uint64_t depth) {
    HERE(recurse);
    if (depth <= 1)
        return 1;
    uint64_t below = recurse(depth - 1);
    sink = below; // a write that must come after the call: else gcc makes a loop of it
    return below + 1;
}

TRACED uint64_t tail_to(uint64_t x) {
    HERE(tail_to);
    return leaf(x) + 1;
}

TRACED uint64_t tail_from(uint64_t x) {
    HERE(tail_from);
    return tail_to(x + 1);
}

TRACED uint64_t tail_caller(uint64_t x) {
    HERE(tail_caller);
    return tail_from(x) + 1;
}

// gcc 12 never makes a conditional tail call of its own (clang does).
uint64_t cond_from(uint64_t x);
__asm__(".text\n"
        ".globl cond_from\n"
        ".type cond_from, @function\n"
        "cond_from:\n"
        "    movq counted@GOTPCREL(%rip), %rax\n"
        "    movq (%rax), %rax\n"
        "    incq (%rax)\n"
        "    testb $1, %dil\n"
        "    jne cond_to\n"
        "    leaq 7(%rdi), %rax\n"
        "    ret\n"
        ".size cond_from, .-cond_from\n");

TRACED uint64_t cond_to(uint64_t x) {
    HERE(cond_to);
    return x + 9;
}

TRACED uint64_t cond_caller(uint64_t x) {
    HERE(cond_caller);
    return cond_from(x) + 1;
}

TRACED uint64_t indirect_a(uint64_t x) {
    HERE(indirect_a);
    return x + 1;
}

TRACED uint64_t indirect_b(uint64_t x) {
    HERE(indirect_b);
    return x + 2;
}

static uint64_t (*volatile table[2])(uint64_t) = {indirect_a, indirect_b};

TRACED uint64_t register_from(uint64_t x) {
    HERE(register_from);
    uint64_t (*to)(uint64_t) = table[x % 2];
    __asm__ volatile("" : "+a"(to)); // keeps the pointer in RAX
    return to(x);
}

TRACED uint64_t memory_from(uint64_t x, uint64_t which) {
    HERE(memory_from);
    return ((uint64_t(*const *)(uint64_t))table)[which](x);
}

TRACED uint64_t switched(uint64_t x) {
    HERE(switched);
    switch (x % 8) {
    case 0: return leaf(x) + 1;
    case 1: sink = x; return 17;
    case 2: return x * x + sink;
    case 3: sink += 3; return 4;
    case 4: return leaf(x) ^ x;
    case 5: return x / 3;
    case 6: sink = 6; return x << 3;
    default: return sink;
    }
}

uint64_t lock_first_calls;
uint64_t lock_first(uint64_t x);
__asm__(".text\n"
        ".globl lock_first\n"
        ".type lock_first, @function\n"
        "lock_first:\n"
        "    lock incq lock_first_calls(%rip)\n"
        "    leaq 7(%rdi), %rax\n"
        "    ret\n"
        ".size lock_first, .-lock_first\n");

TRACED uint64_t lock_caller(uint64_t x) {
    HERE(lock_caller);
    return lock_first(x) + 1;
}

static jmp_buf landing;

TRACED void jump_deep(uint64_t x) {
    HERE(jump_deep);
    longjmp(landing, (int)(x % 100) + 1);
}

TRACED void jump_middle(uint64_t x) {
    HERE(jump_middle);
    jump_deep(x);
    sink = x;
}

TRACED int jump_catcher(uint64_t x) {
    HERE(jump_catcher);
    int landed = setjmp(landing);
    if (landed == 0)
        jump_middle(x);
    return landed;
}

// The do-loop's head is the first instruction: a probe there would fire once per round.
TRACED void loop_head(volatile uint64_t *rounds) {
    do {
        *rounds -= 1;
    } while (*rounds);
    HERE(loop_head);
}

TRACED void nested_a(void) {
    HERE(nested_a);
    spin_ns(300000);
}

TRACED void nested_b(void) {
    HERE(nested_b);
    usleep(500);
    sink = 1; // no tail call to usleep
}

TRACED void nested_c(void) {
    HERE(nested_c);
    spin_ns(100000);
}

static uint64_t spent[4];

static void timed(int which, void (*child)(void)) {
    uint64_t start = now_ns();
    child();
    spent[which] += now_ns() - start;
}

TRACED void nested_parent(void) {
    HERE(nested_parent);
    timed(0, nested_a);
    timed(1, nested_b);
    timed(2, nested_c);
    sink = 1; // no tail call to timed
}

static void nested(uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        timed(3, nested_parent);
    truth_note("ns", "nested_a", spent[0]);
    truth_note("ns", "nested_b", spent[1]);
    truth_note("ns", "nested_c", spent[2]);
    truth_note("ns", "nested_parent", spent[3]);
}

TRACED pid_t forker(void) {
    HERE(forker);
    pid_t child = fork();
    sink = (uint64_t)child; // no tail call to fork
    return child;
}

static void fork_mode(uint64_t n) {
    fflush(stdout);
    pid_t child = forker();
    call_work((void *)(n / 2));
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    truth_note("returns", "forker", 2);
    truth_note("pid", "child", (uint64_t)child);
}

TRACED void vforker(void) {
    HERE(vforker);
    pid_t child = vfork();
    if (child == 0) {
        sink = work(4);
        execl("/bin/true", "true", (char *)NULL);
        _exit(127);
    }
    waitpid(child, NULL, 0);
}

TRACED void exec_inner(void) {
    HERE(exec_inner);
    truth_note("exec", "exec_outer", 1);
    truth_note("exec", "exec_inner", 1);
    finish();
    execl("/bin/true", "true", (char *)NULL);
    abort();
}

TRACED void exec_outer(void) {
    HERE(exec_outer);
    exec_inner();
    sink = 1;
}

TRACED void exit_inner(void) {
    HERE(exit_inner);
    truth_note("exit", "exit_outer", 1);
    truth_note("exit", "exit_inner", 1);
    finish();
    exit(3);
}

TRACED void exit_outer(void) {
    HERE(exit_outer);
    exit_inner();
    sink = 1;
}

TRACED void thread_inner(void) {
    HERE(thread_inner);
    pthread_exit(NULL);
}

TRACED void *thread_outer(void *unused) {
    HERE(thread_outer);
    thread_inner();
    return unused;
}

static void thread_exit_mode(uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        pthread_t id;
        if (pthread_create(&id, NULL, thread_outer, NULL))
            abort();
        pthread_join(id, NULL);
    }
    truth_note("thread_exit", "thread_outer", n);
    truth_note("thread_exit", "thread_inner", n);
}

static void each(uint64_t n, uint64_t (*function)(uint64_t)) {
    for (uint64_t i = 0; i < n; i++)
        sink += function(i);
}

static void indirect(uint64_t n) {
    each(n, register_from);
    for (uint64_t i = 0; i < n; i++)
        sink += memory_from(i, i % 2);
    if (OPTIMISED) {
        truth_note("tailcall", "register_from", n);
        truth_note("tailcall", "memory_from", n);
    }
}

static void longjmps(uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        sink += (uint64_t)jump_catcher(i);
    truth_note("unwind", "jump_middle", n);
    truth_note("unwind", "jump_deep", n);
}

static void loops(uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        volatile uint64_t rounds = i % 16 + 1;
        loop_head(&rounds);
    }
}

int main(int argc, char **argv) {
    struct options options = truth_start(argc, argv, FUNCTION_COUNT);
    const char *mode = options.mode;
    uint64_t n = options.n;
#define OR(standard) (n ? n : (standard))
    if (!strcmp(mode, "calls")) {
        calls(OR(1000000), options.threads);
    } else if (!strcmp(mode, "recurse")) {
        for (uint64_t i = 0; i < OR(100); i++)
            sink += recurse(200);
    } else if (!strcmp(mode, "tail")) {
        each(OR(10000), tail_caller);
        if (OPTIMISED)
            truth_note("tailcall", "tail_from", OR(10000));
    } else if (!strcmp(mode, "cond")) {
        each(OR(10000), cond_caller);
        truth_note("tailcall", "cond_from", OR(10000) / 2);
    } else if (!strcmp(mode, "indirect")) {
        indirect(OR(10000));
    } else if (!strcmp(mode, "switch")) {
        each(OR(10000), switched);
    } else if (!strcmp(mode, "refused")) {
        each(OR(10000), lock_caller);
        counted[COUNT_lock_first] = lock_first_calls;
    } else if (!strcmp(mode, "longjmp")) {
        longjmps(OR(10000));
    } else if (!strcmp(mode, "loop")) {
        loops(OR(10000));
    } else if (!strcmp(mode, "nested")) {
        nested(OR(50));
    } else if (!strcmp(mode, "fork")) {
        fork_mode(OR(2000));
    } else if (!strcmp(mode, "vfork")) {
        for (uint64_t i = 0; i < OR(20); i++)
            vforker();
    } else if (!strcmp(mode, "exec")) {
        exec_outer();
    } else if (!strcmp(mode, "exit")) {
        exit_outer();
    } else if (!strcmp(mode, "thread_exit")) {
        thread_exit_mode(OR(100));
    } else {
        fprintf(stderr, "usage: counts calls|recurse|tail|cond|indirect|switch|refused|longjmp|loop|nested|fork|vfork|exec|"
                        "exit|thread_exit [-n N] [-t THREADS] [--wait]\n");
        return 2;
    }
    finish();
    return 0;
}
