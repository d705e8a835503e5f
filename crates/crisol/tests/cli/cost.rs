//! `crisol cost`.

use serde_json::Value;

use crate::fixture::{Bench, Finished, checkpoint, short_recipe};

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn public_runs_are_predicted() {
    let bench = Bench::new("");
    let answer = bench.crisol(&["cost", "--json"]).json();
    let runs = answer["runs"].as_array().expect("a list of runs");
    assert_eq!(runs.len(), 6);
    for run in runs {
        let mfu = number(&run["implied_mfu"]);
        assert!((0.2..0.5).contains(&mfu), "{run}");
        // With what the reported hours imply, `crisol cost MODEL` gives the reported hours.
        let (tokens, mfu) = (run["tokens"].to_string(), mfu.to_string());
        let gpu = run["gpu"].as_str().expect("a name");
        let model = run["model"].as_str().expect("a name");
        let plan = bench
            .crisol(&[
                "cost", model, "--tokens", &tokens, "--gpu", gpu, "--mfu", &mfu, "--seq", "4096",
                "--json",
            ])
            .json();
        let ratio = number(&plan["gpu_hours"]) / number(&run["reported_gpu_hours"]);
        assert!((ratio - 1.0).abs() < 1e-6, "{model}: {ratio}");
        assert_eq!(plan["parameters"]["total"], run["parameters_total"], "{model}");
    }
    let text = bench.crisol(&["cost"]).ok();
    assert!(text.contains("llama-2-7b") && text.contains("95.6 %"), "{text}");
}

#[test]
fn a_plan_says_what_it_takes_and_whether_it_fits() {
    let bench = Bench::new("");
    let plan_on = |gpu: &str, more: &[&str]| {
        let plan = ["cost", "llama-2-7b", "--tokens", "2T", "--gpu", gpu, "--json"];
        bench.crisol(&[&plan, more].concat()).json()
    };
    let plan = |more: &[&str]| plan_on("a100", more);
    let alone = plan(&[]);
    assert_eq!(alone["parameters"]["total"], 6_738_415_616_f64);
    assert_eq!(alone["fits"], false);
    let money = &alone["money"];
    assert!(number(&money["low"]) < number(&money["high"]), "{money}");
    let memory = alone["memory"].as_object().expect("an object");
    let parts: f64 = memory
        .iter()
        .filter(|(name, _)| !["total", "available"].contains(&name.as_str()))
        .map(|(_, bytes)| number(bytes))
        .sum();
    assert!((parts / number(&memory["total"]) - 1.0).abs() < 1e-9, "{memory:?}");
    // What is said to make it fit does.
    let more = plan(&["--gpus", "8"]);
    let remedies = more["remedies"].as_array().expect("a list");
    assert!(!remedies.is_empty());
    for remedy in remedies {
        let options: Vec<&str> = remedy["options"].as_str().expect("options").split(' ').collect();
        let better = plan(&[&["--gpus", "8"], &options[..]].concat());
        assert_eq!(
            (&better["fits"], &better["memory"]["total"]),
            (&Value::Bool(true), &remedy["total"])
        );
    }
    // Nothing is guessed.
    let unknown = plan_on("mi300x", &[]);
    assert!(
        unknown["mfu"].is_null() && unknown["gpu_hours"].is_null() && unknown["money"].is_null(),
        "{unknown}"
    );
    assert_eq!(unknown["flops"], alone["flops"]);
}

#[test]
fn any_model_can_be_asked_for() {
    let bench = Bench::new("");
    let parameters = |model: &str| {
        let plan = bench.crisol(&["cost", model, "--tokens", "1M", "--json"]).json();
        number(&plan["parameters"]["total"])
    };
    let folder = checkpoint("2-sft");
    let info = bench.crisol(&["info", &folder, "--json"]).json();
    assert_eq!(parameters(&folder), number(&info["parameters"]["total"]));
    assert_eq!(parameters(&format!("{folder}/config.json")), parameters(&folder));
    let file = bench.crisol(&["export", &folder, "--to", "gguf"]).ok();
    assert_eq!(parameters(file.trim()), parameters(&folder));
    assert_eq!(
        parameters("d=8,L=1,H=2,ff=16,V=10"),
        f64::from(10 * 8 + 4 * 64 + 3 * 8 * 16 + 3 * 8)
    );
    for phase in ["sft", "grpo", "reward", "ppo", "dpo"] {
        let text = bench.crisol(&["cost", "olmo-2-1b", "--phase", phase, "--tokens", "20M"]).ok();
        assert!(text.contains("passes"), "{text}");
    }
}

#[test]
fn budgets_give_sizes() {
    let bench = Bench::new("");
    let by_flops = bench.crisol(&["cost", "--budget", "1e21", "--json"]).json();
    let optimum = &by_flops["optima"][0];
    assert!(
        (19.0..22.0).contains(&(number(&optimum["tokens"]) / number(&optimum["parameters"]))),
        "{optimum}"
    );
    let hours = number(&by_flops["gpu_hours"]).to_string();
    let by_hours = bench.crisol(&["cost", "--gpu-hours", &hours, "--json"]).json();
    assert!((number(&by_hours["flops"]) / 1e21 - 1.0).abs() < 1e-6);
    let money = number(&by_flops["dollars"]).to_string();
    let by_money = bench.crisol(&["cost", "--money", &money, "--json"]).json();
    assert!((number(&by_money["flops"]) / 1e21 - 1.0).abs() < 1e-6);
    assert!(bench.crisol(&["cost", "--budget", "1e21"]).ok().contains("approach 3"));
}

#[test]
fn this_machine_is_measured_or_unknown() {
    let bench = Bench::new(&short_recipe(""));
    let on_cpu = |more: &[&str]| {
        let plan = ["cost", "XS", "--tokens", "1M", "--cpu", "--threads", "2", "--json"];
        let mut command = bench.command(&[&plan, more].concat());
        command.env("XDG_CACHE_HOME", bench.path("caches"));
        Finished::of(command.output().expect("it runs")).json()
    };
    let unknown = on_cpu(&[]);
    assert!(unknown["wall_seconds"].is_null() && unknown["mfu"].is_null(), "{unknown}");
    // As if it had been measured: XS trains at 10^10 operations a second, which is a quarter of
    // what products reach.
    let shape = number(&unknown["flops"]);
    let machine = name_of_this_machine(&bench);
    let measured = format!(
        r#"{{"machine": {machine}, "threads": 2, "measured": "today", "products": 4e10, "products_bf16": 4e10, "bandwidth": 1e10,
        "training": [{{"parameters": 1e6, "flops_per_second": 1e10}}],
        "sampling": [{{"parameters": 1e6, "flops_per_second": 1e9}}]}}"#
    );
    std::fs::create_dir_all(bench.path("caches/crisol")).unwrap();
    bench.write("caches/crisol/machine.json", &measured);
    let known = on_cpu(&[]);
    assert!(
        (number(&known["wall_seconds"]["typical"]) / (shape / 1e10) - 1.0).abs() < 1e-9,
        "{known}"
    );
    assert!((number(&known["mfu"]["typical"]) - 0.25).abs() < 1e-9, "{known}");
    let faster = on_cpu(&["--mfu", "0.5"]);
    assert!(
        (number(&faster["wall_seconds"]["typical"]) / (shape / 2e10) - 1.0).abs() < 1e-9,
        "{faster}"
    );
    // Sampling is slower.
    let grpo = on_cpu(&["--phase", "grpo"]);
    assert!(
        number(&grpo["wall_seconds"]["typical"]) > 4.0 * number(&known["wall_seconds"]["typical"]),
        "{grpo}"
    );
    // A run says it too, as a whole and of each phase, before and after.
    let mut command = bench.command(&["run", "tiny.toml", "--out", "run", "--threads", "2"]);
    let finished = Finished::of(
        command.env("XDG_CACHE_HOME", bench.path("caches")).output().expect("it runs"),
    );
    for said in [" of training (pretrain ", "pretrain: about ", " (forecast "] {
        assert!(finished.stderr.contains(said), "{said}: {}", finished.stderr);
    }
    finished.ok();
    let report: Value = serde_json::from_str(&bench.read("run/report.json")).expect("a report");
    assert!(number(&report["phases"][0]["expected_seconds"]) > 0.0);
    // What was measured with other threads, or is no such file, says nothing.
    bench
        .write("caches/crisol/machine.json", &measured.replace("\"threads\": 2", "\"threads\": 3"));
    assert!(on_cpu(&[])["wall_seconds"].is_null());
    bench.write("caches/crisol/machine.json", "[]");
    assert!(on_cpu(&[])["wall_seconds"].is_null());
}

/// What this machine is called, as JSON.
fn name_of_this_machine(bench: &Bench) -> String {
    let arguments = [
        "bench",
        "train",
        "--shape",
        "d=8,L=1,H=2,ff=8,V=16,T=8,B=1",
        "--seconds",
        "0.01",
        "--json",
    ];
    bench.crisol(&arguments).json()["machine"].to_string()
}

#[test]
fn nonsense_is_refused_in_words() {
    let bench = Bench::new("");
    bench.write("empty.json", "{}");
    for (code, arguments, said) in [
        (2, &["llama-2-7b", "--tokens", "-2T"][..], "more than 0"),
        (2, &["llama-2-7b", "--tokens", "0"], "more than 0"),
        (2, &["llama-2-7b", "--tokens", "2 parsecs"], "a number such as"),
        (2, &["llama-2-7b", "--mfu", "1.5"], "a share above 0"),
        (2, &["llama-2-7b", "--price", "-1"], "more than 0"),
        (2, &["llama-2-7b", "--mfu", "measured"], "nothing was measured"),
        (2, &["llama-2-7b", "--cpu", "--gpus", "2"], "cannot be used with"),
        (2, &["llama-2-7b", "--gpus", "0"], "not in 1.."),
        (2, &["llama-2-7b", "--gpus", "3", "--batch", "8"], "cannot be shared equally by 3 GPUs"),
        (2, &["llama-2-7b", "--zero", "2"], "there is only one"),
        (2, &["llama-2-7b", "--lora-rank", "8"], "pre-training needs all weights"),
        (2, &["llama-2-7b", "--phase", "sft"], "needs --tokens"),
        (2, &["llama-2-7b", "--dtype", "q4_0"], "cannot be trained themselves"),
        (1, &["llama-7-2b"], "no known model"),
        (2, &["d=7,H=2"], "cannot share a width"),
        (1, &["empty.json"], "empty.json"),
        (2, &["--budget", "-1"], "more than 0"),
        (2, &["--tokens", "2T"], "<MODEL>"),
        (2, &["--budget", "1e21", "--cpu"], "cannot be used with"),
        (2, &["--calibrate", "--tokens", "2T"], "cannot be used with"),
        (2, &["llama-2-7b", "--recompute", "all"], "possible values: none, selective, block"),
        (2, &["--money", "100", "--gpu", "l4"], "Give --price"),
        (2, &["--budget", "1e21", "--gpu", "mi300x"], "unknown GPU"),
        (2, &["--budget", "1e21", "--money", "100"], "cannot be used with"),
    ] {
        let failed = bench.crisol(&[&["cost"], arguments].concat()).failed(code);
        assert!(failed.contains(said), "{arguments:?}: {failed}");
    }
}
