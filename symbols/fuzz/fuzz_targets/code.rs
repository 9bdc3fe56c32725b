#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| symbols_fuzz::targets::code(input));
