/* Does on command what processes do in their lives. A command is a line; the answer is a line of JSON once it is done:
 *
 *   work N        calls work() N times
 *   fork K N      K children at once, each of which calls work() N times
 *   vfork K N     the same one after the other with vfork(): in the parent's memory, while the parent waits
 *   share K N     the same with clone(CLONE_VM): in the parent's memory, while the parent goes on
 *   threads K N   the same with threads
 *   spawn K FILE  K times posix_spawn(FILE), and its exit codes added up
 *   load FILE, call N, unload   dlopen(FILE), N calls of its shared_work(), dlclose()
 *   exec FILE     runs FILE in its place, with its own arguments; chain K: itself K times, each after two calls of work()
 *   exit CODE
 *
 * Each answer has the number of calls so far, this program's and its children's, as counted before and after each.
 */
#define _GNU_SOURCE
#include "truth.h"
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>

extern char **environ;

static struct {
    int64_t calls, returned, wrong;
} *count;

PROBED int work(int x)
{
    return (int)((unsigned)x * 0x00c3c3c3u ^ 0xc3c3c3c3u);
}

__attribute__((noipa)) static void call_work(int64_t times)
{
    for (int64_t i = 0; i < times; i++) {
        __atomic_fetch_add(&count->calls, 1, __ATOMIC_RELAXED);
        if (work((int)i) != (int)((unsigned)i * 0x00c3c3c3u ^ 0xc3c3c3c3u))
            __atomic_fetch_add(&count->wrong, 1, __ATOMIC_RELAXED);
        __atomic_fetch_add(&count->returned, 1, __ATOMIC_RELAXED);
    }
}

static int child(void *times)
{
    call_work(*(int64_t *)times);
    _exit(0);
}

__attribute__((noipa)) static void in_vfork(int64_t *times)
{
    if (vfork() == 0)
        child(times);
}

static void *thread(void *times)
{
    call_work(*(int64_t *)times);
    return NULL;
}

static int reap(int64_t children)
{
    int codes = 0;
    for (int status; children > 0; children--) {
        if (waitpid(-1, &status, __WALL) < 0 || !WIFEXITED(status))
            abort();
        codes += WEXITSTATUS(status);
    }
    return codes;
}

static void many(const char *how, int64_t k, int64_t n)
{
    enum { STACK = 1 << 16 };
    pthread_t *threads = calloc((size_t)k + 1, sizeof *threads);
    char *stacks = malloc((size_t)k * STACK + 1);
    for (int64_t i = 0; i < k; i++) {
        if (strcmp(how, "fork") == 0) {
            if (fork() == 0)
                child(&n);
        } else if (strcmp(how, "vfork") == 0) {
            in_vfork(&n);
        } else if (strcmp(how, "share") == 0) {
            if (clone(child, stacks + (i + 1) * STACK, CLONE_VM | SIGCHLD, &n) < 0)
                abort();
        } else if (pthread_create(&threads[i], NULL, thread, &n) != 0)
            abort();
    }
    if (strcmp(how, "threads") == 0)
        for (int64_t i = 0; i < k; i++)
            pthread_join(threads[i], NULL);
    else
        reap(k);
    free(stacks);
    free(threads);
}

static int spawn(int64_t k, char *file)
{
    for (int64_t i = 0; i < k; i++) {
        pid_t pid;
        if (posix_spawn(&pid, file, NULL, NULL, (char *[]){file, NULL}, environ) != 0)
            abort();
    }
    return reap(k);
}

static void chain(int64_t left, char **argv)
{
    char number[16];
    call_work(2);
    snprintf(number, sizeof number, "%06ld", (long)left);
    execv("/proc/self/exe", (char *[]){argv[0], left ? "--chain" : "--ended", number, NULL});
    abort();
}

int main(int argc, char **argv)
{
    char line[512], how[16], file[400];
    void *library = NULL;
    long k, n;
    int codes = 0;
    count = mmap(NULL, sizeof *count, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (count == MAP_FAILED)
        abort();
    int64_t left = option(argc, argv, "chain", 0);
    if (left)
        chain(left - 1, argv);
    printf("{\"ready\":true,\"pid\":%d}\n", (int)getpid());
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (sscanf(line, "work %ld", &n) == 1)
            call_work(n);
        else if (sscanf(line, "spawn %ld %399s", &k, file) == 2)
            codes = spawn(k, file);
        else if (sscanf(line, "%15[a-z] %ld %ld", how, &k, &n) == 3)
            many(how, k, n);
        else if (sscanf(line, "load %399s", file) == 1) {
            if (!(library = dlopen(file, RTLD_NOW)))
                abort();
        } else if (sscanf(line, "call %ld", &n) == 1) {
            int (*function)(int) = (int (*)(int))dlsym(library, "shared_work");
            for (long i = 0; i < n; i++) {
                count->calls++;
                count->wrong += function((int)i) != ((int)i ^ 0x5a);
                count->returned++;
            }
        } else if (strcmp(line, "unload\n") == 0)
            dlclose(library);
        else if (sscanf(line, "exec %399s", file) == 1)
            execv(file, argv);
        else if (sscanf(line, "chain %ld", &k) == 1)
            chain(k, argv);
        else
            exit(sscanf(line, "exit %ld", &n) == 1 ? (int)n : 99);
        report("{\"calls\":%ld,\"returned\":%ld,\"wrong\":%ld,\"codes\":%d}", (long)count->calls, (long)count->returned,
               (long)count->wrong, codes);
    }
    return 0;
}
