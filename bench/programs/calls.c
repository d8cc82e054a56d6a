/* For each line "work N" or "bare N" on stdin, calls that function N times; answers with the CPU time that it took, in ns. */
#include <stdio.h>
#include <string.h>
#include <time.h>

static long cpu_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
	return now.tv_sec * 1000000000L + now.tv_nsec;
}

__attribute__((noipa)) long leaf(long n)
{
	__asm__ volatile("" : "+r"(n));
	return n + 1;
}

/* Keeps a value over a call, so that it begins with a push. */
__attribute__((noipa)) long work(long n)
{
	long first = leaf(n);
	return first + leaf(first ^ n);
}

/* Calls nothing and keeps nothing, so that it begins with no push. */
__attribute__((noipa)) long bare(long n)
{
	__asm__ volatile("" : "+r"(n));
	return n * 3 + 1;
}

int main(void)
{
	char name[16];
	long calls, sum = 0;
	while (scanf("%15s %ld", name, &calls) == 2) {
		long before = cpu_ns();
		if (!strcmp(name, "bare"))
			for (long i = 0; i < calls; i++)
				sum += bare(i);
		else
			for (long i = 0; i < calls; i++)
				sum += work(i);
		printf("%ld %ld\n", cpu_ns() - before, sum & 1);
		fflush(stdout);
	}
	return 0;
}
