// Package storage is a store as such agents have one; the names matter, not the work.
package storage

import (
	"runtime"
	"sync"

	"git.com/paas/myagent/pkg/truth"
)

const prefix = "git.com/paas/myagent/pkg/storage."

var (
	save  = truth.Of(prefix + "(*ProcessStore).SaveNetworkLocateInfo")
	load  = truth.Of(prefix + "(*ProcessStore).loadNetworkLocateInfo")
	check = truth.Of(prefix + "checksum")
	value = truth.Of(prefix + "Info.Valid")
)

// Info is what is stored.
type Info struct {
	PID  int
	Addr string
	Port uint16
}

// ProcessStore keeps one Info for each process.
type ProcessStore struct {
	mu    sync.Mutex
	infos map[int]Info
}

// New makes an empty store.
func New() *ProcessStore { return &ProcessStore{infos: map[int]Info{}} }

// Valid is a method with a value receiver.
//
//go:noinline
func (i Info) Valid() bool {
	value.Here()
	return i.Port != 0 || i.Addr == ""
}

// checksum is a leaf: Go gives it no stack check.
//
//go:noinline
func checksum(pid int, port uint16) uint64 {
	check.Here()
	return uint64(pid)*31 + uint64(port)
}

// SaveNetworkLocateInfo stores where a process is to be found on the network. Every 64th call gives up its thread's
// processor in the middle, so that goroutines change threads inside a call.
//
//go:noinline
func (s *ProcessStore) SaveNetworkLocateInfo(pid int, info Info) (uint64, error) {
	save.Here()
	if pid%64 == 0 {
		runtime.Gosched()
	}
	if pid%16 == 0 {
		return s.loadNetworkLocateInfo(pid, info), nil
	}
	return 0, nil
}

//go:noinline
func (s *ProcessStore) loadNetworkLocateInfo(pid int, info Info) uint64 {
	load.Here()
	sum := checksum(pid, info.Port)
	if !info.Valid() {
		return sum
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.infos[pid%1024] = info
	return sum
}
