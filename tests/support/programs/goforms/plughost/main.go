// Loads the plugin that it is given, and calls it.
package main

import (
	"bufio"
	"fmt"
	"os"
	"plugin"
)

func main() {
	lines := bufio.NewReader(os.Stdin)
	await := func() {
		if _, err := lines.ReadString('\n'); err != nil {
			os.Exit(0)
		}
	}
	loaded, err := plugin.Open(os.Args[1])
	if err != nil {
		panic(err)
	}
	symbol, err := loaded.Lookup("Work")
	if err != nil {
		panic(err)
	}
	fmt.Printf("{\"ready\":true,\"pid\":%d}\n", os.Getpid())
	await()
	const n = 200
	if symbol.(func(int) int)(n) != 3*n*(n-1)/2 {
		panic("a wrong sum")
	}
	fmt.Printf("{\"tallies\":{\"LIBRARY!Plugged\":{\"entered\":%d,\"returned\":%d,\"gone\":0},\"LIBRARY!Work\":{\"entered\":1,\"returned\":1,\"gone\":0}}}\n", n, n)
	await()
	os.Exit(7)
}
