package main

import (
	"runtime"
	"syscall"
	"unsafe"
)

const schedIdle = 5

// awake keeps every core busy with what gives way to anything else (SCHED_IDLE): a core that sleeps between two requests
// takes tens of microseconds to wake, most of all in a virtual machine, and its caches are another's by then. What is
// measured then is the machine's sleep.
func awake() {
	var mask [16]uint64
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_GETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	if errno != 0 {
		fail(errno)
	}
	runtime.GOMAXPROCS(runtime.NumCPU() + 1)
	for core := range len(mask) * 64 {
		if mask[core/64]&(1<<(core%64)) != 0 {
			go spin(core)
		}
	}
	select {}
}

func spin(core int) {
	runtime.LockOSThread()
	var mask [16]uint64
	mask[core/64] = 1 << (core % 64)
	_, _, errno := syscall.RawSyscall(syscall.SYS_SCHED_SETAFFINITY, 0, unsafe.Sizeof(mask), uintptr(unsafe.Pointer(&mask)))
	if errno != 0 {
		fail(errno)
	}
	priority := int32(0)
	_, _, errno = syscall.RawSyscall(syscall.SYS_SCHED_SETSCHEDULER, 0, schedIdle, uintptr(unsafe.Pointer(&priority)))
	if errno != 0 {
		fail(errno)
	}
	for {
	}
}
