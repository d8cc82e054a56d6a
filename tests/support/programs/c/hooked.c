/* Calls work(), whose code it changes first, as monitoring agents do: --hook 1 leads it through hook(), --writable 1 leaves
 * its code writable. */
#include "truth.h"
#include <sys/mman.h>

enum { MOVED = 8 }; /* bytes of work() that are run elsewhere: its first three instructions */

int64_t work(int64_t x);
__asm__(".text\n.p2align 4\n.globl work\n.type work, @function\n"
        "work: push %rbp\n mov %rsp, %rbp\n sub $16, %rsp\n"
        "mov %rdi, -8(%rbp)\n mov -8(%rbp), %rax\n lea 1(%rax, %rax), %rax\n leave\n ret\n"
        ".size work, .-work\n");

static int64_t (*original)(int64_t);
static int64_t hooks;

PROBED static int64_t hook(int64_t x)
{
    hooks++;
    return original(x);
}

static void access_to_code(int access)
{
    uintptr_t page = (uintptr_t)work & ~4095ul;
    if (mprotect((void *)page, 8192, access) != 0)
        abort();
}

/* What work() begins with moves to a page of its own, behind which it goes on as before. */
static void put_hook(void)
{
    uint8_t *code = (uint8_t *)work, *moved = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    uint64_t behind = (uint64_t)code + MOVED;
    const uint8_t jump[] = {0xff, 0x25, 0, 0, 0, 0}; /* jmp *0(%rip) */
    memcpy(moved, code, MOVED);
    memcpy(moved + MOVED, jump, sizeof jump);
    memcpy(moved + MOVED + sizeof jump, &behind, sizeof behind);
    if (mprotect(moved, 4096, PROT_READ | PROT_EXEC) != 0)
        abort();
    original = (int64_t (*)(int64_t))(uintptr_t)moved;
    int32_t distance = (int32_t)((int64_t)(uintptr_t)hook - (int64_t)(uintptr_t)(code + 5));
    code[0] = 0xe9;
    memcpy(code + 1, &distance, sizeof distance);
}

int main(int argc, char **argv)
{
    int64_t calls = option(argc, argv, "calls", 100), wrong = 0;
    access_to_code(PROT_READ | PROT_WRITE | PROT_EXEC);
    if (option(argc, argv, "hook", 0))
        put_hook();
    if (!option(argc, argv, "writable", 0))
        access_to_code(PROT_READ | PROT_EXEC);
    await_start();
    for (int64_t i = 0; i < calls; i++)
        wrong += work(i) != 2 * i + 1;
    report("{\"calls\":%ld,\"hooks\":%ld,\"wrong\":%ld}", (long)calls, (long)hooks, (long)wrong);
    return finish(argc, argv);
}
