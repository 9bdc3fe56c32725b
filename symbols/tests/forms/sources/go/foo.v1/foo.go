package foo

type Box struct{ n int }

//go:noinline
func (b *Box) Open() int { return b.n }

//go:noinline
func F() int { return (&Box{3}).Open() }
