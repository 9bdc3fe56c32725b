#include "textflag.h"

// func asmFrom(x uint64) uint64
TEXT ·asmFrom(SB), NOSPLIT, $0-16
	JMP ·asmTarget(SB)
