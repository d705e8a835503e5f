//! Training, encoding, decoding and streaming.

use crisol_text::{EMBEDDED_TOKENS, END_OF_TURN, TextError, Tokenizer};
use proptest::prelude::*;

use crate::fixture;

fn tokens(tokenizer: &Tokenizer, text: &str) -> Vec<String> {
    tokenizer.encode(text).unwrap().into_iter().map(|id| tokenizer.token(id).unwrap()).collect()
}

#[test]
fn digits_are_single_tokens() {
    let tokenizer = fixture::setup().tokenizer;
    assert_eq!(tokens(&tokenizer, "12345"), ["1", "2", "3", "4", "5"]);
    // Without splitting digits, "2026" and "1999" would be frequent enough to be merged.
    assert_eq!(tokens(&tokenizer, " 2026"), ["Ġ", "2", "0", "2", "6"]);
}

#[test]
fn training_merges_repeated_words() {
    let tokenizer = fixture::setup().tokenizer;
    assert_eq!(tokens(&tokenizer, " the capital of"), ["Ġthe", "Ġcapital", "Ġof"]);
}

#[test]
fn training_is_deterministic() {
    let train = || fixture::train(&EMBEDDED_TOKENS).to_json();
    assert_eq!(train(), train());
}

#[test]
fn added_tokens_come_first_and_are_never_split() {
    let tokenizer = fixture::setup().tokenizer;
    for (id, token) in EMBEDDED_TOKENS.iter().enumerate() {
        assert_eq!(tokenizer.token_id(token.text), Some(id as u32));
        assert_eq!(tokenizer.encode(token.text).unwrap(), [id as u32]);
        assert_eq!(tokenizer.is_special(id as u32), token.special);
    }
    let ids = tokenizer.encode("hello<|end|><think>world</think><|eos|>").unwrap();
    assert_eq!(tokenizer.decode(&ids, true), "hello<think>world</think>");
    assert_eq!(tokenizer.decode(&ids, false), "hello<|end|><think>world</think><|eos|>");
}

#[test]
fn a_vocabulary_must_have_room_for_the_bytes() {
    let error = Tokenizer::train(["a"], 262, &EMBEDDED_TOKENS).unwrap_err();
    assert!(matches!(error, TextError::Training(_)));
    assert!(error.to_string().contains("263"), "{error}");
    assert_eq!(Tokenizer::train(["a"], 263, &EMBEDDED_TOKENS).unwrap().vocab_size(), 263);
}

#[test]
fn every_byte_has_a_token() {
    // From U+0000 to U+10FFFF, these characters use every byte of UTF-8.
    let tokenizer = Tokenizer::train(["nothing of it"], 263, &EMBEDDED_TOKENS).unwrap();
    let text: String = (0..0x11_0000u32).step_by(61).filter_map(char::from_u32).collect();
    assert_eq!(tokenizer.decode(&tokenizer.encode(&text).unwrap(), false), text);
}

#[test]
fn saving_and_reading_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let tokenizer = fixture::setup().tokenizer;
    let path = dir.path().join("tokenizer.json");
    tokenizer.save(&path).unwrap();
    let read = Tokenizer::from_file(&path).unwrap();
    assert_eq!(read.to_json(), tokenizer.to_json());
    let text = "The niño says 東京 😀<|end|> 42";
    assert_eq!(read.encode(text).unwrap(), tokenizer.encode(text).unwrap());
    assert!(read.is_special(read.token_id(END_OF_TURN).unwrap()));
    assert!(!read.is_special(read.token_id("<think>").unwrap()));
}

#[test]
fn errors_of_tokenizer_files_name_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tokenizer.json");
    let missing = Tokenizer::from_file(&path).unwrap_err().to_string();
    assert!(missing.contains("tokenizer.json") && missing.contains("cannot be read"), "{missing}");
    let complete = fixture::setup().tokenizer.to_json();
    let inside = ["\"pre_tokenizer\"", "\"decoder\"", "\"vocab\""]
        .map(|part| complete.find(part).unwrap() + 40);
    let length = complete.len();
    for end in [0, 1, length / 3, length / 2, length - 1].into_iter().chain(inside) {
        std::fs::write(&path, &complete.as_bytes()[..end]).unwrap();
        let error = Tokenizer::from_file(&path).unwrap_err();
        assert!(matches!(error, TextError::ModelFile { .. }));
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
    }
}

#[test]
fn a_huge_token_id_is_an_error() {
    let mut json: serde_json::Value =
        serde_json::from_str(&fixture::setup().tokenizer.to_json()).unwrap();
    json["model"]["vocab"]["a"] = u32::MAX.into();
    let error = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap_err().to_string();
    assert!(error.contains("4294967295"), "{error}");
}

#[test]
fn panics_of_the_tokenizers_library_are_errors() {
    let whole: serde_json::Value =
        serde_json::from_str(&fixture::setup().tokenizer.to_json()).unwrap();
    let with = |part: &str, value: serde_json::Value| {
        let mut json = whole.clone();
        *json.pointer_mut(part).unwrap() = value;
        Tokenizer::from_bytes(json.to_string().as_bytes())
    };
    // Longer than the second part of every merge.
    let prefix = with("/model/continuing_subword_prefix", "a long prefix".into());
    assert!(matches!(prefix, Err(TextError::ModelFile { .. })));
    let pieces = serde_json::json!({"type": "FixedLength", "length": 0});
    let pieces = with("/pre_tokenizer", pieces).unwrap();
    assert!(matches!(pieces.encode("some text"), Err(TextError::Encode(_))));
    assert!(matches!(pieces.encode_batch(&["some text"]), Err(TextError::Encode(_))));
    let empty = serde_json::json!({"String": ""});
    let empty = serde_json::json!({"type": "Replace", "pattern": empty, "content": "x"});
    assert!(matches!(
        with("/normalizer", empty).unwrap().encode("some text"),
        Err(TextError::Encode(_))
    ));
}

#[test]
fn truncation_and_padding_of_a_foreign_file_are_ignored() {
    let mut json: serde_json::Value =
        serde_json::from_str(&fixture::setup().tokenizer.to_json()).unwrap();
    json["truncation"] = serde_json::json!({
        "direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0,
    });
    let truncating = json.to_string();
    json["padding"] = serde_json::json!({
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<|eos|>",
    });
    let padding = json.to_string();
    // The library itself applies both.
    for (file, length) in [(&truncating, 2), (&padding, 9)] {
        let library: tokenizers::Tokenizer = file.parse().unwrap();
        assert_eq!(library.encode_fast("12345", false).unwrap().len(), length);
    }
    let tokenizer = Tokenizer::from_bytes(padding.as_bytes()).unwrap();
    assert_eq!(tokenizer.encode("12345").unwrap().len(), 5);
}

#[test]
fn a_stream_holds_back_incomplete_characters() {
    let tokenizer = Tokenizer::train(["nothing of it"], 263, &EMBEDDED_TOKENS).unwrap();
    let mut stream = tokenizer.stream(true);
    let ids = tokenizer.encode("é😀a").unwrap();
    assert_eq!(ids.len(), 2 + 4 + 1);
    let out: Vec<_> = ids.iter().map(|&id| stream.push(id)).collect();
    assert_eq!(out, ["", "é", "", "", "", "😀", "a"]);
    assert_eq!(stream.finish(), "");

    let mut stream = tokenizer.stream(true);
    assert_eq!(stream.push(ids[0]), "");
    assert_eq!(stream.finish(), "\u{FFFD}");
}

proptest! {
    #[test]
    fn every_text_round_trips(text in any::<String>()) {
        let tokenizer = fixture::setup().tokenizer;
        let ids = tokenizer.encode(&text).unwrap();
        prop_assert_eq!(tokenizer.decode(&ids, false), text);
        prop_assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    }

    #[test]
    fn a_stream_gives_the_decoded_text(
        ids in prop::collection::vec(0u32..383, 0..60),
        skip in any::<bool>(),
    ) {
        let tokenizer = fixture::setup().tokenizer;
        let mut stream = tokenizer.stream(skip);
        let mut text: String = ids.iter().map(|&id| stream.push(id)).collect();
        text += &stream.finish();
        prop_assert_eq!(text, tokenizer.decode(&ids, skip));
    }

    #[test]
    fn a_stream_of_a_text_never_returns_an_incomplete_character(text in "[a-zé日😀\u{10FFFF} \
                                                                         0-9]{0,40}") {
        let tokenizer = fixture::setup().tokenizer;
        let mut stream = tokenizer.stream(true);
        for id in tokenizer.encode(&text).unwrap() {
            prop_assert!(!stream.push(id).contains(char::REPLACEMENT_CHARACTER));
        }
        prop_assert_eq!(stream.finish(), "");
    }

    #[test]
    fn a_batch_equals_single_encodings(texts in prop::collection::vec(any::<String>(), 0..8)) {
        let tokenizer = fixture::setup().tokenizer;
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let one_by_one: Vec<_> = texts.iter().map(|text| tokenizer.encode(text).unwrap()).collect();
        prop_assert_eq!(tokenizer.encode_batch(&texts).unwrap(), one_by_one);
    }
}
