/* Calls work() again and again: --calls N, at --rate R per second (0: as fast as it goes), and after that slow() once for
 * each of --slow N calls of 1 to --slow-max-ms milliseconds, each timed from inside and from outside.
 *
 * Its counters live in a shared file (--counters 1 and the path in TRUTH_COUNTERS), so that they survive kill -9.
 */
#include "truth.h"
#include <fcntl.h>
#include <sys/mman.h>

struct counters {
    volatile int64_t calls;    /* counted before the call */
    volatile int64_t returned; /* counted after it */
};

/* The constants hold the byte of RET (0xc3): a breakpoint put inside an instruction would change what this returns. */
PROBED int work(int x)
{
    return (int)((unsigned)x * 0x00c3c3c3u ^ 0xc3c3c3c3u);
}

struct timing {
    int64_t inner_ns;     /* from the first to the last thing that slow() does */
    int64_t outer_ns;     /* from before to after the call */
    int64_t waited_ns;    /* how much of that the thread waited for a processor, at most */
    int64_t wall_from_ns; /* wall clock before it returned */
    int64_t wall_to_ns;   /* wall clock after it returned */
};

PROBED void slow(int64_t ns, struct timing *t)
{
    int64_t begin = clock_ns(CLOCK_MONOTONIC);
    sleep_ns(ns);
    t->wall_from_ns = clock_ns(CLOCK_REALTIME);
    t->inner_ns = clock_ns(CLOCK_MONOTONIC) - begin;
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

int main(int argc, char **argv)
{
    int64_t calls = option(argc, argv, "calls", 1000), rate = option(argc, argv, "rate", 0);
    int64_t slow_calls = option(argc, argv, "slow", 0), slow_max_ns = option(argc, argv, "slow-max-ms", 50) * 1000000;
    struct counters *counters = map_counters();
    struct timing *timings = calloc((size_t)slow_calls + 1, sizeof *timings);
    int wrong = 0;

    await_start();
    int64_t wall_from = clock_ns(CLOCK_REALTIME), begin = clock_ns(CLOCK_MONOTONIC);
    for (int64_t i = 0; i < calls; i++) {
        counters->calls++;
        int result = work((int)i);
        counters->returned++;
        wrong += result != (int)((unsigned)i * 0x00c3c3c3u ^ 0xc3c3c3c3u);
        if (rate > 0) {
            int64_t ahead = begin + (i + 1) * 1000000000 / rate - clock_ns(CLOCK_MONOTONIC);
            if (ahead > 0)
                sleep_ns(ahead);
        }
    }
    for (int64_t i = 0; i < slow_calls; i++) {
        /* 1 ms to the maximum, in an order that is not sorted */
        int64_t step = (i * 7) % slow_calls;
        int64_t ns = 1000000 + (slow_calls > 1 ? (slow_max_ns - 1000000) * step / (slow_calls - 1) : slow_max_ns - 1000000);
        int64_t waited = waited_ns(), before = clock_ns(CLOCK_MONOTONIC);
        slow(ns, &timings[i]);
        timings[i].outer_ns = clock_ns(CLOCK_MONOTONIC) - before;
        timings[i].wall_to_ns = clock_ns(CLOCK_REALTIME);
        timings[i].waited_ns = waited_ns() - waited;
    }
    int64_t wall_to = clock_ns(CLOCK_REALTIME);

    printf("{\"calls\":%ld,\"returned\":%ld,\"wrong\":%d,\"wall_from_ns\":%ld,\"wall_to_ns\":%ld,\"slow\":[",
           (long)counters->calls, (long)counters->returned, wrong, (long)wall_from, (long)wall_to);
    for (int64_t i = 0; i < slow_calls; i++)
        printf("%s{\"inner_ns\":%ld,\"outer_ns\":%ld,\"waited_ns\":%ld,\"wall_from_ns\":%ld,\"wall_to_ns\":%ld}", i ? "," : "",
               (long)timings[i].inner_ns, (long)timings[i].outer_ns, (long)timings[i].waited_ns, (long)timings[i].wall_from_ns,
               (long)timings[i].wall_to_ns);
    report("]}");
    return finish(argc, argv);
}
