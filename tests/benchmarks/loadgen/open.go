package main

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// So many requests a second, by one thread that waits for what is due and for answers in one call. Goroutines would be
// woken for each answer, by a thread that Go has to wake first: that cost four times as much processor time, on a machine
// whose cores are those of the service that is measured.

// A slot is a connection that is asked one request at a time, the instant at which that was due, and what of the answer
// has come.
type slot struct {
	socket  int
	due     time.Time
	answer  []byte
	waiting bool
}

func (load *load) open(connections int, rate float64) {
	runtime.LockOSThread()
	// Linux wakes who sleeps up to 50 µs late, unless asked not to.
	_, _, _ = syscall.RawSyscall(syscall.SYS_PRCTL, syscall.PR_SET_TIMERSLACK, 1_000, 0)
	slots := make([]*slot, connections)
	idle := make([]*slot, connections)
	for number := range slots {
		slots[number] = &slot{socket: dial(load.address), answer: make([]byte, 0, 1<<16)}
		idle[number] = slots[number]
	}
	chance := rand.New(rand.NewPCG(1, 2))
	after := func(due time.Time) time.Time { return due.Add(time.Duration(chance.ExpFloat64() / rate * 1e9)) }
	var overdue []time.Time // what was due while every connection was waiting
	due := after(time.Now())
	for {
		now := time.Now()
		for ; !due.After(now) && due.Before(load.end); due = after(due) {
			overdue = append(overdue, due)
		}
		for len(overdue) > 0 && len(idle) > 0 {
			// The one that has been idle longest, as if clients took turns.
			load.send(idle[0], overdue[0])
			idle, overdue = idle[1:], overdue[1:]
		}
		over := !due.Before(load.end)
		if over && len(overdue) == 0 && len(idle) == connections {
			break
		}
		if over && now.After(load.end.Add(patience)) {
			fail(fmt.Errorf("%d requests are without an answer", connections-len(idle)))
		}
		wait := patience
		if !over {
			wait = time.Until(due)
		}
		for _, slot := range readable(slots, wait) {
			if status := slot.read(); status != 0 {
				load.answered(slot, status)
				idle = append(idle, slot)
			}
		}
	}
	load.last = time.Now()
	for _, slot := range slots {
		syscall.Close(slot.socket)
	}
}

func (load *load) send(slot *slot, due time.Time) {
	slot.due, slot.waiting, slot.answer = due, true, slot.answer[:0]
	if !due.Before(load.begin) {
		load.late = append(load.late, time.Since(due))
	}
	request := load.next()
	for len(request) > 0 {
		written, err := syscall.Write(slot.socket, request)
		check(err)
		request = request[written:]
	}
}

func (load *load) answered(slot *slot, status int) {
	slot.waiting = false
	switch took := time.Since(slot.due); {
	case slot.due.Before(load.begin):
	case status == 200 || status == 202:
		load.took = append(load.took, took)
	default:
		load.refuse(status, slot.answer)
	}
}

// read takes what has come; it gives the status once the answer is whole, and 0 before.
func (slot *slot) read() int {
	begin := len(slot.answer)
	if cap(slot.answer)-begin < 1<<15 {
		slot.answer = append(make([]byte, 0, 2*cap(slot.answer)), slot.answer...)
	}
	came, err := syscall.Read(slot.socket, slot.answer[begin:cap(slot.answer)])
	check(err)
	if came == 0 {
		fail(errors.New("the server has ended a connection"))
	}
	slot.answer = slot.answer[:begin+came]
	head, _, whole := bytes.Cut(slot.answer, []byte("\r\n\r\n"))
	if !whole {
		return 0
	}
	if len(slot.answer) < len(head)+4+lengthOf(head) {
		return 0
	}
	status, err := strconv.Atoi(string(head[9:12]))
	check(err)
	return status
}

func lengthOf(head []byte) int {
	for line := range bytes.SplitSeq(head, []byte("\r\n")) {
		if begins(line, lengthIs) {
			length, err := strconv.Atoi(string(bytes.TrimSpace(line[len(lengthIs):])))
			check(err)
			return length
		}
	}
	fail(fmt.Errorf("an answer without a length: %q", head))
	return 0
}

// readable gives the slots for which something has come, within so long.
func readable(slots []*slot, wait time.Duration) []*slot {
	var set syscall.FdSet
	highest := 0
	for _, slot := range slots {
		if slot.waiting {
			set.Bits[slot.socket/64] |= 1 << (slot.socket % 64)
			highest = max(highest, slot.socket)
		}
	}
	timeout := syscall.NsecToTimeval(max(0, wait.Nanoseconds()))
	count, err := syscall.Select(highest+1, &set, nil, nil, &timeout)
	if err != nil && err != syscall.EINTR {
		fail(err)
	}
	if count <= 0 {
		return nil
	}
	found := make([]*slot, 0, count)
	for _, slot := range slots {
		if slot.waiting && set.Bits[slot.socket/64]&(1<<(slot.socket%64)) != 0 {
			found = append(found, slot)
		}
	}
	return found
}

func dial(address string) int {
	resolved, err := net.ResolveTCPAddr("tcp4", address)
	check(err)
	socket, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	check(err)
	to := &syscall.SockaddrInet4{Port: resolved.Port}
	copy(to.Addr[:], resolved.IP.To4())
	check(syscall.Connect(socket, to))
	check(syscall.SetsockoptInt(socket, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1))
	return socket
}
