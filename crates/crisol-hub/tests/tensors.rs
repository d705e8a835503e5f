//! Reading and writing safetensors, and errors for invalid files.

use std::borrow::Cow;
use std::cell::Cell;
use std::fs;
use std::ops::Range;
use std::path::Path;

use crisol_hub::{
    FloatType, HubError, PORTION, Tensor, Tensors, Values, by_rows, whole, write_tensors,
    write_weights,
};

const NOTHING_IGNORED: fn(&str) -> bool = |_| false;

fn tensor<'a>(name: &str, shape: &[usize], values: &'a [f32]) -> Tensor<'a> {
    let values = whole(move || Ok(Cow::Borrowed(values)));
    Tensor { name: name.into(), shape: shape.to_vec(), dtype: FloatType::F32, values }
}

fn write_two(path: &Path) {
    let tensors = [
        tensor("b", &[2, 3], &[1.0, -2.0, 3.5, f32::MIN_POSITIVE, 0.0, 1e30]),
        tensor("a", &[1], &[7.0]),
    ];
    write_tensors(path, &tensors).expect("the folder exists and is writable");
}

/// A file with this JSON header and `data` zero bytes.
fn raw(path: &Path, header: &str, data: usize) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.resize(bytes.len() + data, 0);
    fs::write(path, bytes).expect("writable");
}

#[test]
fn written_tensors_are_read_back_bit_by_bit() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.safetensors");
    write_two(&path);
    let tensors = Tensors::open_folder(folder.path()).expect("just written");
    assert_eq!(tensors.names().collect::<Vec<_>>(), ["a", "b"]);
    let values = tensors.read("b", &[2, 3]).expect("just written");
    assert_eq!(values, [1.0, -2.0, 3.5, f32::MIN_POSITIVE, 0.0, 1e30]);
    assert_eq!(tensors.read("a", &[1]).expect("just written"), [7.0]);
    // transformers requires this entry; data must be aligned to 8 bytes.
    let bytes = fs::read(&path).expect("just written");
    assert!(String::from_utf8_lossy(&bytes).contains(r#""__metadata__":{"format":"pt"}"#));
    assert_eq!(u64::from_le_bytes(bytes[..8].try_into().expect("8 bytes")) % 8, 0);
}

#[test]
fn half_precision_is_decoded() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("halves.safetensors");
    let header = concat!(
        r#"{"bf":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"#,
        r#""fp":{"dtype":"F16","shape":[2],"data_offsets":[4,8]}}"#
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    // 1.5 and -0.15625 in bf16 and f16, both exact, worked out by hand.
    for half in [0x3fc0_u16, 0xbe20, 0x3e00, 0xb100] {
        bytes.extend(half.to_le_bytes());
    }
    fs::write(&path, bytes).expect("writable");
    let tensors = Tensors::open(&path).expect("valid");
    assert_eq!(tensors.read("bf", &[2]).expect("bf16"), [1.5, -0.15625]);
    assert_eq!(tensors.read("fp", &[2]).expect("f16"), [1.5, -0.15625]);
}

/// Rounds to nearest even; a value outside the type's range is an error, not a new infinity.
#[test]
fn narrower_floats_are_rounded_or_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.safetensors");
    let write = |values: &[f32], dtype| {
        write_tensors(&path, &[Tensor { dtype, ..tensor("w", &[values.len()], values) }])?;
        Tensors::open(&path)?.read("w", &[values.len()])
    };
    // 2^-7 is bf16's step at 1, 2^-10 is f16's; half steps are ties.
    let ties = |step: f32| [1.0 + step / 2.0, 1.0 + 1.5 * step, 1.0 + 0.51 * step, f32::INFINITY];
    for (dtype, step) in [(FloatType::BF16, 2f32.powi(-7)), (FloatType::F16, 2f32.powi(-10))] {
        let rounded = [1.0, 1.0 + 2.0 * step, 1.0 + step, f32::INFINITY];
        assert_eq!(write(&ties(step), dtype).expect("all have a place"), rounded, "{dtype}");
        assert!(write(&[f32::NAN], dtype).expect("NaN is in the type")[0].is_nan(), "{dtype}");
        assert_eq!(
            Tensors::open(&path).expect("just written").dtype_and_bytes("w"),
            Some((dtype.to_string(), 2))
        );
    }
    assert_eq!(write(&[1e30], FloatType::BF16).expect("in the range of bf16").len(), 1);
    let error = write(&[1.0, 1e5], FloatType::F16).expect_err("65504 is the largest").to_string();
    for part in ["`w`", "model.safetensors", "F16", "100000", "number 1", "BF16 or F32"] {
        assert!(error.contains(part), "{error} lacks {part}");
    }
}

/// In portions, a tensor has the same bytes as at once, and an error counts from its start.
#[test]
fn values_by_rows_are_those_fetched_at_once() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.safetensors");
    // Rows longer than a portion, portions of many rows, portions of less than a chunk, a vector.
    for [rows, cols] in [[3, PORTION + 5], [PORTION / 48, 100], [7, 11], [1, 2 * PORTION], [0, 4]] {
        let values: Vec<f32> = (0..rows * cols).map(|i| (i % 1013) as f32).collect();
        let largest = Cell::new(0);
        let read = |range: Range<usize>| {
            largest.set(largest.get().max(range.len() * cols));
            values[range.start * cols..range.end * cols].to_vec()
        };
        let write = |values: Values<'_>, dtype| {
            write_tensors(
                &path,
                &[Tensor { name: "w".into(), shape: vec![rows, cols], dtype, values }],
            )?;
            Ok::<_, HubError>(fs::read(&path).expect("just written"))
        };
        let at_once = write(whole(|| Ok(Cow::Borrowed(&values))), FloatType::BF16);
        let portions = write(by_rows(rows, cols, read), FloatType::BF16);
        assert!(at_once.expect("in range") == portions.expect("in range"), "{rows} × {cols}");
        assert!(largest.get() <= PORTION.max(cols), "{rows} × {cols}: {}", largest.get());
    }
    let (rows, cols) = (PORTION / 50, 100);
    let read = |range: Range<usize>| {
        (range.start * cols..range.end * cols)
            .map(|i| if i == PORTION + 77 { 1e9 } else { 1.0 })
            .collect()
    };
    let tensor = Tensor {
        name: "w".into(),
        shape: vec![rows, cols],
        dtype: FloatType::F16,
        values: by_rows(rows, cols, read),
    };
    let error = write_tensors(&path, &[tensor]).expect_err("65504 is the largest").to_string();
    assert!(error.contains(&format!("number {}", PORTION + 77)), "{error}");
}

#[test]
fn large_models_are_sharded() {
    let values: Vec<f32> = (0..24).map(|i| i as f32).collect();
    let sizes = [("a", 4), ("b", 4), ("c", 12), ("d", 2), ("e", 2)];
    let tensors: Vec<_> =
        sizes.iter().map(|&(name, size)| tensor(name, &[size], &values[..size])).collect();
    let written = |shard_bytes: u64| {
        let folder = tempfile::tempdir().expect("a temporary folder");
        write_weights(folder.path(), &tensors, shard_bytes).expect("writable");
        let read = Tensors::open_folder(folder.path()).expect("just written");
        for (name, size) in sizes {
            assert_eq!(read.read(name, &[size]).expect("just written"), values[..size]);
        }
        let entries = fs::read_dir(folder.path()).expect("it is there");
        let names =
            entries.map(|entry| entry.expect("readable").file_name().into_string().expect("ASCII"));
        let mut names: Vec<String> = names.collect();
        names.sort();
        (names, fs::read_to_string(folder.path().join("model.safetensors.index.json")).ok())
    };
    assert_eq!(written(96), (vec!["model.safetensors".to_owned()], None));
    // 32 bytes hold a and b; c is larger; d and e fit together.
    let (names, index) = written(32);
    let part = |number: u32| format!("model-{number:05}-of-00003.safetensors");
    assert_eq!(names, [part(1), part(2), part(3), "model.safetensors.index.json".into()]);
    let index: serde_json::Value = serde_json::from_str(&index.expect("an index")).expect("JSON");
    let expected = serde_json::json!({
        "metadata": { "total_size": 96 },
        "weight_map": { "a": part(1), "b": part(1), "c": part(2), "d": part(3), "e": part(3) },
    });
    assert_eq!(index, expected);
    assert_eq!(written(0).0.len(), 6);
}

#[test]
fn every_truncation_is_an_error_and_names_the_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let whole = folder.path().join("whole.safetensors");
    write_two(&whole);
    let bytes = fs::read(&whole).expect("just written");
    let cut = folder.path().join("cut.safetensors");
    for length in 0..bytes.len() {
        fs::write(&cut, &bytes[..length]).expect("writable");
        let error = Tensors::open(&cut).expect_err("truncated").to_string();
        assert!(error.contains("cut.safetensors"), "{error}");
    }
    fs::write(&cut, &bytes[..bytes.len() - 5]).expect("writable");
    let error = Tensors::open(&cut).expect_err("truncated");
    let full = bytes.len() as u64;
    let HubError::WrongLength { actual, expected, .. } = error else { panic!("{error}") };
    assert_eq!((actual, expected), (full - 5, full));
    let error = Tensors::open(&cut).expect_err("truncated").to_string();
    assert!(error.contains("truncated"), "{error}");
}

#[test]
fn hostile_headers_are_errors() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("hostile.safetensors");
    let huge = u64::MAX.to_le_bytes();
    for first in [
        huge,
        (u64::MAX - 8).to_le_bytes(),
        (1_u64 << 40).to_le_bytes(),
        99_999_999_u64.to_le_bytes(),
    ] {
        fs::write(&path, first).expect("writable");
        assert!(Tensors::open(&path).is_err(), "{first:?}");
    }
    for header in [
        "",
        "{",
        "[]",
        "\u{0}",
        r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}"#,
        r#"{"a":{"dtype":"F32","shape":[18446744073709551615,3],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,18446744073709551612]}}"#,
        r#"{"a":{"dtype":"X32","shape":[1],"data_offsets":[0,4]}}"#,
        r#"{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}"#,
        concat!(
            r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"#,
            r#""b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}}"#
        ),
    ] {
        raw(&path, header, 4);
        let error = Tensors::open(&path).expect_err(header).to_string();
        assert!(error.contains("hostile.safetensors"), "{error}");
    }
    raw(&path, &"[".repeat(200_000), 4);
    assert!(Tensors::open(&path).is_err());
}

/// A folder here; the same check protects from pipes, which block on opening.
#[test]
fn irregular_files_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.safetensors");
    fs::create_dir(&path).expect("writable");
    let error = Tensors::open_folder(folder.path()).expect_err("a folder").to_string();
    assert!(error.contains("model.safetensors is damaged: it is no regular file"), "{error}");
}

#[test]
fn missing_and_surplus_tensors_are_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("model.safetensors");
    write_two(&path);
    let tensors = Tensors::open(&path).expect("just written");
    let expect =
        |list: &[(&str, &[usize])]| tensors.check_shapes(list.iter().copied(), NOTHING_IGNORED);
    assert!(expect(&[("a", &[1]), ("b", &[2, 3])]).is_ok());
    let missing = expect(&[("a", &[1]), ("b", &[2, 3]), ("c", &[4]), ("d", &[4])]);
    assert!(
        matches!(missing, Err(HubError::MissingTensor { tensor, more: 1, .. }) if tensor == "c")
    );
    let surplus = expect(&[("a", &[1])]);
    assert!(
        matches!(surplus, Err(HubError::SurplusTensor { tensor, more: 0, .. }) if tensor == "b")
    );
    assert!(tensors.check_shapes([("a", &[1][..])], |name| name == "b").is_ok());
    let shape = expect(&[("a", &[1]), ("b", &[3, 2])]).expect_err("shape differs").to_string();
    assert!(
        shape.contains("`b`") && shape.contains("[2, 3]") && shape.contains("[3, 2]"),
        "{shape}"
    );
    assert!(matches!(tensors.read("b", &[6]), Err(HubError::WrongShape { .. })));
    assert!(matches!(tensors.read("c", &[6]), Err(HubError::MissingTensor { .. })));
    raw(&path, r#"{"a":{"dtype":"I32","shape":[1],"data_offsets":[0,4]}}"#, 4);
    let integers = Tensors::open(&path)
        .expect("valid file")
        .read("a", &[1])
        .expect_err("integers")
        .to_string();
    assert!(integers.contains("I32"), "{integers}");
}

#[test]
fn shards_are_found_through_their_index() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let index = folder.path().join("model.safetensors.index.json");
    assert!(matches!(Tensors::open_folder(folder.path()), Err(HubError::NoWeights { .. })));
    write_tensors(&folder.path().join("x.safetensors"), &[tensor("a", &[1], &[1.0])])
        .expect("writable");
    write_tensors(&folder.path().join("y.safetensors"), &[tensor("b", &[1], &[2.0])])
        .expect("writable");
    fs::write(&index, r#"{"weight_map":{"a":"x.safetensors","b":"y.safetensors"}}"#)
        .expect("writable");
    let tensors = Tensors::open_folder(folder.path()).expect("complete");
    assert_eq!(tensors.read("b", &[1]).expect("there"), [2.0]);

    // A tensor in two files, a file outside of the folder, a missing file, no map.
    write_tensors(&folder.path().join("y.safetensors"), &[tensor("a", &[1], &[2.0])])
        .expect("writable");
    let twice = Tensors::open_folder(folder.path()).expect_err("ambiguous").to_string();
    for part in ["x.safetensors", "y.safetensors", "`a`", "stale"] {
        assert!(twice.contains(part), "{twice}");
    }
    assert!(!twice.contains("damaged"), "{twice}");
    for (text, named) in [
        (r#"{"weight_map":{"a":"../x.safetensors"}}"#, "`a`"),
        (r#"{"weight_map":{"a":"/etc/passwd"}}"#, "`a`"),
        (r#"{"weight_map":{"a":3}}"#, "`a`"),
        (r#"{"weight_map":{"a":"gone.safetensors"}}"#, "gone.safetensors"),
        (r#"{"weight_map":{}}"#, "weight_map"),
        ("{}", "weight_map"),
        ("", "JSON"),
    ] {
        fs::write(&index, text).expect("writable");
        let error = Tensors::open_folder(folder.path()).expect_err(text).to_string();
        assert!(error.contains(named), "{error}");
    }
}
