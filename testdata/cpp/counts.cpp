// Counts its own calls. Usage and the form of the last line: ../c/truth.h.
//
// A correct trace of `counts MODE` shows exactly the counts of that line, and:
//   calls      4 threads, shop::Store::put → shop::twice (two instances, one name) for every fourth call
//   recurse    shop::recurse nested 200 deep
//   exception  shop::throws and shop::between end as unwound, shop::catches returns; shop::Guard's constructor and
//              destructor return (the destructor runs while the exception unwinds shop::between)
//   objects    constructors and destructors: one call for each object, though C1/C2 and D1/D2 share addresses
//   virtual    shop::Proxy::area tail-calls through the vtable (jmp *off(%rax)) and is followed by its sibling
//              shop::Square::area or shop::Disc::area
//   tail       shop::tail_from ends at its jmp, shop::tail_to is its sibling
//   nested     the durations of shop::nested_a and shop::nested_b nest in shop::nested_parent's
//   exit       shop::exits_outer and shop::exits_inner end as exit; exit status 3
#include "../c/truth.h"
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#define FUNCTIONS(F)                                                                                                   \
    F(put, "shop::Store::put")                                                                                         \
    F(twice, "shop::twice")                                                                                            \
    F(recurse, "shop::recurse")                                                                                        \
    F(catches, "shop::catches")                                                                                        \
    F(between, "shop::between")                                                                                        \
    F(throws, "shop::throws")                                                                                          \
    F(guard, "shop::Guard::Guard")                                                                                     \
    F(unguard, "shop::Guard::~Guard")                                                                                  \
    F(proxy_area, "shop::Proxy::area")                                                                                 \
    F(square_area, "shop::Square::area")                                                                               \
    F(disc_area, "shop::Disc::area")                                                                                   \
    F(tail_from, "shop::tail_from")                                                                                    \
    F(tail_to, "shop::tail_to")                                                                                        \
    F(nested_parent, "shop::nested_parent")                                                                            \
    F(nested_a, "shop::nested_a")                                                                                      \
    F(nested_b, "shop::nested_b")                                                                                      \
    F(exits_outer, "shop::exits_outer")                                                                                \
    F(exits_inner, "shop::exits_inner")
#define ENUM(id, name) COUNT_##id,
#define NAME(id, name) name,
enum { FUNCTIONS(ENUM) FUNCTION_COUNT };
static const char *const names[] = {FUNCTIONS(NAME)};
#define HERE(name) COUNT(COUNT_##name)

static volatile uint64_t sink;

namespace shop {

template <typename T> TRACED T twice(T x) {
    HERE(twice);
    return x + x;
}

class Store {
  public:
    TRACED uint64_t put(uint64_t key);
};

TRACED uint64_t Store::put(uint64_t key) {
    HERE(put);
    if (key % 8 == 0)
        return twice<uint64_t>(key) + 1;
    if (key % 8 == 4)
        return static_cast<uint64_t>(twice<double>(static_cast<double>(key))) + 1;
    return key ^ 0x55;
}

TRACED uint64_t recurse(uint64_t depth) {
    HERE(recurse);
    if (depth <= 1)
        return 1;
    uint64_t below = recurse(depth - 1);
    sink = below; // a write that must come after the call: else gcc makes a loop of it
    return below + 1;
}

struct Guard {
    uint64_t id;
    TRACED explicit Guard(uint64_t id);
    TRACED ~Guard();
};

TRACED Guard::Guard(uint64_t id) : id(id) { HERE(guard); }

TRACED Guard::~Guard() {
    HERE(unguard);
    sink = id;
}

TRACED void throws(uint64_t x) {
    HERE(throws);
    throw std::runtime_error(std::to_string(x));
}

TRACED void between(uint64_t x) {
    HERE(between);
    Guard guard(x);
    throws(x);
    sink = x;
}

TRACED bool catches(uint64_t x) {
    HERE(catches);
    try {
        between(x);
    } catch (const std::exception &e) {
        return std::to_string(x) == e.what();
    }
    return false;
}

struct Shape {
    virtual uint64_t area(uint64_t x) const = 0;
    virtual ~Shape() = default;
};

struct Square : Shape {
    TRACED uint64_t area(uint64_t x) const override {
        HERE(square_area);
        return x * x;
    }
};

struct Disc : Shape {
    TRACED uint64_t area(uint64_t x) const override {
        HERE(disc_area);
        return x * x * 3;
    }
};

struct Proxy : Shape {
    const Shape *to;
    explicit Proxy(const Shape *to) : to(to) {}
    TRACED uint64_t area(uint64_t x) const override {
        HERE(proxy_area);
        return to->area(x + 1);
    }
};

TRACED uint64_t tail_to(uint64_t x) {
    HERE(tail_to);
    return x * 7;
}

TRACED uint64_t tail_from(uint64_t x) {
    HERE(tail_from);
    return tail_to(x + 1);
}

TRACED void nested_a() {
    HERE(nested_a);
    spin_ns(300000);
}

TRACED void nested_b() {
    HERE(nested_b);
    usleep(500);
    sink = 1; // no tail call to usleep
}

static uint64_t spent[3];

static void timed(int which, void (*child)()) {
    uint64_t start = now_ns();
    child();
    spent[which] += now_ns() - start;
}

TRACED void nested_parent() {
    HERE(nested_parent);
    timed(0, nested_a);
    timed(1, nested_b);
    sink = 1; // no tail call to timed
}

TRACED void exits_inner() {
    HERE(exits_inner);
    truth_note("exit", "shop::exits_outer", 1);
    truth_note("exit", "shop::exits_inner", 1);
    truth_print(names, FUNCTION_COUNT);
    exit(3);
}

TRACED void exits_outer() {
    HERE(exits_outer);
    exits_inner();
    sink = 1;
}

} // namespace shop

static void calls(uint64_t n, uint64_t threads) {
    std::vector<std::thread> running;
    for (uint64_t i = 0; i < threads; i++)
        running.emplace_back([n, threads] {
            shop::Store store;
            uint64_t sum = 0;
            for (uint64_t i = 0; i < n / threads; i++)
                sum += store.put(i);
            sink = sum;
        });
    for (auto &thread : running)
        thread.join();
}

static void exceptions(uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        if (!shop::catches(i))
            abort();
    truth_note("unwind", "shop::between", n);
    truth_note("unwind", "shop::throws", n);
}

static void objects(uint64_t n) {
    for (uint64_t i = 0; i < n; i++) {
        shop::Guard here(i);
        auto there = std::make_unique<shop::Guard>(i);
    }
}

static void virtuals(uint64_t n) {
    shop::Square square;
    shop::Disc disc;
    shop::Proxy proxies[] = {shop::Proxy(&square), shop::Proxy(&disc)};
    for (uint64_t i = 0; i < n; i++) {
        const shop::Shape *volatile shape = &proxies[i % 2];
        sink += shape->area(i);
    }
    if (OPTIMISED)
        truth_note("tailcall", "shop::Proxy::area", n);
}

static void nested(uint64_t n) {
    for (uint64_t i = 0; i < n; i++)
        shop::timed(2, shop::nested_parent);
    truth_note("ns", "shop::nested_a", shop::spent[0]);
    truth_note("ns", "shop::nested_b", shop::spent[1]);
    truth_note("ns", "shop::nested_parent", shop::spent[2]);
}

int main(int argc, char **argv) {
    struct options options = truth_start(argc, argv, FUNCTION_COUNT);
    std::string mode = options.mode;
    auto n = [&](uint64_t standard) { return options.n ? options.n : standard; };
    if (mode == "calls") {
        calls(n(1000000), options.threads ? options.threads : 4);
    } else if (mode == "recurse") {
        for (uint64_t i = 0; i < n(100); i++)
            sink += shop::recurse(200);
    } else if (mode == "exception") {
        exceptions(n(10000));
    } else if (mode == "objects") {
        objects(n(10000));
    } else if (mode == "virtual") {
        virtuals(n(10000));
    } else if (mode == "tail") {
        for (uint64_t i = 0; i < n(10000); i++)
            sink += shop::tail_from(i);
        if (OPTIMISED)
            truth_note("tailcall", "shop::tail_from", n(10000));
    } else if (mode == "nested") {
        nested(n(50));
    } else if (mode == "exit") {
        shop::exits_outer();
    } else {
        fprintf(stderr, "usage: counts calls|recurse|exception|objects|virtual|tail|nested|exit [-n N] [-t THREADS] "
                        "[--wait]\n");
        return 2;
    }
    truth_print(names, FUNCTION_COUNT);
    return 0;
}
