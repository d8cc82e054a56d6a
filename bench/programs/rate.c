/* Calls work() at a fixed rate for some seconds, then prints how often as JSON: rate CALLS_PER_SECOND SECONDS [THREADS [wait]]
 * The rate is that of all threads together; 0 is as fast as they can. "wait" waits for a line on stdin first. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

__attribute__((noipa)) long leaf(long n)
{
	return n + 1;
}

/* Keeps a value over a call, so that it begins with a push, as most functions do. */
__attribute__((noipa)) long work(long n)
{
	long first = leaf(n);
	volatile long sum = 0;
	for (long i = 0; i < n; i++)
		sum += i;
	return first + leaf(n) + sum;
}

static long rate, seconds, threads;

static double now_s(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec + now.tv_nsec / 1e9;
}

static void *run(void *result)
{
	struct timespec due;
	double end = now_s() + seconds;
	long calls = 0;
	if (!rate)
		while (now_s() < end)
			for (long i = 0; i < 100; i++, calls++)
				work(20);
	clock_gettime(CLOCK_MONOTONIC, &due);
	for (long tick = 0; rate && tick < seconds * 1000; tick++) {
		for (long upto = (tick + 1) * (rate / threads) / 1000; calls < upto; calls++)
			work(20);
		due.tv_nsec += 1000000;
		if (due.tv_nsec >= 1000000000) {
			due.tv_nsec -= 1000000000;
			due.tv_sec++;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, 0);
	}
	*(long *)result = calls;
	return 0;
}

int main(int count, char **words)
{
	rate = count > 1 ? atol(words[1]) : 1000;
	seconds = count > 2 ? atol(words[2]) : 10;
	threads = count > 3 ? atol(words[3]) : 1;
	pthread_t started[64];
	long calls[64], total = 0;
	if (count > 4 && getchar() == EOF)
		return 1;
	double begun = now_s();
	for (long i = 0; i < threads && i < 64; i++)
		pthread_create(&started[i], 0, run, &calls[i]);
	for (long i = 0; i < threads && i < 64; i++) {
		pthread_join(started[i], 0);
		total += calls[i];
	}
	printf("{\"calls\":%ld,\"seconds\":%.3f}\n", total, now_s() - begun);
	return 0;
}
