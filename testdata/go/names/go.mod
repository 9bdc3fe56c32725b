module example.com/ge.v2

go 1.19

require example.org/dep/v2 v2.0.0
