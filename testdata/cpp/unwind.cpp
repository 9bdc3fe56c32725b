// Calls that an exception or the end of a thread takes away, and when they ended. Usage: ../c/windows.h.
//
//   throw    catcher → throw_a → throw_b → throw_c throws, catcher catches; throw_b has a destructor to run
//   rethrow  outer → middle, which catches what deep throws and throws it again for outer to catch
//   caller   near_catcher catches what thrower, which it called, throws
//   forced   forced_outer → forced_inner: pthread_exit; the destructor in forced_outer runs, so forced_inner is unwound
//            by then, and forced_outer is when those of std::thread run
#include "../c/windows.h"
#include <stdexcept>
#include <thread>

static volatile uint64_t sink;

namespace ends {

struct Guard {
    ~Guard() { sink = 2; }
};

TRACED void throw_c(uint64_t before) {
    enter("ends::throw_c", before);
    leave_ns = now_ns();
    throw std::runtime_error("c");
}

TRACED void throw_b(uint64_t before) {
    enter("ends::throw_b", before);
    Guard guard;
    throw_c(now_ns());
    sink = 1;
}

TRACED void throw_a(uint64_t before) {
    enter("ends::throw_a", before);
    throw_b(now_ns());
    sink = 1;
}

TRACED void catcher(uint64_t before) {
    enter("ends::catcher", before);
    try {
        throw_a(now_ns());
    } catch (const std::exception &) {
        over(3, "unwind");
    }
    leave_ns = now_ns();
}

TRACED void deep(uint64_t before) {
    enter("ends::deep", before);
    leave_ns = now_ns();
    throw 7;
}

TRACED void middle(uint64_t before) {
    enter("ends::middle", before);
    try {
        deep(now_ns());
    } catch (int) {
        over(1, "unwind");
        leave_ns = now_ns();
        throw;
    }
}

TRACED void outer(uint64_t before) {
    enter("ends::outer", before);
    try {
        middle(now_ns());
    } catch (...) {
        over(1, "unwind");
    }
    leave_ns = now_ns();
}

TRACED void thrower(uint64_t before) {
    enter("ends::thrower", before);
    leave_ns = now_ns();
    throw std::string("near");
}

TRACED void near_catcher(uint64_t before) {
    enter("ends::near_catcher", before);
    try {
        thrower(now_ns());
    } catch (const std::string &) {
        over(1, "unwind");
    }
    leave_ns = now_ns();
}

TRACED void forced_inner(uint64_t before) {
    enter("ends::forced_inner", before);
    leave_ns = now_ns();
    pthread_exit(nullptr);
}

TRACED void forced_outer(uint64_t before) {
    enter("ends::forced_outer", before);
    Guard guard;
    forced_inner(now_ns());
    sink = 1;
}

} // namespace ends

int main(int argc, char **argv) {
    if (argc != 4)
        return 2;
    std::string kind = argv[1];
    uint64_t n = strtoull(argv[2], nullptr, 0);
    windows_start(n * 4);
    for (uint64_t i = 0; i < n; i++) {
        if (kind == "forced") {
            std::thread([] { ends::forced_outer(now_ns()); }).join();
            over(2, "unwind");
            continue;
        }
        (kind == "throw" ? ends::catcher : kind == "rethrow" ? ends::outer : ends::near_catcher)(now_ns());
        over(1, "return");
    }
    windows_write(argv[3]);
    return 0;
}
