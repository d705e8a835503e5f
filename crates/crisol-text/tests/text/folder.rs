//! Model folders: tokenizer, template and configuration files.

use std::fs;
use std::path::Path;

use crisol_text::{Message, TextError, TextSetup};
use serde_json::{Value, json};

use crate::fixture::{self, special, train};

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A folder written by another program.
fn foreign_folder(files: &[(&str, Value)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    train(&special(&["<s>", "</s>", "<|im_end|>"]))
        .save(dir.path().join("tokenizer.json"))
        .unwrap();
    for (file, value) in files {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        fs::write(dir.path().join(file), text).unwrap();
    }
    dir
}

fn load_error(files: &[(&str, Value)]) -> String {
    TextSetup::load(foreign_folder(files).path()).unwrap_err().to_string()
}

/// Some published tokenizers have added tokens without a row, such as `<pad>`.
#[test]
fn tokens_beyond_the_embedding_are_errors_on_encoding() {
    let setup = fixture::folder_setup(&train(&special(&["</s>"])), "", None, "</s>");
    let tokens = setup.tokenizer.vocab_size();
    let dir = tempfile::tempdir().unwrap();
    setup.save(dir.path()).unwrap();
    let mut json = read(&dir.path().join("tokenizer.json"));
    for (i, text) in ["<pad>", "<image>"].into_iter().enumerate() {
        json["added_tokens"].as_array_mut().unwrap().push(json!({
            "id": tokens + i, "content": text, "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false,
        }));
    }
    fs::write(dir.path().join("tokenizer.json"), json.to_string()).unwrap();
    for missing in [1, 2] {
        let mut setup = TextSetup::load(dir.path()).unwrap();
        setup.check_embedding_rows(tokens + 2 - missing).unwrap();
        let encoded = |text: &str| setup.tokenizer.encode(text);
        assert!(encoded("hello").is_ok());
        assert_eq!(encoded("<pad>").is_ok(), missing == 1);
        let error = encoded("<image>").unwrap_err();
        assert!(matches!(error, TextError::TokenOutsideEmbedding { .. }), "{error}");
    }
    // A token of the base vocabulary without a row: another model's tokenizer.
    assert!(fixture::setup().check_embedding_rows(tokens - 1).is_err());
}

#[test]
fn saving_and_loading_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let saved = fixture::setup();
    saved.save(dir.path()).unwrap();
    let loaded = TextSetup::load(dir.path()).unwrap();
    assert_eq!(loaded.tokenizer.to_json(), saved.tokenizer.to_json());
    assert_eq!((loaded.eos, &loaded.stop_ids), (saved.eos, &saved.stop_ids));
    let source = |setup: &TextSetup| setup.template.as_ref().unwrap().source().to_owned();
    assert_eq!(source(&loaded), source(&saved));
    let turns = [Message::user("hello"), Message::assistant("world 😀")];
    assert_eq!(loaded.chat(&turns).unwrap(), saved.chat(&turns).unwrap());

    let config = read(&dir.path().join("tokenizer_config.json"));
    assert_eq!(config["eos_token"], "<|eos|>");
    assert!(config["chat_template"].as_str().unwrap().contains("{% generation %}"));
    assert_eq!(read(&dir.path().join("special_tokens_map.json")), json!({"eos_token": "<|eos|>"}));
    assert_eq!(
        read(&dir.path().join("generation_config.json")),
        json!({"eos_token_id": saved.stop_ids})
    );
    // Saving a loaded folder reproduces its bytes.
    let again = tempfile::tempdir().unwrap();
    loaded.save(again.path()).unwrap();
    for file in [
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "generation_config.json",
    ] {
        assert_eq!(
            fs::read(dir.path().join(file)).unwrap(),
            fs::read(again.path().join(file)).unwrap(),
            "{file}"
        );
    }
}

/// Mistral's own folders have a `tekken.json` and no configuration of the tokenizer.
#[test]
fn a_tekken_file_is_the_tokenizer_and_names_its_tokens() {
    let seed = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/seeds/tekken/small.json");
    let dir = tempfile::tempdir().unwrap();
    fs::copy(seed, dir.path().join("tekken.json")).unwrap();
    let template = "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}\
                    [INST]{{ m.content }}[/INST]{% else %}{{ m.content + eos_token }}{% endif %}\
                    {% endfor %}";
    fs::write(dir.path().join("chat_template.jinja"), template).unwrap();
    let setup = TextSetup::load(dir.path()).unwrap();
    assert_eq!((setup.eos, setup.stop_ids.clone()), (2, vec![2]));
    let turns = [Message::user("the"), Message::assistant("12")];
    let examples = setup.chat(&turns).unwrap();
    // Special tokens come first: byte b has the id 8 + b, `the` the rank 258.
    let (the, twelve) = (8 + 258, 8 + 260);
    assert_eq!(examples[0].ids, [1, 3, the, 4, twelve, 2]);
    assert_eq!(examples[0].trained, [false, false, false, false, true, true]);
    let saved = tempfile::tempdir().unwrap();
    setup.save(saved.path()).unwrap();
    let loaded = TextSetup::load(saved.path()).unwrap();
    assert_eq!(loaded.chat(&turns).unwrap(), examples);
    assert_eq!((loaded.eos, loaded.stop_ids), (setup.eos, setup.stop_ids));
}

#[test]
fn fields_of_a_foreign_folder_are_kept() {
    let template = "{% for m in messages %}{{ bos_token + m.content + eos_token }}{% endfor %}";
    let dir = foreign_folder(&[
        (
            "tokenizer_config.json",
            json!({"bos_token": {"content": "<s>", "special": true}, "eos_token": "</s>",
                   "model_max_length": 4096, "chat_template": template}),
        ),
        ("generation_config.json", json!({"eos_token_id": [2], "temperature": 0.6})),
    ]);
    let setup = TextSetup::load(dir.path()).unwrap();
    let id = |token| setup.tokenizer.token_id(token).unwrap();
    assert_eq!(setup.eos, id("</s>"));
    assert_eq!(setup.stop_ids, [id("</s>"), id("<|im_end|>")]);
    let text = setup.template.as_ref().unwrap().render(&[Message::user("a")], false).unwrap();
    assert_eq!(text, "<s>a</s>");
    setup.save(dir.path()).unwrap();
    let config = read(&dir.path().join("tokenizer_config.json"));
    assert_eq!(config["model_max_length"], 4096);
    assert_eq!(config["bos_token"]["content"], "<s>");
    let special = read(&dir.path().join("special_tokens_map.json"));
    assert_eq!(special, json!({"bos_token": "<s>", "eos_token": "</s>"}));
    let generation = read(&dir.path().join("generation_config.json"));
    assert_eq!(generation, json!({"eos_token_id": [1, 2], "temperature": 0.6}));
}

/// In addition to the tokenizer's end-of-text token.
#[test]
fn stop_tokens_are_those_of_generation_config_or_else_of_config() {
    let stops = |files: &[(&str, Value)]| {
        let eos = ("tokenizer_config.json", json!({"eos_token": "</s>"}));
        TextSetup::load(foreign_folder(&[&[eos], files].concat()).path()).unwrap().stop_ids
    };
    let (config, generation) =
        (json!({"eos_token_id": [0]}), json!({"eos_token_id": [2, 7], "pad_token_id": 0}));
    assert_eq!(stops(&[]), [1]);
    assert_eq!(stops(&[("config.json", config.clone())]), [0, 1]);
    assert_eq!(
        stops(&[("config.json", config.clone()), ("generation_config.json", generation)]),
        [1, 2, 7]
    );
    let no_stops = json!({"do_sample": true});
    assert_eq!(stops(&[("config.json", config), ("generation_config.json", no_stops)]), [0, 1]);
}

#[test]
fn suggested_sampling_is_read_and_saved() {
    let suggested = |generation: Value| {
        let dir = foreign_folder(&[
            ("tokenizer_config.json", json!({"eos_token": "</s>"})),
            ("generation_config.json", generation.clone()),
        ]);
        let setup = TextSetup::load(dir.path()).unwrap();
        setup.save(dir.path()).unwrap();
        let mut saved = read(&dir.path().join("generation_config.json"));
        assert_eq!(saved.as_object_mut().unwrap().shift_remove("eos_token_id"), Some(json!([1])));
        assert_eq!(saved, generation);
        setup.suggested_sampling()
    };
    assert_eq!(suggested(json!({"temperature": 0.6, "pad_token_id": 0})), []);
    assert_eq!(
        suggested(
            json!({"do_sample": true, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "min_p": 0})
        ),
        [("temperature", 0.6), ("top-k", 20.0), ("top-p", 0.9)]
    );
    assert_eq!(suggested(json!({"do_sample": true})), [("temperature", 1.0)]);
    // transformers applies it in greedy decoding too.
    assert_eq!(
        suggested(json!({"do_sample": false, "repetition_penalty": 1.1})),
        [("repetition-penalty", 1.1)]
    );
}

#[test]
fn the_template_file_takes_precedence_and_is_removed_on_saving() {
    let dir = foreign_folder(&[
        ("tokenizer_config.json", json!({"eos_token": "</s>", "chat_template": "config"})),
        ("chat_template.jinja", json!("file")),
    ]);
    let mut setup = TextSetup::load(dir.path()).unwrap();
    assert_eq!(setup.template.as_ref().unwrap().source(), "file");
    setup.template = Some(crisol_text::ChatTemplate::crisol());
    setup.save(dir.path()).unwrap();
    let source = setup.template.as_ref().unwrap().source();
    assert_eq!(TextSetup::load(dir.path()).unwrap().template.unwrap().source(), source);
}

/// The tools passed to templates.
fn tools() -> Vec<Value> {
    vec![json!({"type": "function", "function": {"name": "clock"}})]
}

#[test]
fn of_several_templates_the_default_is_used_or_tool_use_with_tools() {
    let list = json!([
        {"name": "tool_use", "template": "tools {{ tools[0].function.name }}"},
        {"name": "default", "template": "plain"},
    ]);
    let dir = foreign_folder(&[(
        "tokenizer_config.json",
        json!({"eos_token": "</s>", "chat_template": list}),
    )]);
    for _ in 0..2 {
        let setup = TextSetup::load(dir.path()).unwrap();
        let template = setup.template.as_ref().unwrap();
        assert_eq!(template.source(), "plain");
        assert_eq!(template.render(&[], false).unwrap(), "plain");
        assert_eq!(template.with_tools(tools()).render(&[], false).unwrap(), "tools clock");
        // The second round loads the saved folder.
        setup.save(dir.path()).unwrap();
    }
    let other = json!([{"name": "rag", "template": "x"}]);
    let error = load_error(&[(
        "tokenizer_config.json",
        json!({"eos_token": "</s>", "chat_template": other}),
    )]);
    assert!(error.contains("tokenizer_config.json: its chat templates are named rag"), "{error}");
    let error = load_error(&[(
        "tokenizer_config.json",
        json!({"eos_token": "</s>", "chat_template": [1]}),
    )]);
    assert!(error.contains("neither a string nor a list"), "{error}");
}

#[test]
fn templates_are_found_in_every_location() {
    let render = |files: &[(&str, Value)], named: &[(&str, &str)]| {
        let eos = ("special_tokens_map.json", json!({"eos_token": "</s>"}));
        let dir = foreign_folder(&[&[eos], files].concat());
        if !named.is_empty() {
            fs::create_dir(dir.path().join("additional_chat_templates")).unwrap();
        }
        for (name, source) in named {
            fs::write(dir.path().join("additional_chat_templates").join(name), source).unwrap();
        }
        let setup = TextSetup::load(dir.path()).unwrap();
        setup.save(dir.path()).unwrap();
        let saved = TextSetup::load(dir.path()).unwrap();
        let rendered = |setup: &TextSetup| {
            let template = setup.template.as_ref()?;
            let render = |tools| template.with_tools(tools).render(&[], false).unwrap();
            Some((render(vec![]), render(tools())))
        };
        assert_eq!(rendered(&setup), rendered(&saved));
        rendered(&setup)
    };
    let both = |plain: &str, tools: &str| Some((plain.to_owned(), tools.to_owned()));
    assert_eq!(render(&[], &[]), None);
    let processor = ("chat_template.json", json!({"chat_template": "processor"}));
    assert_eq!(render(std::slice::from_ref(&processor), &[]), both("processor", "processor"));
    let config = ("tokenizer_config.json", json!({"chat_template": "config"}));
    assert_eq!(render(&[processor, config.clone()], &[]), both("config", "config"));
    let file = ("chat_template.jinja", json!("file"));
    assert_eq!(
        render(&[config, file], &[("tool_use.jinja", "tools"), ("notes.txt", "no")]),
        both("file", "tools")
    );
}

#[test]
fn the_end_of_text_is_found_in_every_file() {
    let eos = |files: &[(&str, Value)]| TextSetup::load(foreign_folder(files).path()).unwrap().eos;
    assert_eq!(eos(&[("special_tokens_map.json", json!({"eos_token": {"content": "</s>"}}))]), 1);
    assert_eq!(eos(&[("generation_config.json", json!({"eos_token_id": 2}))]), 2);
    assert_eq!(eos(&[("config.json", json!({"eos_token_id": [0, 2]}))]), 0);
    let base =
        TextSetup::load(foreign_folder(&[("config.json", json!({"eos_token_id": 1}))]).path())
            .unwrap();
    assert!(base.template.is_none());
    let error = base.chat(&[Message::user("a")]).unwrap_err();
    assert!(matches!(error, TextError::NoTemplate));
}

#[test]
fn errors_of_folders_name_file_and_remedy() {
    let empty = tempfile::tempdir().unwrap();
    assert!(TextSetup::load(empty.path()).unwrap_err().to_string().contains("tokenizer.json"));
    assert!(load_error(&[]).contains("add `eos_token`"));
    let error = load_error(&[("tokenizer_config.json", json!({"eos_token": "<|none|>"}))]);
    assert!(error.contains("\"<|none|>\" is not in the tokenizer's vocabulary"), "{error}");
    let error = load_error(&[("tokenizer_config.json", json!("{\"eos"))]);
    assert!(error.contains("tokenizer_config.json: not a JSON object"), "{error}");
    let error = load_error(&[("generation_config.json", json!({"eos_token_id": [99999]}))]);
    assert!(error.contains("generation_config.json") && error.contains("eos_token_id"), "{error}");
    let error = load_error(&[(
        "tokenizer_config.json",
        json!({"eos_token": "</s>", "chat_template": "{% if %}"}),
    )]);
    assert!(error.contains("tokenizer_config.json: chat template: syntax error"), "{error}");
}

#[test]
fn saving_to_a_missing_folder_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let error = fixture::setup().save(dir.path().join("missing")).unwrap_err();
    assert!(matches!(error, TextError::Write { .. }));
    assert!(error.to_string().contains("tokenizer.json: cannot be written"), "{error}");
}
