//! `--lang` and the environment: what a student reads is in Spanish, what programs read is not.

use std::path::Path;

use crate::fixture::{Bench, Finished, checkpoint, fed, finished_run};

/// What `crisol report` needs of the finished run, in a test's own folder.
fn copy_of_the_run() -> Bench {
    let bench = Bench::new("");
    let copy = |from: &Path, to: &str| {
        std::fs::copy(from, bench.path(to)).unwrap_or_else(|e| panic!("{}: {e}", from.display()))
    };
    std::fs::create_dir(bench.path("run")).expect("the test's folder is writable");
    for file in ["recipe.toml", "report.json"] {
        copy(&finished_run().join(file), &format!("run/{file}"));
    }
    for entry in std::fs::read_dir(finished_run()).expect("the run is a folder") {
        let folder = entry.expect("an entry of the run").path();
        if folder.join("phase.json").exists() {
            let name = folder.file_name().expect("it has a name").to_string_lossy();
            std::fs::create_dir(bench.path(&format!("run/{name}"))).expect("it is writable");
            copy(&folder.join("phase.json"), &format!("run/{name}/phase.json"));
        }
    }
    bench
}

fn run(bench: &Bench, arguments: &[&str], variables: &[(&str, &str)]) -> Finished {
    let mut command = bench.command(arguments);
    command.envs(variables.iter().copied());
    Finished::of(command.output().expect("the binary starts"))
}

#[test]
fn a_report_is_written_again_in_another_language() {
    let bench = copy_of_the_run();
    let english = run(&bench, &["report", "run"], &[]).ok();
    let (page, json) = (bench.read("run/report.html"), bench.read("run/report.json"));
    assert!(english.contains("What each phase changed") && page.contains("<html lang=\"en\">"));

    let spanish = [("LANG", "es_ES.UTF-8")];
    let chosen = run(&bench, &["report", "run", "--lang", "es"], &[]).ok();
    assert!(chosen.contains("Qué cambió cada fase") && !chosen.contains("phase"), "{chosen}");
    let in_spanish = bench.read("run/report.html");
    for part in ["<html lang=\"es\">", "Arranque en frío: pasos 1 a ", "puntuada por reward"] {
        assert!(in_spanish.contains(part), "{part}");
    }
    assert!(!in_spanish.contains("Cold start"));
    assert_eq!(run(&bench, &["report", "run"], &spanish).ok(), chosen);
    assert_eq!(bench.read("run/report.html"), in_spanish);
    assert_eq!(bench.read("run/report.json"), json, "what programs read has no language");

    // What is given counts before the environment, wherever it stands.
    assert_eq!(run(&bench, &["--lang", "en", "report", "run"], &spanish).ok(), english);
    assert_eq!(bench.read("run/report.html"), page);
    let english_first = [("LC_ALL", "C.UTF-8"), ("LANG", "es_ES.UTF-8")];
    assert_eq!(run(&bench, &["report", "run"], &english_first).ok(), english);
}

#[test]
fn everything_that_a_run_notes_is_said_in_spanish() {
    let bench = copy_of_the_run();
    let text = run(&bench, &["report", "run", "--full", "--lang", "es"], &[]).ok();
    let report = crisol_report::Report::load(&bench.path("run/report.json")).expect("a report");
    for note in report.phases.iter().flat_map(|phase| &phase.notes) {
        assert!(crisol_report::is_known(note), "{note}");
    }
    for english in ["Notes", "What it cost", "held-out", "the user says", "seed"] {
        assert!(!text.contains(english), "{english}: {text}");
    }
}

#[test]
fn errors_and_help_stay_english() {
    let bench = Bench::new("");
    let spanish = [("LANG", "es_ES.UTF-8")];
    let error = run(&bench, &["report", "nowhere"], &spanish).failed(1);
    assert!(error.contains("not the folder of a run"), "{error}");
    assert!(run(&bench, &["report", "--help"], &spanish).ok().contains("Folder of the run"));
    let error = run(&bench, &["report", "x", "--lang", "de"], &[]).failed(2);
    assert!(error.contains("en or es is needed"), "{error}");
}

#[test]
fn a_chat_speaks_spanish_and_its_answers_are_the_same() {
    let bench = Bench::new("");
    let say = |variables: &[(&str, &str)]| {
        let mut chat = bench.command(&["chat", &checkpoint("2-sft"), "--max-new-tokens", "8"]);
        fed(chat.envs(variables.iter().copied()), "/help\n/nope\n/reset\nSay coins\n")
    };
    let (english, spanish) = (say(&[]), say(&[("LC_MESSAGES", "es_MX.UTF-8")]));
    for part in ["olvida la conversación", "no existe /nope", "(conversación olvidada)"] {
        assert!(spanish.stderr.contains(part), "{part}: {}", spanish.stderr);
    }
    assert!(!spanish.stderr.contains("conversation"), "{}", spanish.stderr);
    assert_eq!(english.ok(), spanish.ok());
}

/// The context of a run's three models does not hold the notebook's prompts, which is said too.
#[test]
fn the_notebook_is_replayed_in_spanish() {
    let bench = Bench::new("");
    let path = finished_run().to_str().expect("the path is UTF-8");
    let arguments = ["notebook", "--run", path, "--out", "out", "--lang", "es"];
    let text = run(&bench, &arguments, &[]).ok();
    let page = bench.read("out/report.html");
    for part in ["== Tras el pre-training: ", "-- El notebook dice de ", "continúa el texto."] {
        assert!(text.contains(part), "{part}: {text}");
    }
    for part in ["<html lang=\"es\">", "de los 64 del contexto del modelo", "sin respuesta"] {
        assert!(page.contains(part), "{part}");
    }
    let json = bench.read("out/report.json");
    assert!(
        json.contains("of the 64 of the model's context")
            && json.contains("it refuses the request")
    );
}
