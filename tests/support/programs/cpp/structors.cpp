/* Constructors, destructors and virtual functions of classes with several bases, for which compilers make several symbols and
 * let them call, jump or fall into each other; functions that are overloaded, and templates with several instances. Each
 * function counts its own calls and returns; --rounds N says how often everything is done, in a thread that has ended when the
 * counters are printed.
 */
#include "../c/truth.h"

#include <atomic>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#define WHOLE __attribute__((noinline))

struct Count {
    std::atomic<long> entered{0}, returned{0};
};

enum Id { makes, unmakes, joins, unjoins, tops, untops, seconds, selves, pushes, stringpushes, ints, texts, converts, shifts, casts, tinies, ids };
static const char *const names[] = {"makes", "unmakes", "joins", "unjoins", "tops", "untops", "seconds", "selves",
                                    "pushes", "stringpushes", "ints", "texts", "converts", "shifts", "casts", "tinies"};
static Count counts[ids];
static std::atomic<long> checksum{0};

/* Counts a call of the function that it is declared in, which must not be left by an exception after returns(). */
struct Call {
    Id id;
    explicit Call(Id which) : id(which) { counts[id].entered++; }
    void returns(long value = 1) const { checksum += value, counts[id].returned++; }
};

struct First {
    long one = 1;
    virtual ~First() { checksum++; }
    virtual First *self() { return this; }
};

struct Second {
    long two = 2;
    virtual ~Second() { checksum++; }
    virtual long second(long x) { return x; }
    virtual Second *self2() { return this; }
};

/* Deleted and called through its second base: thunks. Returns another pointer than its base would: covariant thunks. */
struct Both : First, Second {
    std::string text;
    WHOLE explicit Both(const std::string &t) : text(t)
    {
        Call call(makes);
        if (t.empty())
            throw 1;
        call.returns();
    }
    WHOLE ~Both() override
    {
        Call call(unmakes);
        call.returns(static_cast<long>(text.size()));
    }
    WHOLE long second(long x) override
    {
        Call call(seconds);
        call.returns(x);
        return x + one;
    }
    WHOLE Both *self2() override
    {
        Call call(selves);
        call.returns();
        return this;
    }
    WHOLE operator std::string() const
    {
        Call call(casts);
        call.returns();
        return text;
    }
};

/* So small that compilers give the deleting destructor and the thunks the whole body. */
struct Tiny : First, Second {
    ~Tiny() override;
};
Tiny::~Tiny()
{
    counts[tinies].entered++;
    counts[tinies].returned++;
}
WHOLE First *tiny_first() { return new Tiny; }
WHOLE Second *tiny_second() { return new Tiny; }

/* A virtual base makes the complete object's constructor another one than that of a base object. */
struct Joined : virtual First {
    std::unique_ptr<Joined> next;
    long three = 3;
    WHOLE explicit Joined(long depth)
    {
        Call call(joins);
        if (depth == 13)
            throw 13;
        if (depth > 0)
            next = std::make_unique<Joined>(depth - 1);
        call.returns();
    }
    WHOLE ~Joined() override
    {
        Call call(unjoins);
        call.returns(three);
    }
};

struct Top : Joined, virtual Second {
    WHOLE Top() : Joined(1)
    {
        Call call(tops);
        call.returns();
    }
    WHOLE ~Top() override
    {
        Call call(untops);
        call.returns();
    }
};

namespace shop {
template <class T> struct Stack {
    std::vector<T> values;
    WHOLE void push(const T &value)
    {
        Call call(pushes);
        values.push_back(value);
        call.returns();
    }
};
template <> WHOLE void Stack<std::string>::push(const std::string &value)
{
    Call all(pushes), call(stringpushes);
    values.push_back(value);
    all.returns(), call.returns();
}
template <class To, class From> WHOLE To convert(From from)
{
    Call call(converts);
    call.returns();
    return static_cast<To>(from);
}
WHOLE void over(long x)
{
    Call call(ints);
    call.returns(x);
}
WHOLE void over(const std::string &x)
{
    Call call(texts);
    call.returns(static_cast<long>(x.size()));
}
WHOLE Both &operator<<(Both &both, long x)
{
    Call call(shifts);
    both.one += x;
    call.returns(x);
    return both;
}
} // namespace shop

static void work(long rounds)
{
    using shop::operator<<;
    for (long i = 0; i < rounds; i++) {
        Both local("local");
        First *first = new Both("first");
        Second *second = new Both("second");
        std::vector<Both> copies;
        checksum += second->second(i) + local.second(i) + (second->self2() == second);
        local << i << 1;
        shop::over(static_cast<long>(std::string(local).size()));
        delete first;
        delete second;
        First *top = new Top;
        Second *top2 = new Top;
        Joined *joined = new Joined(2);
        Top here;
        delete tiny_first();
        delete tiny_second();
        delete top;
        delete top2;
        delete joined;
        try {
            Both nothing("");
        } catch (int) {
        }
        try {
            Joined unlucky(14);
        } catch (int) {
        }
        shop::Stack<int> numbers;
        shop::Stack<std::string> words;
        numbers.push(1), numbers.push(2), words.push("x");
        shop::over(i), shop::over(std::string("text"));
        checksum += static_cast<long>(shop::convert<long>(2.0) + shop::convert<double>(3) + shop::convert<long, char>('c'));
    }
}

int main(int argc, char **argv)
{
    await_start();
    std::thread(work, option(argc, argv, "rounds", 200)).join();
    printf("{\"wrong\":0,\"checksum\":%ld,\"timings\":[]", checksum.load());
    for (int id = 0; id < ids; id++)
        printf(",\"%s\":[%ld,%ld]", names[id], counts[id].entered.load(), counts[id].returned.load());
    puts("}");
    fflush(stdout);
    return finish(argc, argv);
}
