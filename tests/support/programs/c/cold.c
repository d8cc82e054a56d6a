/* careful() and guarded() have an unlikely path in a part that lies elsewhere, as compilers make them (.cold).
 *
 * careful() is the compiler's. guarded() is written in assembler, so that its part has a RET of its own whatever the compiler
 * likes; with -DWITHOUT_SYMBOL that part has no symbol, as in a stripped program.
 */
#include "truth.h"

static int64_t complaints;

int guarded(int x);

__attribute__((cold, noipa)) int complain(int x)
{
    complaints++;
    return x < 1000000;
}

PROBED int careful(int x)
{
    if (__builtin_expect(x % 7 == 0, 0)) {
        if (complain(x))
            return -x;
        complain(x + 1);
        return -x - 1;
    }
    return x * 5;
}

#ifdef WITHOUT_SYMBOL
#define COLD ".Lguarded_cold"
#define COLD_SYMBOL(text) ""
#else
#define COLD "guarded.cold"
#define COLD_SYMBOL(text) text
#endif

__asm__(".text\n"
        ".p2align 4\n"
        ".globl guarded\n"
        ".type guarded, @function\n"
        "guarded:\n"
        "    .cfi_startproc\n"
        "    push %rbx\n"
        "    .cfi_def_cfa_offset 16\n"
        "    .cfi_offset %rbx, -16\n"
        "    mov %edi, %ebx\n"
        "    test $3, %dil\n"
        "    je " COLD "\n"
        "    lea 1(%rbx), %eax\n"
        "    pop %rbx\n"
        "    .cfi_def_cfa_offset 8\n"
        "    ret\n"
        "    .cfi_endproc\n"
        ".size guarded, .-guarded\n"
        ".section .text.unlikely,\"ax\",@progbits\n" COLD_SYMBOL(".type guarded.cold, @function\n") COLD ":\n"
        "    .cfi_startproc\n"
        "    .cfi_def_cfa_offset 16\n"
        "    .cfi_offset %rbx, -16\n"
        "    call complain\n"
        "    lea -1(%rbx), %eax\n"
        "    pop %rbx\n"
        "    .cfi_def_cfa_offset 8\n"
        "    ret\n"
        "    .cfi_endproc\n" COLD_SYMBOL(".size guarded.cold, .-guarded.cold\n") ".text\n");

int main(int argc, char **argv)
{
    int64_t calls = option(argc, argv, "calls", 1400), wrong = 0;
    await_start();
    for (int i = 1; i <= calls; i++) {
        wrong += careful(i) != (i % 7 == 0 ? -i : i * 5);
        wrong += guarded(i) != (i % 4 == 0 ? i - 1 : i + 1);
    }
    report("{\"calls\":%ld,\"returned\":%ld,\"cold\":%ld,\"wrong\":%ld}", (long)calls, (long)calls, (long)complaints, (long)wrong);
    return finish(argc, argv);
}
