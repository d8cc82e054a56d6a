/* Calls shared_work() of a library it is linked with, and lets --children forked children do so too, one after the other. */
#include "truth.h"
#include <sys/wait.h>

int shared_work(int x);

static int64_t wrong_of(int64_t calls)
{
    int64_t wrong = 0;
    for (int i = 0; i < calls; i++)
        wrong += shared_work(i) != (i ^ 0x5a);
    return wrong;
}

int main(int argc, char **argv)
{
    int64_t calls = option(argc, argv, "calls", 500), children = option(argc, argv, "children", 0);
    await_start();
    int64_t wrong = wrong_of(calls);
    for (int64_t i = 0; i < children; i++) {
        pid_t pid = fork();
        if (pid == 0)
            _exit(wrong_of(calls) != 0);
        int status = 0;
        if (pid < 0 || waitpid(pid, &status, 0) != pid)
            abort();
        wrong += status != 0;
    }
    calls *= 1 + children;
    report("{\"calls\":%ld,\"returned\":%ld,\"wrong\":%ld}", (long)calls, (long)calls, (long)wrong);
    return finish(argc, argv);
}
