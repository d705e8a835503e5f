//! Vocabularies as GGUF files have them.

use crisol_text::{GgufVocab, Message, TextSetup, Tokenizer};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{fixture, sentencepiece};

/// The embedded tokenizer's vocabulary, which splits text as `SmolLM2` does.
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
fn a_setup_has_the_files_template_and_stops() {
    let setup = TextSetup::from_gguf(&byte_level(), "m.gguf").unwrap();
    let embedded = fixture::setup();
    assert_eq!((setup.eos, &setup.stop_ids), (embedded.eos, &embedded.stop_ids));
    let turns = [Message::user("hello 12"), Message::assistant("world 😀")];
    assert_eq!(setup.chat(&turns).unwrap(), embedded.chat(&turns).unwrap());
    assert_eq!(setup.tokenizer.plain_bos(), None);

    let saved = tempfile::tempdir().unwrap();
    setup.save(saved.path()).unwrap();
    let again = TextSetup::load(saved.path()).unwrap();
    assert_eq!(again.tokenizer.to_json(), setup.tokenizer.to_json());
    assert_eq!(again.chat(&turns).unwrap(), embedded.chat(&turns).unwrap());
}

#[test]
fn plain_text_gets_what_the_file_says_or_what_its_kind_is_known_for() {
    let plain = |pre: &str, add_bos: Option<bool>, add_eos: Option<bool>| {
        let mut vocab = byte_level();
        (vocab.pre, vocab.add_bos, vocab.add_eos, vocab.bos) =
            (Some(pre.to_owned()), add_bos, add_eos, Some(1));
        Tokenizer::from_gguf(&vocab, "m.gguf").unwrap().encode_plain("hello").unwrap()
    };
    let hello = plain("smollm", None, None);
    assert_eq!(plain("llama-bpe", None, None), [vec![1], hello.clone()].concat());
    assert_eq!(plain("llama-bpe", Some(false), None), hello);
    assert_eq!(plain("qwen2", Some(true), Some(true)), [vec![1], hello, vec![0]].concat());

    let llama = TextSetup::from_gguf(&llama_like(), "m.gguf").unwrap();
    assert_eq!((llama.tokenizer.plain_bos(), llama.template.is_none()), (Some(1), true));
    let ids = llama.tokenizer.encode("hello a").unwrap();
    let tokens: Vec<_> = ids.iter().map(|&id| llama.tokenizer.token(id).unwrap()).collect();
    assert_eq!(tokens, ["▁hello", "▁a"]);
    let unprefixed =
        GgufVocab { add_space_prefix: Some(false), add_bos: Some(false), ..llama_like() };
    let tokenizer = Tokenizer::from_gguf(&unprefixed, "m.gguf").unwrap();
    assert_eq!(tokenizer.token(tokenizer.encode_plain("a").unwrap()[0]).unwrap(), "a");
}

#[test]
fn every_known_way_to_split_is_one_that_the_library_reads() {
    let names = error(|vocab| vocab.pre = Some("of-the-future".to_owned()));
    assert!(names.starts_with("m.gguf: ") && names.contains("\"of-the-future\""), "{names}");
    let known: Vec<&str> =
        names.split("known: ").nth(1).unwrap().split(';').next().unwrap().split(", ").collect();
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
fn what_is_wrong_is_named() {
    let told = |change: fn(&mut GgufVocab), cause: &str| {
        let message = error(change);
        assert!(message.starts_with("m.gguf: ") && message.contains(cause), "{message}");
    };
    told(|vocab| vocab.pre = None, "no tokenizer.ggml.pre");
    told(|vocab| vocab.model = "bert".to_owned(), "tokenizer.ggml.model is \"bert\"");
    told(|vocab| vocab.token_types.truncate(3), "tokenizer.ggml.token_type has 3 entries");
    told(|vocab| vocab.model = "llama".to_owned(), "tokenizer.ggml.scores has 0 entries");
    told(|vocab| vocab.token_types[9] = -1, "its token 9");
    told(|vocab| vocab.eos = Some(1 << 30), "tokenizer.ggml.eos_token_id is 1073741824");
    told(|vocab| vocab.eos = None, "no tokenizer.ggml.eos_token_id");
    told(|vocab| vocab.merges[2] = "ab".to_owned(), "merge 2 (\"ab\")");
    told(
        |vocab| vocab.merges[2] = "日 本".to_owned(),
        "not a tokenizer that this version understands",
    );
    told(|vocab| vocab.tokens[9] = vocab.tokens[8].clone(), "not each another text");
    told(|vocab| vocab.tokens[9].clear(), "not each another text");
    told(|vocab| vocab.chat_template = Some("{% if".to_owned()), "chat template");
    let empty = TextSetup::from_gguf(&GgufVocab::default(), "m.gguf").unwrap_err().to_string();
    assert!(empty.contains("tokenizer.ggml.model is \"\""), "{empty}");
}

/// What is written is what the files of llama.cpp have: the vocabulary that a setup was made of comes out again, filled up.
#[test]
fn byte_level_vocabularies_are_written_as_they_were_read() {
    let pres = [
        ("smollm", false),
        ("llama-bpe", true),
        ("qwen2", false),
        ("deepseek-v3", true),
        ("llama4", true),
    ];
    for (pre, add_bos) in pres {
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
        let mut filled = vocab.clone();
        for id in vocab.tokens.len()..vocab.tokens.len() + 2 {
            filled.tokens.push(format!("[PAD{id}]"));
            filled.token_types.push(5);
        }
        assert_eq!(written, filled, "{pre}");
        let again = TextSetup::from_gguf(&written, "m.gguf").unwrap();
        let embedded = fixture::setup();
        assert_eq!(
            again.tokenizer.encode("hello 12").unwrap(),
            embedded.tokenizer.encode("hello 12").unwrap()
        );
    }
}

/// Scores are made from merges: other numbers, but the same order, and so the same ids.
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

#[test]
fn a_tokenizer_that_llama_cpp_has_no_name_for_is_not_written() {
    let json = |vocab: &GgufVocab| -> Value {
        let tokenizer = Tokenizer::from_gguf(vocab, "m.gguf").unwrap();
        serde_json::from_str(&tokenizer.to_json()).unwrap()
    };
    let refused = |vocab: GgufVocab, change: fn(&mut Value), cause: &str| {
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
        json["pre_tokenizer"]["pretokenizers"][0]["individual_digits"] = json!(false)
    };
    refused(byte_level(), digits, "its pre_tokenizer is none");
    refused(
        byte_level(),
        |json| json["normalizer"] = json!({"type": "Lowercase"}),
        "its normalizer is none",
    );
    refused(
        byte_level(),
        |json| json["added_tokens"][1]["lstrip"] = json!(true),
        "takes the spaces",
    );
    let strip = |json: &mut Value| {
        json["normalizer"] = json!({"type": "Strip", "strip_left": true, "strip_right": true});
    };
    refused(llama_like(), strip, "its normalizer is none");
    let split = |json: &mut Value| json["pre_tokenizer"] = json!({"type": "WhitespaceSplit"});
    refused(llama_like(), split, "its normalizer is none");
    let swap = |json: &mut Value| json["model"]["merges"].as_array_mut().unwrap().truncate(3);
    refused(llama_like(), swap, "it merges less than a vocabulary with scores");
}

#[test]
fn a_tokenizer_json_says_itself_what_plain_text_gets() {
    let mut json: Value = serde_json::from_str(&fixture::setup().tokenizer.to_json()).unwrap();
    assert_eq!(fixture::setup().tokenizer.plain_bos(), None);
    json["post_processor"] = json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<|eos|>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|eos|>": {"id": "<|eos|>", "ids": [0], "tokens": ["<|eos|>"]}},
    });
    let tokenizer = Tokenizer::from_bytes(json.to_string().as_bytes()).unwrap();
    let ids = tokenizer.encode("<|eos|>hello").unwrap();
    assert_eq!(ids, fixture::setup().tokenizer.encode("<|eos|>hello").unwrap());
    assert_eq!(tokenizer.encode_plain("<|eos|>hello").unwrap(), [vec![0], ids].concat());
    assert_eq!(tokenizer.plain_bos(), Some(0));
}

proptest! {
    #[test]
    fn the_same_vocabulary_gives_the_same_ids(text in any::<String>()) {
        let tokenizer = Tokenizer::from_gguf(&byte_level(), "m.gguf").unwrap();
        prop_assert_eq!(tokenizer.encode(&text).unwrap(), fixture::setup().tokenizer.encode(&text).unwrap());
    }
}
