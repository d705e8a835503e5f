//! A Parquet file of records.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| crisol_fuzz::read_records("data.parquet", data));
