/* Clocks and disks that fail, for one process: loaded before libc (LD_PRELOAD), steered through a mapped file (CORAL_FAULTS).
 *
 * Clocks: what clock_gettime, gettimeofday and time say is moved by an offset, CLOCK_REALTIME and CLOCK_BOOTTIME each by its
 * own; the machine's clocks stay as they are. A wait until an absolute time on CLOCK_REALTIME (futex(2) with
 * FUTEX_CLOCK_REALTIME, pthread_cond_timedwait) is moved back before the kernel sees it.
 *
 * Disks: what is written to files below a folder fails with an errno, or takes its time. Reading is left alone.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

struct faults {
    volatile int64_t wall_ns;      /* added to CLOCK_REALTIME */
    volatile int64_t boot_ns;      /* added to CLOCK_BOOTTIME */
    volatile int64_t disk_errno;   /* what writing fails with; 0 for nothing */
    volatile int64_t sync_delay_us; /* what fsync and fdatasync take */
    volatile int64_t write_delay_us; /* what a write takes */
    volatile int64_t met;          /* how often a fault was met */
    char folder[4048];             /* the folder whose files are meant */
};

static struct faults none;
static struct faults *faults = &none;

__attribute__((constructor)) static void map_faults(void) {
    const char *path = getenv("CORAL_FAULTS");
    int fd = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (fd < 0)
        return;
    void *mapped = mmap(NULL, sizeof(struct faults), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED)
        faults = mapped;
    close(fd);
}

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) \
        real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static void add(struct timespec *at, int64_t ns) {
    int64_t whole = at->tv_nsec + ns % 1000000000;
    at->tv_sec += ns / 1000000000;
    if (whole < 0) {
        whole += 1000000000;
        at->tv_sec--;
    } else if (whole >= 1000000000) {
        whole -= 1000000000;
        at->tv_sec++;
    }
    at->tv_nsec = whole;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    REAL(clock_gettime);
    int rc = real(clock, at);
    if (rc == 0) {
        if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)
            add(at, faults->wall_ns);
        else if (clock == CLOCK_BOOTTIME)
            add(at, faults->boot_ns);
    }
    return rc;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (at)
        *at = now.tv_sec;
    return now.tv_sec;
}

int pthread_cond_timedwait(pthread_cond_t *restrict cond, pthread_mutex_t *restrict mutex, const struct timespec *restrict until) {
    REAL(pthread_cond_timedwait);
    int64_t moved = faults->wall_ns;
    if (!moved)
        return real(cond, mutex, until);
    /* A condition on another clock has its times near to that clock's; those of the wall clock are decades away from them. */
    struct timespec real_until = *until, mono;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &mono);
    if (until->tv_sec > 1000000000 && mono.tv_sec < 1000000000)
        add(&real_until, -moved);
    return real(cond, mutex, &real_until);
}

long syscall(long number, ...) {
    static long (*real)(long, ...);
    if (!real)
        real = (long (*)(long, ...))dlsym(RTLD_NEXT, "syscall");
    long a[6];
    va_list rest;
    va_start(rest, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(rest, long);
    va_end(rest);
    struct timespec moved;
    if (number == SYS_futex && faults->wall_ns && a[3] && (a[1] & FUTEX_CLOCK_REALTIME) &&
        (a[1] & FUTEX_CMD_MASK) == FUTEX_WAIT_BITSET) {
        moved = *(struct timespec *)a[3];
        add(&moved, -faults->wall_ns);
        if (moved.tv_sec < 0)
            moved.tv_sec = moved.tv_nsec = 0;
        a[3] = (long)&moved;
    }
    return real(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static int below(const char *path) {
    size_t length = strlen(faults->folder);
    return length && strncmp(path, faults->folder, length) == 0 && (path[length] == '/' || !path[length]);
}

static int meant(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return below(path);
}

/* Whether a write to `fd` is to fail; waits if it is to be slow. Leaves errno alone unless it fails. */
static int fails(int fd, int64_t delay_us) {
    if ((!faults->disk_errno && !delay_us) || !meant(fd))
        return 0;
    __sync_fetch_and_add(&faults->met, 1);
    if (delay_us)
        usleep(delay_us);
    if (!faults->disk_errno)
        return 0;
    errno = (int)faults->disk_errno;
    return 1;
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    return fails(fd, faults->write_delay_us) ? -1 : real(fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    return fails(fd, faults->write_delay_us) ? -1 : real(fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    return fails(fd, faults->write_delay_us) ? -1 : real(fd, data, size, at);
}

int fsync(int fd) {
    REAL(fsync);
    return fails(fd, faults->sync_delay_us) ? -1 : real(fd);
}

int fdatasync(int fd) {
    REAL(fdatasync);
    return fails(fd, faults->sync_delay_us) ? -1 : real(fd);
}

int ftruncate(int fd, off_t size) {
    REAL(ftruncate);
    return fails(fd, 0) ? -1 : real(fd, size);
}

int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    return fails(fd, 0) ? -1 : real(fd, size);
}

static int refuses(const char *path, int flags) {
    if (!faults->disk_errno || !((flags & O_ACCMODE) != O_RDONLY || flags & O_CREAT) || !below(path))
        return 0;
    __sync_fetch_and_add(&faults->met, 1);
    errno = (int)faults->disk_errno;
    return 1;
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = va_arg(rest, mode_t); \
        va_end(rest); \
        return refuses(path, flags) ? -1 : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

int unlink(const char *path) {
    REAL(unlink);
    return refuses(path, O_WRONLY) ? -1 : real(path);
}

int rename(const char *from, const char *to) {
    REAL(rename);
    return refuses(to, O_WRONLY) ? -1 : real(from, to);
}
