// A library that host.c loads.
int plugged(int x) {
    __asm__ volatile("");
    return x + 1;
}
