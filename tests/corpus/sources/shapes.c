/* What C compilers make of C: jump tables, tail calls, cold parts, copies for constants, computed jumps, odd frames.
   Every function is reached from main(), which prints one number. */
#include <alloca.h>
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEEP __attribute__((noinline))

struct point {
    double x, y, z;
};

struct node {
    struct node *next;
    long key;
    char name[24];
};

static jmp_buf escape;
static volatile long sink;

KEEP static long dense(long which, long value)
{
    switch (which) {
    case 0: return value + 1;
    case 1: return value * 3;
    case 2: return value ^ 0x5a5a;
    case 3: return value << 2;
    case 4: return -value;
    case 5: return value / 7;
    case 6: return value % 11;
    case 7: return labs(value);
    case 8: return value | 1;
    case 12: return 12;
    default: return 0;
    }
}

KEEP static const char *words(int which)
{
    switch (which) {
    case 10: return "ten";
    case 11: return "eleven";
    case 12: return "twelve";
    case 13: return "thirteen";
    case 14: return "fourteen";
    case 15: return "fifteen";
    default: return "many";
    }
}

KEEP static long sparse(unsigned key)
{
    switch (key) {
    case 1: return 10;
    case 1000: return 20;
    case 50000: return 30;
    case 0x7fffffff: return 40;
    default: return key;
    }
}

KEEP static long interpret(const unsigned char *code)
{
    static const void *const places[] = {&&stop, &&add, &&subtract, &&twice, &&jump};
    long value = 1;
#define STEP goto *places[*code++ % 5]
    STEP;
add:
    value += 3;
    STEP;
subtract:
    value -= 1;
    STEP;
twice:
    value *= 2;
    STEP;
jump:
    code += value & 1;
    STEP;
stop:
    return value;
}

KEEP static long last(long value) { return value + sink; }
KEEP static long tail(long value) { return last(value * 2); }
KEEP static long conditional_tail(long value)
{
    if (value > 100)
        return last(value);
    return value * 5 + 1;
}
KEEP static long through(long (*what)(long), long value) { return what(value + 1); }

KEEP static long recurse(long depth) { return depth < 2 ? depth : recurse(depth - 1) + recurse(depth - 2); }
KEEP static long odd(long value);
KEEP static long even(long value) { return value ? odd(value - 1) : 1; }
KEEP static long odd(long value) { return value ? even(value - 1) : 0; }

__attribute__((cold, noinline)) static void complain(const char *what)
{
    fprintf(stderr, "complaint: %s\n", what);
    sink++;
}

KEEP static long guarded(long value)
{
    if (__builtin_expect(value < 0, 0)) {
        complain("negative");
        errno = EINVAL;
        return -1;
    }
    return value * value;
}

KEEP static long leaps(long value)
{
    if (value == 3)
        longjmp(escape, 1);
    return value;
}

KEEP static long saves(long value)
{
    if (setjmp(escape))
        return -3;
    return leaps(value);
}

KEEP static long sum_of(int count, ...)
{
    va_list list;
    long total = 0;
    va_start(list, count);
    while (count--)
        total += va_arg(list, long);
    va_end(list);
    return total;
}

KEEP static struct point middle(struct point one, struct point other)
{
    return (struct point){(one.x + other.x) / 2, (one.y + other.y) / 2, (one.z + other.z) / 2};
}

KEEP static double lengths(const struct point *points, int count)
{
    double total = 0;
    for (int i = 0; i < count; i++)
        total += sqrt(points[i].x * points[i].x + points[i].y * points[i].y + points[i].z * points[i].z);
    return total;
}

KEEP static void mix(float *to, const float *from, int count)
{
    for (int i = 0; i < count; i++)
        to[i] = to[i] * 0.5f + from[i] * 1.5f;
}

KEEP static long big_frame(long value)
{
    char buffer[70000];
    memset(buffer, (int)value, sizeof buffer);
    return buffer[value & 1023];
}

KEEP static long growing(long value)
{
    long *room = alloca((size_t)(value & 63) * sizeof(long) + 16);
    room[0] = value;
    room[1] = value + 1;
    return last(room[0] + room[1]);
}

KEEP static int by_key(const void *one, const void *other)
{
    const struct node *left = one, *right = other;
    return (left->key > right->key) - (left->key < right->key);
}

KEEP static struct node *build(int count)
{
    struct node *head = NULL;
    for (int i = 0; i < count; i++) {
        struct node *made = malloc(sizeof *made);
        if (!made)
            abort();
        made->key = (i * 7919) % 101;
        snprintf(made->name, sizeof made->name, "node %d", i);
        made->next = head;
        head = made;
    }
    return head;
}

KEEP static long drop(struct node *head)
{
    long total = 0;
    while (head) {
        struct node *next = head->next;
        total += head->key + (long)strlen(head->name);
        free(head);
        head = next;
    }
    return total;
}

KEEP static uint64_t hash(const void *data, size_t size)
{
    const unsigned char *bytes = data;
    uint64_t state = 0xcbf29ce484222325u;
    for (size_t i = 0; i < size; i++)
        state = (state ^ bytes[i]) * 0x100000001b3u;
    return state;
}

KEEP static long atomics(long value)
{
    static long shared;
    __atomic_fetch_add(&shared, value, __ATOMIC_SEQ_CST);
    return __atomic_load_n(&shared, __ATOMIC_ACQUIRE);
}

KEEP static void *threaded(void *argument)
{
    sink += (long)argument;
    if (sink < 0)
        pthread_exit(NULL);
    return argument;
}

KEEP static __int128 wide(long one, long other) { return (__int128)one * other / 3; }

long exported(long value) { return tail(value) + conditional_tail(value); }
__attribute__((alias("exported"))) long alias_of_exported(long value);
__attribute__((weak)) long weak_one(long value) { return value + 17; }
__attribute__((constructor)) static void before_main(void) { sink = 1; }

int main(int count, char **arguments)
{
    static const unsigned char code[] = {1, 3, 2, 3, 1, 0};
    struct point points[] = {{1, 2, 3}, {4, 5, 6}, {7, 8, 9}};
    float left[64] = {1}, right[64] = {2};
    struct node sorted[16] = {{.key = 5}, {.key = 3}, {.key = 9}};
    long total = count;
    (void)arguments;
    for (long i = 0; i < 16; i++)
        total += dense(i, total) + sparse((unsigned)i * 1000) + words((int)i)[0] + guarded(i) + saves(i);
    total += interpret(code) + through(tail, 4) + through(recurse, 12) + even(10) + sum_of(4, 1L, 2L, 3L, 4L);
    total += (long)lengths(points, 3) + (long)middle(points[0], points[1]).x + big_frame(5) + growing(9);
    mix(left, right, 64);
    qsort(sorted, 16, sizeof *sorted, by_key);
    pthread_t thread;
    if (!pthread_create(&thread, NULL, threaded, (void *)7))
        pthread_join(thread, NULL);
    total += drop(build(40)) + (long)(hash(points, sizeof points) & 0xff) + atomics(3) + (long)wide(total, 9) + (long)left[0];
    printf("%ld\n", total + exported(3) + alias_of_exported(4) + weak_one(1) + sorted[15].key);
    return 0;
}
