package deep

//go:noinline
func Down() int { return 4 }
