//! Reading and writing GGUF, compared with the gguf package of ggml's authors
//! (`tests/golden/gguf_files.py`), and errors for invalid files.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use crisol_hub::{
    Array, GgmlType, Gguf, GgufTensor, HubError, Metadata, Tensor, Tensors, Value, dequantise,
    whole, write_gguf,
};
use proptest::prelude::*;
use tempfile::TempDir;

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden/gguf").join(name)
}

fn blocks() -> Gguf {
    Gguf::open(&golden("blocks.gguf")).expect("committed")
}

/// A temporary file that tests overwrite.
struct Scratch {
    _folder: TempDir,
    path: PathBuf,
}

impl Scratch {
    fn new() -> Scratch {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("scratch.gguf");
        Scratch { _folder: folder, path }
    }

    fn open(&self, bytes: &[u8]) -> Result<Gguf, HubError> {
        // A new file each time: some file systems flush a truncated and rewritten file at once,
        // which takes a hundred times as long.
        let _ = fs::remove_file(&self.path);
        fs::write(&self.path, bytes).expect("writable");
        Gguf::open(&self.path)
    }

    /// Opens a file with this content and reads everything; errors must name the file.
    fn survives(&self, bytes: &[u8]) -> bool {
        let named = |error: HubError| {
            let text = error.to_string();
            assert!(text.contains("scratch.gguf"), "{text}");
        };
        match self.open(bytes) {
            Err(error) => {
                named(error);
                false
            }
            Ok(gguf) => {
                for name in gguf.names() {
                    let values: usize = gguf.shape(name).expect("listed").iter().product();
                    match gguf.read(name) {
                        Ok(read) => assert_eq!(read.len(), values, "{name}"),
                        Err(error) => named(error),
                    }
                    let dtype = gguf.dtype(name).expect("listed");
                    let bytes = gguf.bytes(name).expect("listed").len();
                    assert_eq!(bytes * dtype.block_len(), values * dtype.block_bytes(), "{name}");
                }
                true
            }
        }
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn tensor<'a>(name: &str, shape: &[usize], values: &'a [f32], dtype: GgmlType) -> GgufTensor<'a> {
    let values = whole(move || Ok(Cow::Borrowed(values)));
    Tensor { name: name.into(), shape: shape.to_vec(), dtype, values }
}

#[test]
fn every_type_is_dequantised_as_by_ggml() {
    let (gguf, expected) =
        (blocks(), Tensors::open(&golden("values.safetensors")).expect("committed"));
    let mut compared = 0;
    for name in expected.names().filter(|&name| name != "source") {
        let shape = expected.shape(name).expect("listed");
        assert_eq!(gguf.shape(name), Some(shape), "{name}");
        assert_eq!(gguf.dtype(name).expect("there").to_string(), name);
        let values = gguf.read(name).expect("supported");
        assert_eq!(bits(&values), bits(&expected.read(name, shape).expect("f32")), "{name}");
        compared += 1;
    }
    assert_eq!(compared, 11);
}

#[test]
fn unsupported_types_are_refused_by_name_when_read() {
    let gguf = blocks();
    assert_eq!(gguf.dtype("IQ2_XXS"), Some(GgmlType::IQ2_XXS));
    assert_eq!(gguf.bytes("IQ2_XXS").expect("there").len(), 2 * GgmlType::IQ2_XXS.block_bytes());
    let error = gguf.read("IQ2_XXS").expect_err("not supported").to_string();
    for part in ["blocks.gguf", "`IQ2_XXS`", "has type IQ2_XXS", "Q8_0"] {
        assert!(error.contains(part), "{error}");
    }
    let error = gguf.read("nowhere").expect_err("not there");
    assert!(
        matches!(&error, HubError::NoSuchTensor { tensor, .. } if tensor == "nowhere"),
        "{error}"
    );
}

#[test]
fn row_ranges_equal_the_whole_tensor() {
    let gguf = blocks();
    let mut several = 0;
    for name in gguf.names().filter(|name| gguf.read(name).is_ok()) {
        let [.., width] = *gguf.shape(name).expect("listed") else { panic!("{name} has no rows") };
        let (values, bytes) =
            (gguf.read(name).expect("just read"), gguf.bytes(name).expect("there"));
        let rows = values.len() / width;
        several += usize::from(rows > 1);
        let row_bytes = bytes.len() / rows;
        for some in [0..rows, rows - 1..rows, rows / 2..rows, 1..1] {
            let expected = &values[some.start * width..some.end * width];
            assert_eq!(
                gguf.read_rows(name, some.clone()).expect("of a type that is read"),
                expected,
                "{name}"
            );
            let expected = &bytes[some.start * row_bytes..some.end * row_bytes];
            assert_eq!(&gguf.mapped_rows(name, some).expect("there")[..], expected, "{name}");
        }
    }
    assert!(several > 10, "{several}");
}

#[test]
fn metadata_of_every_type_are_read_in_order() {
    let gguf = blocks();
    let strings = ["a", "", "ñ"].map(String::from).to_vec();
    let expected: [(&str, Value); 17] = [
        ("general.architecture", "llama".into()),
        ("test.u8", Value::U8(200)),
        ("test.i8", Value::I8(-100)),
        ("test.u16", Value::U16(60000)),
        ("test.i16", Value::I16(-30000)),
        ("test.u32", Value::U32(4_000_000_000)),
        ("test.i32", Value::I32(-2_000_000_000)),
        ("test.f32", Value::F32(0.1)),
        ("test.bool", Value::Bool(true)),
        ("test.string", "crisol 🔥".into()),
        ("test.u64", Value::U64((1 << 63) + 1)),
        ("test.i64", Value::I64(-(1 << 62))),
        ("test.f64", Value::F64(0.1)),
        ("test.strings", strings.clone().into()),
        ("test.f32s", vec![0.5_f32, -1.25].into()),
        ("test.i32s", vec![1, -2, 3].into()),
        ("test.bools", Array::Bool(vec![true, false]).into()),
    ];
    let read: Vec<_> = gguf.metadata().iter().map(|(key, value)| (key, value.clone())).collect();
    assert_eq!(read, expected);

    let metadata = gguf.metadata();
    assert_eq!(metadata.string("test.string").expect("a string"), "crisol 🔥");
    assert_eq!(metadata.f32("test.f32").expect("an f32"), 0.1);
    assert!(metadata.bool("test.bool").expect("a bool"));
    assert_eq!(metadata.strings("test.strings").expect("strings"), strings);
    assert_eq!(metadata.f32s("test.f32s").expect("numbers"), [0.5, -1.25]);
    assert_eq!(metadata.i32s("test.i32s").expect("numbers"), [1, -2, 3]);
    // Writers use integers of various widths for counts.
    for (key, value) in [("test.u8", 200), ("test.u16", 60000), ("test.u32", 4_000_000_000)] {
        assert_eq!(metadata.u32(key).expect("fits"), value);
    }
}

#[test]
fn a_missing_or_mistyped_key_is_an_error_that_says_so() {
    let gguf = blocks();
    let metadata = gguf.metadata();
    let error = metadata.u32("llama.block_count").expect_err("not there").to_string();
    assert!(error.contains("blocks.gguf") && error.contains("`llama.block_count`"), "{error}");
    for (error, found) in [
        (metadata.u32("test.i32").expect_err("negative"), "the i32 -2000000000, but a u32"),
        (
            metadata.u32("test.u64").expect_err("too large"),
            "the u64 9223372036854775809, but a u32",
        ),
        (metadata.u32("test.f32").expect_err("a fraction"), "the f32 0.1, but a u32"),
        (metadata.f32("test.f64").expect_err("too wide"), "the f64 0.1, but an f32"),
        (metadata.bool("test.string").expect_err("a string"), "a string, but a bool"),
        (metadata.string("test.bool").expect_err("a bool"), "the bool true, but a string"),
        (
            metadata.strings("test.i32s").expect_err("numbers"),
            "an array of 3 × i32, but an array of strings",
        ),
        (
            metadata.f32s("test.strings").expect_err("strings"),
            "an array of 3 × string, but an array of f32",
        ),
        (
            metadata.i32s("test.f32s").expect_err("fractions"),
            "an array of 2 × f32, but an array of i32",
        ),
    ] {
        let error = error.to_string();
        assert!(
            error.contains("blocks.gguf") && error.contains("`test.") && error.contains(found),
            "{error}"
        );
    }
}

#[test]
fn blocks_are_written_as_ggml_writes_them() {
    let gguf = blocks();
    let values = Tensors::open(&golden("values.safetensors")).expect("committed");
    let source = values.read("source", &[4, 32]).expect("f32");
    let scratch = Scratch::new();
    let types = [GgmlType::F32, GgmlType::F16, GgmlType::BF16, GgmlType::Q8_0];
    let tensors = types.map(|dtype| tensor(&dtype.to_string(), &[4, 32], &source, dtype));
    write_gguf(&scratch.path, &Metadata::new(), &tensors).expect("writable");
    let written = Gguf::open(&scratch.path).expect("just written");
    for name in types.map(|dtype| dtype.to_string()) {
        assert_eq!(
            written.bytes(&name).expect("written"),
            gguf.bytes(&name).expect("there"),
            "{name}"
        );
    }
}

/// Bytes of every kind, some without a code of 4 or 6, which get another exponent.
#[test]
fn mxfp4_is_written_as_the_numbers_that_it_is() {
    let scratch = tempfile::tempdir().expect("a temporary folder");
    let file = scratch.path().join("mxfp4.gguf");
    let hashed = |i: usize| (i as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3];
    let mut bytes: Vec<u8> = (0..17 * 20).map(hashed).collect();
    for (number, block) in bytes.chunks_exact_mut(17).enumerate() {
        block[0] = [0, 1, 2, 127, 128, 200, 250][number % 7];
        // A code of 6 decides the exponent that is written.
        block[1] = block[1] & 0xf0 | 7;
    }
    let values = dequantise(GgmlType::MXFP4, &bytes).expect("a type that is read");
    assert!((values[32 * 3] - 6.0).abs() < 1e-9 && values.iter().all(|x| x.is_finite()));
    let written = |values: &[f32]| {
        let tensors = [tensor("x", &[values.len() / 32, 32], values, GgmlType::MXFP4)];
        write_gguf(&file, &Metadata::new(), &tensors)?;
        let gguf = Gguf::open(&file)?;
        Ok::<_, HubError>((gguf.bytes("x").expect("there").to_vec(), gguf.read("x")?))
    };
    assert_eq!(written(&values).expect("numbers of the type"), (bytes.clone(), values.clone()));
    for block in bytes.chunks_exact_mut(17) {
        block[0] = block[0].max(3);
        block[1..].iter_mut().for_each(|byte| *byte &= 0xbb);
    }
    let small = dequantise(GgmlType::MXFP4, &bytes).expect("a type that is read");
    assert_eq!(written(&small).expect("numbers of the type").1, small);
    let error = written(&[0.3; 32]).expect_err("no such number").to_string();
    assert!(error.contains("MXFP4"), "{error}");
}

#[test]
fn written_files_are_read_back() {
    let scratch = Scratch::new();
    let mut metadata = Metadata::new();
    for (key, value) in blocks().metadata().iter() {
        metadata.insert(key, value.clone());
    }
    let nested = Array::Array(vec![vec![1_i32, 2].into(), Array::Array(Vec::new())]);
    metadata.insert("test.nested", nested);
    for (key, array) in [
        ("test.u8s", Array::U8(vec![1, 255])),
        ("test.i8s", Array::I8(vec![1, -128])),
        ("test.u16s", Array::U16(vec![1, 65535])),
        ("test.i16s", Array::I16(vec![1, -32768])),
        ("test.u32s", Array::U32(vec![1, u32::MAX])),
        ("test.u64s", Array::U64(vec![1, u64::MAX])),
        ("test.i64s", Array::I64(vec![1, i64::MIN])),
        ("test.f64s", Array::F64(vec![1.0, -1e300])),
        ("test.none", Array::String(Vec::new())),
    ] {
        metadata.insert(key, array);
    }
    let replaced = metadata.insert("test.u8", 7_u32);
    assert_eq!(replaced, Some(Value::U8(200)));

    // More values than one encoding chunk, with every exponent.
    let many: Vec<f32> =
        (0..70_000_u32).map(|i| f32::from_bits(i.wrapping_mul(59_999) & 0xbfff_ffff)).collect();
    let few: Vec<f32> = (0..24).map(|i| i as f32 - 11.5).collect();
    let tensors = [
        tensor("b", &[700, 100], &many, GgmlType::F32),
        tensor("a", &[2, 3, 4, 1], &few, GgmlType::F16),
        tensor("scalar", &[], &few[..1], GgmlType::BF16),
        tensor("none", &[3, 0], &[], GgmlType::Q8_0),
        tensor("c", &[24], &few, GgmlType::BF16),
    ];
    write_gguf(&scratch.path, &metadata, &tensors).expect("writable");

    let gguf = Gguf::open(&scratch.path).expect("just written");
    assert!(gguf.metadata().iter().eq(metadata.iter()));
    assert_eq!(gguf.names().collect::<Vec<_>>(), ["b", "a", "scalar", "none", "c"]);
    for tensor in &tensors {
        assert_eq!(gguf.shape(&tensor.name), Some(tensor.shape.as_slice()));
        assert_eq!(gguf.dtype(&tensor.name), Some(tensor.dtype));
        let read = gguf.read(&tensor.name).expect("just written");
        let same = |values: &[f32]| {
            assert_eq!(bits(&read), bits(values), "{}", tensor.name);
            Ok(())
        };
        (tensor.values)(&mut same.clone()).expect("in memory");
    }
    let bytes = fs::read(&scratch.path).expect("just written");
    assert!(bytes.len().is_multiple_of(32));
    assert!(scratch.survives(&bytes));
}

#[test]
fn the_alignment_of_another_file_is_not_copied() {
    let scratch = Scratch::new();
    let mut metadata = Metadata::new();
    metadata.insert("general.alignment", 64_u32);
    metadata.insert("general.name", "x");
    write_gguf(&scratch.path, &metadata, &[tensor("t", &[1], &[2.0], GgmlType::F32)])
        .expect("writable");
    let gguf = Gguf::open(&scratch.path).expect("just written");
    assert_eq!(gguf.metadata().iter().map(|(key, _)| key).collect::<Vec<_>>(), ["general.name"]);
    assert_eq!(gguf.read("t").expect("just written"), [2.0]);
}

#[test]
fn values_outside_the_range_of_a_type_are_refused() {
    let scratch = Scratch::new();
    let mut values = vec![1.0_f32; 96];
    let refused = |values: &[f32], shape: &[usize], name: &str, dtype| {
        let tensors = [tensor(name, shape, values, dtype)];
        let error =
            write_gguf(&scratch.path, &Metadata::new(), &tensors).expect_err("refused").to_string();
        assert!(
            error.contains("scratch.gguf") && error.contains(&format!("as {dtype}")),
            "{error}"
        );
        error
    };
    assert!(refused(&values, &[96], "t", GgmlType::Q4_K).contains("can only be read"));
    assert!(refused(&values, &[2, 48], "t", GgmlType::Q8_0).contains("48 values"));
    assert!(refused(&values, &[1, 1, 1, 1, 96], "t", GgmlType::F32).contains("4 dimensions"));
    assert!(refused(&values, &[96], &"n".repeat(64), GgmlType::F32).contains("63 bytes"));
    values[40] = 65520.0;
    assert!(refused(&values, &[96], "t", GgmlType::F16).contains("65520 (number 40) is too large"));
    values[40] = f32::MAX;
    assert!(refused(&values, &[96], "t", GgmlType::BF16).contains("(number 40) is too large"));
    assert!(refused(&values, &[96], "t", GgmlType::Q8_0).contains("(number 40) is too large"));
    values[40] = f32::NAN;
    assert!(
        refused(&values, &[96], "t", GgmlType::Q8_0)
            .contains("NaN (number 40) is not a finite number")
    );
    // Float formats keep infinities and NaN.
    values[41] = f32::NEG_INFINITY;
    for dtype in [GgmlType::F32, GgmlType::F16, GgmlType::BF16] {
        write_gguf(&scratch.path, &Metadata::new(), &[tensor("t", &[96], &values, dtype)])
            .expect("fits");
        let read =
            Gguf::open(&scratch.path).expect("just written").read("t").expect("just written");
        assert!(read[40].is_nan() && read[41] == f32::NEG_INFINITY, "{dtype}");
    }
}

#[test]
fn version_2_is_read_and_others_are_named() {
    let scratch = Scratch::new();
    let mut bytes = fs::read(golden("blocks.gguf")).expect("committed");
    let mut version = |version: u32| {
        bytes[4..8].copy_from_slice(&version.to_le_bytes());
        scratch.open(&bytes)
    };
    let gguf = version(2).expect("the same layout");
    assert_eq!(gguf.read("Q6_K").expect("there"), blocks().read("Q6_K").expect("there"));
    for (number, text) in [
        (0, "version 0;"),
        (1, "version 1;"),
        (3 << 24, "version 3, big-endian;"),
        (4, "version 4;"),
    ] {
        let error = version(number).expect_err("not supported").to_string();
        assert!(error.contains("scratch.gguf") && error.contains(text), "{error}");
    }
}

#[test]
fn every_truncation_is_an_error_and_names_the_file() {
    let scratch = Scratch::new();
    let bytes = fs::read(golden("blocks.gguf")).expect("committed");
    // The last tensor is followed by padding, which may be missing.
    let padding = bytes.iter().rev().take_while(|&&byte| byte == 0).count();
    for length in 0..bytes.len() {
        let whole = length >= bytes.len() - padding;
        assert_eq!(scratch.survives(&bytes[..length]), whole, "{length} bytes");
    }
    let error = scratch.open(&bytes[..bytes.len() - 60]).expect_err("truncated").to_string();
    assert!(error.contains("tensor `IQ2_XXS`") && error.contains("truncated"), "{error}");
    let error = scratch.open(&bytes[..400]).expect_err("truncated").to_string();
    assert!(error.contains("metadata key `test."), "{error}");
}

#[test]
fn no_flipped_byte_makes_the_reader_panic() {
    let scratch = Scratch::new();
    let mut bytes = fs::read(golden("blocks.gguf")).expect("committed");
    let gguf = blocks();
    let data: usize = gguf.names().map(|name| gguf.bytes(name).expect("listed").len()).sum();
    // Padding between tensors makes `header` an overestimate.
    let header = bytes.len() - data;
    for offset in 0..bytes.len() {
        let masks: &[u8] =
            if offset < header { &[0xff, 1, 2, 4, 8, 16, 32, 64, 128] } else { &[0xff] };
        for mask in masks {
            bytes[offset] ^= mask;
            scratch.survives(&bytes);
            bytes[offset] ^= mask;
        }
    }
    assert!(scratch.survives(&bytes));
}

/// Builds a header by hand.
#[derive(Clone, Default)]
struct Raw(Vec<u8>);

impl Raw {
    fn header(tensors: u64, keys: u64) -> Raw {
        Raw(b"GGUF".to_vec()).u32(3).u64(tensors).u64(keys)
    }

    fn u8(mut self, value: u8) -> Raw {
        self.0.push(value);
        self
    }

    fn u32(mut self, value: u32) -> Raw {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Raw {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn string(self, text: &str) -> Raw {
        let mut raw = self.u64(text.len() as u64);
        raw.0.extend(text.as_bytes());
        raw
    }

    /// Dimensions in the file's order, fastest first.
    fn tensor(self, name: &str, dims: &[u64], dtype: u32, offset: u64) -> Raw {
        let raw = self.string(name).u32(dims.len() as u32);
        dims.iter().fold(raw, |raw, &dim| raw.u64(dim)).u32(dtype).u64(offset)
    }

    fn zeros(mut self, count: usize) -> Raw {
        self.0.resize(self.0.len() + count, 0);
        self
    }
}

#[test]
fn hostile_headers_are_errors_that_name_the_location() {
    const HUGE: u64 = u64::MAX;
    let (f32, q4_0) = (GgmlType::F32 as u32, GgmlType::Q4_0 as u32);
    let one = |dims: &[u64], dtype, offset| {
        Raw::header(1, 0).tensor("w", dims, dtype, offset).zeros(4096)
    };
    let key = || Raw::header(0, 1).string("k");
    let cases = [
        ("magic", Raw(b"GGML".to_vec()).zeros(100), vec!["header (byte 0)", "`GGUF`"]),
        (
            "tensors",
            Raw::header(HUGE, 0).zeros(100),
            vec!["header (byte 8)", "18446744073709551615 tensors"],
        ),
        (
            "keys",
            Raw::header(0, 1 << 40).zeros(100),
            vec!["header (byte 16)", "1099511627776 metadata keys"],
        ),
        (
            "more keys",
            Raw::header(0, 3).string("k").u32(0).u8(1).string("a long key").u32(1).u8(1).zeros(3),
            vec!["metadata key number 2 (byte 61)", "has 64 bytes", "at least 69"],
        ),
        (
            "cut value",
            key().u32(4).zeros(3),
            vec!["metadata key `k` (byte 37)", "has 40 bytes", "at least 41"],
        ),
        (
            "key length",
            Raw::header(0, 1).u64(HUGE).zeros(100),
            vec!["metadata key number 0 (byte 24)"],
        ),
        (
            "key text",
            Raw::header(0, 1).u64(3).u8(b'a').u8(0xff).zeros(99),
            vec!["number 0 (byte 33)", "UTF-8"],
        ),
        ("value type", key().u32(13).zeros(100), vec!["metadata key `k` (byte 33)", "number 13"]),
        ("bool", key().u32(7).u8(2).zeros(9), vec!["metadata key `k` (byte 37)", "not 2"]),
        (
            "string",
            key().u32(8).u64(1 << 62).zeros(9),
            vec!["metadata key `k`", "4611686018427387904 bytes"],
        ),
        (
            "array",
            key().u32(9).u32(4).u64(1 << 62).zeros(99),
            vec!["metadata key `k`", "4611686018427387904 items"],
        ),
        (
            "strings",
            key().u32(9).u32(8).u64(13).zeros(100),
            vec!["metadata key `k`", "13 items, but only 100"],
        ),
        (
            "nesting",
            (0..1000).fold(key().u32(9), |raw, _| raw.u32(9).u64(1)).zeros(100),
            vec!["metadata key `k`", "nested"],
        ),
        (
            "twice",
            Raw::header(0, 2).string("k").u32(0).u8(1).string("k").u32(0).u8(1),
            vec!["metadata key `k` (byte 38)", "twice"],
        ),
        (
            "control characters",
            Raw::header(0, 1).string(&"\x1b".repeat(5000)).u32(99),
            vec!["`\\u{1b}\\u{1b}", "…`"],
        ),
        (
            "alignment",
            Raw::header(0, 1).string("general.alignment").u32(4).u32(0).zeros(99),
            vec!["metadata key `general.alignment`", "alignment 0"],
        ),
        (
            "alignment's type",
            Raw::header(0, 1).string("general.alignment").u32(10).u64(32).zeros(99),
            vec!["metadata key `general.alignment`", "not a u32"],
        ),
        ("name", Raw::header(1, 0).u64(HUGE).zeros(100), vec!["tensor number 0 (byte 24)"]),
        ("dimensions", one(&[1; 5], f32, 0), vec!["tensor `w`", "5 dimensions"]),
        (
            "many dimensions",
            Raw::header(1, 0).string("w").u32(u32::MAX).zeros(99),
            vec!["tensor `w`"],
        ),
        ("overflow", one(&[1 << 40, 1 << 40], f32, 0), vec!["tensor `w` (byte 45)", "overflow"]),
        ("negative", one(&[1 << 63, 0], f32, 0), vec!["tensor `w` (byte 37)", "overflow"]),
        ("bytes overflow", one(&[1 << 62], f32, 0), vec!["tensor `w`", "beyond the end"]),
        ("too long", one(&[1 << 20], f32, 0), vec!["tensor `w`", "beyond the end"]),
        ("a little too long", one(&[1025], f32, 0), vec!["tensor `w`", "truncated"]),
        ("type", one(&[32], 4, 0), vec!["tensor `w` (byte 45)", "number 4"]),
        ("unknown type", one(&[32], u32::MAX, 0), vec!["tensor `w`", "number 4294967295"]),
        ("block", one(&[48, 2], q4_0, 0), vec!["tensor `w`", "48 values", "Q4_0 block (32)"]),
        ("scalar block", one(&[], q4_0, 0), vec!["tensor `w`", "1 values"]),
        (
            "misaligned",
            one(&[32], f32, 16),
            vec!["tensor `w` (byte 49)", "offset 16", "multiple of 32"],
        ),
        ("offset", one(&[32], f32, 1 << 32), vec!["tensor `w`", "beyond the end"]),
        ("negative offset", one(&[32], f32, HUGE - 31), vec!["tensor `w`", "beyond the end"]),
        (
            "same name",
            Raw::header(2, 0).tensor("w", &[8], f32, 0).tensor("w", &[8], f32, 32).zeros(999),
            vec!["tensor `w`", "two tensors"],
        ),
        (
            "overlap",
            Raw::header(2, 0).tensor("v", &[9], f32, 0).tensor("w", &[8], f32, 32).zeros(999),
            vec!["tensor `w`", "overlaps that of the tensor `v`"],
        ),
        (
            "overlap in another order",
            Raw::header(2, 0).tensor("v", &[8], f32, 32).tensor("w", &[9], f32, 0).zeros(999),
            vec!["tensor `v`", "overlaps that of the tensor `w`"],
        ),
        (
            "gap",
            Raw::header(2, 0).tensor("v", &[8], f32, 0).tensor("w", &[8], f32, 64).zeros(999),
            vec!["tensor `w`", "32 bytes before its data belong to no tensor"],
        ),
        ("gap at the start", one(&[8], f32, 32), vec!["tensor `w`", "32 bytes before its data"]),
    ];
    let scratch = Scratch::new();
    for (case, raw, parts) in cases {
        let error = scratch.open(&raw.0).expect_err(case);
        let expected =
            matches!(error, HubError::InvalidGguf { .. } | HubError::TruncatedGguf { .. });
        assert!(expected, "{case}: {error}");
        let error = error.to_string();
        assert!(error.contains("scratch.gguf"), "{case}: {error}");
        for part in parts {
            assert!(error.contains(part), "{case}: {error} lacks {part}");
        }
        assert!(error.len() < 1500, "{case}: {error}");
    }
    // Unusual but valid.
    let odd = [
        Raw::header(0, 0),
        Raw::header(1, 0).tensor("", &[0, 1 << 62], f32, 0),
        Raw::header(1, 1)
            .string("general.alignment")
            .u32(4)
            .u32(8)
            .tensor("w", &[], f32, 0)
            .zeros(64),
        Raw::header(2, 0).tensor("v", &[1], f32, 32).tensor("w", &[1], f32, 0).zeros(999),
    ];
    for raw in odd {
        assert!(scratch.survives(&raw.0));
    }
}

#[test]
fn files_that_cannot_be_opened_are_errors() {
    let scratch = Scratch::new();
    assert!(matches!(Gguf::open(&scratch.path), Err(HubError::Io { .. })));
    assert!(matches!(scratch.open(b""), Err(HubError::Damaged { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(
        bytes in prop::collection::vec(any::<u8>(), 1..400),
        tensors in 0_u64..4,
        keys in 0_u64..4,
    ) {
        let scratch = Scratch::new();
        scratch.survives(&bytes);
        let mut raw = Raw::header(tensors, keys);
        raw.0.extend(&bytes);
        scratch.survives(&raw.0);
        // Small numbers get further: most valid lengths and types are small.
        raw.0[24..].iter_mut().for_each(|byte| *byte &= if *byte & 16 == 0 { 0 } else { 15 });
        scratch.survives(&raw.0);
    }

    #[test]
    fn no_changes_to_a_file_make_the_reader_panic(
        changes in prop::collection::vec((0_usize..1100, any::<u8>()), 1..8),
    ) {
        let mut bytes = fs::read(golden("blocks.gguf")).expect("committed");
        for (offset, byte) in changes {
            bytes[offset] = byte;
        }
        Scratch::new().survives(&bytes);
    }

    #[test]
    fn q8_0_is_off_by_half_a_step_at_most(values in prop::collection::vec(-1e4_f32..1e4, 64)) {
        let scratch = Scratch::new();
        let tensors = [tensor("t", &[2, 32], &values, GgmlType::Q8_0)];
        write_gguf(&scratch.path, &Metadata::new(), &tensors).expect("fits");
        let gguf = Gguf::open(&scratch.path).expect("just written");
        let read = gguf.read("t").expect("just written");
        prop_assert_eq!(read.len(), values.len());
        for (values, read) in values.chunks(32).zip(read.chunks(32)) {
            let largest = values.iter().fold(0_f32, |largest, value| largest.max(value.abs()));
            // Half a step, plus the rounding of the step to f16 (2^-11) over up to 127 steps.
            let bound = largest / 127.0 * 0.5 + largest / 2048.0 + largest * 1e-6;
            for (value, read) in values.iter().zip(read) {
                prop_assert!((value - read).abs() <= bound, "{value} became {read}");
            }
        }
    }
}
