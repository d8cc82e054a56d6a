/* Functions that cannot be probed at all, or only at their entry: written in assembler, so that they are what they are.
 *
 * loops_to_start() jumps back to its first instruction, and everything after it changes SP or an argument: no instruction is
 * executed exactly once by every call. jumps_anywhere() ends in an indirect jump with its frame in place: nobody can tell
 * whether that leaves the function.
 */
#include "truth.h"

int loops_to_start(int x);
int jumps_anywhere(int x);

__asm__(".text\n"
        ".globl loops_to_start\n"
        ".type loops_to_start, @function\n"
        "loops_to_start:\n"
        "    dec %edi\n"
        "    jns loops_to_start\n"
        "    mov %edi, %eax\n"
        "    ret\n"
        ".size loops_to_start, .-loops_to_start\n"
        ".globl jumps_anywhere\n"
        ".type jumps_anywhere, @function\n"
        "jumps_anywhere:\n"
        "    push %rbx\n"
        "    mov %edi, %ebx\n"
        "    lea 1f(%rip), %rax\n"
        "    mov %rax, -16(%rsp)\n"
        "    jmp *-16(%rsp)\n"
        "1:  lea 5(%rbx), %eax\n"
        "    pop %rbx\n"
        "    ret\n"
        ".size jumps_anywhere, .-jumps_anywhere\n");

int main(int argc, char **argv)
{
    int64_t calls = option(argc, argv, "calls", 100), wrong = 0;
    await_start();
    for (int i = 0; i < calls; i++) {
        wrong += jumps_anywhere(i) != i + 5;
        wrong += loops_to_start(3) != -1;
    }
    report("{\"calls\":%ld,\"returned\":%ld,\"wrong\":%ld}", (long)calls, (long)calls, (long)wrong);
    return finish(argc, argv);
}
