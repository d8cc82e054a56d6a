/* A program that takes precautions before it works: each option is one that production programs take.
 *
 * --seccomp 1: filter that kills at any system call but those of the protocol; 2: filter that fails the others with EPERM;
 * 3: strict mode (read, write, exit, sigreturn). --lock 1: mlockall. --title 1: writes over its arguments and environment.
 * --main 0: the main thread ends, another one works. --check 1: compares its code in memory with its file, before the
 * probe is attached and after it is gone, as programs that look for manipulation do.
 */
#include "truth.h"
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

extern char **environ;
static int arguments;
static char **argument;

PROBED int work(int x)
{
    return (int)((unsigned)x * 0x00c3c3c3u ^ 0xc3c3c3c3u);
}

static void restrict_calls(int64_t how)
{
    if (how == 3) {
        if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) != 0)
            abort();
        return;
    }
#define ALLOW(call) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        ALLOW(SYS_read),
        ALLOW(SYS_write),
        ALLOW(SYS_exit),
        ALLOW(SYS_rt_sigreturn),
        BPF_STMT(BPF_RET | BPF_K, how == 1 ? SECCOMP_RET_KILL_PROCESS : SECCOMP_RET_ERRNO | 1),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        abort();
}

static void write_title(void)
{
    char **last = environ;
    while (last[0] && last[1])
        last++;
    char *from = argument[0], *to = last[0] ? last[0] + strlen(last[0]) : argument[arguments - 1] + strlen(argument[arguments - 1]);
    memset(from, 0, (size_t)(to - from));
    snprintf(from, (size_t)(to - from), "hardened: working");
}

/* Whether the bytes of work() in memory are those of the file that runs. */
static int code_differs(void)
{
    extern char __executable_start;
    unsigned char of_file[16];
    int fd = open("/proc/self/exe", O_RDONLY);
    if (fd < 0 || pread(fd, of_file, sizeof of_file, (char *)work - &__executable_start) != (ssize_t)sizeof of_file)
        abort();
    close(fd);
    return memcmp(of_file, (void *)work, sizeof of_file) != 0;
}

static void *run(void *unused)
{
    (void)unused;
    int64_t calls = option(arguments, argument, "calls", 1000), seccomp = option(arguments, argument, "seccomp", 0);
    int64_t check = option(arguments, argument, "check", 0), code = option(arguments, argument, "exit", 0);
    int title = option(arguments, argument, "title", 0) != 0, wrong = 0, before = check ? code_differs() : 0;
    if (option(arguments, argument, "lock", 0) && mlockall(MCL_CURRENT | MCL_FUTURE) != 0)
        abort();
    if (title)
        write_title();
    printf("{\"ready\":true,\"pid\":%d}\n", (int)getpid());
    fflush(stdout);
    if (seccomp)
        restrict_calls(seccomp);
    await_line();
    for (int64_t i = 0; i < calls; i++)
        wrong += work((int)i) != (int)((unsigned)i * 0x00c3c3c3u ^ 0xc3c3c3c3u);
    report("{\"calls\":%ld,\"wrong\":%d}", (long)calls, wrong);
    await_line();
    if (check && (before || code_differs()))
        abort();
    if (seccomp)
        syscall(SYS_exit, code); /* exit_group is not allowed */
    exit((int)code);
}

int main(int argc, char **argv)
{
    arguments = argc;
    argument = argv;
    if (option(argc, argv, "main", 1))
        return run(NULL) != NULL;
    pthread_t other;
    if (pthread_create(&other, NULL, run, NULL) != 0)
        abort();
    pthread_exit(NULL);
}
