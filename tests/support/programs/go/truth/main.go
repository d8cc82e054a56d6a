// Ground-truth programs in Go: each scenario counts its own calls and says so in one JSON line at its end.
//
// The protocol is that of the C programs (truth.h): "ready", a line to start, one line of counters, a line to end.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

var (
	scenario   = flag.String("scenario", "flood", "which of the functions below")
	goroutines = flag.Int("goroutines", 8, "how many at once")
	calls      = flag.Int("calls", 1000, "calls of each goroutine")
	rate       = flag.Int("rate", 0, "calls per second of each goroutine, 0 for no limit")
	exitCode   = flag.Int("exit", 0, "exit code")
)

var entered, returned, left, wrong atomic.Int64

// timing is what a caller knows of one call of Slow.
type timing struct {
	Inner    int64 `json:"inner_ns"`
	Outer    int64 `json:"outer_ns"`
	Waited   int64 `json:"waited_ns"` // for a processor, of all threads: a goroutine may change its own
	WallFrom int64 `json:"wall_from_ns"`
	WallTo   int64 `json:"wall_to_ns"`
}

// Work is called at full speed.
//
//go:noinline
func Work(x int) int {
	return x*7 + 3
}

// Grow needs more stack than a fresh goroutine has: the runtime moves its stack before the first instruction of the body.
//
//go:noinline
func Grow(x int) int {
	var frame [6 << 10]byte
	for i := range frame {
		frame[i] = byte(x + i)
	}
	return int(frame[x%len(frame)]) + int(frame[len(frame)-1])
}

// Recurse grows the stack with frames of itself open, and lets the collector shrink it in between.
//
//go:noinline
func Recurse(depth int) int {
	entered.Add(1)
	var frame [512]byte
	frame[depth%len(frame)] = 1
	sum := int(frame[depth%len(frame)])
	if depth == 100 {
		runtime.GC()
	}
	if depth > 0 {
		sum += Recurse(depth - 1)
		returned.Add(1)
	}
	return sum
}

// Migrate gives its thread away while it runs, so that it often returns on another one than it entered on.
//
//go:noinline
func Migrate(x int) int {
	if x%8 == 0 {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
	}
	runtime.Gosched()
	if x%16 == 1 {
		time.Sleep(50 * time.Microsecond)
	}
	runtime.Gosched()
	return x + 1
}

// Risky panics for some arguments: it recovers by itself (and returns), or its caller does (and it never returns).
//
//go:noinline
func Risky(x int) (result int) {
	if x%4 == 1 {
		defer func() {
			if recover() != nil {
				result = -1
			}
		}()
		panic("recovered here")
	}
	if x%4 == 3 {
		panic("recovered by the caller")
	}
	if x%4 == 2 && x%8 == 2 {
		runtime.Goexit()
	}
	return x
}

// Slow sleeps for d, and notes what it knows of its own duration.
//
//go:noinline
func Slow(d time.Duration, t *timing) {
	begin := time.Now()
	time.Sleep(d)
	t.WallFrom = time.Now().UnixNano()
	t.Inner = int64(time.Since(begin))
}

// ProcessPayment is what the first users of this debugger looked at.
//
//go:noinline
func ProcessPayment(order int) int {
	if order%50 == 49 {
		time.Sleep(5 * time.Millisecond)
	}
	return order * 2
}

func count(call func()) {
	entered.Add(1)
	call()
	returned.Add(1)
}

func expect(ok bool) {
	if !ok {
		wrong.Add(1)
	}
}

// concurrently runs body in so many goroutines, and waits for all.
func concurrently(body func(id int)) {
	var all sync.WaitGroup
	for id := 0; id < *goroutines; id++ {
		all.Add(1)
		go func() {
			defer all.Done()
			body(id)
		}()
	}
	all.Wait()
}

// paced calls body *calls times, at *rate per second.
func paced(body func(i int)) {
	begin := time.Now()
	for i := 0; i < *calls; i++ {
		body(i)
		if *rate > 0 {
			time.Sleep(time.Until(begin.Add(time.Duration(i+1) * time.Second / time.Duration(*rate))))
		}
	}
}

// onFreshGoroutine runs body on a goroutine that has no stack yet, one that may also end by Goexit.
func onFreshGoroutine(body func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		body()
	}()
	<-done
}

func slowCalls(timings []timing) {
	for i := range timings {
		// 1 ms to 50 ms, in an order that is not sorted
		d := time.Millisecond + 49*time.Millisecond*time.Duration((i*7)%len(timings))/time.Duration(len(timings))
		waited := waitedForProcessor()
		before := time.Now()
		count(func() { Slow(d, &timings[i]) })
		timings[i].Outer = int64(time.Since(before))
		timings[i].WallTo = time.Now().UnixNano()
		timings[i].Waited = waitedForProcessor() - waited
	}
}

// waitedForProcessor is how long all threads together could have run and did not, in ns: /proc/PID/task/TID/schedstat.
func waitedForProcessor() int64 {
	threads, err := filepath.Glob("/proc/self/task/*/schedstat")
	if err != nil {
		panic(err)
	}
	var all int64
	for _, thread := range threads {
		line, err := os.ReadFile(thread)
		if err != nil {
			panic(err) // Go keeps its threads
		}
		var ran, waited int64
		if _, err := fmt.Sscan(string(line), &ran, &waited); err != nil {
			panic(err)
		}
		all += waited
	}
	return all
}

func run() map[string]any {
	extra := map[string]any{}
	switch *scenario {
	case "flood":
		concurrently(func(id int) {
			sum := 0
			for i := 0; i < *calls; i++ {
				sum += Work(i)
			}
			entered.Add(int64(*calls))
			returned.Add(int64(*calls))
			expect(sum == 7*(*calls)*(*calls-1)/2+3*(*calls))
		})
	case "grow":
		debug.SetGCPercent(-1) // the collector would make fresh stacks larger, and nothing would grow
		concurrently(func(id int) {
			for i := 0; i < *calls; i++ {
				onFreshGoroutine(func() { count(func() { Grow(i) }) })
			}
		})
	case "recurse":
		concurrently(func(id int) {
			for i := 0; i < *calls; i++ {
				onFreshGoroutine(func() {
					expect(Recurse(300) == 301)
					returned.Add(1)
				})
			}
		})
	case "migrate":
		concurrently(func(id int) {
			for i := 0; i < *calls; i++ {
				count(func() { expect(Migrate(i) == i+1) })
			}
		})
	case "panic":
		concurrently(func(id int) {
			for i := 0; i < *calls; i++ {
				onFreshGoroutine(func() {
					defer func() {
						if recover() != nil {
							left.Add(1)
						}
					}()
					count(func() { Risky(i) })
				})
			}
		})
	case "slow":
		timings := make([]timing, *calls)
		slowCalls(timings)
		extra["slow"] = timings
	case "slow-concurrent":
		all := make([][]timing, *goroutines)
		concurrently(func(id int) {
			all[id] = make([]timing, *calls)
			slowCalls(all[id])
		})
		var timings []timing
		for _, some := range all {
			timings = append(timings, some...)
		}
		extra["slow"] = timings
	case "payments":
		concurrently(func(id int) {
			paced(func(i int) { count(func() { expect(ProcessPayment(i) == i*2) }) })
		})
	default:
		panic("no scenario " + *scenario)
	}
	return extra
}

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
	from := time.Now().UnixNano()
	counted := run()
	counted["wall_from_ns"] = from
	counted["wall_to_ns"] = time.Now().UnixNano()
	counted["calls"] = entered.Load()
	counted["returned"] = returned.Load()
	counted["left"] = left.Load()
	counted["wrong"] = wrong.Load()
	text, err := json.Marshal(counted)
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
	await()
	os.Exit(*exitCode)
}
