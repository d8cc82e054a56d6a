/* always() leaves by a jump to target() every time, sometimes() by a conditional jump for odd arguments only.
 * Written in assembler, so that the jumps are there whatever the compiler likes.
 */
#include "truth.h"

int always(int x);
int sometimes(int x);

PROBED int target(int x)
{
    return x + 100;
}

__asm__(".text\n"
        ".globl always\n"
        ".type always, @function\n"
        "always:\n"
        "    push %rbx\n"
        "    mov %edi, %ebx\n"
        "    lea 1(%rbx), %edi\n"
        "    pop %rbx\n"
        "    jmp target\n"
        ".size always, .-always\n"
        ".globl sometimes\n"
        ".type sometimes, @function\n"
        "sometimes:\n"
        "    test $1, %dil\n"
        "    jne target\n"
        "    mov %edi, %eax\n"
        "    ret\n"
        ".size sometimes, .-sometimes\n");

int main(int argc, char **argv)
{
    int64_t calls = option(argc, argv, "calls", 1001), odd = 0, wrong = 0;
    await_start();
    for (int i = 0; i < calls; i++) {
        wrong += always(i) != i + 101;
        wrong += sometimes(i) != (i & 1 ? i + 100 : i);
        odd += i & 1;
    }
    report("{\"calls\":%ld,\"returned\":%ld,\"odd\":%ld,\"wrong\":%ld}", (long)calls, (long)calls, (long)odd, (long)wrong);
    return finish(argc, argv);
}
