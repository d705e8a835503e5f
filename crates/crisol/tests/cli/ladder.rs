//! `crisol cost ladder`.

use serde_json::{Value, json};

use crate::fixture::{Bench, Finished, report, short_recipe};

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn list<'a>(json: &'a Value, key: &str) -> &'a Vec<Value> {
    json[key].as_array().unwrap_or_else(|| panic!("no list {key} in {json}"))
}

#[test]
fn a_ladder_is_written_and_runs_as_planned() {
    // Wide enough for narrower ones, and batches so small that their number can follow the models'
    // sizes.
    let recipe = short_recipe("")
        .replace("hidden_size = 32", "hidden_size = 64")
        .replace("heads = 2\nkv_heads = 1\n", "heads = 4\nkv_heads = 2\n")
        .replacen("batch_tokens = 512", "batch_tokens = 128\nepochs = 2", 1);
    let bench = Bench::new(&recipe);
    let write = |more: &[&str]| {
        bench.crisol(
            &[&["cost", "ladder", "--write", "ladder", "--recipe", "tiny.toml"], more].concat(),
        )
    };
    let plan = write(&["--rungs", "4", "--json"]).json();
    let rungs = list(&plan, "rungs");
    assert_eq!(rungs.len(), 4);
    let of = |rung: &Value, key: &str| number(&rung[key]);
    for pair in rungs.windows(2) {
        assert!(of(&pair[1], "parameters") > 1.15 * of(&pair[0], "parameters"), "{plan}");
        assert!(of(&pair[1], "flops") > 1.3 * of(&pair[0], "flops"), "{plan}");
    }
    assert!(of(&rungs[3], "flops") >= 8.0 * of(&rungs[0], "flops"), "{plan}");
    // Runs are what was planned, to the operation; the largest is the recipe's own.
    for (number, rung) in [(1, &rungs[0]), (4, &rungs[3])] {
        let (recipe, out) = (format!("ladder/rung-{number}.toml"), format!("ladder/rung-{number}"));
        assert_eq!(rung["recipe"], *recipe);
        bench.crisol(&["run", &recipe, "--out", &out, "--threads", "2"]).ok();
        let report = report(&bench.path(&out), &[]);
        let phases = list(&report, "phases");
        assert_eq!(phases.len(), 1);
        assert_eq!(phases[0]["tokens"], rung["tokens"]);
        assert!(
            (of(&phases[0], "flops") / of(rung, "flops") - 1.0).abs() < 1e-9,
            "{} {rung}",
            phases[0]["flops"]
        );
        assert_eq!(of(&report["model"], "parameters"), of(rung, "parameters"));
        assert!(of(&phases[0]["metrics"], "validation_loss") > 0.0);
        let others =
            list(&report, "prompts").iter().filter(|prompt| prompt["kind"] != "held-out").count();
        assert_eq!(others, 0, "nothing else is measured");
        if number == 4 {
            assert_eq!(report["model"]["hidden"], 64);
            assert!(
                report["recipe_toml"].as_str().is_some_and(|toml| toml.contains("epochs = 2.0"))
            );
        }
    }
    // Nothing is overwritten.
    let before = bench.read("ladder/rung-1.toml");
    assert!(write(&[]).failed(1).contains("nothing is overwritten"));
    assert_eq!(bench.read("ladder/rung-1.toml"), before);
    assert!(!bench.path("ladder/rung-5.toml").exists());
    let text = bench
        .crisol(&["cost", "ladder", "--write", "more", "--recipe", "tiny.toml", "--rungs", "4"])
        .ok();
    assert!(text.contains("crisol run more/rung-4.toml --out more/rung-4"), "{text}");
    assert!(
        text.contains("crisol cost ladder more/rung-1 more/rung-2 more/rung-3 more/rung-4"),
        "{text}"
    );
}

/// A run's folder with a report of nothing but its pre-training.
fn write_run(bench: &Bench, name: &str, model: &Value, phase: &Value) {
    std::fs::create_dir_all(bench.path(name)).expect("the test's folder is writable");
    bench.write(
        &format!("{name}/report.json"),
        &json!({"model": model, "phases": [phase]}).to_string(),
    );
}

/// Runs r1, r2, … whose losses lie on 1.5 + 0.8·(C / 10¹²)^-0.25 and so far above and below it, by
/// turns.
fn bench_with_runs(scatter: f64) -> Bench {
    let bench = Bench::new("");
    for i in 0..6 {
        let size = 2f64.powi(i);
        let flops = 1e12 * size * size;
        let off = if i % 2 == 0 { scatter } else { -scatter };
        let loss = curve(flops) + off;
        let model = json!({"parameters": 10_000.0 * size, "vocab": 1024});
        let phase = json!({"name": "pretrain", "kind": "pretrain", "flops": flops, "tokens": 200_000.0 * size,
            "metrics": {"validation_loss": loss}});
        let integers = |value: Value| -> Value {
            serde_json::from_str(&value.to_string().replace(".0,", ",").replace(".0}", "}"))
                .expect("JSON")
        };
        write_run(&bench, &format!("r{}", i + 1), &integers(model), &integers(phase));
    }
    bench
}

fn curve(flops: f64) -> f64 {
    1.5 + 0.8 * (flops / 1e12).powf(-0.25)
}

fn fit(bench: &Bench, runs: &[&str], more: &[&str]) -> Finished {
    bench.crisol(&[&["cost", "ladder"], runs, more].concat())
}

#[test]
fn losses_on_a_curve_are_predicted_with_an_interval() {
    let exact = bench_with_runs(0.0);
    // In any order.
    let answer = fit(&exact, &["r3", "r1", "r2", "r4"], &["--to", "1e18", "--json"]).json();
    assert!((number(&answer["limit"]) - 1.5).abs() < 0.01, "{answer}");
    assert!((number(&answer["exponent"]) - 0.25).abs() < 0.005, "{answer}");
    let predictions = list(&answer, "predictions");
    let times: Vec<f64> = predictions.iter().map(|p| number(&p["times"])).collect();
    assert_eq!(times[..3], [4.0, 16.0, 64.0]);
    assert_eq!(predictions[3]["flops"], 1e18);
    for prediction in predictions {
        let expected = number(&prediction["expected"]);
        assert!((expected - curve(number(&prediction["flops"]))).abs() < 0.01, "{prediction}");
        assert!(number(&prediction["low"]) <= expected && expected <= number(&prediction["high"]));
    }
    // Scatter makes it wide, and the truth lies within.
    let rough = bench_with_runs(0.004);
    let answer = fit(&rough, &["r1", "r2", "r3", "r4", "r5", "r6"], &["--json"]).json();
    let far = &list(&answer, "predictions")[2];
    let truth = curve(number(&far["flops"]));
    assert!(number(&far["low"]) < truth && truth < number(&far["high"]), "{far}");
    assert!(number(&far["high"]) - number(&far["low"]) > 0.01, "{far}");

    let text = fit(&rough, &["r1", "r2", "r3", "r4"], &["--out", "page.html"]).ok();
    assert!(text.contains("64×") && text.contains("page.html"), "{text}");
    let page = rough.read("page.html");
    assert_eq!(
        page.matches("<circle class=\"dot l3\" cx").count() - hovered(&page),
        4,
        "four runs are drawn"
    );
    for said in ["<svg", "90 % interval", "r4", "Content-Security-Policy"] {
        assert!(page.contains(said), "{said}");
    }
    assert!(!page.contains("<script") && !page.contains("src="), "self-contained");
}

/// Dots of runs that are shown where the chart is pointed at.
fn hovered(page: &str) -> usize {
    page.split("<g class=\"hover\">").skip(1).filter(|piece| piece.contains("dot l3")).count()
}

#[test]
fn what_is_no_ladder_is_refused_in_words() {
    let bench = bench_with_runs(0.0);
    let model = json!({"parameters": 10_000, "vocab": 1024});
    let phase = |kind: &str, metrics: Value| json!({"kind": kind, "flops": 1e14, "tokens": 200_000, "metrics": metrics});
    write_run(&bench, "tuned", &model, &phase("sft", json!({"validation_loss": 2.0})));
    write_run(&bench, "blind", &model, &phase("pretrain", json!({})));
    write_run(
        &bench,
        "other",
        &json!({"parameters": 10_000, "vocab": 999}),
        &phase("pretrain", json!({"validation_loss": 2.0})),
    );
    write_run(&bench, "worse", &model, &phase("pretrain", json!({"validation_loss": 9.0})));
    write_run(
        &bench,
        "greedy",
        &model,
        &json!({"kind": "pretrain", "flops": 1e14, "tokens": 400_000, "metrics": {"validation_loss": 1.75}}),
    );
    std::fs::create_dir(bench.path("empty")).expect("the test's folder is writable");
    for (code, runs, said) in [
        (2, &["r1", "r2", "r3"][..], "3 runs are too few"),
        (2, &["r1", "r1", "r2", "r2"], "factor of 4.0"),
        (2, &["worse", "r1", "r2", "r3"], "does not fall"),
        (1, &["r1", "r2", "r3", "empty"], "report.json"),
        (1, &["r1", "r2", "r3", "nowhere"], "report.json"),
        (1, &["r1", "r2", "r3", "tuned"], "no phase of kind pretrain"),
        (1, &["r1", "r2", "r3", "blind"], "held-out"),
        (2, &["r1", "r2", "r3", "other"], "vocabulary of 1024 tokens and other one of 999"),
        (2, &["r1", "r2", "r3", "r4", "--to", "-5"], "more than 0"),
        (2, &["r1", "--write", "there"], "cannot be used with"),
        (2, &["--write", "there", "--rungs", "3"], "4..=12"),
        (1, &["--write", "there", "--recipe", "tiny.toml"], "at least one phase"),
    ] {
        let failed = fit(&bench, runs, &[]).failed(code);
        assert!(failed.contains(said), "{runs:?}: {failed}");
    }
    assert_eq!(fit(&bench, &[], &[]).code, Some(2));
    assert!(!bench.path("ladder.html").exists() && !bench.path("there").exists());
    // What cannot be told for sure is a warning.
    let warned = fit(&bench, &["r1", "r2", "r3", "r4", "greedy"], &[]);
    assert!(warned.stderr.contains("warning") && warned.stderr.contains("greedy"), "{warned:?}");
    warned.ok();
    assert!(fit(&bench, &["r1", "r2", "r3", "r4"], &[]).stderr.is_empty());
}
