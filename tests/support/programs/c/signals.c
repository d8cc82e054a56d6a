/* work() is called by the program and, at any point of that, by the handler of a signal that comes every 300 µs, until there
 * were --calls of the one and --handled of the other.
 */
#include "truth.h"
#include <signal.h>
#include <sys/time.h>

static volatile int64_t entered, returned, handled, wrong;

PROBED int work(int x)
{
    int sum = 0;
    for (int i = 0; i < 200; i++) {
        sum += i * x;
        __asm__ volatile("" : "+r"(sum));
    }
    return sum;
}

static void handle(int number)
{
    (void)number;
    __atomic_fetch_add(&entered, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&wrong, work(2) != 39800, __ATOMIC_RELAXED);
    __atomic_fetch_add(&returned, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&handled, 1, __ATOMIC_RELAXED);
}

int main(int argc, char **argv)
{
    int64_t calls = option(argc, argv, "calls", 20000), enough = option(argc, argv, "handled", 300);
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};
    sigaction(SIGALRM, &action, NULL);
    await_start();
    struct itimerval every = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
    setitimer(ITIMER_REAL, &every, NULL);
    for (int64_t i = 0; i < calls || handled < enough; i++) {
        __atomic_fetch_add(&entered, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&wrong, work(1) != 19900, __ATOMIC_RELAXED);
        __atomic_fetch_add(&returned, 1, __ATOMIC_RELAXED);
    }
    setitimer(ITIMER_REAL, &never, NULL);
    report("{\"calls\":%ld,\"returned\":%ld,\"handled\":%ld,\"wrong\":%ld}", (long)entered, (long)returned, (long)handled, (long)wrong);
    return finish(argc, argv);
}
