#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nightcrew_fuzz::update(data));
