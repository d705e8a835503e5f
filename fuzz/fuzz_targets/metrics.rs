//! A `metrics.jsonl`: read, and cut where a run is resumed.

#![no_main]

use crisol_train::{Checksum, MetricsWriter, read_metrics};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let folder = crisol_fuzz::folder(&[("metrics.jsonl", data)]);
    let path = folder.path().join("metrics.jsonl");
    let Ok(metrics) = read_metrics(&path) else { return };
    let saved = Checksum::of_file(&path).expect("it was read");
    MetricsWriter::open(&path, Some(&saved), None).expect("what can be read can be continued");
    let kept = read_metrics(&path).expect("what is kept can be read");
    assert_eq!(kept.len(), metrics.len());
});
