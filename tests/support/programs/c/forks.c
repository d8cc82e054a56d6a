/* --children processes are forked after the start; each calls work() --calls times from its first moment on.
 * --inside children are forked by split() while it runs, and return from it: returns without an entry of their own.
 */
#include "truth.h"
#include <sys/mman.h>
#include <sys/wait.h>

struct counters {
    int64_t calls, returned, split_calls, split_returned, split_orphans;
};
static struct counters *counters;

#ifdef NOP5
/* As -pg -mfentry -mnop-mcount begins every function: with a nop of 5 bytes. */
int work(int x);
__asm__(".globl work\n.type work, @function\n"
        "work: .byte 0x0f, 0x1f, 0x44, 0, 0\n  lea 1(%rdi,%rdi,2), %eax\n  ret\n.size work, .-work\n");
#else
PROBED int work(int x)
{
    return x * 3 + 1;
}
#endif

PROBED int split(void)
{
    int pid = (int)fork();
    __asm__ volatile("" : "+r"(pid)); /* keeps the compiler from leaving by a jump to fork() */
    return pid;
}

static void reap(int64_t children)
{
    while (children-- > 0) {
        int status = 0;
        if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
            abort();
    }
}

static void call_work(int64_t calls)
{
    for (int64_t i = 0; i < calls; i++) {
        __atomic_fetch_add(&counters->calls, 1, __ATOMIC_RELAXED);
        if (work((int)i) != i * 3 + 1)
            abort();
        __atomic_fetch_add(&counters->returned, 1, __ATOMIC_RELAXED);
    }
}

int main(int argc, char **argv)
{
    int64_t children = option(argc, argv, "children", 40), calls = option(argc, argv, "calls", 50);
    int64_t inside = option(argc, argv, "inside", 0);
    counters = mmap(NULL, sizeof *counters, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counters == MAP_FAILED)
        abort();
    await_start();
    call_work(calls);
    for (int64_t i = 0; i < children; i++) {
        pid_t pid = fork();
        if (pid < 0)
            abort();
        if (pid == 0) {
            call_work(calls);
            _exit(0);
        }
    }
    reap(children);
    for (int64_t i = 0; i < inside; i++) {
        __atomic_fetch_add(&counters->split_calls, 1, __ATOMIC_RELAXED);
        int pid = split();
        if (pid < 0)
            abort();
        if (pid == 0) {
            __atomic_fetch_add(&counters->split_orphans, 1, __ATOMIC_RELAXED);
            _exit(0);
        }
        __atomic_fetch_add(&counters->split_returned, 1, __ATOMIC_RELAXED);
    }
    reap(inside);
    report("{\"calls\":%ld,\"returned\":%ld,\"split_calls\":%ld,\"split_returned\":%ld,\"split_orphans\":%ld}",
           (long)counters->calls, (long)counters->returned, (long)counters->split_calls, (long)counters->split_returned,
           (long)counters->split_orphans);
    return finish(argc, argv);
}
