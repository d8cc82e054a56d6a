/* descend() calls itself --depth deep (its first call is one more), --times over. */
#include "truth.h"

static int64_t entered, returned;

PROBED int descend(int depth)
{
    int result = 0;
    entered++;
    if (depth > 0) {
        result = descend(depth - 1);
        __asm__ volatile("" : "+r"(result)); /* keeps the compiler from making a loop of it */
        returned++;
    }
    return result + 1;
}

int main(int argc, char **argv)
{
    int depth = (int)option(argc, argv, "depth", 500), times = (int)option(argc, argv, "times", 20), wrong = 0;
    await_start();
    for (int i = 0; i < times; i++) {
        wrong += descend(depth) != depth + 1;
        returned++;
    }
    report("{\"calls\":%ld,\"returned\":%ld,\"wrong\":%d}", (long)entered, (long)returned, wrong);
    return finish(argc, argv);
}
