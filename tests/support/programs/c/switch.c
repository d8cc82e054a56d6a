/* dispatch() is a jump table with a return in many of its cases, and with the byte of RET (0xc3) inside other instructions: a
   breakpoint put there would change what it computes. */
#include "truth.h"

static int64_t kept;

__attribute__((noipa)) int keep(int x)
{
    kept += x;
    return x;
}

PROBED int dispatch(int operation, int x)
{
    switch (operation) {
    case 0: return x;
    case 1: keep(x); return x + 11;
    case 2: return keep(x) * 3;
    case 3: return keep(x) ^ 0x55;
    case 4: keep(1); keep(x); return x - 7;
    case 5: return keep(keep(x)) << 2;
    case 6: return keep(x) / 3;
    case 7: keep(2); return ~x ^ 0x00c3c3c3;
    case 8: return keep(x) % 13;
    case 9: return x ^ 0x3cc3c35a;
    default: return -1;
    }
}

int main(int argc, char **argv)
{
    int64_t calls = option(argc, argv, "calls", 1200), sum = 0;
    await_start();
    for (int i = 0; i < calls; i++)
        sum += dispatch(i % 12, i);
    report("{\"calls\":%ld,\"returned\":%ld,\"sum\":%ld}", (long)calls, (long)calls, (long)sum);
    return finish(argc, argv);
}
