// A load generator for HTTP/1.1 over loopback that costs little: the machine it runs on is the one that is measured.
//
//	loadgen load    -address HOST:PORT -path /get-online-features -bodies FILE -connections 32 -seconds 5 [-rate 9000]
//	loadgen trivial -address HOST:PORT -answer FILE
//
// `load` posts the lines of a file in turn. Without a rate every connection asks again as soon as it has its answer.
// With one, requests are due at random instants (a Poisson process of that rate, the same in every run), whatever
// became of those before, and a request's time counts from when it was due: a server that stalls has all that came due
// meanwhile counted against it. `trivial` answers every request with the same bytes: against it the generator shows
// what it could do. Both speak no more HTTP than they need.
package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const patience = 30 * time.Second // for one answer

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("usage: loadgen load|trivial"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	address := flags.String("address", "", "host:port")
	switch os.Args[1] {
	case "load":
		path := flags.String("path", "/", "the path to post to")
		bodies := flags.String("bodies", "", "a file with a JSON body a line")
		connections := flags.Int("connections", 1, "how many are open")
		seconds := flags.Float64("seconds", 5, "how long requests count")
		skip := flags.Float64("skip", 0.5, "for how long before that they do not count")
		rate := flags.Float64("rate", 0, "requests a second; 0 is as many as get answered")
		once := flags.Bool("once", false, "send no body twice: end when there are no more")
		check(flags.Parse(os.Args[2:]))
		load := &load{address: *address, once: *once, requests: requestsOf(*address, *path, *bodies)}
		load.begin = time.Now().Add(time.Duration(*skip * 1e9))
		load.end = load.begin.Add(time.Duration(*seconds * 1e9))
		if *rate > 0 {
			load.open(*connections, *rate)
		} else {
			load.closed(*connections)
		}
		check(json.NewEncoder(os.Stdout).Encode(load.report(*seconds)))
	case "trivial":
		answer := flags.String("answer", "", "a file with the body of every answer")
		check(flags.Parse(os.Args[2:]))
		trivial(*address, *answer)
	default:
		fail(fmt.Errorf("loadgen knows load and trivial, not %q", os.Args[1]))
	}
}

// ---- what is sent ----

func requestsOf(address, path, file string) [][]byte {
	lines, err := os.ReadFile(file)
	check(err)
	var requests [][]byte
	for line := range bytes.Lines(lines) {
		body := bytes.TrimRight(line, "\n")
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
			path, address, len(body))
		requests = append(requests, append([]byte(head), body...))
	}
	if len(requests) == 0 {
		fail(fmt.Errorf("%s has no bodies", file))
	}
	return requests
}

// A load: what is sent, when it counts, and what came of it.
type load struct {
	address    string
	requests   [][]byte
	once       bool
	begin, end time.Time

	sent        atomic.Int64
	reconnected atomic.Int64

	mutex     sync.Mutex
	took      []time.Duration
	late      []time.Duration
	refused   map[int]int
	refusal   string
	last      time.Time
	exhausted bool
}

// next is the next request; nil when all are sent that may be.
func (load *load) next() []byte {
	number := load.sent.Add(1) - 1
	if load.once && number >= int64(len(load.requests)) {
		load.mutex.Lock()
		load.exhausted = true
		load.mutex.Unlock()
		return nil
	}
	return load.requests[number%int64(len(load.requests))]
}

// ---- as many as get answered ----

func (load *load) closed(connections int) {
	var all sync.WaitGroup
	for range connections {
		all.Go(func() {
			line := load.connect()
			defer func() { line.close() }()
			took := make([]time.Duration, 0, 1<<16)
			for {
				begun := time.Now()
				if begun.After(load.end) {
					break
				}
				request := load.next()
				if request == nil {
					break
				}
				status := line.ask(request)
				// What began before does not count, and neither does what is answered after the end: the rate is of
				// answers within the time.
				now := time.Now()
				if begun.Before(load.begin) || now.After(load.end) {
					continue
				}
				if status == 200 || status == 202 {
					took = append(took, now.Sub(begun))
				} else {
					load.refuse(status, line.body)
				}
			}
			load.mutex.Lock()
			load.took = append(load.took, took...)
			if now := time.Now(); now.After(load.last) {
				load.last = now
			}
			load.mutex.Unlock()
		})
	}
	all.Wait()
}

func (load *load) refuse(status int, body []byte) {
	load.mutex.Lock()
	defer load.mutex.Unlock()
	if load.refused == nil {
		load.refused, load.refusal = map[int]int{}, string(body)
	}
	load.refused[status]++
}

// ---- what came of it ----

func (load *load) report(seconds float64) map[string]any {
	if load.exhausted && load.last.Before(load.end) {
		seconds = load.last.Sub(load.begin).Seconds()
	}
	var used syscall.Rusage
	check(syscall.Getrusage(syscall.RUSAGE_SELF, &used))
	return map[string]any{
		"requests":    len(load.took),
		"seconds":     seconds,
		"refused":     load.refused,
		"refusal":     load.refusal,
		"exhausted":   load.exhausted,
		"reconnected": load.reconnected.Load(),
		"cpu_seconds": time.Duration(used.Utime.Nano() + used.Stime.Nano()).Seconds(),
		"took_us":     quantiles(load.took),
		"late_us":     quantiles(load.late),
	}
}

// quantiles by the nearest rank, in microseconds.
func quantiles(of []time.Duration) map[string]float64 {
	if len(of) == 0 {
		return nil
	}
	slices.Sort(of)
	found := map[string]float64{}
	for name, part := range map[string]float64{"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999, "max": 1} {
		rank := min(len(of), max(1, int(part*float64(len(of))+0.999999)))
		found[name] = float64(of[rank-1].Nanoseconds()) / 1e3
	}
	return found
}

// ---- one connection ----

type line struct {
	load   *load
	socket net.Conn
	reader *bufio.Reader
	body   []byte
}

func (load *load) connect() *line {
	line := &line{load: load}
	line.dial()
	return line
}

func (line *line) dial() {
	socket, err := net.Dial("tcp", line.load.address)
	check(err)
	line.socket, line.reader = socket, bufio.NewReaderSize(socket, 1<<16)
}

func (line *line) close() { line.socket.Close() }

func (line *line) ask(request []byte) int {
	line.write(request)
	return line.read(request)
}

func (line *line) write(request []byte) {
	// An error shows when the answer is read.
	_, _ = line.socket.Write(request)
}

// read gives the status of the answer to a request; one that a server has closed the connection upon is asked again.
func (line *line) read(request []byte) int {
	for attempt := 0; ; attempt++ {
		check(line.socket.SetReadDeadline(time.Now().Add(patience)))
		status, closes, err := line.answer()
		if err == nil && !closes {
			return status
		}
		line.socket.Close()
		line.dial()
		line.load.reconnected.Add(1)
		if err == nil {
			return status
		}
		if attempt == 3 {
			fail(err)
		}
		line.write(request)
	}
}

var (
	lengthIs  = []byte("content-length:")
	chunkedIs = []byte("transfer-encoding: chunked")
	closeIs   = []byte("connection: close")
)

func (line *line) answer() (status int, closes bool, err error) {
	head, err := line.reader.ReadSlice('\n')
	if err != nil {
		return 0, false, err
	}
	if len(head) < 12 {
		return 0, false, fmt.Errorf("no status line: %q", head)
	}
	if status, err = strconv.Atoi(string(head[9:12])); err != nil {
		return 0, false, err
	}
	length, chunked := 0, false
	for {
		head, err := line.reader.ReadSlice('\n')
		if err != nil {
			return 0, false, err
		}
		if len(head) <= 2 {
			break
		}
		switch {
		case begins(head, lengthIs):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(head[len(lengthIs):]))); err != nil {
				return 0, false, err
			}
		case begins(head, chunkedIs):
			chunked = true
		case begins(head, closeIs):
			closes = true
		}
	}
	if !chunked {
		return status, closes, line.take(length, status)
	}
	for {
		head, err := line.reader.ReadSlice('\n')
		if err != nil {
			return 0, false, err
		}
		size, err := strconv.ParseInt(string(bytes.TrimSpace(head)), 16, 64)
		if err != nil {
			return 0, false, err
		}
		if err := line.take(int(size)+2, 200); err != nil || size == 0 {
			return status, closes, err
		}
	}
}

// take leaves so many bytes behind; of what is no success they are kept.
func (line *line) take(length, status int) (err error) {
	if status == 200 || status == 202 {
		_, err = line.reader.Discard(length)
		return err
	}
	line.body = make([]byte, length)
	_, err = io.ReadFull(line.reader, line.body)
	return err
}

func begins(head, name []byte) bool {
	return len(head) >= len(name) && bytes.EqualFold(head[:len(name)], name)
}

// ---- what it is measured against itself ----

func trivial(address, file string) {
	body, err := os.ReadFile(file)
	check(err)
	answer := append(fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n",
		len(body)), body...)
	listener, err := net.Listen("tcp", address)
	check(err)
	for {
		socket, err := listener.Accept()
		check(err)
		go func() {
			defer socket.Close()
			reader := bufio.NewReaderSize(socket, 1<<16)
			for {
				length := 0
				for {
					head, err := reader.ReadSlice('\n')
					if err != nil {
						return
					}
					if begins(head, lengthIs) {
						if length, err = strconv.Atoi(string(bytes.TrimSpace(head[len(lengthIs):]))); err != nil {
							return
						}
					}
					if len(head) <= 2 {
						break
					}
				}
				if _, err := reader.Discard(length); err != nil {
					return
				}
				if _, err := socket.Write(answer); err != nil {
					return
				}
			}
		}()
	}
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "loadgen:", err)
	os.Exit(1)
}
