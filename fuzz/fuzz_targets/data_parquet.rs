//! A Parquet file of records.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(init: crisol_fuzz::quiet_panics(), |data: &[u8]| crisol_fuzz::read_records("data.parquet", data));
