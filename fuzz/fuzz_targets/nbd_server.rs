#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    keepstone_fuzz_bodies::nbd_server(data);
});
