// Coroutines of Boost.Context's library, called as its C++ headers do. Usage and the form of the last line: truth.h.
//
// A correct trace of `fcontext calls` shows exactly the counts of that line: produce, which gives way in its middle, is
// inside of generator; consume is inside of nothing.
#include "truth.h"

// boost/context/detail/fcontext.hpp, 1.74: the library's two functions.
typedef struct {
    void *context, *data;
} transfer;
extern void *make_fcontext(void *end, size_t bytes, void (*run)(transfer));
extern transfer jump_fcontext(void *to, void *data);

#define FUNCTIONS(F) F(generator) F(produce) F(consume)
#include "counted.h"

enum { COROUTINES = 2, STACK_BYTES = 64 << 10 };

static struct coroutine {
    void *self, *resumer;
    uint64_t left, sum;
} coroutines[COROUTINES];

static void give_way(struct coroutine *c) { c->resumer = jump_fcontext(c->resumer, c).context; }

TRACED uint64_t produce(struct coroutine *c) {
    HERE(produce);
    uint64_t before = c->left;
    give_way(c);
    return before + c->left;
}

TRACED void generator(struct coroutine *c) {
    HERE(generator);
    for (; c->left; c->left--)
        c->sum += produce(c);
}

static void run(transfer from) {
    struct coroutine *c = from.data;
    c->resumer = from.context;
    generator(c);
    for (;;)
        give_way(c);
}

TRACED uint64_t consume(struct coroutine *c) {
    HERE(consume);
    return c->sum + 1;
}

int main(int argc, char **argv) {
    struct options options = truth_start(argc, argv, FUNCTION_COUNT);
    if (strcmp(options.mode, "calls")) {
        fprintf(stderr, "usage: fcontext calls [-n N] [--wait]\n");
        return 2;
    }
    volatile uint64_t sum = 0;
    for (int i = 0; i < COROUTINES; i++) {
        char *stack = malloc(STACK_BYTES);
        if (!stack)
            abort();
        coroutines[i].left = (options.n ? options.n : 35000) / COROUTINES;
        coroutines[i].self = make_fcontext(stack + STACK_BYTES, STACK_BYTES, run);
    }
    for (int left = 1; left;) {
        left = 0;
        for (int i = 0; i < COROUTINES; i++) {
            coroutines[i].self = jump_fcontext(coroutines[i].self, &coroutines[i]).context;
            sum += consume(&coroutines[i]);
            left |= coroutines[i].left != 0;
        }
    }
    truth_print(names, FUNCTION_COUNT);
    return 0;
}
