// A plugin: it has a table of functions of its own.
package main

//go:noinline
func Plugged(x int) int {
	if x%4 == 0 {
		var frame [8 << 10]byte
		frame[x%len(frame)] = byte(x)
		return int(frame[x%len(frame)]) - int(byte(x)) + x*3
	}
	return x * 3
}

// Work calls Plugged.
func Work(n int) int {
	sum := 0
	for i := 0; i < n; i++ {
		done := make(chan int)
		go func(x int) { done <- Plugged(x) }(i)
		sum += <-done
	}
	return sum
}

func main() {}
