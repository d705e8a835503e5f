//! `crisol export` and `crisol info`, and GGUF files as models.

use serde_json::{Value, json};

use crate::fixture::{Bench, checkpoint, read, weights};

fn names(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).expect("the folder is there");
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn a_folder_and_a_gguf_file_say_the_same_as_the_model() {
    let bench = Bench::new("");
    let model = checkpoint("2-sft");
    let folder = bench.crisol(&["export", &model, "--to", "hf", "--max-shard-size", "50KB"]).ok();
    assert_eq!(folder, "2-sft-f32\n");
    let file = bench.crisol(&["export", &model, "--to", "gguf"]).ok();
    assert_eq!(file, "2-sft-F32.gguf\n");
    let written = names(&bench.path("2-sft-f32"));
    assert!(written.contains(&"model.safetensors.index.json".to_owned()), "{written:?}");
    assert!(
        written.iter().filter(|name| name.ends_with(".safetensors")).count() > 2,
        "{written:?}"
    );
    for (command, text) in [("generate", "--chat"), ("score", "--text")] {
        let say =
            |model: &str| bench.crisol(&[command, model, text, "Say coins 12", "--json"]).json();
        let expected = say(&model);
        assert_eq!(say(folder.trim()), expected, "{command}");
        assert_eq!(say(file.trim()), expected, "{command}");
    }
    // Training takes either too.
    for model in [folder.trim(), file.trim()] {
        let out = format!("tuned-{model}");
        bench
            .crisol(&[
                "sft",
                model,
                "--data",
                "sft.jsonl",
                "--out",
                &out,
                "--set",
                "batch_tokens=256",
            ])
            .ok();
    }
    let tuned = |model: &str| weights(&bench.path(&format!("tuned-{model}")));
    assert!(tuned(folder.trim()) == tuned(file.trim()));
    // What is written can be written again as something else.
    bench
        .crisol(&["export", "2-sft-F32.gguf", "--to", "hf", "--dtype", "bf16", "--out", "deep/er"])
        .ok();
    let config: Value = serde_json::from_str(&read(&bench.path("deep/er/config.json"))).unwrap();
    assert_eq!(config["dtype"], "bfloat16");
    let info = bench.crisol(&["info", "deep/er", "--json"]).json();
    assert_eq!(info["stored"][0]["dtype"], "BF16");
    bench
        .crisol(&[
            "export",
            "deep/er",
            "--to",
            "gguf",
            "--dtype",
            "q8_0",
            "--out",
            "new/small.gguf",
        ])
        .ok();
    let info = bench.crisol(&["info", "new/small.gguf", "--json"]).json();
    assert_eq!(info["stored"][0]["dtype"], "Q8_0");
}

#[test]
fn mixtures_of_experts_go_to_folders_and_back() {
    let bench = Bench::new("");
    for (name, class) in
        [("llama4-f16", "Llama4ForCausalLM"), ("deepseek2-f32", "DeepseekV3ForCausalLM")]
    {
        let seed = format!("{}/../../fuzz/seeds/gguf/{name}", env!("CARGO_MANIFEST_DIR"));
        let (folder, file) = (format!("{name}-folder"), format!("{name}.gguf"));
        bench.crisol(&["export", &seed, "--to", "hf", "--dtype", "f32", "--out", &folder]).ok();
        bench.crisol(&["export", &folder, "--to", "gguf", "--out", &file]).ok();
        let score =
            |model: &str| bench.crisol(&["score", model, "--ids", "1,2,3,4,5", "--json"]).json();
        let (expected, info) =
            (score(&seed), |model: &str| bench.crisol(&["info", model, "--json"]).json());
        for model in [&folder, &file] {
            assert_eq!(score(model), expected, "{model}");
            assert_eq!(info(model)["architecture"], class);
            assert_eq!(info(model)["parameters"], info(&seed)["parameters"], "{model}");
        }
    }
    let config = std::fs::read_to_string(bench.path("deepseek2-f32-folder/config.json")).unwrap();
    std::fs::write(
        bench.path("deepseek2-f32-folder/config.json"),
        config.replace("\"rope_interleave\": true", "\"rope_interleave\": false"),
    )
    .unwrap();
    let error = bench
        .crisol(&["export", "deepseek2-f32-folder", "--to", "gguf", "--out", "x.gguf"])
        .failed(1);
    assert!(error.contains("rope_interleave") && error.contains("Keep it as a folder"), "{error}");
}

#[test]
fn nothing_is_overwritten_and_what_makes_no_sense_is_refused() {
    let bench = Bench::new("");
    let model = checkpoint("1-pretrain");
    let export = |more: &[&str]| bench.crisol(&[&["export", &model], more].concat());
    bench.write("taken", "mine");
    std::fs::create_dir(bench.path("empty")).unwrap();
    export(&["--to", "hf", "--out", "empty"]).ok();
    for arguments in [
        ["--to", "gguf", "--out", "taken"],
        ["--to", "hf", "--out", "taken"],
        ["--to", "hf", "--out", "empty"],
        // The model itself.
        ["--to", "hf", "--out", &model],
    ] {
        let error = export(&arguments).failed(1);
        assert!(error.contains("exists") && error.contains(arguments[3]), "{error}");
    }
    assert_eq!(bench.read("taken"), "mine");
    assert!(export(&["--to", "hf", "--dtype", "q8_0"]).failed(2).contains("--to gguf"));
    assert!(export(&["--to", "gguf", "--max-shard-size", "5GB"]).failed(2).contains("--to hf"));
    assert!(export(&["--to", "hf", "--max-shard-size", "large"]).failed(2).contains("500MB"));
    assert!(bench.crisol(&["export", "nowhere", "--to", "hf"]).failed(1).contains("nowhere"));
    let error = bench.crisol(&["export", &checkpoint("4-reward"), "--to", "gguf"]).failed(1);
    assert!(error.contains("scalar head"), "{error}");
    // A reward model is a folder as any other.
    bench
        .crisol(&[
            "export",
            &checkpoint("4-reward"),
            "--to",
            "hf",
            "--dtype",
            "f16",
            "--out",
            "reward",
        ])
        .ok();
    assert_eq!(
        bench.crisol(&["info", "reward", "--json"]).json()["architecture"],
        "LlamaForSequenceClassification"
    );
}

/// New rows are the mean of the others, in folders and in GGUF files; such a model trains.
#[test]
fn added_special_tokens_start_as_the_mean() {
    let bench = Bench::new("");
    let model = checkpoint("2-sft");
    let export = |to: &str, out: &str| {
        let tokens = ["--add-special-tokens", "<|tool|>,<|call|>"];
        let args = [&["export", &model, "--to", to, "--out", out], &tokens[..]].concat();
        bench.crisol(&args).ok();
    };
    export("hf", "grown");
    export("gguf", "grown.gguf");
    let size = |model: &str| {
        bench.crisol(&["info", model, "--json"]).json()["vocab_size"].as_u64().unwrap()
    };
    let old = size(&model);
    assert_eq!([size("grown"), size("grown.gguf")], [old + 2; 2]);
    let ids = |model: &str| {
        let args = ["score", model, "--text", "<|tool|>Say<|call|>", "--json"];
        bench.crisol(&args).json()["ids"].clone()
    };
    assert_eq!(ids("grown")[0], old);
    assert_eq!(ids("grown"), ids("grown.gguf"));
    // Two equal rows, so equal probabilities; and those of other tokens hardly changed.
    let logprob = |model: &str, ids: [u64; 3]| {
        let ids = ids.map(|id| id.to_string()).join(",");
        let score = bench.crisol(&["score", model, "--ids", &ids, "--json"]).json();
        score["logprobs"][2].as_f64().unwrap()
    };
    assert!((logprob("grown", [9, 8, old]) - logprob("grown", [9, 8, old + 1])).abs() < 1e-6);
    let (before, after) = (logprob(&model, [9, 8, 7]), logprob("grown", [9, 8, 7]));
    assert!(after <= before && after > before - 0.1, "{before} {after}");
    let sft = ["sft", "grown", "--data", "sft.jsonl", "--out", "tuned", "--lora=2"];
    bench.crisol(&[&sft[..], &["--set", "batch_tokens=256"]].concat()).ok();
    for (tokens, named) in [("<|end|>x,", "empty"), ("a", "in the vocabulary already")] {
        let args = ["export", &model, "--to", "hf", "--out", "x", "--add-special-tokens", tokens];
        let error = bench.crisol(&args).failed(1);
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn info_says_what_a_model_is() {
    let bench = Bench::new("");
    let model = checkpoint("2-sft");
    let info = bench.crisol(&["info", &model, "--json"]).json();
    let bytes = std::fs::metadata(format!("{model}/model.safetensors")).unwrap().len();
    let stored = &info["stored"][0];
    let total = info["parameters"]["total"].as_u64().unwrap();
    assert_eq!((&stored["dtype"], stored["bytes"].as_u64()), (&json!("F32"), Some(4 * total)));
    assert!(bytes > 4 * total && bytes < 4 * total + 5000, "{bytes} {total}");
    assert_eq!(info["parameters"]["active"], total);
    // Two layers with one head of 16 for keys and one for values.
    assert_eq!(info["memory"]["cache_bytes_per_token"], 2 * 2 * 16 * 4);
    assert_eq!(info["memory"]["training_bytes"], 16 * total);
    assert_eq!(info["memory"]["weights_bytes"], 4 * total);
    for (key, value) in [
        ("format", json!("safetensors")),
        ("architecture", json!("LlamaForCausalLM")),
        ("context", json!(64)),
        ("layers", json!(2)),
        ("heads", json!(2)),
        ("kv_heads", json!(1)),
        ("experts", json!(null)),
        ("chat_template", json!({"marks_generation": true})),
        ("left_out", json!([])),
    ] {
        assert_eq!(info[key], value, "{key}");
    }
    assert_eq!(info["tokenizer"]["kind"], "byte-level BPE");
    assert_eq!(info["special_tokens"]["eos"], json!({"id": 0, "text": "<|eos|>"}));
    let stops = json!([{"id": 0, "text": "<|eos|>"}, {"id": 1, "text": "<|end|>"}]);
    assert_eq!(info["special_tokens"]["stop"], stops);
    let text = bench.crisol(&["info", &model]).ok();
    for part in
        ["LlamaForCausalLM", "byte-level BPE", "0 \"<|eos|>\"", "marks what the assistant says"]
    {
        assert!(text.contains(part), "{text} lacks {part}");
    }
    assert!(!text.contains('\x1b'));

    // The same of a GGUF file, but for what it is stored in.
    bench.crisol(&["export", &model, "--to", "gguf", "--out", "m.gguf"]).ok();
    let mut gguf = bench.crisol(&["info", "m.gguf", "--json"]).json();
    assert_eq!(gguf["format"], "gguf");
    for key in ["path", "format"] {
        gguf[key] = info[key].clone();
    }
    assert_eq!(gguf, info);

    // Without a tokenizer.
    std::fs::create_dir(bench.path("bare")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(format!("{model}/{file}"), bench.path("bare").join(file)).unwrap();
    }
    let bare = bench.crisol(&["info", "bare", "--json"]).json();
    assert_eq!((&bare["tokenizer"], &bare["chat_template"]), (&Value::Null, &Value::Null));
    assert_eq!(bare["special_tokens"]["eos"], json!({"id": 0, "text": null}));
    assert!(bench.crisol(&["info", "bare"]).ok().contains("tokenizer      none"));
    // Weights that do not belong to the config, and no weights at all.
    std::fs::remove_file(bench.path("bare/model.safetensors")).unwrap();
    assert!(bench.crisol(&["info", "bare"]).failed(1).contains("no weights"));
}

/// Values are never read: a file whose data is a hole of 100 GB is told about at once.
#[cfg(target_os = "linux")]
#[test]
fn info_reads_headers_only() {
    const ROWS: u64 = 1 << 20;
    const COLS: u64 = 24_000;
    let bench = Bench::new("");
    std::fs::create_dir(bench.path("large")).unwrap();
    let (tables, layer) = (2 * ROWS * COLS, 4 * COLS * 64 + 3 * COLS * 8 + 2 * COLS);
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "vocab_size": ROWS, "hidden_size": COLS, "intermediate_size": 8,
        "num_hidden_layers": 1, "num_attention_heads": 1, "head_dim": 64,
    });
    bench.write("large/config.json", &config.to_string());
    let mut end = 0;
    let mut header = serde_json::Map::new();
    for (name, shape) in [
        ("model.embed_tokens", vec![ROWS, COLS]),
        ("lm_head", vec![ROWS, COLS]),
        ("model.norm", vec![COLS]),
        ("model.layers.0.input_layernorm", vec![COLS]),
        ("model.layers.0.post_attention_layernorm", vec![COLS]),
        ("model.layers.0.self_attn.q_proj", vec![64, COLS]),
        ("model.layers.0.self_attn.k_proj", vec![64, COLS]),
        ("model.layers.0.self_attn.v_proj", vec![64, COLS]),
        ("model.layers.0.self_attn.o_proj", vec![COLS, 64]),
        ("model.layers.0.mlp.gate_proj", vec![8, COLS]),
        ("model.layers.0.mlp.up_proj", vec![8, COLS]),
        ("model.layers.0.mlp.down_proj", vec![COLS, 8]),
    ] {
        let start = end;
        end += 2 * shape.iter().product::<u64>();
        let info = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] });
        header.insert(format!("{name}.weight"), info);
    }
    let header = Value::Object(header).to_string();
    let file = bench.path("large/model.safetensors");
    std::fs::write(&file, [&(header.len() as u64).to_le_bytes(), header.as_bytes()].concat())
        .unwrap();
    let whole = 8 + header.len() as u64 + end;
    std::fs::File::options().write(true).open(&file).unwrap().set_len(whole).unwrap();
    assert!(whole > 100_000_000_000);
    let begun = std::time::Instant::now();
    let info = bench.crisol(&["info", "large", "--json"]).json();
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    assert_eq!(info["parameters"]["total"], tables + layer + COLS);
    assert_eq!(info["stored"][0], json!({ "dtype": "BF16", "tensors": 12, "bytes": end }));
    // The norms' three vectors are widened.
    assert_eq!(info["memory"]["weights_bytes"], end + 2 * 3 * COLS);
}

#[test]
fn data_is_inspected_with_the_model_of_a_gguf_file() {
    let bench = Bench::new("");
    let model = checkpoint("2-sft");
    bench.crisol(&["export", &model, "--to", "gguf", "--dtype", "q8_0", "--out", "m.gguf"]).ok();
    let inspect = |model: &str| {
        let mut json =
            bench.crisol(&["data", "inspect", "sft.jsonl", "--model", model, "--json"]).json();
        json["tokenizer"].take();
        json
    };
    assert_eq!(inspect("m.gguf"), inspect(&model));
}
