/* --threads short-lived threads, four at a time, call task() --calls times each; every fourth thread ends inside its last
 * call by pthread_exit, which unwinds through the probed frame: the frame beyond it counts that it was cleaned up.
 *
 * With -DGUARDED task() has something to clean up itself, and with it a landing pad that only the unwinder jumps to.
 */
#include "truth.h"
#include <pthread.h>

static int64_t entered, returned, left, cleaned;
static int64_t calls;

static void cleanup(int *unused)
{
    (void)unused;
    __atomic_fetch_add(&cleaned, 1, __ATOMIC_RELAXED);
}

PROBED int task(int leave)
{
    if (leave) {
#ifdef GUARDED
        __attribute__((cleanup(cleanup))) int guard = 0;
#endif
        pthread_exit(NULL);
    }
    return leave + 1;
}

__attribute__((noipa)) void call_task(int leave)
{
    __attribute__((cleanup(cleanup))) int guard = 0;
    __atomic_fetch_add(&entered, 1, __ATOMIC_RELAXED);
    __atomic_fetch_add(&left, leave, __ATOMIC_RELAXED);
    task(leave);
    __atomic_fetch_add(&returned, 1, __ATOMIC_RELAXED);
}

static void *run(void *argument)
{
    int leave = (int)(intptr_t)argument;
    for (int64_t i = 0; i < calls; i++)
        call_task(leave && i == calls - 1);
    return NULL;
}

int main(int argc, char **argv)
{
    int threads = (int)option(argc, argv, "threads", 200);
    calls = option(argc, argv, "calls", 20);
    await_start();
    for (int i = 0; i < threads; i += 4) {
        pthread_t id[4];
        for (int k = 0; k < 4; k++)
            if (pthread_create(&id[k], NULL, run, (void *)(intptr_t)(k == 3)) != 0)
                abort();
        for (int k = 0; k < 4; k++)
            pthread_join(id[k], NULL);
    }
    report("{\"calls\":%ld,\"returned\":%ld,\"left\":%ld,\"cleaned\":%ld}", (long)entered, (long)returned, (long)left, (long)cleaned);
    return finish(argc, argv);
}
