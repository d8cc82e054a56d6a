// Calls between Go and C, in both directions, each of which is counted by its callers.
package main

/*
#include <pthread.h>
#include <stdlib.h>

extern int goCallback(int);

__attribute__((noinline)) static int c_work(int x) { __asm__ volatile(""); return x * 3; }
__attribute__((noinline)) static int c_calls_go(int x) { return goCallback(x) + c_work(x); }

static void *c_thread(void *n) {
	long sum = 0;
	for (long i = 0; i < (long)n; i++)
		sum += c_calls_go((int)i);
	return (void *)sum;
}

static long c_threads(int count, long n) {
	pthread_t threads[16];
	long sum = 0;
	for (int i = 0; i < count; i++)
		pthread_create(&threads[i], NULL, c_thread, (void *)n);
	for (int i = 0; i < count; i++) {
		void *one;
		pthread_join(threads[i], &one);
		sum += (long)one;
	}
	return sum;
}
*/
import "C"

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"runtime"
	"sync/atomic"
)

var (
	rounds = flag.Int("rounds", 40, "calls of each function")
	inside int64
)

type tally struct {
	Entered  int64 `json:"entered"`
	Returned int64 `json:"returned"`
	Gone     int64 `json:"gone"`
}

//export goCallback
func goCallback(x C.int) C.int {
	atomic.AddInt64(&inside, 1)
	if x%8 == 0 {
		runtime.Gosched()
	}
	return C.int(Grow(int(x), 3))
}

// Grow needs more stack the deeper it is, while C's frames lie below it.
//
//go:noinline
func Grow(x, depth int) int {
	var frame [4 << 10]byte
	frame[x&1023] = 1
	if depth > 0 {
		return Grow(x, depth-1) + int(frame[x&1023]) - 1
	}
	return x
}

//go:noinline
func Down(x int) int { return int(C.c_calls_go(C.int(x))) }

func main() {
	flag.Parse()
	lines := bufio.NewReader(os.Stdin)
	await := func() {
		if _, err := lines.ReadString('\n'); err != nil {
			os.Exit(0)
		}
	}
	fmt.Printf("{\"ready\":true,\"pid\":%d}\n", os.Getpid())
	await()
	n := *rounds
	for i := 0; i < n; i++ {
		if Down(i) != 4*i {
			panic("a wrong result")
		}
	}
	if int(C.c_threads(4, C.long(n))) != 4*4*n*(n-1)/2 {
		panic("a wrong sum")
	}
	all := int64(5 * n)
	if inside != all {
		panic("calls are missing")
	}
	text, err := json.Marshal(map[string]interface{}{"version": runtime.Version(), "tallies": map[string]tally{
		"main.Down": {int64(n), int64(n), 0}, "main.goCallback": {all, all, 0}, "goCallback": {all, all, 0}, "main.Grow": {4 * all, 4 * all, 0},
		"c_work": {all, all, 0}, "c_calls_go": {all, all, 0}, "c_thread": {4, 4, 0}, "main._Cfunc_c_calls_go": {int64(n), int64(n), 0},
	}})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
	await()
	os.Exit(7)
}
