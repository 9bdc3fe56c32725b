#include <cstddef>
#include <cstdlib>
#include <map>
#include <new>
#include <ostream>
#include <sstream>
#include <string>
#include <vector>
#define NOINLINE __attribute__((noinline))
namespace shop {
struct Base { virtual ~Base() {} virtual int price(int n) const { return n; } };
struct Other { virtual ~Other() {} virtual int weight() { return 1; } };
struct Order : Base, virtual Other {
    explicit Order(int n) : n(n) {}
    explicit Order(std::string s) : n(s.size()) {}
    ~Order() override { n = 0; }
    int price(int m) const override { return n * m; }
    int weight() override { return n; }
    int operator()(int k) { return k + n; }
    bool operator<(Order const &o) const { return n < o.n; }
    bool operator==(Order const &o) const { return n == o.n; }
    Order *operator->() { return this; }
    int &operator[](int) { return n; }
    operator int() const { return n; }
    operator std::string() const { return std::to_string(n); }
    Order &operator+=(int m) { n += m; return *this; }
    void *operator new(std::size_t size) { return std::malloc(size); }
    void operator delete(void *p) { std::free(p); }
    void *operator new[](std::size_t size) { return std::malloc(size); }
    void operator delete[](void *p) { std::free(p); }
    std::string label(std::string const &prefix) const { return prefix + std::to_string(n); }
    static int count(std::vector<std::string> const &v) { return v.size(); }
    int n;
};
std::ostream &operator<<(std::ostream &s, Order const &o) { return s << o.n; }
long long operator""_kg(unsigned long long n) { return n * 1000; }
template <typename T> struct Stack { std::vector<T> items; void push(T t) { items.push_back(t); } };
template <typename T, int N> T scale(T t) { return t * N; }
int over(int a) { return a; }
int over(int a, char const *) { return a + 1; }
[[gnu::abi_tag("v2")]] int tagged() { return 2; }
struct [[gnu::abi_tag("box")]] Box { int open() { return 1; } };
inline namespace v1 { int versioned() { return 3; } }
int each(int (*f)(int)) { return f(1); }
}
namespace { int hidden(int x) { return x + 1; } struct Secret { int tell() { return 5; } }; }
static int twin(int x) { return x + 2; }
extern "C" int plain(int x) { return x; }
int main(int argc, char **argv) {
    shop::Order o(argc), *p = new shop::Order(std::string(argv[0]));
    shop::Order *many = static_cast<shop::Order *>(shop::Order::operator new[](1));
    shop::Order::operator delete[](many);
    shop::Stack<int> s; s.push(o(1));
    shop::Stack<std::string> t; t.push(o.label("x"));
    std::map<std::string, std::vector<int>> m; m["a"].push_back(1);
    auto f = [&](int x) { return x + o.n; };
    std::ostringstream out; out << o << (o < *p) << (o == *p) << std::string(o) << int(o);
    std::string text = out.str(); text.append("x");
    o += 2; o[1] = o->n;
    shop::Other *other = &o;
    int n = shop::scale<int, 3>(1) + shop::scale<long, 2>(1) + shop::over(1) + shop::over(1, "") + hidden(f(2))
        + plain(1) + shop::tagged() + shop::Box().open() + shop::versioned() + Secret().tell() + twin(1) + shop::each(twin)
        + o.price(1) + other->weight() + s.items.size() + text.size() + shop::Order::count(t.items)
        + int(shop::operator""_kg(2)) + shop::each([](int x) { return x; });
    delete p;
    return n;
}
