// steady calls Work -rate times a second from the start line until the next line; ../../c/steady.c is the same in C.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"
)

var (
	rate       = flag.Int("rate", 4000, "calls per second of all goroutines")
	goroutines = flag.Int("threads", 2, "how many share the rate")
	exitCode   = flag.Int("exit", 0, "exit code")
)

// counters lives in a shared file, so that it survives kill -9.
type counters struct {
	calls, returned, wrong, first int64
}

// Work is what is probed.
//
//go:noinline
func Work(x int) int {
	return x*7 + 3
}

func mapped() *counters {
	path := os.Getenv("TRUTH_COUNTERS")
	if path == "" {
		return &counters{}
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = file.Truncate(int64(unsafe.Sizeof(counters{})))
	}
	if err != nil {
		panic(err)
	}
	memory, err := syscall.Mmap(int(file.Fd()), 0, int(unsafe.Sizeof(counters{})), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	if err != nil {
		panic(err)
	}
	return (*counters)(unsafe.Pointer(&memory[0]))
}

func call(count *counters, ended *atomic.Bool) {
	begin, calls := time.Now(), 0
	for tick := 1; !ended.Load(); tick++ {
		for ; calls < tick**rate/1000 / *goroutines; calls++ {
			atomic.AddInt64(&count.calls, 1)
			if Work(calls) != calls*7+3 {
				atomic.AddInt64(&count.wrong, 1)
			}
			atomic.AddInt64(&count.returned, 1)
		}
		time.Sleep(time.Until(begin.Add(time.Duration(tick) * time.Millisecond)))
	}
}

func main() {
	flag.Parse()
	count, input := mapped(), bufio.NewReader(os.Stdin)
	line := func() {
		if _, err := input.ReadString('\n'); err != nil {
			os.Exit(0)
		}
	}
	fmt.Printf("{\"ready\":true,\"pid\":%d}\n", os.Getpid())
	line()
	var ended atomic.Bool
	var group sync.WaitGroup
	begin := time.Now()
	for range *goroutines {
		group.Add(1)
		go func() {
			defer group.Done()
			call(count, &ended)
		}()
	}
	line()
	ended.Store(true)
	group.Wait()
	report, err := json.Marshal(map[string]any{
		"calls": count.calls, "returned": count.returned, "wrong": count.wrong, "seconds": time.Since(begin).Seconds(),
	})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(report))
	line()
	os.Exit(*exitCode)
}
