module example.com/ge.v2

go 1.23
