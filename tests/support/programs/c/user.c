/* Calls shared_work() of a library it is linked with. */
#include "truth.h"

int shared_work(int x);

int main(int argc, char **argv)
{
    int64_t calls = option(argc, argv, "calls", 500), wrong = 0;
    await_start();
    for (int i = 0; i < calls; i++)
        wrong += shared_work(i) != (i ^ 0x5a);
    report("{\"calls\":%ld,\"returned\":%ld,\"wrong\":%ld}", (long)calls, (long)calls, (long)wrong);
    return finish(argc, argv);
}
