// Knows its own stack: functions with frames of every shape call each other at random, down to `target`, which is traced
// and notes who called it. Compiles as C and as C++.
//
//   chain MODE [-n SAMPLES] [-s SEED]
//
//   main      on the first thread
//   thread    on a second one
//   signal    some of the steps are a signal's handler
//   altstack  the same, on an alternate stack
//   qsort     some of the steps lie beyond the C library's qsort
//   jit       some of the steps are code made at run time, of which /tmp/perf-PID.map tells
//   jitdump   the same, of which /tmp/jit-PID.dump tells; it is made anew all along, in memory of its own and in that of a
//             file, and sometimes moved; line N of /made/up.js is what was made as the Nth
//   dlopen    some of the steps lie in libstep.so (found beside the program), which is loaded and unloaded all along
//
// stdout: one line for each call of `target`, its callers from the innermost on, up to `main` or `on_thread`. What lies
// between them in libraries (the C library's, a signal's trampoline) is left out.
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <alloca.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

// No inlining, no clones (gcc), no knowledge about the body in callers.
#ifdef __clang__
#define WHOLE __attribute__((noinline))
#else
#define WHOLE __attribute__((noipa))
#endif
#define STEP WHOLE uint64_t

#ifdef __cplusplus
extern "C" {
#endif

#define STEPS(F) F(plain) F(large) F(variable) F(aligned) F(both) F(many) F(saved) F(handled) F(sorted) F(loaded) F(translated)
#define OUTER(F) F(main) F(on_thread) F(on_signal) F(compare) F(library_step) F(generated)
#define ENUM(name) IS_##name,
#define NAME(name) #name,
enum { STEPS(ENUM) STEP_COUNT, BEFORE_OUTER = STEP_COUNT - 1, OUTER(ENUM) NAME_COUNT };
static const char *const names[] = {STEPS(NAME) OUTER(NAME)};

enum { DEEPEST = 64 };
static __thread volatile unsigned char shadow[DEEPEST];
static __thread volatile int depth;

#define ENTER(name) (shadow[depth] = IS_##name, depth = depth + 1)
#define LEAVE() (depth = depth - 1)

static enum mode { MAIN, THREAD, SIGNAL, ALTSTACK, QSORT, JIT, JITDUMP, DLOPEN } mode;
static volatile uint64_t sink;

STEP target(uint64_t code) {
    for (int i = depth; i-- > 0;) {
        fputs(names[shadow[i]], stdout);
        putchar(i ? ' ' : '\n');
    }
    return code * 3;
}

// The next step: `code` says which, `left` how many are left.
static uint64_t next(uint64_t code, int left);

STEP plain(uint64_t code, int left) {
    ENTER(plain);
    uint64_t below = next(code, left);
    LEAVE();
    return below + 1;
}

STEP large(uint64_t code, int left) {
    ENTER(large);
    volatile unsigned char room[700];
    room[code % sizeof room] = (unsigned char)code;
    uint64_t below = next(code, left) + room[code % sizeof room];
    LEAVE();
    return below;
}

STEP variable(uint64_t code, int left) {
    ENTER(variable);
    size_t bytes = code % 300 + 1;
    volatile unsigned char *room = (volatile unsigned char *)alloca(bytes);
    room[bytes - 1] = (unsigned char)code;
    uint64_t below = next(code, left) + room[bytes - 1];
    LEAVE();
    return below;
}

STEP aligned(uint64_t code, int left) {
    ENTER(aligned);
    __attribute__((aligned(64))) volatile uint64_t room[8];
    room[code % 8] = code;
    uint64_t below = next(code, left) + room[code % 8];
    LEAVE();
    return below;
}

// Its frame is found through an expression: the stack is realigned, and grows by what is not known at first.
STEP both(uint64_t code, int left) {
    ENTER(both);
    __attribute__((aligned(64))) volatile uint64_t room[8];
    size_t bytes = code % 200 + 1;
    volatile unsigned char *more = (volatile unsigned char *)alloca(bytes);
    room[code % 8] = code;
    more[bytes - 1] = (unsigned char)code;
    uint64_t below = next(code, left) + room[code % 8] + more[bytes - 1];
    LEAVE();
    return below;
}

STEP on_stack(uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h, uint64_t code,
              int left) {
    uint64_t below = next(code, left);
    return below + a + b + c + d + e + f + g + h;
}

STEP many(uint64_t code, int left) {
    ENTER(many);
    uint64_t below = on_stack(code, 1, 2, 3, 4, 5, 6, 7, code, left) + code;
    LEAVE();
    return below;
}

STEP saved(uint64_t code, int left) {
    ENTER(saved);
    uint64_t a = code * 3, b = code ^ 5, c = code + 7, d = code >> 3, e = code * code, f = ~code;
    uint64_t below = next(code, left);
    below += a ^ b ^ c ^ d ^ e ^ f;
    LEAVE();
    return below + a * b + c * d + e * f;
}

// raise is taken for a function that calls none of these.
static __thread volatile uint64_t handed_code, handed_result;
static __thread volatile int handed_left;

STEP continue_handed(void) { return next(handed_code, handed_left); }

WHOLE void on_signal(int number) {
    ENTER(on_signal);
    handed_result = continue_handed() + (uint64_t)number;
    LEAVE();
}

// A signal's frame has all of the processor's registers, up to 11 KiB: more than two would not fit a copy.
static __thread volatile int signals;

STEP handled(uint64_t code, int left) {
    ENTER(handled);
    uint64_t below;
    if ((mode == SIGNAL || mode == ALTSTACK) && signals < 2) {
        handed_code = code;
        handed_left = left;
        signals = signals + 1;
        raise(SIGUSR1);
        signals = signals - 1;
        below = handed_result;
    } else {
        below = next(code, left);
    }
    LEAVE();
    return below + 3;
}

static __thread int compared;

WHOLE int compare(const void *a, const void *b) {
    int result = *(const int *)a - *(const int *)b;
    if (compared++ == 0) {
        ENTER(compare);
        handed_result = continue_handed();
        LEAVE();
    }
    return result;
}

STEP sorted(uint64_t code, int left) {
    ENTER(sorted);
    uint64_t below;
    if (mode == QSORT) {
        int values[] = {5, 3, 8, 1};
        compared = 0;
        handed_code = code;
        handed_left = left;
        qsort(values, 4, sizeof *values, compare);
        below = handed_result + (uint64_t)values[code % 4];
    } else {
        below = next(code, left);
    }
    LEAVE();
    return below;
}

// What libstep.so calls.
static uint64_t from_library(uint64_t code, int left) {
    ENTER(library_step);
    uint64_t below = next(code, left);
    LEAVE();
    return below + 2;
}

// What the generated code calls.
static uint64_t from_generated(uint64_t code, int left) {
    ENTER(generated);
    uint64_t below = next(code, left);
    LEAVE();
    return below + 4;
}

static uint64_t (*generated)(uint64_t (*)(uint64_t, int), uint64_t, int);

// push %rbp; mov %rsp,%rbp; mov %rdi,%rax; mov %rsi,%rdi; mov %edx,%esi; call *%rax; pop %rbp; ret
static const unsigned char code[] = {0x55, 0x48, 0x89, 0xe5, 0x48, 0x89, 0xf8, 0x48, 0x89,
                                     0xf7, 0x89, 0xd6, 0xff, 0xd0, 0x5d, 0xc3};

static void generate(void) {
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (page == MAP_FAILED)
        abort();
    memcpy(page, code, sizeof code);
    if (mprotect(page, 4096, PROT_READ | PROT_EXEC))
        abort();
    *(void **)&generated = page;
    char path[64];
    snprintf(path, sizeof path, "/tmp/perf-%d.map", (int)getpid());
    FILE *map = fopen(path, "w");
    if (!map)
        abort();
    fprintf(map, "%lx %zx generated\n", (unsigned long)page, sizeof code);
    fclose(map);
}

// tools/perf/Documentation/jitdump-specification.txt in Linux's source.
static int dump = -1;

static void dump_write(const void *bytes, size_t length) {
    if (write(dump, bytes, length) != (ssize_t)length)
        abort();
}

static void dump_record(uint32_t id, const void *fields, size_t bytes, const char *name, const void *made, size_t made_bytes) {
    size_t name_bytes = name ? strlen(name) + 1 : 0;
    uint32_t prefix[4] = {id, (uint32_t)(sizeof prefix + bytes + name_bytes + made_bytes), 0, 0};
    dump_write(prefix, sizeof prefix);
    dump_write(fields, bytes);
    dump_write(name, name_bytes);
    dump_write(made, made_bytes);
}

static void begin_dump(void) {
    char path[64];
    snprintf(path, sizeof path, "/tmp/jit-%d.dump", (int)getpid());
    dump = open(path, O_CREAT | O_TRUNC | O_RDWR, 0600);
    uint32_t head[10] = {0x4A695444, 1, sizeof head, 62, 0, (uint32_t)getpid(), 0, 0, 0, 0};
    dump_write(head, sizeof head);
    // What a tracer finds the file by.
    if (mmap(NULL, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE, dump, 0) == MAP_FAILED)
        abort();
}

// A page with the code, in a file of its own or not.
static void *make_page(int in_file) {
    int file = -1;
    if (in_file) {
        file = memfd_create("code", 0);
        if (ftruncate(file, 4096) || pwrite(file, code, sizeof code, 0) != sizeof code)
            abort();
    }
    int flags = in_file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
    void *page = mmap(NULL, 4096, in_file ? PROT_READ : PROT_READ | PROT_WRITE, flags, file, 0);
    if (page == MAP_FAILED)
        abort();
    if (in_file)
        close(file);
    else
        memcpy(page, code, sizeof code);
    if (mprotect(page, 4096, PROT_READ | PROT_EXEC))
        abort();
    return page;
}

static void generate_anew(void) {
    static uint32_t made;
    void *page = make_page(made % 2);
    uint64_t at = (uint64_t)page, ids = (uint64_t)getpid() << 32 | (uint64_t)getpid();
    if (made % 5 == 4) {
        uint64_t moved[] = {ids, at, (uint64_t)generated, at, sizeof code, made};
        dump_record(1, moved, sizeof moved, NULL, NULL, 0);
    } else {
        struct {
            uint64_t at, entries, first;
            uint32_t line, discriminator;
        } lines = {at, 1, at, made + 1, 0};
        dump_record(2, &lines, sizeof lines, "/made/up.js", NULL, 0);
        uint64_t loaded[] = {ids, at, at, sizeof code, made};
        dump_record(0, loaded, sizeof loaded, "generated", code, sizeof code);
    }
    made++;
    *(void **)&generated = page;
}

STEP translated(uint64_t code, int left) {
    ENTER(translated);
    // What is below may be made anew, and the old is still run.
    static uint64_t calls;
    if (mode == JITDUMP && calls++ % 5 == 0)
        generate_anew();
    uint64_t below = mode == JIT || mode == JITDUMP ? generated(from_generated, code, left) : next(code, left);
    LEAVE();
    return below * 3;
}

static char library[4096];

STEP loaded(uint64_t code, int left) {
    ENTER(loaded);
    uint64_t below;
    if (mode == DLOPEN) {
        void *handle = dlopen(library, RTLD_NOW);
        uint64_t (*step)(uint64_t (*)(uint64_t, int), uint64_t, int) = NULL;
        *(void **)&step = handle ? dlsym(handle, "library_step") : NULL;
        if (!step)
            abort();
        below = step(from_library, code, left);
        dlclose(handle);
    } else {
        below = next(code, left);
    }
    LEAVE();
    return below;
}

static uint64_t next(uint64_t code, int left) {
#define STEP_OF(name) name,
    static uint64_t (*const steps[])(uint64_t, int) = {STEPS(STEP_OF)};
    return left ? steps[code % STEP_COUNT](code / STEP_COUNT, left - 1) : target(code);
}

static uint64_t state, samples = 1000;

static void run(void) {
    for (uint64_t i = 0; i < samples; i++) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        sink = next(state, (int)(state >> 60) % 12);
    }
}

STEP on_thread_body(void) {
    ENTER(on_thread);
    run();
    LEAVE();
    return 1;
}

WHOLE void *on_thread(void *unused) {
    sink = on_thread_body();
    return unused;
}

static void handle_signals(int flags) {
    // Handlers interrupt each other: every one of them is below the one before on the alternate stack.
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    action.sa_flags = SA_NODEFER | flags;
    stack_t alternate;
    memset(&alternate, 0, sizeof alternate);
    alternate.ss_size = 1 << 18;
    alternate.ss_sp = malloc(alternate.ss_size);
    if (sigaction(SIGUSR1, &action, NULL) || sigaltstack(&alternate, NULL))
        abort();
}

int main(int argc, char **argv) {
    static const char *const modes[] = {"main", "thread", "signal", "altstack", "qsort", "jit", "jitdump", "dlopen"};
    enum { MODES = sizeof modes / sizeof *modes };
    unsigned which = 0;
    while (which < MODES && (argc < 2 || strcmp(argv[1], modes[which])))
        which++;
    if (which == MODES) {
        fprintf(stderr, "usage: chain main|thread|signal|altstack|qsort|jit|jitdump|dlopen [-n SAMPLES] [-s SEED]\n");
        return 2;
    }
    mode = (enum mode)which;
    state = 88172645463325252u;
    for (int i = 2; i + 1 < argc; i += 2)
        *(strcmp(argv[i], "-n") ? &state : &samples) = strtoull(argv[i + 1], NULL, 0);
    const char *slash = strrchr(argv[0], '/');
    snprintf(library, sizeof library, "%.*slibstep.so", slash ? (int)(slash - argv[0]) + 1 : 0, argv[0]);
    if (mode == SIGNAL || mode == ALTSTACK)
        handle_signals(mode == ALTSTACK ? SA_ONSTACK : 0);
    if (mode == JIT)
        generate();
    if (mode == JITDUMP)
        begin_dump();
    if (mode == THREAD) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, on_thread, NULL))
            abort();
        pthread_join(thread, NULL);
    } else {
        ENTER(main);
        run();
        LEAVE();
    }
    return 0;
}

#ifdef __cplusplus
}
#endif
