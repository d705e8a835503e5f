//! Commands that use a model: generate, chat, compare, score.

use std::process::Stdio;

use serde_json::Value;

use crate::fixture::{Bench, Finished, checkpoint, fed};

fn ids(value: &Value) -> Vec<u64> {
    value.as_array().expect("a list of ids").iter().map(|id| id.as_u64().expect("an id")).collect()
}

#[test]
fn generate_gives_ids_and_text() {
    let bench = Bench::new("");
    let model = checkpoint("1-pretrain");
    let generate = |more: &[&str]| {
        bench.crisol(&[&["generate", &model, "--max-new-tokens", "6"], more].concat())
    };
    let json = generate(&["--prompt", "The sky", "--json"]).json();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["prompt_ids", "ids", "text", "stopped_by"]);
    let whole = generate(&["--prompt", "The sky", "--json"]).ok();
    let timing = &serde_json::from_str::<serde_json::Value>(&whole).unwrap()["timing"];
    for what in ["seconds_to_load", "seconds_to_first_token", "tokens_per_second"] {
        assert!(timing[what].as_f64().is_some_and(|number| number > 0.0), "{timing}");
    }
    let prompt: Vec<String> = ids(&json["prompt_ids"]).iter().map(u64::to_string).collect();
    // Greedy generation is the same from ids, as text, on one thread and again.
    let from_ids = generate(&["--ids", &prompt.join(","), "--json", "--threads", "1"]).json();
    assert_eq!(json, from_ids);
    assert_eq!(
        generate(&["--prompt", "The sky"]).ok(),
        format!("{}\n", json["text"].as_str().unwrap())
    );
    let stopped = json["stopped_by"].as_str().unwrap();
    assert!(["stop_token", "length"].contains(&stopped));
    assert!(ids(&json["ids"]).len() == 6 || stopped == "stop_token");
}

#[test]
fn sampling_follows_its_seed_and_its_limits() {
    let bench = Bench::new("");
    let model = checkpoint("1-pretrain");
    let sample = |more: &[&str]| {
        let arguments = ["generate", &model, "--prompt", "Ana", "--max-new-tokens", "30", "--json"];
        ids(&bench.crisol(&[&arguments, more].concat()).json()["ids"])
    };
    let hot = |seed: &str| sample(&["--temperature", "1.5", "--seed", seed]);
    assert_eq!(hot("1"), hot("1"));
    assert_ne!(hot("1"), hot("2"));
    let greedy = sample(&[]);
    assert_eq!(greedy, sample(&["--temperature", "0", "--seed", "5"]));
    // One token to choose from is no choice.
    assert_eq!(greedy, sample(&["--top-k", "1", "--seed", "5"]));
    assert_ne!(greedy, sample(&["--top-p", "1.0", "--seed", "5"]));
}

#[test]
fn generation_ends_where_the_context_does() {
    let bench = Bench::new("");
    let prompt = vec!["100"; 63].join(",");
    let arguments = ["generate", &checkpoint("1-pretrain"), "--ids", &prompt, "--json"];
    let json = bench.crisol(&arguments).json();
    assert_eq!(ids(&json["ids"]).len(), 1);
    assert!(["context", "stop_token"].contains(&json["stopped_by"].as_str().unwrap()));
    let error = bench
        .crisol(&["generate", &checkpoint("1-pretrain"), "--ids", &vec!["100"; 65].join(",")])
        .failed(1);
    assert!(error.contains("65") && error.contains("64"), "{error}");
    let error =
        bench.crisol(&["generate", &checkpoint("1-pretrain"), "--ids", "5,99999"]).failed(1);
    assert!(error.contains("99999") && error.contains("vocabulary"), "{error}");
}

/// Log-probs of a greedy continuation: those of `score`, each the largest of its position.
#[test]
fn score_agrees_with_generation() {
    let bench = Bench::new("");
    let model = checkpoint("2-sft");
    let text = "Ana has 3 apples";
    let json = bench.crisol(&["score", &model, "--text", text, "--json"]).json();
    let keys: Vec<&String> = json.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["ids", "logprobs", "total", "bits_per_byte"]);
    let logprobs = json["logprobs"].as_array().unwrap();
    assert_eq!(logprobs.len(), ids(&json["ids"]).len());
    assert!(logprobs[0].is_null());
    let sum: f64 = logprobs[1..].iter().map(|logprob| logprob.as_f64().unwrap()).sum();
    let total = json["total"].as_f64().unwrap();
    assert!((sum - total).abs() < 1e-4 && total < 0.0, "{sum} {total}");
    let bits = -total / std::f64::consts::LN_2 / text.len() as f64;
    assert!((json["bits_per_byte"].as_f64().unwrap() - bits).abs() < 1e-9);

    let id_list: Vec<String> = ids(&json["ids"]).iter().map(u64::to_string).collect();
    let by_ids = bench.crisol(&["score", &model, "--ids", &id_list.join(","), "--json"]).json();
    assert_eq!((&by_ids["logprobs"], &by_ids["total"]), (&json["logprobs"], &json["total"]));
    assert!(by_ids.get("bits_per_byte").is_none());
    let table = bench.crisol(&["score", &model, "--text", text]).ok();
    assert!(
        table.lines().count() == id_list.len() + 2 && table.contains("bits per byte"),
        "{table}"
    );

    // Putting a greedily chosen token last is at least as probable as putting any other there.
    let greedy = bench
        .crisol(&["generate", &model, "--prompt", text, "--max-new-tokens", "1", "--json"])
        .json();
    let last = |id: u64| {
        let with = format!("{},{id}", id_list.join(","));
        let json = bench.crisol(&["score", &model, "--ids", &with, "--json"]).json();
        json["logprobs"].as_array().unwrap().last().unwrap().as_f64().unwrap()
    };
    let best = last(ids(&greedy["ids"])[0]);
    assert!([10, 50, 100, 290].into_iter().all(|other| last(other) <= best));
}

#[test]
fn ids_need_no_tokenizer() {
    let bench = Bench::new("");
    let model = checkpoint("1-pretrain");
    std::fs::create_dir(bench.path("bare")).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(format!("{model}/{file}"), bench.path("bare").join(file)).unwrap();
    }
    let arguments = ["--ids", "60,61", "--max-new-tokens", "4", "--json"];
    let with = bench.crisol(&[&["generate", &model], &arguments[..]].concat()).json();
    let without = bench.crisol(&[&["generate", "bare"], &arguments[..]].concat()).json();
    assert_eq!(with["ids"], without["ids"]);
    assert!(without["text"].is_null());
    assert!(
        bench.crisol(&["generate", "bare", "--prompt", "x"]).failed(2).contains("tokenizer.json")
    );
}

fn chat(bench: &Bench, arguments: &[&str], input: &str) -> Finished {
    fed(&mut bench.command(&[&["chat", &checkpoint("2-sft")], arguments].concat()), input)
}

#[test]
fn answers_end_before_a_stop_string() {
    let bench = Bench::new("");
    let model = checkpoint("1-pretrain");
    let generate = |more: &[&str]| {
        bench.crisol(
            &[&["generate", &model, "--prompt", "The sky", "--max-new-tokens", "40"], more]
                .concat(),
        )
    };
    let whole = generate(&["--json"]).json();
    let (text, whole_ids) = (whole["text"].as_str().unwrap(), ids(&whole["ids"]));
    // Some three characters from the middle, which end in the middle of a token as a rule.
    let middle: String = text.chars().skip(text.chars().count() / 2).take(3).collect();
    let expected = &text[..text.find(&middle).unwrap()];
    let json = generate(&["--json", "--stop", "never said", "--stop", &middle]).json();
    assert_eq!(
        (json["text"].as_str(), json["stopped_by"].as_str()),
        (Some(expected), Some("stop_string"))
    );
    let stopped_ids = ids(&json["ids"]);
    assert!(stopped_ids.len() < whole_ids.len() && whole_ids.starts_with(&stopped_ids));
    assert_eq!(generate(&["--stop", &middle]).ok(), format!("{expected}\n"));
    assert_eq!(generate(&["--json", "--stop", "never said"]).json(), whole);
    // A special token by its name is no text, and ends generation all the same.
    let eos = generate(&["--json", "--stop", "<|eos|>"]).json();
    assert_eq!(eos, whole);

    let arguments = ["compare", &model, "--prompts", "demos.jsonl", "--json"];
    let all = bench.crisol(&arguments).json();
    let said = |json: &Value| json[0]["outputs"][&model].as_str().unwrap().to_owned();
    let cut = bench.crisol(&[&arguments[..], &["--stop", &middle]].concat()).json();
    assert_eq!(said(&cut), said(&all)[..said(&all).find(&middle).unwrap()]);

    let error = generate(&["--stop", ""]).failed(2);
    assert!(error.contains("--stop"), "{error}");
    // Without a tokenizer there is no text to look at.
    let bare = bench.path("bare");
    std::fs::create_dir(&bare).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(format!("{model}/{file}"), bare.join(file)).unwrap();
    }
    let error =
        bench.crisol(&["generate", "bare", "--ids", "5", "--json", "--stop", "x"]).failed(2);
    assert!(error.contains("no tokenizer.json, which --stop needs"), "{error}");
}

#[test]
fn chat_ends_replies_before_a_stop_string() {
    let bench = Bench::new("");
    let first = chat(&bench, &["--max-new-tokens", "12"], "Say coins\n").ok();
    let line = first.trim_end_matches('\n');
    let stop: String = line.chars().last().into_iter().collect();
    let said = chat(&bench, &["--max-new-tokens", "12", "--stop", &stop], "Say coins\n");
    assert_eq!(said.stderr, "");
    assert_eq!(said.ok(), format!("{}\n", &line[..line.find(&stop).unwrap()]));
}

/// A template that writes tools and the date: `--tools` and today reach it in `generate` and
/// `chat`; data is given a fixed day.
#[test]
fn templates_get_tools_and_the_date() {
    let bench = Bench::new("");
    let folder = bench.path("dated");
    std::fs::create_dir(&folder).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        std::fs::copy(format!("{}/{file}", checkpoint("2-sft")), folder.join(file)).unwrap();
    }
    let template = "{{ strftime_now('%Y') }}{% for t in tools or [] %}{{ t.name }}{% endfor %}{% for m in messages %}\
                    {{ m.content ~ eos_token }}{% endfor %}";
    let config = serde_json::json!({"eos_token": "<|eos|>", "chat_template": template});
    bench.write("dated/tokenizer_config.json", &config.to_string());
    bench.write("tools.json", r#"[{"name": "clock"}]"#);
    let prompt = |more: &[&str]| {
        let ask = ["generate", "dated", "--chat", "Hi", "--max-new-tokens", "1", "--json"];
        let json = bench.crisol(&[&ask, more].concat()).json();
        let ids: Vec<String> = ids(&json["prompt_ids"]).iter().map(u64::to_string).collect();
        let text = bench.crisol(&["score", "dated", "--ids", &ids.join(",")]).ok();
        let tokens: String = text.lines().filter_map(|line| line.split('"').nth(1)).collect();
        tokens
    };
    let today = prompt(&[]);
    let year: u32 = today[..4].parse().unwrap();
    assert!(year >= 2026 && today.ends_with("Hi<|eos|>"), "{today}");
    assert_eq!(prompt(&["--tools", "tools.json"]), format!("{year}clockHi<|eos|>"));
    let inspected =
        bench.crisol(&["data", "inspect", "sft.jsonl", "--model", "dated", "--json"]).ok();
    assert!(inspected.contains("2024Ana has"), "{inspected}");

    for (contents, problem) in
        [("{}", "found an object, expected a list"), ("[1]", "tool 1 of 1 is not a JSON object")]
    {
        bench.write("tools.json", contents);
        let error = bench.crisol(&["chat", "dated", "--tools", "tools.json"]).failed(1);
        assert!(error.contains("tools.json") && error.contains(problem), "{error}");
    }
}

#[test]
fn how_the_makers_sample_is_mentioned_not_applied() {
    let bench = Bench::new("");
    let folder = bench.path("sampled");
    std::fs::create_dir(&folder).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(format!("{}/{file}", checkpoint("2-sft")), folder.join(file)).unwrap();
    }
    bench.write(
        "sampled/generation_config.json",
        r#"{"do_sample": true, "temperature": 0.6, "top_p": 0.9}"#,
    );
    let generate = |more: &[&str]| {
        bench.crisol(
            &[&["generate", "sampled", "--prompt", "Ana", "--max-new-tokens", "8"], more].concat(),
        )
    };
    let greedy = generate(&[]);
    assert!(greedy.stderr.contains("suggests --temperature 0.6 --top-p 0.9"), "{}", greedy.stderr);
    let chosen = generate(&["--temperature", "0"]);
    assert_eq!(chosen.stderr, "");
    assert_eq!(chosen.ok(), greedy.ok());
}

#[test]
fn chat_answers_each_line_of_a_pipe() {
    let bench = Bench::new("");
    let model = checkpoint("2-sft");
    let short = ["--max-new-tokens", "4"];
    let first =
        bench.crisol(&[&["generate", &model, "--chat", "Say coins"], &short[..]].concat()).ok();
    let twice = chat(&bench, &short, "Say coins\n/reset\nSay coins\n/quit\nnever read\n").ok();
    // The conversation begins anew after /reset, so that the same question gets the same answer.
    assert_eq!(twice, format!("{first}{first}"));
    let unknown = chat(&bench, &short, "/help\n");
    assert!(unknown.stdout.is_empty() && unknown.stderr.contains("/reset"), "{unknown:?}");
}

#[test]
fn chat_forgets_the_oldest_turns_when_the_context_is_full() {
    let bench = Bench::new("");
    let said = chat(&bench, &["--max-new-tokens", "4"], &"Say coins and apples\n".repeat(8));
    assert!(said.stderr.contains("messages are forgotten"), "{}", said.stderr);
    assert_eq!(said.ok().lines().count(), 8);
    let long = chat(&bench, &[], &format!("{}\nSay coins\n", "Say coins ".repeat(30)));
    assert!(long.stderr.contains("no room for an answer"), "{}", long.stderr);
    assert!(long.code == Some(0) && !long.stdout.is_empty());
}

#[test]
fn compare_sets_models_side_by_side() {
    let bench = Bench::new("");
    let (base, tuned) = (checkpoint("1-pretrain"), checkpoint("2-sft"));
    let arguments = ["compare", &base, &tuned, "--prompts", "demos.jsonl"];
    let text = bench.crisol(&arguments).ok();
    assert!(text.contains("1-pretrain") && text.contains("Say coins"), "{text}");
    let json = bench.crisol(&[&arguments[..], &["--json"]].concat()).json();
    let prompts = json.as_array().unwrap();
    assert_eq!(prompts.len(), 2);
    for prompt in prompts {
        let outputs = prompt["outputs"].as_object().unwrap();
        assert!(outputs.contains_key(&base) && outputs.contains_key(&tuned));
    }
    assert_eq!(prompts[0]["form"], "text");
    let greedy = bench
        .crisol(&["generate", &base, "--prompt", "The sky", "--max-new-tokens", "3", "--json"])
        .json();
    let shown = prompts[0]["outputs"][&base].as_str().unwrap();
    assert!(shown.starts_with(greedy["text"].as_str().unwrap()), "{shown:?} {greedy}");
}

/// `crisol … | head` is no error and no panic.
#[test]
fn a_closed_pipe_ends_the_command_quietly() {
    let bench = Bench::new("");
    for arguments in
        [&["completions", "bash"][..], &["generate", &checkpoint("1-pretrain"), "--prompt", "The"]]
    {
        let mut child = bench
            .command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        drop(child.stdout.take());
        let finished =
            Finished::of(child.wait_with_output().expect("the child's output can be read"));
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""));
    }
}

#[test]
fn models_are_used_for_what_they_can() {
    let bench = Bench::new("");
    bench.write("prompts.jsonl", "{\"prompt\": \"x\"}\n");
    let reward = checkpoint("4-reward");
    for arguments in [
        &["generate", &reward, "--prompt", "x"][..],
        &["chat", &reward],
        &["compare", &reward, "--prompts", "prompts.jsonl"],
    ] {
        let error = bench.crisol(arguments).failed(1);
        assert!(error.contains("4-reward: a reward or value model"), "{error}");
    }
    let base = bench.path("plain");
    std::fs::create_dir(&base).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json", "generation_config.json"] {
        std::fs::copy(format!("{}/{file}", checkpoint("1-pretrain")), base.join(file)).unwrap();
    }
    for arguments in [&["generate", "plain", "--chat", "x"][..], &["chat", "plain"]] {
        let error = bench.crisol(arguments).failed(1);
        assert!(error.contains("chat template"), "{error}");
    }
}

#[cfg(not(feature = "hub"))]
#[test]
fn names_on_a_hub_need_the_feature() {
    let bench = Bench::new("");
    for arguments in [&["pull", "org/tiny"][..], &["generate", "org/tiny", "--prompt", "x"]] {
        let error = bench.crisol(arguments).failed(1);
        assert!(error.contains("org/tiny") && error.contains("--features hub"), "{error}");
    }
}
