// For each line "work N" on stdin, calls work N times; answers with the CPU time that it took, in ns. With arguments,
// CALLS_PER_SECOND SECONDS GOROUTINES wait, it waits for a line, calls work at that rate, and prints how often as JSON; at 0
// calls per second, as fast as it can.
package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"
)

//go:noinline
func leaf(n int) int { return n + 1 }

//go:noinline
func work(n int) int {
	first := leaf(n)
	return first + leaf(first^n)
}

func cpuNs() int64 {
	var used syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	return used.Utime.Nano() + used.Stime.Nano()
}

func atRate(rate, seconds int) (calls int) {
	begun := time.Now()
	for rate == 0 && time.Since(begun) < time.Duration(seconds)*time.Second {
		for end := calls + 100; calls < end; calls++ {
			work(calls)
		}
	}
	for tick := 1; rate > 0 && tick <= seconds*1000; tick++ {
		for ; calls < tick*rate/1000; calls++ {
			work(calls)
		}
		time.Sleep(time.Until(begun.Add(time.Duration(tick) * time.Millisecond)))
	}
	return calls
}

func manyAtRate(rate, seconds, goroutines int) {
	fmt.Scanln()
	begun, total := time.Now(), 0
	made := make(chan int)
	for i := 0; i < goroutines; i++ {
		go func() { made <- atRate(rate/goroutines, seconds) }()
	}
	for i := 0; i < goroutines; i++ {
		total += <-made
	}
	fmt.Printf("{\"calls\":%d,\"seconds\":%.3f}\n", total, time.Since(begun).Seconds())
}

func main() {
	if len(os.Args) == 5 {
		var words [3]int
		for i := range words {
			words[i], _ = strconv.Atoi(os.Args[i+1])
		}
		manyAtRate(words[0], words[1], words[2])
		return
	}
	var name string
	var calls int
	for {
		if _, err := fmt.Scan(&name, &calls); err != nil {
			return
		}
		before := cpuNs()
		sum := 0
		for i := 0; i < calls; i++ {
			sum += work(i)
		}
		fmt.Println(cpuNs()-before, sum&1)
	}
}
