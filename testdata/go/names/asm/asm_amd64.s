#include "textflag.h"

// func Twice(x uint64) uint64
TEXT ·Twice(SB), NOSPLIT, $0-16
	MOVQ x+0(FP), AX
	ADDQ AX, AX
	MOVQ AX, ret+8(FP)
	RET

// func Through(x uint64) uint64
TEXT ·Through(SB), NOSPLIT, $0-16
	JMP ·target(SB)
