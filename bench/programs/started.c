/* Calls work() a thousand times a second from its first moment on, and says by the wall clock when that was:
 * started MILLISECONDS
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

__attribute__((noipa)) long work(long n)
{
	return n * 3 + 1;
}

int main(int count, char **words)
{
	struct timespec at, pause = {0, 1000000};
	clock_gettime(CLOCK_REALTIME, &at);
	printf("%lld\n", (long long)at.tv_sec * 1000000000 + at.tv_nsec);
	fflush(stdout);
	for (long left = count > 1 ? atol(words[1]) : 1000; left > 0; left--) {
		work(left);
		nanosleep(&pause, NULL);
	}
	return 0;
}
