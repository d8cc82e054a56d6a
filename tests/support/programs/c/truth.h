/* What all ground-truth programs have in common: when they begin, what they tell, and how they end.
 *
 * A program prints {"ready":true,"pid":N} and waits for a line on stdin, so that a probe can be attached before the first
 * call. Then it works, prints one JSON line with what it counted itself, waits for another line (its text can be looked at
 * meanwhile) and exits with the code it was told. End of input at either point ends it at once: no program outlives its test.
 */
#ifndef TRUTH_H
#define TRUTH_H

#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Not inlined, not cloned, no knowledge of its body used in its callers: every call in the source is a call. */
#define PROBED __attribute__((noipa))

static inline int64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static inline void sleep_ns(int64_t ns)
{
    struct timespec t = {ns / 1000000000, ns % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, 0, &t, &t) != 0)
        ;
}

/* How long this thread could have run and did not get a processor, since it began: /proc/thread-self/schedstat, second field. */
static inline int64_t waited_ns(void)
{
    char line[96] = "";
    int fd = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    long long ran, waited;
    if (fd < 0 || read(fd, line, sizeof line - 1) <= 0 || sscanf(line, "%lld %lld", &ran, &waited) != 2)
        abort();
    close(fd);
    return waited;
}

static inline void await_line(void)
{
    char c = 0;
    while (c != '\n')
        if (read(0, &c, 1) <= 0)
            _exit(0);
}

static inline void await_start(void)
{
    printf("{\"ready\":true,\"pid\":%d}\n", (int)getpid());
    fflush(stdout);
    await_line();
}

static inline void report(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    fflush(stdout);
}

/* The value of --NAME, or the default. */
static inline int64_t option(int argc, char **argv, const char *name, int64_t otherwise)
{
    for (int i = 1; i + 1 < argc; i++)
        if (strncmp(argv[i], "--", 2) == 0 && strcmp(argv[i] + 2, name) == 0)
            return atoll(argv[i + 1]);
    return otherwise;
}

static inline int finish(int argc, char **argv)
{
    await_line();
    return (int)option(argc, argv, "exit", 0);
}

#endif
