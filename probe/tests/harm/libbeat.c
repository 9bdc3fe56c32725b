__attribute__((noipa)) int lib_beat(int x) { return x * 3; }
