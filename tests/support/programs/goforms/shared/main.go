// A library for C, of Go: its functions are called on threads that Go did not make.
package main

import "C"

//export GoWork
//go:noinline
func GoWork(x C.int) C.int { return C.int(Inner(int(x))) }

// Inner needs more stack than a fresh goroutine has.
//
//go:noinline
func Inner(x int) int {
	var frame [8 << 10]byte
	for i := range frame {
		frame[i] = byte(x)
	}
	return int(frame[x%len(frame)]) + x
}

func main() {}
