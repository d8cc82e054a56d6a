/* Every way in which a C++ function is left: it returns, from a catch block too; an exception passes through it; it is jumped
 * over, its thread ends in it, it goes on in another thread. Each function counts its own calls and returns, by the counters
 * of its name; --rounds N says how often everything is done.
 *
 * All of it happens in threads that have ended when the counters are printed, so that what has not returned never will.
 */
#include "../c/truth.h"

#include <atomic>
#include <coroutine>
#include <csetjmp>
#include <csignal>
#include <cstdlib>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include <alloca.h>
#include <pthread.h>
#include <sys/wait.h>
#include <ucontext.h>

#ifdef __clang__
#define WHOLE __attribute__((noinline))
#define MUSTTAIL [[clang::musttail]]
#else
#define WHOLE __attribute__((noipa))
#define MUSTTAIL
#endif
#define OPAQUE(value) __asm__ volatile("" : "+r"(value) : : "memory")

struct Count {
    std::atomic<long> entered{0}, returned{0};
};

static Count counts[64];
static const char *names[64];
static std::atomic<long> checksum{0}, wrong{0};

enum Id {
    through, catches, rethrows, nests, destroys, unlikely, virtually, measured, areas, musts, switches, variable, aligned, dynamic,
    leaps, leaves, cancels, produces, steps, fibres, terminates, sums, lambdas, pushes, selects, guards, traps, delegates, finals, slows, ids
};

#define ENTER(id) (names[id] = #id, (void)counts[id].entered.fetch_add(1, std::memory_order_relaxed))
#define CALL(id, expression)                                                                                                           \
    do {                                                                                                                               \
        ENTER(id);                                                                                                                     \
        checksum += (expression);                                                                                                      \
        counts[id].returned.fetch_add(1, std::memory_order_relaxed);                                                                   \
    } while (0)

struct Boom {
    long code;
};

/* ---- Exceptions ---- */

struct Guard {
    long value;
    explicit Guard(long v) : value(v) {}
    WHOLE ~Guard();
};

/* Called during unwinding as well as without. */
WHOLE long destroyed(long x)
{
    OPAQUE(x);
    return x + 1;
}

Guard::~Guard()
{
    CALL(destroys, destroyed(value));
}

WHOLE long throws_through(int depth, long x);

WHOLE long throws_through(int depth, long x)
{
    Guard guard(x);
    if (depth == 0) {
        if (x % 4 == 3)
            throw Boom{x};
        return x;
    }
    CALL(through, throws_through(depth - 1, x));
    OPAQUE(x);
    return x;
}

/* Its catch blocks return, each by a way of its own. */
WHOLE long catches_and_returns(long x)
{
    try {
        Guard guard(x);
        if (x % 3 == 0)
            throw Boom{x};
        if (x % 3 == 1)
            throw std::runtime_error("one");
        OPAQUE(x);
    } catch (const Boom &boom) {
        return boom.code * 2;
    } catch (const std::exception &error) {
        return (long)error.what()[0] + x;
    }
    return x;
}

WHOLE long catches_and_throws_on(long x)
{
    try {
        if (x % 2)
            throw Boom{x};
        OPAQUE(x);
        return x;
    } catch (Boom &boom) {
        boom.code++;
        if (x % 4 == 1)
            throw;
        throw std::logic_error(std::to_string(x));
    }
}

/* A catch inside of a catch, with an exception kept and thrown again. */
WHOLE long catches_inside_of_a_catch(long x)
{
    std::exception_ptr kept;
    try {
        throw Boom{x};
    } catch (...) {
        try {
            if (x % 2)
                throw std::out_of_range("inner");
        } catch (const std::out_of_range &) {
            kept = std::current_exception();
        }
        if (x % 3 == 0)
            return x + 5;
    }
    if (kept && x % 5 == 0)
        std::rethrow_exception(kept);
    return kept ? x : x + 1;
}

__attribute__((cold, noinline)) long complains(long x)
{
    OPAQUE(x);
    if (x % 21 == 0)
        throw Boom{x};
    return x;
}

/* The compiler moves what rarely happens away, and the landing pads with it. */
WHOLE long in_a_cold_part(long x)
{
    if (__builtin_expect(x % 7 == 0, 0)) {
        try {
            complains(x);
            if (complains(x + 7) > 3)
                return -x;
        } catch (Boom &boom) {
            return boom.code + complains(1);
        }
    }
    OPAQUE(x);
    return x * 5;
}

/* An exception that has to wait for a static's guard. */
struct Fickle {
    long value;
    explicit Fickle(long x) : value(x)
    {
        if (x % 10 != 9)
            throw Boom{x};
    }
};

WHOLE long guarded_static(long x)
{
    static Fickle fickle(x);
    OPAQUE(x);
    return fickle.value + x;
}

WHOLE long throws_odd(long x)
{
    if (x % 2)
        throw Boom{x};
    return x;
}

struct Timing {
    int64_t inner_ns, outer_ns, waited_ns, wall_from_ns, wall_to_ns;
};

static std::vector<Timing> timings;

/* Takes its time in the catch block, from which it returns. */
WHOLE long slow_catch(int64_t ns, Timing *timing)
{
    int64_t begin = clock_ns(CLOCK_MONOTONIC);
    try {
        throws_odd(ns | 1);
    } catch (const Boom &) {
        sleep_ns(ns);
        timing->wall_from_ns = clock_ns(CLOCK_REALTIME);
        timing->inner_ns = clock_ns(CLOCK_MONOTONIC) - begin;
        return 1;
    }
    return 0;
}

/* ---- Tail calls, tables, thunks ---- */

struct Shape {
    virtual ~Shape() = default;
    virtual long area(long x) const = 0;
};
struct Named {
    virtual ~Named() = default;
    virtual long id(long x) const { return x; }
};
struct Square : Shape, Named {
    long side = 3;
    WHOLE long area(long x) const override;
    WHOLE long id(long x) const override;
};

long Square::area(long x) const
{
    OPAQUE(x);
    return side * x;
}

long Square::id(long x) const
{
    OPAQUE(x);
    return side + x;
}

WHOLE long virtual_tail(const Shape *shape, long x)
{
    return shape->area(x + 1);
}

/* Through the second base, and so through a thunk. */
WHOLE long through_thunk(const Named *named, long x)
{
    return named->id(x);
}

WHOLE long last_of_all(long x, long y)
{
    OPAQUE(x);
    return x * y;
}

WHOLE long must_tail(long x, long y)
{
    if (x % 2) {
        OPAQUE(y);
        return y;
    }
    MUSTTAIL return last_of_all(y, x);
}

WHOLE long switches_and_throws(long x)
{
    long y = x;
    OPAQUE(y);
    switch (x % 11) {
    case 0: throw Boom{y};
    case 1: return y * 3;
    case 2: y ^= 0x55; break;
    case 3: return y + complains(1);
    case 4: y = -y; break;
    case 5: return y << 2;
    case 6: throw std::runtime_error("six");
    case 7: return last_of_all(y, 3);
    case 8: y += 1000; break;
    case 9: return y / 3;
    default: return 1;
    }
    OPAQUE(y);
    return y;
}

/* ---- Frames of unusual shapes ---- */

WHOLE long with_variable_frame(long x)
{
    auto *memory = static_cast<volatile char *>(alloca((size_t)(x % 100) + 1));
    memory[x % 100] = (char)x;
    if (x % 9 == 0)
        throw Boom{x};
    return memory[x % 100] + x;
}

WHOLE long with_aligned_frame(long x)
{
    alignas(64) volatile long memory[16];
    memory[x % 16] = x;
    if (((uintptr_t)memory & 63) != 0)
        wrong++;
    if (x % 9 == 0)
        throw Boom{x};
    return memory[x % 16];
}

/* Both at once, and arguments on the stack besides: found through a register of its own (DRAP). */
WHOLE long with_dynamic_frame(long a, long b, long c, long d, long e, long f, long g, long x)
{
    alignas(64) volatile long aligned[8];
    auto *memory = static_cast<volatile char *>(alloca((size_t)(x % 50) + 1));
    aligned[x % 8] = a + b + c + d + e + f + g;
    memory[x % 50] = (char)x;
    try {
        if (x % 9 == 0)
            throw Boom{x};
    } catch (const Boom &boom) {
        if (boom.code % 2)
            throw;
        return aligned[x % 8];
    }
    return aligned[x % 8] + memory[x % 50];
}

/* ---- Left for good ---- */

static thread_local jmp_buf landing;

WHOLE long leaps_out(int depth, long x);

WHOLE long leaps_out(int depth, long x)
{
    if (depth == 0) {
        if (x % 2)
            longjmp(landing, 1);
        return x;
    }
    CALL(leaps, leaps_out(depth - 1, x));
    OPAQUE(x);
    return x;
}

WHOLE long leaves_thread(long x)
{
    Guard guard(x);
    OPAQUE(x);
    if (x % 2)
        pthread_exit(nullptr);
    return x;
}

static std::atomic<bool> asleep;

WHOLE long is_cancelled(long x)
{
    Guard guard(x);
    if (x % 2) {
        asleep = true;
        for (;;)
            pause();
    }
    OPAQUE(x);
    return x;
}

WHOLE long must_not_throw(long x) noexcept
{
    x = throws_odd(x);
    OPAQUE(x);
    return x;
}

/* ---- Coroutines, resumed in other threads ---- */

struct Task {
    struct promise_type {
        long value = 0;
        Task get_return_object() { return {std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_always initial_suspend() noexcept { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        std::suspend_always yield_value(long v) noexcept
        {
            value = v;
            return {};
        }
        void return_void() {}
        void unhandled_exception() { value = -1; }
    };
    std::coroutine_handle<promise_type> handle;
};

WHOLE long one_step(long x)
{
    Guard guard(x);
    if (x % 6 == 5)
        throw Boom{x};
    OPAQUE(x);
    return x;
}

WHOLE Task produce(long from, long to)
{
    for (long x = from; x < to; x++) {
        ENTER(steps);
        long value = one_step(x);
        counts[steps].returned++;
        co_yield value;
    }
}

/* ---- Fibres: a call begins in one thread and returns in another ---- */

struct Fibre {
    ucontext_t context, back;
    std::vector<char> stack;
    long argument = 0, result = 0;
    bool done = false;
};

static thread_local Fibre *running_fibre;

WHOLE Fibre *current_fibre()
{
    Fibre *fibre = running_fibre;
    OPAQUE(fibre);
    return fibre;
}

WHOLE long on_a_fibre(int depth, long x)
{
    Guard guard(x);
    if (depth > 0)
        CALL(fibres, on_a_fibre(depth - 1, x));
    Fibre *fibre = current_fibre();
    swapcontext(&fibre->context, &fibre->back);
    try {
        if (x % 5 == 4)
            throw Boom{x};
    } catch (const Boom &boom) {
        return boom.code;
    }
    return x + 1;
}

static void fibre_main()
{
    Fibre *fibre = current_fibre();
    CALL(fibres, (fibre->result = on_a_fibre(2, fibre->argument)));
    fibre = current_fibre();
    fibre->done = true;
    setcontext(&fibre->back);
}

static void resume(Fibre *fibre)
{
    running_fibre = fibre;
    swapcontext(&fibre->back, &fibre->context);
}

/* ---- Templates, closures, containers ---- */

template <typename T> WHOLE T sum_of(T x, T y)
{
    OPAQUE(x);
    return x + y;
}

template <typename T> struct Stack {
    std::vector<T> elements;
    WHOLE long push(T x)
    {
        elements.push_back(x);
        if (elements.size() > 50)
            throw std::length_error("full");
        return (long)elements.size();
    }
};

struct Callable {
    long base;
    WHOLE long operator()(long x) const
    {
        OPAQUE(x);
        return base + x;
    }
};

/* ---- Traps that become exceptions (-fnon-call-exceptions) ---- */

#ifdef TRAPS
static void on_fault(int)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGSEGV);
    pthread_sigmask(SIG_UNBLOCK, &set, nullptr);
    throw Boom{1};
}

WHOLE long reads(const long *from, long x)
{
    try {
        x += *from;
    } catch (const Boom &boom) {
        return boom.code;
    }
    OPAQUE(x);
    return x;
}
#endif

/* ---- What the threads do ---- */

template <typename F> static void in_thread(F work)
{
    std::thread([work] {
        try {
            work();
        } catch (...) {
            wrong++;
        }
    }).join();
}

template <typename F> static void caught(F work)
{
    try {
        work();
    } catch (const Boom &boom) {
        checksum += boom.code;
    } catch (const std::exception &error) {
        checksum += (long)error.what()[0];
    }
}

static void exceptions(long rounds)
{
    for (long i = 0; i < rounds; i++) {
        caught([i] { CALL(through, throws_through((int)(i % 6), i)); });
        CALL(catches, catches_and_returns(i));
        caught([i] { CALL(rethrows, catches_and_throws_on(i)); });
        caught([i] { CALL(nests, catches_inside_of_a_catch(i)); });
        caught([i] { CALL(unlikely, in_a_cold_part(i)); });
        caught([i] { CALL(guards, guarded_static(i)); });
    }
}

static void calls(long rounds)
{
    Square square;
    Stack<long> stack;
    Stack<std::string> strings;
    for (long i = 0; i < rounds; i++) {
        ENTER(areas);
        CALL(virtually, virtual_tail(&square, i));
        counts[areas].returned++;
        ENTER(finals);
        CALL(delegates, through_thunk(&square, i));
        counts[finals].returned++;
        CALL(musts, must_tail(i, i + 2));
        caught([i] { CALL(switches, switches_and_throws(i)); });
        caught([i] { CALL(variable, with_variable_frame(i)); });
        caught([i] { CALL(aligned, with_aligned_frame(i)); });
        caught([i] { CALL(dynamic, with_dynamic_frame(i, 1, 2, 3, 4, 5, 6, i)); });
        CALL(sums, sum_of<int>((int)i, 1));
        CALL(sums, sum_of<long>(i, 2));
        CALL(sums, (long)sum_of<double>((double)i, 3));
        caught([i, &stack] { CALL(pushes, stack.push(i)); });
        caught([i, &strings] { CALL(pushes, strings.push(std::to_string(i))); });
        std::function<long(long)> function = Callable{i};
        CALL(lambdas, function(i));
    }
}

static void departures(long rounds)
{
    for (long i = 0; i < rounds; i++) {
        in_thread([i] {
            if (setjmp(landing) == 0)
                CALL(leaps, leaps_out((int)(i % 4), i));
        });
        pthread_t thread;
        pthread_create(&thread, nullptr, [](void *x) -> void * { CALL(leaves, leaves_thread((long)x)); return nullptr; }, (void *)i);
        pthread_join(thread, nullptr);
        if (i % 4 == 0) {
            asleep = false;
            pthread_create(&thread, nullptr, [](void *x) -> void * { CALL(cancels, is_cancelled((long)x)); return nullptr; }, (void *)(i / 4));
            while (i / 4 % 2 && !asleep)
                std::this_thread::yield();
            if (i / 4 % 2)
                pthread_cancel(thread);
            pthread_join(thread, nullptr);
        }
    }
}

static void coroutines(long rounds)
{
    std::vector<Task> tasks;
    for (long i = 0; i < 8; i++) {
        ENTER(produces);
        tasks.push_back(produce(i, i + 1 + rounds / 8));
        counts[produces].returned++;
    }
    std::vector<std::thread> threads;
    /* Each task is resumed by one thread after another, never by two at once. */
    for (int t = 0; t < 4; t++) {
        std::thread([&tasks, t] {
            for (size_t i = 0; i < tasks.size(); i++)
                for (int n = 0; n < 1 + (int)i + t && !tasks[i].handle.done(); n++) {
                    tasks[i].handle.resume();
                    checksum += tasks[i].handle.promise().value;
                }
        }).join();
    }
    for (Task &task : tasks)
        task.handle.destroy();
}

static void on_fibres(long rounds)
{
    std::vector<Fibre> all((size_t)rounds);
    for (long i = 0; i < rounds; i++) {
        Fibre &fibre = all[(size_t)i];
        fibre.stack.resize(64 * 1024);
        fibre.argument = i;
        getcontext(&fibre.context);
        fibre.context.uc_stack.ss_sp = fibre.stack.data();
        fibre.context.uc_stack.ss_size = fibre.stack.size();
        fibre.context.uc_link = nullptr;
        makecontext(&fibre.context, fibre_main, 0);
    }
    /* Every fibre goes on in another thread each time. */
    for (int turn = 0; turn < 8; turn++)
        in_thread([&all] {
            for (Fibre &fibre : all)
                if (!fibre.done)
                    resume(&fibre);
        });
    for (Fibre &fibre : all)
        if (fibre.done)
            checksum += fibre.result;
        else
            wrong++;
}

/* Children that are ended by std::terminate, and say so by their status. */
static void terminations(long children)
{
    for (long i = 0; i < children; i++) {
        pid_t child = fork();
        if (child == 0) {
            if (freopen("/dev/null", "w", stderr) == nullptr)
                _exit(1);
            _exit((int)must_not_throw(i));
        }
        int status = 0;
        waitpid(child, &status, 0);
        ENTER(terminates);
        if (i % 2 == 0)
            counts[terminates].returned++;
        bool right = i % 2 ? WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT : WIFEXITED(status) && WEXITSTATUS(status) == i;
        if (!right)
            wrong++;
    }
}

int main(int argc, char **argv)
{
    long rounds = option(argc, argv, "rounds", 200);
    await_start();
    in_thread([rounds] { exceptions(rounds); });
    in_thread([rounds] { calls(rounds); });
    std::vector<std::thread> several;
    for (int i = 0; i < 3; i++)
        several.emplace_back([rounds] { exceptions(rounds / 4); });
    for (std::thread &thread : several)
        thread.join();
    departures(rounds / 4);
    coroutines(rounds);
    on_fibres(rounds / 2);
    terminations(option(argc, argv, "children", 4));
    for (int64_t i = 0; i < option(argc, argv, "slow", 10); i++) {
        Timing timing = {};
        int64_t waited = waited_ns(), before = clock_ns(CLOCK_MONOTONIC);
        CALL(slows, slow_catch((1 + i * 7 % 10) * 1000000, &timing));
        timing.outer_ns = clock_ns(CLOCK_MONOTONIC) - before;
        timing.wall_to_ns = clock_ns(CLOCK_REALTIME);
        timing.waited_ns = waited_ns() - waited;
        timings.push_back(timing);
    }
#ifdef TRAPS
    struct sigaction action = {};
    action.sa_handler = on_fault;
    sigaction(SIGSEGV, &action, nullptr);
    in_thread([rounds] {
        long value = 7;
        for (long i = 0; i < rounds; i++)
            CALL(traps, reads(i % 3 ? &value : nullptr, i));
    });
#endif
    printf("{\"checksum\":%ld,\"wrong\":%ld", checksum.load(), wrong.load());
    for (int id = 0; id < ids; id++)
        if (names[id] != nullptr)
            printf(",\"%s\":[%ld,%ld]", names[id], counts[id].entered.load(), counts[id].returned.load());
    printf(",\"timings\":[");
    for (size_t i = 0; i < timings.size(); i++)
        printf("%s{\"inner_ns\":%ld,\"outer_ns\":%ld,\"waited_ns\":%ld,\"wall_from_ns\":%ld,\"wall_to_ns\":%ld}", i ? "," : "",
               timings[i].inner_ns, timings[i].outer_ns, timings[i].waited_ns, timings[i].wall_from_ns, timings[i].wall_to_ns);
    report("]}");
    await_line();
    if (option(argc, argv, "terminate", 0))
        must_not_throw(1);
    return (int)option(argc, argv, "exit", 0);
}
