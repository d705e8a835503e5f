//! JSON data: lists, loose and concatenated objects, lines; told apart by their beginning.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| crisol_fuzz::read_records("data.json", data));
