/* leap() goes --depth deep and every --leave-th time leaves all of its frames at once by longjmp. */
#include "truth.h"
#include <setjmp.h>

static int64_t entered, returned;
static jmp_buf home;

PROBED int leap(int depth, int leave)
{
    int result = 0;
    entered++;
    if (depth > 0) {
        result = leap(depth - 1, leave);
        __asm__ volatile("" : "+r"(result));
        returned++;
    } else if (leave) {
        longjmp(home, 1);
    }
    return result + 1;
}

int main(int argc, char **argv)
{
    int depth = (int)option(argc, argv, "depth", 100), times = (int)option(argc, argv, "times", 40);
    int every = (int)option(argc, argv, "leave", 4);
    await_start();
    for (volatile int i = 0; i < times; i++) {
        if (setjmp(home) == 0) {
            leap(depth, i % every == every - 1);
            returned++;
        }
    }
    report("{\"calls\":%ld,\"returned\":%ld}", (long)entered, (long)returned);
    return finish(argc, argv);
}
