#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| satwatch_fuzz::descriptor(data));
