/* Calls work() --rate times a second from the start line until the next line, whatever happens meanwhile: what was missed while
 * it was stopped is made up for. --threads share the rate.
 *
 * Its counters live in a shared file (TRUTH_COUNTERS), so that they can be read at any time and survive kill -9: calls counted
 * before each call, returned counted after it, the CLOCK_BOOTTIME of the first call.
 */
#include "truth.h"
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>

struct counters {
    int64_t calls, returned, wrong, first_ns;
};
static struct counters *counters;
static volatile int ended;
static int64_t rate, threads;

PROBED int work(int x)
{
    return (int)((unsigned)x * 0x00c3c3c3u ^ 0xc3c3c3c3u);
}

static struct counters *map_counters(void)
{
    const char *path = getenv("TRUTH_COUNTERS");
    int fd = path ? open(path, O_RDWR | O_CREAT, 0600) : -1;
    if (fd >= 0 && ftruncate(fd, sizeof(struct counters)) != 0)
        abort();
    void *memory = mmap(NULL, sizeof(struct counters), PROT_READ | PROT_WRITE, fd >= 0 ? MAP_SHARED : MAP_SHARED | MAP_ANONYMOUS, fd, 0);
    if (memory == MAP_FAILED)
        abort();
    return memory;
}

static void *call(void *unused)
{
    int64_t begin = clock_ns(CLOCK_MONOTONIC);
    for (int64_t tick = 1, calls = 0; !ended; tick++) {
        for (; calls < tick * rate / 1000 / threads; calls++) {
            __atomic_fetch_add(&counters->calls, 1, __ATOMIC_RELAXED);
            if (work((int)calls) != (int)((unsigned)calls * 0x00c3c3c3u ^ 0xc3c3c3c3u))
                __atomic_fetch_add(&counters->wrong, 1, __ATOMIC_RELAXED);
            __atomic_fetch_add(&counters->returned, 1, __ATOMIC_RELAXED);
        }
        int64_t ahead = begin + tick * 1000000 - clock_ns(CLOCK_MONOTONIC);
        if (ahead > 0)
            sleep_ns(ahead);
    }
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t workers[64];
    rate = option(argc, argv, "rate", 4000);
    threads = option(argc, argv, "threads", 1);
    if (threads < 1 || threads > 64)
        abort();
    counters = map_counters();
    if (option(argc, argv, "at-once", 0) == 0)
        await_start();
    int64_t begin = clock_ns(CLOCK_MONOTONIC);
    counters->first_ns = clock_ns(CLOCK_BOOTTIME);
    for (int64_t i = 0; i < threads; i++)
        if (pthread_create(&workers[i], NULL, call, NULL) != 0)
            abort();
    await_line();
    ended = 1;
    for (int64_t i = 0; i < threads; i++)
        pthread_join(workers[i], NULL);
    report("{\"calls\":%ld,\"returned\":%ld,\"wrong\":%ld,\"seconds\":%.3f}", (long)counters->calls, (long)counters->returned,
           (long)counters->wrong, (double)(clock_ns(CLOCK_MONOTONIC) - begin) / 1e9);
    return finish(argc, argv);
}
