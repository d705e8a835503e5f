//! Vocabularies of GGUF files.

use crisol_text::{GgufVocab, Message, TextSetup, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{fixture, sentencepiece};

/// The embedded tokenizer's vocabulary, with `SmolLM2`'s pre-tokenizer.
fn byte_level() -> GgufVocab {
    let json: Value = serde_json::from_str(&fixture::setup().tokenizer.to_json()).unwrap();
    let mut tokens: Vec<(u64, String)> = json["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(token, id)| (id.as_u64().unwrap(), token.clone()))
        .collect();
    tokens.sort();
    let kind = |id: u64| {
        let added = json["added_tokens"].as_array().unwrap().iter().find(|token| token["id"] == id);
        added.map_or(1, |token| if token["special"] == true { 3 } else { 4 })
    };
    let merge =
        |pair: &Value| format!("{} {}", pair[0].as_str().unwrap(), pair[1].as_str().unwrap());
    GgufVocab {
        model: "gpt2".to_owned(),
        pre: Some("smollm".to_owned()),
        token_types: tokens.iter().map(|(id, _)| kind(*id)).collect(),
        tokens: tokens.into_iter().map(|(_, token)| token).collect(),
        merges: json["model"]["merges"].as_array().unwrap().iter().map(merge).collect(),
        bos: Some(0),
        eos: Some(0),
        add_bos: Some(false),
        chat_template: fixture::setup().template.map(|template| template.source().to_owned()),
        ..GgufVocab::default()
    }
}

fn llama_like() -> GgufVocab {
    let pieces = sentencepiece::pieces();
    GgufVocab {
        model: "llama".to_owned(),
        tokens: pieces.iter().map(|(token, ..)| token.clone()).collect(),
        scores: pieces.iter().map(|(_, score, _)| *score).collect(),
        token_types: pieces.iter().map(|(.., kind)| i32::try_from(*kind).unwrap()).collect(),
        bos: Some(1),
        eos: Some(2),
        unk: Some(0),
        ..GgufVocab::default()
    }
}

fn error(change: impl FnOnce(&mut GgufVocab)) -> String {
    let mut vocab = byte_level();
    change(&mut vocab);
    TextSetup::from_gguf(&vocab, "m.gguf").unwrap_err().to_string()
}

#[test]
fn a_setup_has_the_template_and_stop_tokens_of_the_file() {
    let setup = TextSetup::from_gguf(&byte_level(), "m.gguf").unwrap();
    let embedded = fixture::setup();
    assert_eq!((setup.eos, &setup.stop_ids), (embedded.eos, &embedded.stop_ids));
    let turns = [Message::user("hello 12"), Message::assistant("world 😀")];
    assert_eq!(setup.chat(&turns).unwrap(), embedded.chat(&turns).unwrap());
    assert_eq!(setup.tokenizer.prepended_token(), None);

    let saved = tempfile::tempdir().unwrap();
    setup.save(saved.path()).unwrap();
    let again = TextSetup::load(saved.path()).unwrap();
    assert_eq!(again.tokenizer.to_json(), setup.tokenizer.to_json());
    assert_eq!(again.chat(&turns).unwrap(), embedded.chat(&turns).unwrap());
}

#[test]
fn special_tokens_are_added_as_the_file_or_its_pre_tokenizer_says() {
    let encode = |pre: &str, add_bos: Option<bool>, add_eos: Option<bool>| {
        let mut vocab = byte_level();
        (vocab.pre, vocab.add_bos, vocab.add_eos, vocab.bos) =
            (Some(pre.to_owned()), add_bos, add_eos, Some(1));
        Tokenizer::from_gguf(&vocab, "m.gguf").unwrap().encode_with_special_tokens("hello").unwrap()
    };
    let hello = encode("smollm", None, None);
    assert_eq!(encode("llama-bpe", None, None), [vec![1], hello.clone()].concat());
    assert_eq!(encode("llama-bpe", Some(false), None), hello);
    assert_eq!(encode("qwen2", Some(true), Some(true)), [vec![1], hello, vec![0]].concat());

    let llama = TextSetup::from_gguf(&llama_like(), "m.gguf").unwrap();
    assert_eq!((llama.tokenizer.prepended_token(), llama.template.is_none()), (Some(1), true));
    let ids = llama.tokenizer.encode("hello a").unwrap();
    let tokens: Vec<_> = ids.iter().map(|&id| llama.tokenizer.token(id).unwrap()).collect();
    assert_eq!(tokens, ["▁hello", "▁a"]);
    let unprefixed =
        GgufVocab { add_space_prefix: Some(false), add_bos: Some(false), ..llama_like() };
    let tokenizer = Tokenizer::from_gguf(&unprefixed, "m.gguf").unwrap();
    assert_eq!(
        tokenizer.token(tokenizer.encode_with_special_tokens("a").unwrap()[0]).unwrap(),
        "a"
    );
}

#[test]
fn the_library_supports_every_known_pre_tokenizer() {
    let names = error(|vocab| vocab.pre = Some("of-the-future".to_owned()));
    assert!(names.starts_with("m.gguf: ") && names.contains("\"of-the-future\""), "{names}");
    let known: Vec<&str> =
        names.split("supported: ").nth(1).unwrap().split(';').next().unwrap().split(", ").collect();
    assert!(known.len() > 8, "{known:?}");
    let text = "I'LL say 1234 日本語カナ, e\u{301} x\r\n\r\n  y   \u{1F600}!?\t(#tag)  ";
    for pre in known {
        let vocab = GgufVocab { pre: Some(pre.to_owned()), ..byte_level() };
        let tokenizer = Tokenizer::from_gguf(&vocab, "m.gguf").unwrap();
        let composed = if ["qwen2", "olmo"].contains(&pre) {
            text.replace("e\u{301}", "é")
        } else {
            text.to_owned()
        };
        assert_eq!(tokenizer.decode(&tokenizer.encode(text).unwrap(), false), composed, "{pre}");
    }
}

#[test]
fn errors_name_the_cause() {
    let check = |change: fn(&mut GgufVocab), cause: &str| {
        let message = error(change);
        assert!(message.starts_with("m.gguf: ") && message.contains(cause), "{message}");
    };
    check(|vocab| vocab.pre = None, "no tokenizer.ggml.pre");
    check(|vocab| vocab.model = "bert".to_owned(), "tokenizer.ggml.model is \"bert\"");
    check(|vocab| vocab.token_types.truncate(3), "tokenizer.ggml.token_type has 3 entries");
    check(|vocab| vocab.model = "llama".to_owned(), "tokenizer.ggml.scores has 0 entries");
    check(|vocab| vocab.token_types[9] = -1, "its token 9");
    check(|vocab| vocab.eos = Some(1 << 30), "tokenizer.ggml.eos_token_id is 1073741824");
    check(|vocab| vocab.eos = None, "no tokenizer.ggml.eos_token_id");
    check(|vocab| vocab.merges[2] = "ab".to_owned(), "merge 2 (\"ab\")");
    check(|vocab| vocab.merges[2] = "日 本".to_owned(), "not a supported tokenizer");
    check(|vocab| vocab.tokens[9] = vocab.tokens[8].clone(), "is empty or occurs twice");
    check(|vocab| vocab.tokens[9].clear(), "is empty or occurs twice");
    check(|vocab| vocab.chat_template = Some("{% if".to_owned()), "chat template");
    let empty = TextSetup::from_gguf(&GgufVocab::default(), "m.gguf").unwrap_err().to_string();
    assert!(empty.contains("tokenizer.ggml.model is \"\""), "{empty}");
}

/// With padding tokens up to the size of the model's vocabulary.
#[test]
fn byte_level_vocabularies_round_trip() {
    let pre_tokenizers = [
        ("smollm", false),
        ("llama-bpe", true),
        ("qwen2", false),
        ("deepseek-v3", true),
        ("llama4", true),
    ];
    for (pre, add_bos) in pre_tokenizers {
        let vocab = GgufVocab {
            pre: Some(pre.to_owned()),
            add_bos: Some(add_bos),
            add_eos: Some(false),
            eot: Some(1),
            ..byte_level()
        };
        let written = TextSetup::from_gguf(&vocab, "m.gguf")
            .unwrap()
            .to_gguf(vocab.tokens.len() + 2)
            .unwrap();
        let mut padded = vocab.clone();
        for id in vocab.tokens.len()..vocab.tokens.len() + 2 {
            padded.tokens.push(format!("[PAD{id}]"));
            padded.token_types.push(5);
        }
        assert_eq!(written, padded, "{pre}");
        let again = TextSetup::from_gguf(&written, "m.gguf").unwrap();
        let embedded = fixture::setup();
        assert_eq!(
            again.tokenizer.encode("hello 12").unwrap(),
            embedded.tokenizer.encode("hello 12").unwrap()
        );
    }
}

/// The scores differ from the original, but give equal merges.
#[test]
fn sentencepiece_vocabularies_are_written_with_scores() {
    for add_space_prefix in [true, false] {
        let vocab = GgufVocab { add_space_prefix: Some(add_space_prefix), ..llama_like() };
        let setup = TextSetup::from_gguf(&vocab, "m.gguf").unwrap();
        let written = setup.to_gguf(vocab.tokens.len()).unwrap();
        assert_eq!((&written.tokens, &written.token_types), (&vocab.tokens, &vocab.token_types));
        assert_eq!(
            (written.add_space_prefix, written.add_bos),
            (Some(add_space_prefix), Some(true))
        );
        assert_eq!((written.bos, written.eos, written.unk), (vocab.bos, vocab.eos, vocab.unk));
        let again = TextSetup::from_gguf(&written, "m.gguf").unwrap();
        assert_eq!(again.tokenizer.to_json(), setup.tokenizer.to_json());
    }
}

/// Gemma's are added tokens. Its `tokenizer.json` has merges for them, too, and splits at spaces
/// where there are none.
#[test]
fn runs_of_spaces_are_written_as_spaces() {
    let mut vocab = GgufVocab { add_space_prefix: Some(false), ..llama_like() };
    for (token, kind) in vocab.tokens.iter_mut().zip(&mut vocab.token_types) {
        if token.starts_with("▁▁") {
            *token = token.replace('▁', " ");
            *kind = 4;
        }
    }
    let setup = TextSetup::from_gguf(&vocab, "m.gguf").unwrap();
    let run = vocab.tokens.iter().position(|token| token == "    ").unwrap();
    assert_eq!(setup.tokenizer.encode("    ").unwrap(), [u32::try_from(run).unwrap()]);
    let written = setup.to_gguf(vocab.tokens.len()).unwrap();
    assert_eq!((&written.tokens, &written.token_types), (&vocab.tokens, &vocab.token_types));

    let dir = tempfile::tempdir().unwrap();
    setup.save(dir.path()).unwrap();
    let mut json: Value = serde_json::from_str(&setup.tokenizer.to_json()).unwrap();
    json["pre_tokenizer"] = json!({
        "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious",
        "invert": false,
    });
    let merges = json["model"]["merges"].as_array_mut().unwrap();
    merges.splice(..0, [json!(["▁▁", "▁▁"]), json!(["▁", "▁"])]);
    std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    let published = TextSetup::load(dir.path()).unwrap();
    assert_eq!(published.to_gguf(vocab.tokens.len()).unwrap(), written);
}

#[test]
fn a_tokenizer_that_llama_cpp_has_no_name_for_is_an_error() {
    let json = |vocab: &GgufVocab| -> Value {
        let tokenizer = Tokenizer::from_gguf(vocab, "m.gguf").unwrap();
        serde_json::from_str(&tokenizer.to_json()).unwrap()
    };
    let check_error = |vocab: GgufVocab, change: fn(&mut Value), cause: &str| {
        let mut json = json(&vocab);
        change(&mut json);
        let (bos, eos) = (vocab.bos.unwrap_or(0) as usize, vocab.eos.unwrap_or(0) as usize);
        let config = json!({"bos_token": vocab.tokens[bos], "eos_token": vocab.tokens[eos]});
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
        std::fs::write(dir.path().join("tokenizer_config.json"), config.to_string()).unwrap();
        let error = TextSetup::load(dir.path())
            .unwrap()
            .to_gguf(vocab.tokens.len())
            .unwrap_err()
            .to_string();
        assert!(error.contains("GGUF") && error.contains(cause), "{error}");
    };
    let digits = |json: &mut Value| {
        json["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = json!(false);
    };
    check_error(byte_level(), digits, "its pre_tokenizer is not one");
    check_error(
        byte_level(),
        |json| json["normalizer"] = json!({"type": "Lowercase"}),
        "its normalizer is not one",
    );
    check_error(
        byte_level(),
        |json| json["added_tokens"][1]["lstrip"] = json!(true),
        "strips neighbouring spaces",
    );
    let strip = |json: &mut Value| {
        json["normalizer"] = json!({"type": "Strip", "strip_left": true, "strip_right": true});
    };
    check_error(llama_like(), strip, "its normalizer is not one");
    let split = |json: &mut Value| json["pre_tokenizer"] = json!({"type": "WhitespaceSplit"});
    check_error(llama_like(), split, "its normalizer is not one");
    let truncate = |json: &mut Value| json["model"]["merges"].as_array_mut().unwrap().truncate(3);
    check_error(llama_like(), truncate, "it has fewer merges than a vocabulary with scores");
}

#[test]
fn the_post_processor_decides_which_special_tokens_are_added() {
    let mut json: Value = serde_json::from_str(&fixture::setup().tokenizer.to_json()).unwrap();
    assert_eq!(fixture::setup().tokenizer.prepended_token(), None);
    json["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|eos|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|eos|>": {"id": "<|eos|>", "ids": [0], "tokens": ["<|eos|>"]}},
    });
    let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap();
    let ids = tokenizer.encode("<|eos|>hello").unwrap();
    assert_eq!(ids, fixture::setup().tokenizer.encode("<|eos|>hello").unwrap());
    assert_eq!(
        tokenizer.encode_with_special_tokens("<|eos|>hello").unwrap(),
        [vec![0], ids].concat()
    );
    assert_eq!(tokenizer.prepended_token(), Some(0));
}

proptest! {
    #[test]
    fn the_ids_are_those_of_the_original_tokenizer(text in any::<String>()) {
        let tokenizer = Tokenizer::from_gguf(&byte_level(), "m.gguf").unwrap();
        let original = fixture::setup().tokenizer;
        prop_assert_eq!(tokenizer.encode(&text).unwrap(), original.encode(&text).unwrap());
    }
}
