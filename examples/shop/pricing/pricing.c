/* Pricing is the service of a small shop that says what an order costs. It brings its own orders, so that there is something
 * to debug as soon as it runs. One order in fifty is slow: which, and how slow, is what Coral finds out from the outside.
 *
 * It takes no requests and knows nothing of Coral. At its end it says how many orders it priced, to compare with. */
#define _GNU_SOURCE
#include <getopt.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { DISCOUNT_EVERY = 50 }; /* orders whose discount is looked up: every fiftieth */

static atomic_long next_order = 1, calls, slow;
static atomic_bool stopping;
static int rate = 400, workers = 4;

static void wait_us(long microseconds)
{
    struct timespec left = {microseconds / 1000000, microseconds % 1000000 * 1000};
    while (nanosleep(&left, &left) != 0) {
    }
}

/* What an order of so many items costs, in cents. */
__attribute__((noinline)) int64_t price_order(int64_t order, int items)
{
    int64_t cents = 0;
    for (int item = 0; item < items; item++)
        cents += 199 + (order + item) % 50 * 10;
    if (order % DISCOUNT_EVERY == 0) {
        wait_us(40000); /* the discounts are in a file far away */
        cents -= cents / 10;
    } else {
        wait_us(200 + order * 7919 % 1800); /* 0.2 to 2 ms in the catalogue */
    }
    return cents;
}

/* Prices orders at this thread's share of the rate until it is told to stop. */
static void *work(void *total)
{
    const int64_t pause_ns = 1000000000LL * workers / rate;
    struct timespec next;
    int64_t cents = 0;

    clock_gettime(CLOCK_MONOTONIC, &next);
    while (!atomic_load(&stopping)) {
        const int64_t order = atomic_fetch_add(&next_order, 1);
        cents += price_order(order, 1 + order % 7);
        atomic_fetch_add(&calls, 1);
        if (order % DISCOUNT_EVERY == 0)
            atomic_fetch_add(&slow, 1);
        next.tv_nsec += pause_ns % 1000000000;
        next.tv_sec += pause_ns / 1000000000 + next.tv_nsec / 1000000000;
        next.tv_nsec %= 1000000000;
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL);
    }
    atomic_fetch_add((atomic_llong *)total, cents);
    return NULL;
}

static void usage(void)
{
    fputs("usage: pricing [--rate ORDERS_PER_SECOND] [--workers THREADS] [--seconds N, 0 = until SIGTERM] [--name NAME]\n", stderr);
    exit(2);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"rate", required_argument, NULL, 'r'},    {"workers", required_argument, NULL, 'w'},
        {"seconds", required_argument, NULL, 's'}, {"name", required_argument, NULL, 'n'},
        {NULL, 0, NULL, 0},
    };
    const char *name = "pricing";
    atomic_llong total = 0;
    double seconds = 0;
    pthread_t threads[64];
    sigset_t end;

    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case 'r': rate = atoi(optarg); break;
        case 'w': workers = atoi(optarg); break;
        case 's': seconds = atof(optarg); break;
        case 'n': name = optarg; break;
        default: usage();
        }
    }
    if (rate < 1 || workers < 1 || workers > 64 || seconds < 0 || optind != argc)
        usage();

    /* Blocked before the threads start, so that the signal waits for sigtimedwait below. */
    sigemptyset(&end);
    sigaddset(&end, SIGTERM);
    sigaddset(&end, SIGINT);
    pthread_sigmask(SIG_BLOCK, &end, NULL);
    for (int i = 0; i < workers; i++) {
        if (pthread_create(&threads[i], NULL, work, &total) != 0) {
            perror("pricing: pthread_create");
            return 1;
        }
    }
    if (seconds > 0) {
        const struct timespec limit = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
        sigtimedwait(&end, NULL, &limit);
    } else {
        sigwaitinfo(&end, NULL);
    }
    atomic_store(&stopping, true);
    for (int i = 0; i < workers; i++)
        pthread_join(threads[i], NULL);
    printf("{\"name\":\"%s\",\"calls\":%ld,\"slow\":%ld,\"cents\":%lld}\n", name, atomic_load(&calls), atomic_load(&slow),
           (long long)atomic_load(&total));
    return 0;
}
