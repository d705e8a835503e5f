//! PyTorch files: read as PyTorch reads them, and refused if they contain more than tensors. The
//! files in `torch/` were written by PyTorch (`tests/golden/torch_files.py`).

use std::fs::{self, File};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use crisol_hub::{HubError, Tensors};
use proptest::prelude::*;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipWriter};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/torch").join(name)
}

fn shape<'a>(tensors: &'a Tensors, name: &str) -> &'a [usize] {
    tensors.shape(name).unwrap_or_else(|| panic!("no {name}"))
}

fn bits(values: &[f32]) -> Vec<u32> {
    // The payload of a converted NaN is unspecified.
    values.iter().map(|value| if value.is_nan() { u32::MAX } else { value.to_bits() }).collect()
}

/// All tensors of `expected` are in `tensors`, bit by bit, and only `others` besides.
fn assert_same(tensors: &Tensors, expected: &Path, others: &[&str]) {
    let expected = Tensors::open(expected).expect("a golden file");
    let names: Vec<&str> = tensors.names().filter(|name| !others.contains(name)).collect();
    assert_eq!(names, expected.names().collect::<Vec<_>>());
    assert!(!names.is_empty(), "the golden file has no tensors");
    for name in names {
        let shape = shape(&expected, name);
        let (found, wanted) = (tensors.read(name, shape), expected.read(name, shape));
        assert_eq!(bits(&found.expect("readable")), bits(&wanted.expect("readable")), "{name}");
    }
}

/// A zip in PyTorch's layout, with this pickle and 24 bytes of data (the f32 values 0 to 5).
fn torch_file(path: &Path, pickle: &[u8]) {
    let data: Vec<u8> = (0..6_u8).flat_map(|i| f32::from(i).to_le_bytes()).collect();
    zip_file(
        path,
        CompressionMethod::Stored,
        &[("x/data.pkl", pickle), ("x/byteorder", b"little"), ("x/data/0", &data)],
    );
}

fn zip_file(path: &Path, method: CompressionMethod, entries: &[(&str, &[u8])]) {
    let mut zip = ZipWriter::new(File::create(path).expect("writable"));
    for (name, contents) in entries {
        zip.start_file(*name, SimpleFileOptions::default().compression_method(method))
            .expect("a new entry");
        zip.write_all(contents).expect("writable");
    }
    zip.finish().expect("writable");
}

/// The pickle of one tensor `a` over storage `0`, with pickled number of elements, offset, shape
/// and strides.
fn one_tensor(elements: &[u8], offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    [
        b"\x80\x02}X\x01\x00\x00\x00actorch._utils\n_rebuild_tensor_v2\n\
            ((\x8c\x07storagectorch\nFloatStorage\n\x8c\x010\x8c\x03cpu",
        elements,
        b"tQ",
        offset,
        shape,
        strides,
        b"\x89ccollections\nOrderedDict\n)RtRs.",
    ]
    .concat()
}

/// Opens a file and reads all of its tensors.
fn read_all(path: &Path) -> Result<(), HubError> {
    let tensors = Tensors::open(path)?;
    for name in tensors.names() {
        let shape = shape(&tensors, name);
        if let Ok(values) = tensors.read(name, shape) {
            assert_eq!(values.len(), shape.iter().product::<usize>());
        }
    }
    Ok(())
}

/// A training state beside the weights does not make them unreadable.
#[test]
fn a_dictionary_beside_tensors_is_left_out() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pytorch_model.bin");
    let mut pickle = one_tensor(b"K\x06", b"K\x00", b"K\x02K\x03\x86", b"K\x03K\x01\x86");
    assert_eq!(pickle.pop(), Some(b'.'));
    pickle.extend(b"X\x01\x00\x00\x00b}s.");
    torch_file(&path, &pickle);
    let tensors = Tensors::open(&path).expect("one tensor");
    assert_eq!(tensors.names().collect::<Vec<_>>(), ["a"]);
    assert_eq!(tensors.read("a", &[2, 3]).expect("readable"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn a_state_dict_is_read_as_by_pytorch() {
    let tensors = Tensors::open_folder(&golden("plain")).expect("a checkpoint");
    assert_same(&tensors, &golden("plain.expected.safetensors"), &["norm.num_batches_tracked"]);
    assert_eq!(
        tensors.read("embed.weight", &[5, 4]).expect("there"),
        tensors.read("head.weight", &[5, 4]).expect("there"),
        "tied weights have both names"
    );
    let counter = tensors.read("norm.num_batches_tracked", &[]).expect_err("an integer");
    assert!(
        matches!(&counter, HubError::UnsupportedDtype { dtype, .. } if dtype == "I64"),
        "{counter}"
    );
}

#[test]
fn every_type_and_view_is_read_in_every_protocol() {
    for protocol in 2..=5 {
        let tensors =
            Tensors::open(&golden(&format!("views-{protocol}.bin"))).expect("a state dict");
        assert_same(
            &tensors,
            &golden("views.expected.safetensors"),
            &["i64", "u32", "flags", "c64"],
        );
        for (name, dtype) in [("i64", "I64"), ("u32", "U32"), ("flags", "BOOL"), ("c64", "C64")] {
            let error =
                tensors.read(name, shape(&tensors, name)).expect_err("no floats").to_string();
            assert!(error.contains(name) && error.contains(dtype), "{error}");
        }
    }
}

#[test]
fn shards_are_found_through_their_index() {
    let tensors = Tensors::open_folder(&golden("sharded")).expect("a checkpoint");
    assert_eq!(tensors.names().collect::<Vec<_>>(), ["bf16", "f32", "scalar", "transposed"]);
    let whole = Tensors::open(&golden("views.expected.safetensors")).expect("a golden file");
    for name in tensors.names() {
        let shape = shape(&whole, name);
        assert_eq!(
            tensors.read(name, shape).expect("there"),
            whole.read(name, shape).expect("there"),
            "{name}"
        );
    }
}

#[test]
fn safetensors_are_preferred() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::copy(golden("hostile-2.bin"), folder.path().join("pytorch_model.bin")).expect("copied");
    assert!(matches!(Tensors::open_folder(folder.path()), Err(HubError::RefusedGlobal { .. })));
    fs::copy(golden("plain.expected.safetensors"), folder.path().join("model.safetensors"))
        .expect("copied");
    assert!(Tensors::open_folder(folder.path()).is_ok());
}

#[test]
fn pickles_that_would_run_code_are_refused_by_name() {
    // `os.system` pickles as `posix.system` on Unix. Offsets by `python -m pickletools`.
    for (file, opcode, at) in
        [("hostile-2.bin", "GLOBAL", 169), ("hostile-4.bin", "STACK_GLOBAL", 177)]
    {
        let error = Tensors::open(&golden(file)).expect_err("hostile").to_string();
        assert!(error.contains(file) && error.contains("`posix.system`"), "{error}");
        assert!(error.contains(&format!("({opcode} at byte {at} of data.pkl)")), "{error}");
    }
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x.bin");
    torch_file(&path, b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R.");
    let error = Tensors::open(&path).expect_err("hostile").to_string();
    assert!(error.contains("`os.system` (GLOBAL at byte 2 "), "{error}");
    torch_file(&path, b"\x80\x02(S'ls'\nios\nsystem\n.");
    let error = Tensors::open(&path).expect_err("hostile").to_string();
    assert!(error.contains("STRING (at byte 3 "), "{error}");
    let whole = Tensors::open(&golden("module.bin")).expect_err("a module").to_string();
    assert!(
        whole.contains("`torch.nn.modules.linear.Linear`") && whole.contains("state_dict()"),
        "{whole}"
    );
}

#[test]
fn other_formats_are_recognised() {
    let legacy = Tensors::open(&golden("legacy.bin")).expect_err("no zip").to_string();
    assert!(legacy.contains("before PyTorch 1.6") && legacy.contains("safetensors"), "{legacy}");
    let training = Tensors::open(&golden("training.bin")).expect_err("nested");
    assert!(
        matches!(&training, HubError::NotStateDict { cause, .. } if cause.contains("`model`")),
        "{training}"
    );
    let expanded = Tensors::open(&golden("expanded.bin"))
        .expect_err("a thousand times one number")
        .to_string();
    assert!(expanded.contains("`a`") && expanded.contains("overlap"), "{expanded}");

    let negated =
        Tensors::open(&golden("negated.bin")).expect_err("its data has the wrong sign").to_string();
    assert!(negated.contains("`neg`"), "{negated}");

    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x.bin");
    fs::copy(golden("plain.expected.safetensors"), &path).expect("copied");
    assert!(Tensors::open(&path).expect_err("safetensors").to_string().contains("no zip"));
    let stored = CompressionMethod::Stored;
    zip_file(&path, stored, &[("x/data.pkl", b"\x80\x02}."), ("x/byteorder", b"big")]);
    assert!(matches!(Tensors::open(&path), Err(HubError::BigEndian { .. })));
    zip_file(&path, stored, &[("x/data.pkl", b"\x80\x02}."), ("y/data.pkl", b"\x80\x02}.")]);
    assert!(Tensors::open(&path).expect_err("two pickles").to_string().contains("one data.pkl"));
    zip_file(&path, stored, &[("readme.txt", b"")]);
    assert!(Tensors::open(&path).expect_err("no pickle").to_string().contains("one data.pkl"));
    zip_file(&path, stored, &[("data.pkl", b"\x80\x02}.")]);
    assert_eq!(Tensors::open(&path).expect("empty, but sound").names().count(), 0);
}

#[test]
fn compressed_entries_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x.bin");
    zip_file(&path, CompressionMethod::Stored, &[("x/data.pkl", b"\x80\x02}.")]);
    let mut bytes = fs::read(&path).expect("just written");
    // The compression method: offset 8 in the local header, 10 in the directory (APPNOTE 4.3.7,
    // 4.3.12).
    let directory = bytes.windows(4).position(|w| w == b"PK\x01\x02").expect("a directory");
    (bytes[8], bytes[directory + 10]) = (8, 8);
    fs::write(&path, bytes).expect("writable");
    let error = Tensors::open(&path).expect_err("compressed");
    assert!(
        matches!(&error, HubError::CompressedZip { entry, .. } if entry == "x/data.pkl"),
        "{error}"
    );
}

#[test]
fn views_beyond_their_storage_are_errors() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x.bin");
    let (six, none) = (&b"K\x06"[..], &b"K\x00"[..]);
    let long = |bytes: [u8; 8]| [&b"\x8a\x08"[..], &bytes].concat();
    let huge = long(i64::MAX.to_le_bytes());
    let pair = |a: &[u8], b: &[u8]| [a, b, b"\x86"].concat();
    torch_file(&path, &one_tensor(six, none, &pair(b"K\x02", b"K\x03"), &pair(b"K\x03", b"K\x01")));
    let tensors = Tensors::open(&path).expect("sound");
    assert_eq!(tensors.read("a", &[2, 3]).expect("there"), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
    torch_file(
        &path,
        &one_tensor(six, b"K\x01", &pair(b"K\x02", b"K\x02"), &pair(b"K\x01", b"K\x02")),
    );
    let tensors = Tensors::open(&path).expect("sound");
    assert_eq!(tensors.read("a", &[2, 2]).expect("there"), [1.0, 3.0, 2.0, 4.0]);
    for (pickle, cause) in [
        // One element too far, by offset, shape, stride.
        (
            one_tensor(six, b"K\x01", &pair(b"K\x02", b"K\x03"), &pair(b"K\x03", b"K\x01")),
            "does not fit",
        ),
        (
            one_tensor(six, none, &pair(b"K\x02", b"K\x04"), &pair(b"K\x04", b"K\x01")),
            "does not fit",
        ),
        (
            one_tensor(six, none, &pair(b"K\x02", b"K\x03"), &pair(b"K\x04", b"K\x01")),
            "does not fit",
        ),
        // More elements than the file has, declared and undeclared.
        (
            one_tensor(b"K\x07", none, b"K\x07\x85", b"K\x01\x85"),
            "should have 7 elements and has 6",
        ),
        (one_tensor(&huge, none, b"K\x06\x85", b"K\x01\x85"), "should have"),
        (one_tensor(six, &huge, b"K\x06\x85", b"K\x01\x85"), "does not fit"),
        (one_tensor(six, none, &[&huge[..], b"\x85"].concat(), b"K\x01\x85"), "does not fit"),
        (one_tensor(six, none, &[&huge[..], b"\x85"].concat(), b"K\x00\x85"), "overlap"),
        (one_tensor(six, none, &pair(&huge, &huge), &pair(b"K\x00", b"K\x00")), "overlap"),
        (one_tensor(six, none, &pair(&huge, &huge), &pair(&huge, b"K\x01")), "absurdly large"),
        (one_tensor(six, none, &pair(b"K\x03", b"K\x03"), &pair(b"K\x01", b"K\x01")), "overlap"),
    ] {
        torch_file(&path, &pickle);
        let error = Tensors::open(&path).expect_err(cause);
        assert!(matches!(&error, HubError::InvalidView { tensor, .. } if tensor == "a"), "{error}");
        assert!(error.to_string().contains(cause), "{error} / {cause}");
    }
    let data = one_tensor(six, none, b"K\x06\x85", b"K\x01\x85");
    zip_file(&path, CompressionMethod::Stored, &[("x/data.pkl", &data)]);
    assert!(
        Tensors::open(&path).expect_err("no data").to_string().contains("data is not in the file")
    );
}

/// A few bytes add a tensor that shares data, but takes its own memory when read.
#[test]
fn tensors_may_share_their_data_but_not_without_bounds() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x.bin");
    let shared = |names: u8| {
        let thousand = b"M\xe8\x03";
        let mut pickle =
            one_tensor(thousand, b"K\x00", &[&thousand[..], b"\x85"].concat(), b"K\x01\x85");
        pickle.truncate(pickle.len() - b"s.".len());
        pickle.extend(b"q\x01s");
        for name in 1..names {
            pickle.extend([0x8c, 1, b'a' + name]);
            pickle.extend(b"h\x01s");
        }
        pickle.push(b'.');
        zip_file(
            &path,
            CompressionMethod::Stored,
            &[("x/data.pkl", &pickle), ("x/data/0", &[0; 4000])],
        );
        Tensors::open(&path)
    };
    assert_eq!(shared(3).expect("as tied weights do").names().count(), 3);
    let error = shared(20).expect_err("20 times the file").to_string();
    assert!(error.contains("share so much data"), "{error}");
}

#[test]
fn truncated_files_are_errors_that_name_them() {
    // src/torch_zip.rs tries every length in memory.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cut = folder.path().join("cut.bin");
    for file in ["plain/pytorch_model.bin", "legacy.bin"] {
        let bytes = fs::read(golden(file)).expect("a golden file");
        for length in (0..bytes.len()).step_by(53) {
            fs::write(&cut, &bytes[..length]).expect("writable");
            let error = read_all(&cut).expect_err("truncated").to_string();
            assert!(error.contains("cut.bin"), "{error}");
        }
    }
}

#[test]
fn fp8_is_decoded_and_scaled_as_pytorch_does() {
    let tensors = Tensors::open(&golden("fp8.safetensors")).expect("a golden file");
    let scales = ["tall.weight_scale_inv", "wide.weight_scale_inv"];
    assert_same(&tensors, &golden("fp8.expected.safetensors"), &scales);
    let expected: Vec<(&str, &[usize])> = tensors
        .names()
        .filter(|name| !scales.contains(name))
        .map(|name| (name, shape(&tensors, name)))
        .collect();
    assert!(
        tensors.check_shapes(expected.iter().copied(), |_| false).is_ok(),
        "scales belong to their weights"
    );
    let fewer = expected.iter().copied().filter(|(name, _)| *name != "tall.weight");
    let error = tensors.check_shapes(fewer, |_| false).expect_err("a weight too many").to_string();
    assert!(error.contains("`tall.weight`"), "{error}");
}

/// A safetensors file with an FP8 weight (all ones, 3 × 4) and scales of this shape (1, 2, 3, …).
fn scaled(path: &Path, dtype: &str, scales: &[usize]) {
    let count: usize = scales.iter().product();
    let header = format!(
        r#"{{"w.weight":{{"dtype":"{dtype}","shape":[3,4],"data_offsets":[0,12]}},
        "w.weight_scale_inv":{{"dtype":"F32","shape":{scales:?},"data_offsets":[12,{}]}}}}"#,
        12 + 4 * count
    );
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend([0x38; 12]);
    for scale in 1..=count {
        bytes.extend((scale as f32).to_le_bytes());
    }
    fs::write(path, bytes).expect("writable");
}

#[test]
fn scales_must_match_their_weight() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("x.safetensors");
    let expect = |tensors: &Tensors| tensors.check_shapes([("w.weight", &[3, 4][..])], |_| false);
    scaled(&path, "F8_E4M3", &[2, 2]);
    let tensors = Tensors::open(&path).expect("valid");
    for error in [expect(&tensors), tensors.read("w.weight", &[3, 4]).map(drop)] {
        let error = error.expect_err("one block of 128 × 128 has one scale").to_string();
        assert!(error.contains("`w.weight_scale_inv`") && error.contains("128 × 128"), "{error}");
    }
    let block = [2, 3].map(|size| NonZeroUsize::new(size).expect("not zero"));
    let tensors = tensors.with_block_size(block);
    assert!(expect(&tensors).is_ok());
    assert_eq!(
        tensors.read("w.weight", &[3, 4]).expect("scales fit"),
        [1.0, 1.0, 1.0, 2.0, 1.0, 1.0, 1.0, 2.0, 3.0, 3.0, 3.0, 4.0]
    );
    // Scales of the wrong rank, and an integer tensor with scales.
    scaled(&path, "F8_E4M3", &[1]);
    assert!(matches!(
        expect(&Tensors::open(&path).expect("valid")),
        Err(HubError::WrongScale { .. })
    ));
    scaled(&path, "I8", &[1, 1]);
    assert!(matches!(
        expect(&Tensors::open(&path).expect("valid")),
        Err(HubError::SurplusTensor { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_bytes_make_the_reader_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..400),
        as_pickle in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("any.bin");
        if as_pickle {
            torch_file(&path, &bytes);
        } else {
            fs::write(&path, [b"PK\x03\x04", bytes.as_slice()].concat()).expect("writable");
        }
        let _ = read_all(&path);
    }

    #[test]
    fn no_damage_makes_the_reader_panic(
        at in 0_usize..3229,
        bytes in proptest::collection::vec(any::<u8>(), 1..12),
    ) {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("any.bin");
        let mut damaged = fs::read(golden("plain/pytorch_model.bin")).expect("a golden file");
        for (old, new) in damaged.iter_mut().skip(at).zip(bytes) {
            *old = new;
        }
        fs::write(&path, damaged).expect("writable");
        let _ = read_all(&path);
    }
}
