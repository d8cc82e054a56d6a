// Functions of every form that Go has, each of which is called a known number of times.
//
// It is written for Go 1.18, so that every version from there on builds it. The protocol is that of the C programs (truth.h):
// "ready", a line to start, one line of counters, a line to end. What is counted of a function is counted by its callers.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var rounds = flag.Int("rounds", 40, "calls of each function")

// tally is what callers counted of one function: calls begun, calls that returned, calls that will never return.
type tally struct {
	Entered  int64 `json:"entered"`
	Returned int64 `json:"returned"`
	Gone     int64 `json:"gone"`
}

var (
	tallies = map[string]*tally{}
	checks  int64
)

func of(name string) *tally {
	found := tallies[name]
	if found == nil {
		found = &tally{}
		tallies[name] = found
	}
	return found
}

func (t *tally) begin() { atomic.AddInt64(&t.Entered, 1) }
func (t *tally) end()   { atomic.AddInt64(&t.Returned, 1) }
func (t *tally) gone()  { atomic.AddInt64(&t.Gone, 1) }
func (t *tally) count(calls int64) {
	atomic.AddInt64(&t.Entered, calls)
	atomic.AddInt64(&t.Returned, calls)
}

func check(ok bool) {
	if !ok {
		panic("a wrong result")
	}
	atomic.AddInt64(&checks, 1)
}

// ---- Methods ----

type Counter struct{ n int }

//go:noinline
func (c *Counter) Add(by int) int { c.n += by; return c.n }

type Point struct{ X, Y int }

//go:noinline
func (p Point) Sum() int { return p.X + p.Y }

type summer interface{ Sum() int }
type adder interface{ Add(int) int }

// Outer promotes Add: what an interface calls is a wrapper that the compiler wrote.
type Outer struct {
	pad int
	*Counter
}

//go:noinline
func throughInterface(s summer) int { return s.Sum() }

//go:noinline
func addThroughInterface(a adder) int { return a.Add(2) }

func methods(n int) {
	var c Counter
	for i := 0; i < n; i++ {
		c.Add(1)
		check(Point{i, 2}.Sum() == i+2)
		check(throughInterface(&Point{i, 3}) == i+3)
	}
	bound := c.Add
	held := []func(int) int{bound}
	for i := 0; i < n; i++ {
		held[i%len(held)](1)
	}
	check(c.n == 2*n)
	outer := &Outer{1, &c}
	for i := 0; i < n; i++ {
		check(addThroughInterface(outer) == 2*n+2*(i+1))
	}
	of("main.(*Counter).Add").count(int64(3 * n))
	of("main.(*Counter).Add-fm").count(int64(n))
	of("main.(*Outer).Add").count(int64(n))
	of("main.Point.Sum").count(int64(2 * n))
	of("main.(*Point).Sum").count(int64(n))
}

// ---- Closures, defers, generics ----

//go:noinline
func closures(n int) int {
	total := 0
	add := func(x int) { total += x; sink = append(sink[:0], x) }
	call(add, n)
	return total
}

var sink []int

//go:noinline
func call(f func(int), n int) {
	for i := 0; i < n; i++ {
		f(i)
	}
}

type number interface{ ~int | ~float64 | ~string }

//go:noinline
func Largest[T number](values ...T) T {
	best := values[0]
	for _, v := range values {
		if v > best {
			best = v
		}
	}
	return best
}

type List[T any] struct{ items []T }

//go:noinline
func (l *List[T]) Push(item T) int { l.items = append(l.items, item); return len(l.items) }

func generics(n int) {
	var numbers List[int]
	var words List[string]
	for i := 0; i < n; i++ {
		check(Largest(i, 3, 2) >= 3)
		check(Largest("a", "c", "b") == "c")
		check(numbers.Push(i) == i+1)
		check(words.Push("w") == i+1)
	}
	of("main.Largest").count(int64(2 * n))
	of("main.Largest[string]").count(int64(n))
	of("main.(*List).Push").count(int64(2 * n))
	of("main.(*List[int]).Push").count(int64(n))
}

//go:noinline
func Deferred(x int) (result int) {
	for i := 0; i < 3; i++ {
		defer func() { result++ }()
	}
	return x
}

// tiny is inlined wherever it is called, unless inlining is switched off.
func tiny(x int) int { sink = append(sink[:0], x); return sink[0] ^ 5 }

// AddAssembly and Spin are in assembly: one calls nothing, the other is called by it.
func AddAssembly(a, b int) int

//go:noinline
func Switch(x int) int {
	switch x & 15 {
	case 0:
		return AddAssembly(x, 1)
	case 1:
		return x * 3
	case 2:
		return x ^ 77
	case 3:
		return x / 3
	case 4:
		return -x
	case 5:
		return x << 3
	case 6:
		return x - 9
	case 7:
		return x | 64
	case 8:
		return x & 3
	case 9:
		return x % 11
	}
	return x + 1
}

// Mix uses wide registers where the compiler may: GOAMD64=v3 and v4 choose other instructions here.
//
//go:noinline
func Mix(a, b uint64, f float64) uint64 {
	return (a&^b)<<(b&63) + a*b + uint64(f*float64(a)+1.5) + uint64(len(sink))
}

// ---- Panics, recover, Goexit ----

//go:noinline
func Thrower(x int) int {
	if x%3 == 0 {
		panic("thrown")
	}
	return x
}

//go:noinline
func Middle(x int) int { return Thrower(x) + 1 }

//go:noinline
func Catcher(x int) (result int) {
	defer func() {
		if recover() != nil {
			result = -1
		}
	}()
	of("main.Middle").begin()
	of("main.Thrower").begin()
	result = Middle(x)
	of("main.Middle").end()
	of("main.Thrower").end()
	return result
}

// Rethrow panics again while it recovers: two panics cross one frame.
//
//go:noinline
func Rethrow(x int) int {
	defer func() {
		if recovered := recover(); recovered != nil {
			panic("again")
		}
	}()
	return Thrower(x)
}

func panics(n int) {
	lost := 0
	for i := 0; i < n; i++ {
		of("main.Catcher").begin()
		if Catcher(i) < 0 {
			lost++
		}
		of("main.Catcher").end()
		func() {
			defer func() {
				if recover() != nil {
					lost++
				}
			}()
			of("main.Rethrow").begin()
			of("main.Thrower").begin()
			check(Rethrow(i) == i)
			of("main.Rethrow").end()
			of("main.Thrower").end()
		}()
	}
	check(lost == 2*((n+2)/3))
}

//go:noinline
func Leaver(x int) int {
	if x%2 == 0 {
		runtime.Goexit()
	}
	return x
}

func leavers(n int) {
	for i := 0; i < n; i++ {
		x := i
		alone(func() {
			of("main.Leaver").begin()
			if x%2 == 0 {
				of("main.Leaver").gone()
			}
			check(Leaver(x) == x)
			of("main.Leaver").end()
		})
	}
}

// alone runs body on a fresh goroutine, which may end by Goexit.
func alone(body func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		body()
	}()
	<-done
}

// ---- Stacks that move ----

//go:noinline
func Deep(depth int) int {
	var frame [256]byte
	frame[depth%len(frame)] = 1
	if depth == 0 {
		return int(frame[0])
	}
	return Deep(depth-1) + int(frame[depth%len(frame)])
}

//go:noinline
func Large(x int) int {
	var frame [20 << 10]byte
	for i := range frame {
		frame[i] = byte(x + i)
	}
	return int(frame[x%len(frame)])
}

// Shrink is open while the collector gives half of its goroutine's stack back.
//
//go:noinline
func Shrink(depth int) int {
	if depth == 0 {
		Large(1)
		of("main.Large").count(1)
		runtime.GC()
		runtime.Gosched()
		runtime.GC()
		return 0
	}
	return Shrink(depth-1) + 1
}

func stacks(n int) {
	for i := 0; i < n; i++ {
		alone(func() { check(Deep(150) == 151) })
		alone(func() { Large(3) })
	}
	of("main.Deep").count(int64(151 * n))
	of("main.Large").count(int64(n))
	for i := 0; i < 4; i++ {
		alone(func() { check(Shrink(5) == 5) })
	}
	of("main.Shrink").count(24)
}

// ---- Threads ----

//go:noinline
func Locked(x int) int {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	runtime.Gosched()
	return x
}

//go:noinline
func Blocking(in, out chan int) int {
	out <- 1
	return <-in
}

//go:noinline
func Worker(id int, all *sync.WaitGroup) { defer all.Done(); sinks[id%len(sinks)]++ }

var sinks [64]int

func threads(n int) {
	var all sync.WaitGroup
	for i := 0; i < 8; i++ {
		all.Add(1)
		go func() {
			defer all.Done()
			for j := 0; j < n; j++ {
				check(Locked(j) == j)
			}
		}()
	}
	all.Wait()
	of("main.Locked").count(int64(8 * n))
	for i := 0; i < n; i++ {
		in, out := make(chan int), make(chan int)
		all.Add(1)
		go func() { check(Blocking(in, out) == 7); all.Done() }()
		<-out
		in <- 7
	}
	all.Wait()
	of("main.Blocking").count(int64(n))
	for i := 0; i < n; i++ {
		all.Add(1)
		go Worker(i, &all)
	}
	all.Wait()
	of("main.Worker").count(int64(n))
}

// ---- Signals ----

//go:noinline
func Handled(s os.Signal) bool { return s == syscall.SIGUSR1 }

func signals(n int) {
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGUSR1)
	for i := 0; i < n; i++ {
		syscall.Kill(os.Getpid(), syscall.SIGUSR1)
		check(Handled(<-got))
	}
	signal.Stop(got)
	of("main.Handled").count(int64(n))
}

//go:noinline
func Slow(d time.Duration) { time.Sleep(d) }

type span struct {
	Inner int64 `json:"inner_ns"`
	Outer int64 `json:"outer_ns"`
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
	n := *rounds
	// A signal arrives every 10 ms of work, on whatever thread, in whatever function.
	if err := pprof.StartCPUProfile(io.Discard); err != nil {
		panic(err)
	}
	methods(n)
	check(closures(n) == n*(n-1)/2)
	of("main.closures").count(1)
	of("main.closures.func1").count(int64(n))
	generics(n)
	for i := 0; i < n; i++ {
		check(Deferred(i) == i+3)
		check(tiny(i) == i^5)
		check(Switch(i) < 1<<20)
		Mix(uint64(i), uint64(n), 2.5)
	}
	of("main.Deferred").count(int64(n))
	of("main.Switch").count(int64(n))
	of("main.Mix").count(int64(n))
	of("main.AddAssembly").count(int64((n + 15) / 16))
	panics(n)
	leavers(n)
	debug.SetGCPercent(-1) // the collector would make fresh stacks larger, and nothing would grow
	stacks(n)
	debug.SetGCPercent(100)
	threads(n)
	signals(n)
	spans := make([]span, 8)
	for i := range spans {
		before := time.Now()
		Slow(time.Duration(1+i) * time.Millisecond)
		spans[i] = span{int64(1+i) * int64(time.Millisecond), int64(time.Since(before))}
	}
	of("main.Slow").count(8)
	pprof.StopCPUProfile()
	text, err := json.Marshal(map[string]interface{}{"tallies": tallies, "checks": checks, "slow": spans, "version": runtime.Version()})
	if err != nil {
		panic(err)
	}
	fmt.Println(string(text))
	await()
	os.Exit(7)
}
