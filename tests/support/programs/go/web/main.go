// A web server that counts the requests it handled, and its load, in one program: -load ADDRESS makes it the client.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

var (
	load     = flag.String("load", "", "be the client of this address")
	requests = flag.Int("requests", 1000, "requests of each client")
	clients  = flag.Int("clients", 4, "clients at once")
)

func serve() {
	var handled atomic.Int64
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if handled.Add(1)%100 == 0 {
			time.Sleep(2 * time.Millisecond)
		}
		fmt.Fprintln(w, r.URL.Path)
	})
	go func() { panic(http.Serve(listener, handler)) }()
	lines := bufio.NewReader(os.Stdin)
	await := func() {
		if _, err := lines.ReadString('\n'); err != nil {
			os.Exit(0)
		}
	}
	fmt.Printf("{\"ready\":true,\"pid\":%d,\"address\":%q}\n", os.Getpid(), listener.Addr())
	await()
	fmt.Printf("{\"calls\":%d,\"returned\":%d}\n", handled.Load(), handled.Load())
	await()
}

func client() {
	var answered atomic.Int64
	var all sync.WaitGroup
	for c := 0; c < *clients; c++ {
		all.Add(1)
		go func() {
			defer all.Done()
			own := &http.Client{Transport: &http.Transport{}}
			for i := 0; i < *requests; i++ {
				response, err := own.Get(fmt.Sprintf("http://%s/%d/%d", *load, c, i))
				if err != nil {
					panic(err)
				}
				io.Copy(io.Discard, response.Body)
				response.Body.Close()
				if response.StatusCode == http.StatusOK {
					answered.Add(1)
				}
			}
		}()
	}
	all.Wait()
	fmt.Printf("{\"answered\":%d}\n", answered.Load())
}

func main() {
	flag.Parse()
	if *load != "" {
		client()
		return
	}
	serve()
}
