/* Loads the library at TRUTH_LIBRARY when it is told to start, says so, and calls it at the next line. */
#include "truth.h"
#include <dlfcn.h>

int main(int argc, char **argv)
{
    int64_t calls = option(argc, argv, "calls", 500);
    await_start();
    void *library = dlopen(getenv("TRUTH_LIBRARY"), RTLD_NOW);
    int (*work)(int) = library ? (int (*)(int))dlsym(library, "shared_work") : NULL;
    if (!work)
        abort();
    report("{\"loaded\":true}");
    await_line();
    for (int i = 0; i < calls; i++)
        work(i);
    report("{\"calls\":%ld,\"returned\":%ld}", (long)calls, (long)calls);
    return finish(argc, argv);
}
