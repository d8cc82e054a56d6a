/* Loads a library that is written in Go, and calls it on threads of its own. */
#include "truth.h"
#include <dlfcn.h>
#include <pthread.h>

enum { THREADS = 4, CALLS = 100 };

static int (*work)(int);

static void *thread(void *unused)
{
    for (int i = 0; i < CALLS; i++)
        if (work(i) != 2 * i)
            abort();
    return unused;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    void *library = dlopen(argc > 1 ? argv[1] : "", RTLD_NOW);
    work = library ? (int (*)(int))dlsym(library, "GoWork") : NULL;
    if (!work)
        abort();
    await_start();
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, thread, NULL);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    const char *tally = "{\"entered\":400,\"returned\":400,\"gone\":0}";
    report("{\"tallies\":{\"LIBRARY!GoWork\":%s,\"LIBRARY!main.GoWork\":%s,\"LIBRARY!main.Inner\":%s}}", tally, tally, tally);
    await_line();
    return 7;
}
