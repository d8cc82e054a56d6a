/* A program without any library, so that it can be built for 32 bits everywhere: calls work() 100 times when it is told to, and
 * ends with 9 if all is well.
 */
__attribute__((noipa)) static long system_call(long number, long a, long b, long c)
{
    long result;
    __asm__ volatile("int $0x80" : "=a"(result) : "a"(number), "b"(a), "c"(b), "d"(c) : "memory");
    return result;
}

__attribute__((noipa)) int work(int x)
{
    return x * 3 + 1;
}

void _start(void)
{
    enum { EXIT = 1, READ = 3, WRITE = 4 };
    static const char ready[] = "{\"ready\":true}\n";
    char c = 0;
    int wrong = 0;
    system_call(WRITE, 1, (long)ready, sizeof ready - 1);
    while (c != '\n')
        if (system_call(READ, 0, (long)&c, 1) <= 0)
            system_call(EXIT, 1, 0, 0);
    for (int i = 0; i < 100; i++)
        wrong += work(i) != i * 3 + 1;
    system_call(EXIT, wrong ? 1 : 9, 0, 0);
    __builtin_unreachable();
}
