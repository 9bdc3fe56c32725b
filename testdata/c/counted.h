// The functions of a program that counts its calls, from FUNCTIONS(F), which names each by F(NAME) and is defined before.
#pragma once
#include "truth.h"

#define ENUM(name) COUNT_##name,
#define NAME(name) #name,
enum { FUNCTIONS(ENUM) FUNCTION_COUNT };
static const char *const names[] = {FUNCTIONS(NAME)};
#define HERE(name) COUNT(COUNT_##name)
