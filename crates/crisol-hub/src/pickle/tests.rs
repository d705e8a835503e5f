//! The restricted pickle reader: what it accepts and what it refuses.

use proptest::prelude::*;

use super::*;

/// A state dict with one 2 × 3 tensor `a`, as PyTorch 2.15 writes it with protocol 2.
const ONE: &[u8] = b"\x80\x02}q\x00X\x01\x00\x00\x00aq\x01ctorch._utils\n\
    _rebuild_tensor_v2\nq\x02((X\x07\x00\x00\x00storageq\x03ctorch\nFloatStorage\nq\x04\
    X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K\x06tq\x07QK\x00K\x02K\x03\x86q\x08\
    K\x03K\x01\x86q\x09\x89ccollections\nOrderedDict\nq\x0a)Rq\x0btq\x0cRq\x0ds.";

fn malformed(pickle: &[u8]) -> (usize, String) {
    match state_dict(pickle) {
        Err(PickleError::Malformed { at, cause }) => (at, cause),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tensor_is_described() {
    let tensors = state_dict(ONE).expect("a state dict");
    let storage = Storage { key: "0", dtype: Some(Dtype::F32), elements: 6 };
    let view = TensorView {
        storage,
        dtype: Dtype::F32,
        offset: 0,
        shape: vec![2, 3],
        strides: vec![3, 1],
    };
    assert_eq!(tensors, BTreeMap::from([("a", view)]));
}

#[test]
fn every_truncation_is_an_error() {
    for length in 0..ONE.len() {
        assert!(
            matches!(state_dict(&ONE[..length]), Err(PickleError::Malformed { .. })),
            "{length}"
        );
    }
}

#[test]
fn names_that_would_run_code_are_refused() {
    let global = |name: &str, opcode, at| PickleError::Global { name: name.into(), opcode, at };
    for (pickle, error) in [
        (&b"\x80\x02cos\nsystem\nX\x02\x00\x00\x00ls\x85R."[..], global("os.system", "GLOBAL", 2)),
        (
            b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02ls\x85R.",
            global("os.system", "STACK_GLOBAL", 14),
        ),
        // One step away from supported names.
        (b"\x80\x02cbuiltins\neval\n.", global("builtins.eval", "GLOBAL", 2)),
        (b"\x80\x02ctorch\nload\n.", global("torch.load", "GLOBAL", 2)),
        (b"\x80\x02ctorch\nStorage\n.", global("torch.Storage", "GLOBAL", 2)),
        (
            b"\x80\x02ctorch.storage\n_load_from_bytes\n.",
            global("torch.storage._load_from_bytes", "GLOBAL", 2),
        ),
        (
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2.__globals__\n.",
            global("torch._utils._rebuild_tensor_v2.__globals__", "GLOBAL", 2),
        ),
        (b"\x80\x02c\x1b[2J\n\n.", global("\\u{1b}[2J.", "GLOBAL", 2)),
    ] {
        assert_eq!(state_dict(pickle), Err(error));
    }
    let long = [b"c".as_slice(), &vec![b'x'; 100_000], b"\ny\n."].concat();
    assert_eq!(state_dict(&long), Err(global(&format!("{}….y", "x".repeat(80)), "GLOBAL", 0)));
}

#[test]
fn opcodes_that_no_state_dict_needs_are_named() {
    for (pickle, opcode) in [
        (&b"\x80\x02(S'ls'\nios\nsystem\n."[..], "STRING"),
        (b"\x80\x02(ios\nsystem\n.", "INST"),
        (b"\x80\x02)\x81.", "NEWOBJ"),
        (b"\x80\x02)\x92.", "NEWOBJ_EX"),
        (b"\x80\x02N\x82\x01.", "EXT1"),
        (b"\x80\x02(o.", "OBJ"),
        (b"\x80\x020", "POP"),
        (b"\x80\x02\xff", "0xff"),
    ] {
        match state_dict(pickle) {
            Err(PickleError::Opcode { opcode: found, at }) => {
                assert_eq!(found, opcode);
                assert!(at >= 2);
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn known_names_are_not_called_for_anything_else() {
    for (pickle, cause) in [
        // Calls of OrderedDict with arguments, a storage class, a dtype, a number.
        (&b"\x80\x02ccollections\nOrderedDict\nN\x85R."[..], "other arguments"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "other arguments"),
        (b"\x80\x02ctorch\nfloat32\n)R.", "other arguments"),
        (b"\x80\x02K\x01)R.", "an int is called"),
        (b"\x80\x02ccollections\nOrderedDict\n]R.", "arguments are a list"),
        (b"\x80\x02ctorch._utils\n_rebuild_parameter\nN\x88N\x87R.", "other arguments"),
        // Attributes of a list, entries of a tuple, items of a dictionary.
        (b"\x80\x02]}b.", "a list gets attributes"),
        (b"\x80\x02)NNs.", "added to a tuple"),
        (b"\x80\x02}Na.", "added to a dictionary"),
        (b"\x80\x02}(Nu.", "has no value"),
        (b"\x80\x02NQ.", "persistent id"),
        (b"\x80\x02K\x01K\x02\x93.", "not a string"),
    ] {
        let (_, found) = malformed(pickle);
        assert!(found.contains(cause), "{found} / {cause}");
    }
}

#[test]
fn no_opcode_pops_below_the_stack_or_a_mark() {
    for pickle in [
        &b"."[..],
        b"s",
        b"u",
        b"t",
        b"\x85",
        b"R",
        b"b",
        b"Q",
        b"q\x00",
        b"\x94",
        b"a",
        b"e",
        b"\x93",
    ] {
        let (at, _) = malformed(pickle);
        assert_eq!(at, 0);
        // With enough values, but below a mark. Some of these opcodes take values to the mark.
        if !matches!(pickle[0], b'u' | b't' | b'e') {
            let (at, _) = malformed(&[b"}}}(", pickle].concat());
            assert_eq!(at, 4);
        }
    }
    assert_eq!(malformed(b"}("), (2, "it ends too early".into()));
    assert_eq!(malformed(b"}(."), (2, "STOP finds too few values".into()), "a mark is left open");
}

#[test]
fn claimed_sizes_allocate_nothing() {
    for (pickle, cause) in [
        (&b"X\xff\xff\xff\xff"[..], "ends too early"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\xff", "ends too early"),
        (b"\x8d\xff\xff\xff\xff\xff\xff\xff\x7fabc", "ends too early"),
        (b"\x8a\xff\x00", "ends too early"),
        (b"\x8a\x09\x00\x00\x00\x00\x00\x00\x00\x00\x01.", "more than 64 bits"),
        (b"j\xff\xff\xff\xff", "the memo has no entry"),
        (b"\x80\x06.", "protocol 6"),
        (b"X\x01\x00\x00\x00\xff.", "UTF-8"),
    ] {
        let (at, found) = malformed(pickle);
        assert!(at == 0 && found.contains(cause), "{found}");
    }
    // A sparse memo index, and a frame of absurd length.
    assert_eq!(
        state_dict(b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\xff}r\xff\xff\xff\xff."),
        Ok(BTreeMap::new())
    );
    let mut long = vec![b'('; 2 * MAX_OPCODES];
    assert!(malformed(&long).1.contains("opcodes"));
    long.fill(b'}');
    assert!(malformed(&long).1.contains("opcodes"));
}

#[test]
fn integers_keep_their_sign_and_sizes_must_not_have_one() {
    // The tensor above with the number of elements as a LONG1, negative, or with a negative stride.
    let replace = |from: &[u8], to: &[u8]| {
        let at = ONE.windows(from.len()).position(|window| window == from).expect("in the pickle");
        [&ONE[..at], to, &ONE[at + from.len()..]].concat()
    };
    let long = replace(b"K\x06t", b"\x8a\x05\x00\x00\x00\x00\x01t");
    assert_eq!(state_dict(&long).expect("sound")["a"].storage.elements, 1 << 32);
    assert!(malformed(&replace(b"K\x06t", b"\x8a\x01\xfft")).1.contains("-1 is no size"));
    assert!(
        malformed(&replace(b"K\x03K\x01\x86", b"J\xfd\xff\xff\xffK\x01\x86"))
            .1
            .contains("-3 is no size")
    );
    assert!(
        malformed(&replace(b"K\x03K\x01\x86", b"K\x03\x85"))
            .1
            .contains("2 dimensions and 1 strides")
    );
    let nine = [b"(".as_slice(), &b"K\x01".repeat(9), b"t"].concat();
    assert!(malformed(&replace(b"K\x03K\x01\x86", &nine)).1.contains("9 dimensions"));
}

#[test]
fn recursive_dictionaries_terminate() {
    assert!(matches!(
        state_dict(b"\x80\x02}q\x00X\x01\x00\x00\x00ah\x00s."),
        Err(PickleError::NotStateDict(cause)) if cause.contains("`a`")
    ));
    assert!(matches!(state_dict(b"\x80\x02]q\x00h\x00a."), Err(PickleError::NotStateDict(_))));
}

/// Programs from valid opcodes with plausible arguments, which get further than random bytes.
fn program() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<Vec<u8>> = [
        &b"\x80\x02"[..],
        b"}",
        b"]",
        b")",
        b"(",
        b"t",
        b"u",
        b"s",
        b"a",
        b"e",
        b"b",
        b"R",
        b"Q",
        b".",
        b"N",
        b"\x85",
        b"\x86",
        b"\x87",
        b"\x88",
        b"\x93",
        b"\x94",
        b"K\x01",
        b"K\x03",
        b"J\xff\xff\xff\xff",
        b"M\x00\x02",
        b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f",
        b"q\x00",
        b"q\x01",
        b"h\x00",
        b"h\x01",
        b"X\x01\x00\x00\x00a",
        b"\x8c\x07storage",
        b"ctorch\nFloatStorage\n",
        b"ctorch.storage\nUntypedStorage\n",
        b"ctorch\nfloat16\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"ctorch._utils\n_rebuild_tensor_v3\n",
        b"ctorch._utils\n_rebuild_parameter\n",
        b"ccollections\nOrderedDict\n",
        b"(\x8c\x07storagectorch\nFloatStorage\n\x8c\x010\x8c\x03cpuK\x06tQ",
        b"K\x02K\x03\x86",
        b"K\x00",
    ]
    .map(<[u8]>::to_vec)
    .into();
    proptest::collection::vec(proptest::sample::select(pieces), 0..60)
        .prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 4096,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = state_dict(&bytes);
    }

    #[test]
    fn no_program_makes_the_reader_panic(bytes in program()) {
        let _ = state_dict(&bytes);
    }

    #[test]
    fn no_change_makes_the_reader_panic(
        at in 0..ONE.len(),
        bytes in proptest::collection::vec(any::<u8>(), 1..5),
    ) {
        let mut changed = ONE.to_vec();
        for (old, new) in changed[at..].iter_mut().zip(bytes) {
            *old = new;
        }
        let _ = state_dict(&changed);
    }
}
