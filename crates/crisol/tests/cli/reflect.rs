//! `crisol reflect`.

use serde_json::Value;

use crate::fixture::{Bench, roomy, weights};

fn reflect(bench: &Bench, more: &[&str]) -> Value {
    let small = ["reflect", "run/2-sft", "--steps", "2", "--examples", "24", "--json"];
    bench.crisol(&[&small[..], more].concat()).json()
}

#[test]
fn the_models_are_trained_measured_and_shown_and_threads_change_no_bit() {
    let bench = roomy();
    let json = reflect(&bench, &["--out", "one", "--threads", "1"]);
    let written: Value = serde_json::from_str(&bench.read("one/report.json")).unwrap();
    assert_eq!(written["reflect"]["models"], json["reflect"]["models"]);
    let names = ["base", "engagement", "preference", "mix", "kl", "truth", "cap"];
    let measured = &json["reflect"];
    let models = measured["models"].as_array().unwrap();
    assert_eq!(models.iter().map(|model| &model["name"]).collect::<Vec<_>>(), names);
    for (model, folder) in models.iter().zip(["1-", "2-", "2-", "2-", "2-", "2-", "2-"]) {
        let name = model["name"].as_str().unwrap();
        assert!(bench.path(&format!("one/{folder}{name}/model.safetensors")).exists(), "{name}");
        for what in ["picks", "writes"] {
            let all = &model[what]["all"];
            assert!(all["answers"].as_u64().unwrap() >= all["unread"].as_u64().unwrap());
        }
        assert!(measured["prompts"][0]["outputs"][name].is_string());
    }
    assert_eq!(measured["readers"], 32);
    let curves = json["phases"][1]["curves"].as_array().unwrap();
    assert!(curves.iter().any(|curve| curve["name"] == "reward/items"));
    let page = bench.read("one/reflect.html");
    assert!(page.contains("<html lang=\"en\">") && !page.contains("http://"));

    let again = reflect(&bench, &["--out", "two", "--threads", "2"]);
    assert_eq!(again["reflect"], json["reflect"]);
    assert_eq!(weights(&bench.path("one")), weights(&bench.path("two")));

    // What was measured stays when the report is written again, in another language.
    bench.crisol(&["report", "one", "--lang", "es"]).ok();
    let kept: Value = serde_json::from_str(&bench.read("one/report.json")).unwrap();
    assert_eq!(kept["reflect"], written["reflect"]);
    assert!(bench.read("one/reflect.html").contains("<html lang=\"es\">"));

    // A finished experiment is not trained over, and measured again with --resume.
    let error = bench.crisol(&["reflect", "run/2-sft", "--out", "one"]).failed(1);
    assert!(error.contains("already holds a run"), "{error}");
    let resumed = reflect(&bench, &["--out", "one", "--resume"]);
    assert_eq!(resumed["reflect"], json["reflect"]);

    // `run` does not go on with it: it would reward with the verifier.
    let error = bench.crisol(&["run", "--resume", "--out", "one"]).failed(1);
    assert!(error.contains("`reward` was") && error.contains("not set"), "{error}");
}

#[test]
fn without_a_model_it_says_how_to_get_one() {
    let bench = Bench::new("");
    let error = bench.crisol(&["reflect"]).failed(1);
    assert!(
        error.contains("runs/crisol-world/3-reason") && error.contains("crisol run"),
        "{error}"
    );
    let error = bench.crisol(&["reflect", "--split", "train"]).failed(2);
    assert!(error.contains("dev or test"), "{error}");
}
