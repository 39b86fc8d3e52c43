#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gkd_fuzz_targets::websocket(data));
