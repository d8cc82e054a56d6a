// A process that does on command what server programs do to themselves. Reads one letter at a time from standard input and
// answers on standard output with one line, once it is done.
//   t  write a title over arguments and environment, padded with NULs, as nginx and PostgreSQL do
//   f  fork a child that waits for ever; answers with its pid
//   d  fork a child that goes on reading commands, and exit; the child answers with its pid
//   e  exec argv[1] with the arguments that follow
//   p  end the main thread while another one goes on
//   q  exit
#define _GNU_SOURCE
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

extern char **environ;

static void answer(long value) {
	printf("%ld\n", value);
	fflush(stdout);
}

static void *wait_for_ever(void *unused) {
	for (;;)
		pause();
	return unused;
}

static void write_title(char **argv) {
	char *start = argv[0], *end = argv[0];
	for (char **argument = argv; *argument; argument++)
		end = *argument + strlen(*argument) + 1;
	for (char **variable = environ; *variable; variable++)
		end = *variable + strlen(*variable) + 1;
	memset(start, 0, end - start);
	snprintf(start, end - start, "%s: at work", "actor");
}

int main(int argc, char **argv) {
	char letter;
	pthread_t thread;
	pid_t child;

	answer(getpid());
	while (read(0, &letter, 1) == 1) {
		switch (letter) {
		case 't':
			write_title(argv);
			answer(getpid());
			break;
		case 'f':
			child = fork();
			if (child == 0) {
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				wait_for_ever(NULL);
			}
			answer(child);
			break;
		case 'd':
			if (fork() != 0)
				_exit(0);
			answer(getpid());
			break;
		case 'e':
			if (argc > 1)
				execv(argv[1], argv + 1);
			return 1;
		case 'p':
			if (pthread_create(&thread, NULL, wait_for_ever, NULL) == 0)
				pthread_exit(NULL);
			return 1;
		default:
			return 0;
		}
	}
	return 0;
}
