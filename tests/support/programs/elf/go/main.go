// Functions of the shapes that Go gives them.
package main

import "os"

var sink int

//go:noinline
func leaf(a int) int { return a*3 + sink }

//go:noinline
func withFrame(a int) int {
	var buffer [64]int
	for i := range buffer {
		buffer[i] = leaf(i + a)
	}
	return buffer[a&63]
}

//go:noinline
func withLargeFrame(a int) int {
	var buffer [10000]int
	for i := range buffer {
		buffer[i] = leaf(i + a)
	}
	return buffer[a&63]
}

//go:noinline
func recovers(a int) (result int) {
	defer func() {
		if recover() != nil {
			result = -1
		}
	}()
	if a > 5 {
		panic("too large")
	}
	return leaf(a)
}

//go:noinline
func switched(a int) int {
	switch a {
	case 0:
		return leaf(a)
	case 1:
		return withFrame(a)
	case 2:
		return a * 17
	case 3:
		sink = a
		return 3
	case 4:
		return sink
	case 5:
		return a / 3
	case 6:
		return leaf(a) - leaf(a+2)
	case 7:
		sink++
		return 9
	case 8:
		return 11
	}
	return -1
}

//go:noinline
func panics(values []int, i int) int { return values[i] / values[i+1] }

type counter struct{ n int }

//go:noinline
func (c *counter) add(by int) int { c.n += by; return c.n }

//go:noinline
func largest[T int | float64](values []T) T {
	best := values[0]
	for _, v := range values {
		if v > best {
			best = v
		}
	}
	return best
}

// inlined is small enough to have no code of its own; partly has some, for those who call it by a variable.
func inlined(a int) int { sink += a; return sink }

func partly(a int) int { sink -= a; return sink }

//go:noinline
func holds(a int) int { return inlined(a) + partly(a) }

var byVariable = partly

func main() {
	c := &counter{}
	n := len(os.Args)
	f := largest([]float64{1, 2, float64(n)})
	os.Exit((leaf(n) + withFrame(n) + withLargeFrame(n) + recovers(n) + switched(n) + panics([]int{1, 2, 3}, n) +
		c.add(n) + holds(n) + byVariable(n) + largest([]int{1, 2, n}) + int(f)) & 1)
}
