/* Calls work() at a fixed rate for some seconds, then prints how often as JSON: rate CALLS_PER_SECOND SECONDS */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

__attribute__((noinline)) long work(long n)
{
	volatile long sum = 0;
	for (long i = 0; i < n; i++)
		sum += i;
	return sum;
}

int main(int count, char **words)
{
	long rate = count > 1 ? atol(words[1]) : 1000, seconds = count > 2 ? atol(words[2]) : 10, calls = 0;
	struct timespec due;
	clock_gettime(CLOCK_MONOTONIC, &due);
	for (long tick = 0; tick < seconds * 1000; tick++) {
		for (long end = (tick + 1) * rate / 1000; calls < end; calls++)
			work(20);
		due.tv_nsec += 1000000;
		if (due.tv_nsec >= 1000000000) {
			due.tv_nsec -= 1000000000;
			due.tv_sec++;
		}
		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &due, 0);
	}
	printf("{\"calls\":%ld}\n", calls);
	return 0;
}
