// Server is an HTTP server to trace under load: `server [-addr 127.0.0.1:0]` prints "ready 127.0.0.1:PORT" when it
// listens, and on SIGTERM or SIGINT finishes its requests, prints the line of truth (../pkg/truth) and ends with 0.
//
// GET /orders/ID answers with an order as JSON (404 if there is none), PUT /orders/ID stores one. A correct trace shows
// main.(*Store).Handler once for each request, above main.(*Store).Get or main.(*Store).Put and, for an answer, above
// encoding/json.(*Encoder).Encode.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"git.com/paas/myagent/pkg/truth"
)

// Order is what the store holds.
type Order struct {
	ID       int      `json:"id"`
	Customer string   `json:"customer"`
	Items    []string `json:"items"`
	Cents    int64    `json:"cents"`
}

// Store keeps orders.
type Store struct {
	mu     sync.RWMutex
	orders map[int]*Order
}

var (
	handlerCalls = truth.Of("main.(*Store).Handler")
	getCalls     = truth.Of("main.(*Store).Get")
	putCalls     = truth.Of("main.(*Store).Put")
)

// Get finds an order.
//
//go:noinline
func (s *Store) Get(id int) (*Order, error) {
	getCalls.Here()
	s.mu.RLock()
	defer s.mu.RUnlock()
	order, found := s.orders[id]
	if !found {
		return nil, fmt.Errorf("no order %d", id)
	}
	return order, nil
}

// Put stores an order.
//
//go:noinline
func (s *Store) Put(order *Order) {
	putCalls.Here()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders[order.ID] = order
}

// Handler serves /orders/ID.
//
//go:noinline
func (s *Store) Handler(w http.ResponseWriter, r *http.Request) {
	handlerCalls.Here()
	id, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/orders/"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if r.Method == http.MethodPut {
		order := &Order{}
		if err := json.NewDecoder(r.Body).Decode(order); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		order.ID = id
		s.Put(order)
		w.WriteHeader(http.StatusNoContent)
		return
	}
	order, err := s.Get(id)
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if err := json.NewEncoder(w).Encode(order); err != nil {
		log.Print(err)
	}
}

func main() {
	address := flag.String("addr", "127.0.0.1:0", "address to listen on; port 0: any")
	flag.Parse()
	store := &Store{orders: map[int]*Order{}}
	for id := 0; id < 1000; id++ {
		store.orders[id] = &Order{ID: id, Customer: "customer " + strconv.Itoa(id%97), Items: []string{"bolt", "nut"}, Cents: int64(id) * 25}
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/orders/", store.Handler)
	server := &http.Server{Handler: mux}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	done := make(chan struct{})
	go func() {
		<-stop
		if err := server.Shutdown(context.Background()); err != nil {
			log.Print(err)
		}
		close(done)
	}()
	fmt.Println("ready", listener.Addr())
	if err := server.Serve(listener); err != http.ErrServerClosed {
		log.Fatal(err)
	}
	<-done
	truth.Print()
}
