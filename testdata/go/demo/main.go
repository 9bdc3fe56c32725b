// Demo is a little shop: three goroutines handle orders for about two seconds, one order in eight is slow. Worth a look:
//
//	probe -x demo 'main.(*Store).*' 'encoding/json.(*Encoder).Encode' -- ./demo
//
// A correct trace shows 24 blocks of main.(*Store).Handler on three goroutines, each above one main.(*Store).Get and
// one Encode; where Get is slow, main.(*Store).fetch stands below it and has nearly all of its time.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"
)

// Order is what the shop sells.
type Order struct {
	ID    int               `json:"id"`
	Items map[string]int    `json:"items"`
	Notes map[string]string `json:"notes"`
}

// Store keeps orders, but not all of them at hand.
type Store struct {
	mu     sync.Mutex
	orders map[int]*Order
}

// Handler answers one request.
//
//go:noinline
func (s *Store) Handler(w io.Writer, id int) error {
	order, err := s.Get(id)
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(order)
}

// Get finds an order, here or far away.
//
//go:noinline
func (s *Store) Get(id int) (*Order, error) {
	s.mu.Lock()
	order, found := s.orders[id]
	s.mu.Unlock()
	if found {
		return order, nil
	}
	return s.fetch(id)
}

// fetch is slow.
//
//go:noinline
func (s *Store) fetch(id int) (*Order, error) {
	time.Sleep(20 * time.Millisecond)
	if id < 0 {
		return nil, fmt.Errorf("no order %d", id)
	}
	order := newOrder(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.orders[id] = order
	return order, nil
}

func newOrder(id int) *Order {
	return &Order{ID: id, Items: map[string]int{"bolt": id, "nut": 2 * id}, Notes: map[string]string{"to": "the shop"}}
}

func main() {
	const workers, requests = 3, 8
	store := &Store{orders: map[int]*Order{}}
	for id := 0; id < workers*requests; id++ {
		if id%requests != requests/2 {
			store.orders[id] = newOrder(id)
		}
	}
	var all sync.WaitGroup
	for worker := 0; worker < workers; worker++ {
		all.Add(1)
		go func(worker int) {
			defer all.Done()
			for i := 0; i < requests; i++ {
				if err := store.Handler(io.Discard, worker*requests+i); err != nil {
					fmt.Println(err)
				}
				time.Sleep(time.Duration(200+20*worker) * time.Millisecond)
			}
		}(worker)
	}
	all.Wait()
	fmt.Printf("%d orders handled\n", workers*requests)
}
