// Checkout is the service of a small shop that takes payments. It brings its own customers, so that there is something to
// debug as soon as it runs. One payment in fifty is slow: which, and how slow, is what Coral finds out from the outside.
//
// It takes no requests and knows nothing of Coral. At its end it says how many payments it made, to compare with.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// reviewEvery says which orders are reviewed before they are paid: every fiftieth.
const reviewEvery = 50

var errNothingToPay = errors.New("nothing to pay")

// ProcessPayment charges the customer of an order and returns the number of the receipt.
//
//go:noinline
func ProcessPayment(order int64, cents int64) (string, error) {
	if cents <= 0 {
		return "", errNothingToPay
	}
	if order%reviewEvery == 0 {
		time.Sleep(40 * time.Millisecond) // a second service has a look at it
	} else {
		time.Sleep(time.Duration(200+order*7919%1800) * time.Microsecond) // 0.2 to 2 ms at the bank
	}
	return fmt.Sprintf("R-%08d-%d", order, cents), nil
}

// summary is what the program prints at its end, one line of JSON.
type summary struct {
	Name  string `json:"name"`
	Calls int64  `json:"calls"`
	Slow  int64  `json:"slow"`
}

func main() {
	rate := flag.Int("rate", 300, "payments per second")
	workers := flag.Int("workers", 8, "goroutines that make payments")
	seconds := flag.Float64("seconds", 0, "how long to run; 0 = until SIGTERM or Ctrl-C")
	name := flag.String("name", "checkout", "the name in the last line")
	flag.Parse()
	if *rate < 1 || *workers < 1 || *seconds < 0 {
		fmt.Fprintln(os.Stderr, "checkout: -rate and -workers are at least 1, -seconds at least 0")
		os.Exit(2)
	}

	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	var deadline <-chan time.Time
	if *seconds > 0 {
		deadline = time.After(time.Duration(*seconds * float64(time.Second)))
	}

	var calls, slow atomic.Int64
	orders := make(chan int64)
	var working sync.WaitGroup
	for range *workers {
		working.Add(1)
		go func() {
			defer working.Done()
			for order := range orders {
				if _, err := ProcessPayment(order, 100+order%9900); err != nil {
					fmt.Fprintln(os.Stderr, "checkout:", err)
				}
				calls.Add(1)
				if order%reviewEvery == 0 {
					slow.Add(1)
				}
			}
		}()
	}

	customers := time.NewTicker(time.Second / time.Duration(*rate))
	for order := int64(1); ; order++ {
		select {
		case <-customers.C:
			orders <- order
			continue
		case <-stop:
		case <-deadline:
		}
		break
	}
	close(orders)
	working.Wait()
	if err := json.NewEncoder(os.Stdout).Encode(summary{*name, calls.Load(), slow.Load()}); err != nil {
		os.Exit(1)
	}
}
