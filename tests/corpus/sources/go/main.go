// What the Go compiler makes of Go: methods, closures, generics, defers and panics, goroutines, the packages that services use.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"sort"
	"strings"
	"sync"
	"text/template"
	"time"
)

type shape interface {
	area() float64
}

type square struct{ side float64 }
type circle struct{ radius float64 }

func (s square) area() float64  { return s.side * s.side }
func (c *circle) area() float64 { return 3.14159 * c.radius * c.radius }

type number interface {
	~int | ~int64 | ~float64
}

//go:noinline
func largest[T number](values ...T) T {
	best := values[0]
	for _, value := range values {
		if value > best {
			best = value
		}
	}
	return best
}

type stack[T any] struct{ items []T }

func (s *stack[T]) push(item T) { s.items = append(s.items, item) }
func (s *stack[T]) pop() (T, bool) {
	var zero T
	if len(s.items) == 0 {
		return zero, false
	}
	item := s.items[len(s.items)-1]
	s.items = s.items[:len(s.items)-1]
	return item, true
}

//go:noinline
func recovers(value int) (result int) {
	defer func() {
		if caught := recover(); caught != nil {
			result = -1
		}
	}()
	return panics(value)
}

//go:noinline
func panics(value int) int {
	if value%3 == 0 {
		panic(fmt.Errorf("divisible: %d", value))
	}
	return value * 2
}

//go:noinline
func counter() func() int {
	count := 0
	return func() int { count++; return count }
}

//go:noinline
func deep(depth int) int {
	var room [256]byte
	room[depth%256] = byte(depth)
	if depth == 0 {
		return int(room[0])
	}
	return deep(depth-1) + int(room[depth%256])
}

//go:noinline
func classify(value int) string {
	switch value {
	case 0:
		return "zero"
	case 1:
		return "one"
	case 2:
		return "two"
	case 3:
		return "three"
	case 4:
		return "four"
	case 5:
		return "five"
	case 6:
		return "six"
	case 7:
		return "seven"
	case 8:
		return "eight"
	default:
		return "many"
	}
}

func parallel(ctx context.Context, parts int) (int, error) {
	var group sync.WaitGroup
	results := make(chan int, parts)
	for part := 0; part < parts; part++ {
		group.Add(1)
		go func(part int) {
			defer group.Done()
			select {
			case results <- part * part:
			case <-ctx.Done():
			}
		}(part)
	}
	group.Wait()
	close(results)
	total := 0
	for result := range results {
		total += result
	}
	return total, ctx.Err()
}

func serve() (string, error) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"path": r.URL.Path, "sum": sha256.Sum256([]byte(r.URL.Path))})
	}))
	defer server.Close()
	response, err := http.Get(server.URL + "/things")
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), err
}

func main() {
	shapes := []shape{square{2}, &circle{1.5}}
	total := 0.0
	for _, one := range shapes {
		total += one.area()
	}
	next := counter()
	next()
	var numbers stack[int]
	var names stack[string]
	numbers.push(3)
	names.push("three")
	top, _ := numbers.pop()
	name, _ := names.pop()
	words := strings.Fields("the quick brown fox")
	sort.Slice(words, func(i, j int) bool { return words[i] > words[j] })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	sum, err := parallel(ctx, 8)
	body, serveErr := serve()
	var out bytes.Buffer
	_ = template.Must(template.New("t").Parse("{{range .}}<{{.}}>{{end}}")).Execute(&out, words)
	matched := regexp.MustCompile(`(\w+)@(\w+)`).FindString("mail someone@example now")
	fmt.Println(total, next(), largest(1, 5, 3), largest(1.5, 0.5), top, name, recovers(3), recovers(4), deep(2000)&1,
		classify(sum%10), out.String(), matched, len(body), errors.Join(err, serveErr))
	if serveErr != nil {
		os.Exit(1)
	}
}
