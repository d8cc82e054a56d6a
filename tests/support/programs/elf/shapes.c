/* Functions of every shape that a compiler gives them. What they compute does not matter, only how they are laid out. */
#include <alloca.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

volatile int sink;
int (*volatile handler)(int);

__attribute__((noinline, noclone)) int leaf(int a) { return a * 3 + sink; }
__attribute__((noinline, noclone)) int tail(int a) { return leaf(a + 1); }
__attribute__((noinline, noclone)) int maybe_tail(int a) {
  if (__builtin_expect(a > 10, 0)) return leaf(a + 1);
  sink += a;
  return a;
}
__attribute__((noinline, noclone)) int through_plt(int a) { return atoi((char *)&sink) && a ? abs(atoi("7")) : putchar(a); }
__attribute__((noinline, noclone)) int through_pointer(int a) { return handler(a); }
__attribute__((noinline, noclone)) int with_frame(int a) {
  char buffer[64];
  memset(buffer, a, sizeof buffer);
  for (int i = 0; i < a; i++) buffer[i & 63] ^= (char)leaf(i);
  return buffer[a & 63];
}
__attribute__((noinline, noclone)) int with_alloca(int a) {
  char *buffer = alloca((size_t)a);
  memset(buffer, 1, (size_t)a);
  return leaf(buffer[a / 2]);
}
__attribute__((noinline, noclone)) int with_large_frame(int a) {
  volatile char buffer[100000];
  buffer[a] = (char)a;
  return leaf(buffer[a]);
}
__attribute__((noinline, noclone)) int with_aligned_frame(int a) {
  _Alignas(64) volatile char buffer[128];
  buffer[a] = (char)a;
  return leaf(buffer[a]);
}
__attribute__((noinline, noclone)) int switched(int kind, int a) {
  switch (kind) {
    case 0: return leaf(a);
    case 1: return tail(a) + 1;
    case 2: return a * 17;
    case 3: sink = a; return 3;
    case 4: return with_frame(a) ^ 5;
    case 5: return a / 3;
    case 6: return leaf(a) - leaf(a + 2);
    case 7: sink++; return 9;
    default: return -1;
  }
}
__attribute__((noinline, noclone)) int looping(int a) {
  int sum = 0;
  for (;;) {
    switch (a & 7) {
      case 0: sum += leaf(a); break;
      case 1: sum -= a; break;
      case 2: sum ^= a; break;
      case 3: sum += 3; break;
      case 4: sum *= 3; break;
      case 5: sum += sink; break;
      case 6: return sum;
      case 7: sum--; break;
    }
    a += 3;
    if (a > 1000) return sum + 1;
  }
}
__attribute__((cold, noreturn, noinline)) void fail(const char *why) {
  fputs(why, stderr);
  abort();
}
__attribute__((noinline, noclone)) int with_cold_part(int a, int b) {
  if (__builtin_expect(a < 0, 0)) {
    fputs("negative\n", stderr);
    if (b == 7) return leaf(b);
    if (b == 8) fail("eight\n");
    fputs("still here\n", stderr);
    a = -a;
  }
  sink = a;
  return leaf(a) + b;
}
__attribute__((noinline, noclone)) int early(int a) {
  if (!a) return 0;
  return with_frame(a) + with_frame(a + 1);
}
__attribute__((noinline, noclone)) int recursive(int n) { return n < 2 ? n : recursive(n - 1) + recursive(n - 2); }
__attribute__((noinline, noclone)) int guarded(int a) {
  if (a > 100) fail("too large\n");
  if (a < 0) fail("too small\n");
  sink = leaf(a);
  if (sink == 5) fail("five\n");
  return with_frame(a);
}

int main(int argc, char **argv) {
  handler = leaf;
  (void)argv;
  return tail(argc) + maybe_tail(argc) + through_plt(argc) + through_pointer(argc) + with_alloca(argc + 64) +
         with_large_frame(argc) + with_aligned_frame(argc) + switched(argc, 2) + looping(argc) + with_cold_part(argc, 2) +
         early(argc) + recursive(argc + 5) + guarded(argc);
}
