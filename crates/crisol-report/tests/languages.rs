//! A page in one language holds nothing of the other, except data: what models wrote, prompts,
//! names.

use std::collections::BTreeSet;

use crisol_report::{
    AlarmClicks, Audience, ClickPredictor, Curve, Demonstration, FeedFigures, LadderReport,
    Language, Layout, MeasuredRung, NotebookModel, NotebookReport, PredictedLoss, PromptReport,
    ReflectModel, ReflectPrompt, ReflectReport, Report, StoredAnswer, html, ladder_html,
    notebook_html, reflect_html, reflect_summary, summary, terminal,
};
use serde_json::Value;

#[allow(dead_code)] // Its own `main`.
#[path = "../examples/sample.rs"]
mod sample;

/// Words that are the same in both languages: names of things, units, terms of the field.
const SHARED: &[&str] = &[
    "Auto",
    "α",
    "Crisol",
    "Rollouts",
    "CC",
    "BY",
    "GRPO",
    "KL",
    "replay",
    "nats",
    "tokens",
    "bits",
    "kl",
    "learning",
    "rate",
    "json",
    "report",
    "crisol",
    "cost",
    "ladder",
    "RUN",
    "seed",
    "min",
    "GB",
    "MB",
    "TFLOP",
    "GFLOP",
    "MFLOP",
    "FLOP",
    "Menta",
    "LLM",
    "Workshop",
    "GitHub",
    "https",
    "github",
    "com",
    "mkmenta",
    "llm",
    "workshop",
    "Training",
    "M",
    "k",
    "s",
    "h",
    "reward",
    "pre",
    "training",
    "Llama",
    "alignment",
    "compute",
    "Reward",
    "hacking",
    "html",
    "kB",
];

/// Words that nearly every sentence of a language has some of, and that the other has not.
const ENGLISH: &[&str] = &[
    "the", "of", "and", "with", "from", "is", "are", "was", "to", "which", "that", "by", "what",
    "how", "answers", "held", "than", "it", "its", "for", "each", "after", "before", "prompt's",
    "steps", "step",
];
const SPANISH: &[&str] = &[
    "el",
    "la",
    "los",
    "las",
    "de",
    "del",
    "que",
    "con",
    "por",
    "una",
    "se",
    "su",
    "lo",
    "tras",
    "antes",
    "cada",
    "más",
    "después",
    "respuestas",
    "datos",
    "desde",
    "paso",
    "pasos",
    "según",
    "cómo",
    "qué",
];

/// The texts of a page that a reader meets: between tags, and in titles and labels of tags.
fn texts(page: &str) -> Vec<String> {
    let body = &page[page.find("<title>").expect("a page has a title")..];
    let body = body.replace("&nbsp;", " ");
    let mut texts = Vec::new();
    let mut in_style = false;
    for piece in body.split('<').skip(1) {
        let (tag, text) = piece.split_once('>').expect("a tag ends");
        in_style = if tag.starts_with("style") { true } else { in_style && tag != "/style" };
        if in_style {
            continue;
        }
        for attribute in ["title=\"", "aria-label=\""] {
            if let Some((_, rest)) = tag.split_once(attribute) {
                texts.extend(rest.split('"').next().map(str::to_owned));
            }
        }
        texts.push(text.to_owned());
    }
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    let plain = |text: String| {
        entities.iter().fold(text, |text, (entity, char)| text.replace(entity, char))
    };
    texts
        .into_iter()
        .flat_map(|text| plain(text).lines().map(str::to_owned).collect::<Vec<_>>())
        .collect()
}

/// Every string and key of a report: its data.
fn data(json: &str) -> Vec<String> {
    fn collect(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::String(text) => found.push(text.clone()),
            Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
            Value::Object(fields) => {
                for (key, value) in fields {
                    found.push(key.clone());
                    collect(value, found);
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(&serde_json::from_str(json).expect("a report is JSON"), &mut found);
    // A terminal shows texts line by line.
    let lines = found.iter().flat_map(|text| text.lines()).map(|line| without_tags(line.trim()));
    let lines: Vec<String> = lines.collect();
    found.extend(lines);
    // Long ones first, so that no piece of one hides the rest of it.
    found.sort_by_key(|text| std::cmp::Reverse(text.len()));
    found
}

fn without_tags(text: &str) -> String {
    text.replace("<think>", "").replace("</think>", "")
}

fn words(text: &str) -> Vec<&str> {
    text.split(|c: char| !c.is_alphabetic() && c != '\'').filter(|word| !word.is_empty()).collect()
}

/// Finds what a reader of one language meets of another. `lines` are the texts in English and in
/// Spanish, `data` is what may stand in both.
fn mixed(lines: [&[String]; 2], data: &[String]) -> Vec<String> {
    let names: BTreeSet<&str> =
        data.iter().filter(|text| !text.contains(' ')).map(|s| &**s).collect();
    let is_data = |line: &str| {
        let line = line.trim();
        line.is_empty() || data.iter().any(|text| text.contains(line))
    };
    // What a line says apart from the data in it.
    let own = |line: &String| {
        let long = data.iter().filter(|text| text.contains(' '));
        let line = long.fold(without_tags(line), |line, text| line.replace(text.as_str(), " "));
        let own = |word: &&str| !SHARED.contains(word) && !names.contains(word);
        words(&line).into_iter().filter(own).map(str::to_owned).collect::<Vec<_>>()
    };
    let mut found = Vec::new();
    for (line, spanish) in lines
        .iter()
        .map(|lines| lines.iter())
        .zip([false, true])
        .flat_map(|(lines, spanish)| lines.map(move |line| (line, spanish)))
    {
        if is_data(line) {
            continue;
        }
        let foreign = if spanish { ENGLISH } else { SPANISH };
        let own = own(line);
        let is_foreign = |word: &String| foreign.contains(&&*word.to_lowercase());
        if own.iter().any(is_foreign) {
            found.push(format!("{}: {line}", if spanish { "in Spanish" } else { "in English" }));
        }
        if spanish && !own.is_empty() && lines[0].contains(line) {
            found.push(format!("in both: {line}"));
        }
    }
    found.sort();
    found.dedup();
    found
}

#[track_caller]
fn check_page(page: impl Fn(Language) -> String, data: &[String]) {
    let pages = Language::ALL.map(page);
    for (language, page) in Language::ALL.iter().zip(&pages) {
        assert!(page.contains(&format!("<html lang=\"{}\">", language.code())));
    }
    let [english, spanish] = pages.map(|page| texts(&page));
    assert_eq!(english.len(), spanish.len(), "the pages have the same tags");
    assert!(english.len() > 50);
    let found = mixed([&english, &spanish], data);
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// The made-up report with all that a real one may hold besides.
fn report() -> Report {
    let mut report = sample::sample();
    report.machine = "Imaginary 9000, 2 cores".into();
    report.peak_memory_bytes = 1_210_000_000;
    for prompt in &mut report.prompts {
        prompt.before = Some(String::new());
    }
    let lost = "The loss on held-out data rose from 1.250 to 2.000 nats: lower optimizer.lr or \
                epochs, or add data.";
    report.phases[1].notes =
        vec![lost.into(), "sft.jsonl: nothing reads the fields id (3).".into()];
    report.phases[1].before = [("validation_loss".to_owned(), 1.5)].into();
    for phase in &mut report.phases {
        (phase.expected_seconds, phase.expected_memory_bytes) = (12.0, 2_000_000);
        phase.peak_memory_bytes = 3_000_000;
        phase.metrics.insert("ordinary_refused".into(), 0.1);
    }
    report
}

/// Labels of measures are no data, although their ids are keys of the report.
fn data_of(report: &Report) -> Vec<String> {
    let notes: Vec<&String> = report.phases.iter().flat_map(|phase| &phase.notes).collect();
    let mut data = data(&report.to_json());
    data.retain(|text| !notes.contains(&text) && *text != report.machine);
    data
}

#[test]
fn the_page_of_a_run_mixes_no_languages() {
    let report = report();
    check_page(|language| html(&report, language), &data_of(&report));
}

#[test]
fn nor_does_that_of_one_phase() {
    for phase in report().phases {
        let mut report = Report { phases: vec![phase], ..report() };
        report.prompts.truncate(2);
        check_page(|language| html(&report, language), &data_of(&report));
    }
}

fn curve(name: &str, to: f64) -> Curve {
    Curve { name: name.into(), unit: String::new(), points: vec![(1.0, 0.0), (2.0, to)] }
}

/// Every measure there is: its label, its hint, its plot.
#[test]
fn nor_do_the_measures() {
    let mut report = report();
    let ids = || crisol_report::measures::MEASURES.iter().map(|measure| measure.id.to_owned());
    report.phases[1].curves = ids().map(|name| curve(&name, 0.5)).collect();
    report.phases[1].metrics = ids().map(|id| (id, 0.25)).collect();
    report.phases[1].before = ids().map(|id| (id, 0.5)).collect();
    report.phases[0].curves = ["reward", "zero_spread"].map(|name| curve(name, 0.0)).to_vec();
    check_page(|language| html(&report, language), &data_of(&report));
}

#[test]
fn nor_does_the_terminal() {
    let report = report();
    let text = |language| {
        let layout = Layout { width: 400, colour: false, language };
        summary(&report, &[], layout) + &terminal(&report, layout)
    };
    let lines =
        Language::ALL.map(|language| text(language).lines().map(str::to_owned).collect::<Vec<_>>());
    let found = mixed([&lines[0], &lines[1]], &data_of(&report));
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn nor_does_a_ladder() {
    let at = |times: f64| PredictedLoss { flops: times, times, low: 1.0, expected: 2.0, high: 3.0 };
    let mut report = LadderReport {
        crisol: "0.1.0".into(),
        created: "2026-01-02 12:00 UTC".into(),
        limit: 1.0,
        exponent: 0.25,
        rungs: vec![MeasuredRung {
            run: "runs/a".into(),
            parameters: 10,
            tokens: 205,
            flops: 1.0,
            loss: 2.0,
            fitted: 2.0,
        }],
        predictions: vec![at(4.0)],
        curve: vec![at(1.0), at(4.0)],
    };
    for limit in [1.0, 0.0] {
        report.limit = limit;
        check_page(|language| ladder_html(&report, language), &["runs/a".to_owned()]);
    }
}

#[test]
fn nor_does_the_notebook() {
    let roles = ["base", "chat", "aligned"];
    let remarks = [
        "it does not follow a chat structure or an order: it continues the text.",
        "it follows the chat structure, and does not refuse dangerous requests yet.",
        "it refuses the request.",
    ];
    let model =
        |role: &str| NotebookModel { role: role.into(), name: "A/B".into(), ..Default::default() };
    let shown = |(role, remark): (&str, &str)| Demonstration {
        role: role.into(),
        shows: remark.into(),
        prompt: "Tell me.".into(),
        answer: "No.".into(),
        refused: Some(role == "aligned"),
        problem: match role {
            "chat" => "the prompt takes 100 tokens, of the 64 of the model's context".into(),
            _ => String::new(),
        },
        notebook: (role == "base").then(|| StoredAnswer::compare("Nope.", "No.")),
        ..Demonstration::default()
    };
    let report = NotebookReport {
        crisol: "0.1.0".into(),
        created: "2026-01-02 12:00 UTC".into(),
        machine: "Imaginary 9000, 1 core".into(),
        max_new_tokens: 100,
        models: roles.map(model).to_vec(),
        demonstrations: roles.into_iter().zip(remarks).map(shown).collect(),
        prompts: ["text", "chat"]
            .map(|form| PromptReport {
                prompt: "Tell me.".into(),
                form: form.into(),
                ..Default::default()
            })
            .to_vec(),
    };
    let data = ["base", "chat", "aligned", "A/B", "Tell me.", "No.", "Nope."].map(str::to_owned);
    check_page(|language| notebook_html(&report, language), &data);
}

/// The rules of this file find what they are for.
#[test]
fn mixtures_are_found() {
    let lines = |text: &str| vec![text.to_owned()];
    let found = |english: &str, spanish: &str| mixed([&lines(english), &lines(spanish)], &[]).len();
    assert_eq!(found("The loss fell.", "La pérdida bajó."), 0);
    assert_eq!(found("Unfold all", "Unfold all"), 1, "the same in both");
    assert_eq!(found("x", "La pérdida of all"), 1, "English in Spanish");
    assert_eq!(found("x tras y", "y"), 1, "Spanish in English");
    assert_eq!(found("5 tokens", "5 tokens"), 0, "a term of the field");
    let data = ["of a user".to_owned()];
    assert_eq!(mixed([&lines("of a user"), &lines("of a user")], &data).len(), 0);
}

#[test]
fn nor_do_the_objectives_of_a_feed() {
    let feeds = ["curious", "anxious"].map(|habit| (habit.to_owned(), FeedFigures::default()));
    let names = ["base", "engagement", "preference", "mix", "kl", "truth", "cap"];
    let model = |name: &str| ReflectModel {
        name: name.into(),
        picks: Audience::default(),
        writes: Audience::default(),
        feeds: feeds.clone().into(),
    };
    let at = |words| AlarmClicks { words, predicted: 0.5, true_clicks: 0.25, in_log: 1 };
    let mut report = report();
    report.phases[0].name = "engagement".into();
    report.phases[0].curves = ["reward/written_predicted", "reward/written_clicks"]
        .into_iter()
        .zip([0.5, 0.25])
        .map(|(name, to)| curve(name, to))
        .collect();
    for clicks in [0.25, 0.5] {
        report.phases[0].curves[1].points[1].1 = clicks;
        let reflect = ReflectReport {
            readers: 32,
            feed_items: 20,
            predictor: ClickPredictor { alarm: vec![at(0), at(1), at(2)], ..Default::default() },
            models: names.map(model).to_vec(),
            prompts: vec![ReflectPrompt {
                prompt: "Choose".into(),
                outputs: names.map(|name| (name.to_owned(), "Danger!".to_owned())).into(),
            }],
        };
        report.reflect = Some(reflect.clone());
        let data = data_of(&report);
        check_page(|language| reflect_html(&report, language), &data);
        let text =
            |language| reflect_summary(&reflect, Layout { width: 400, colour: false, language });
        let lines = Language::ALL
            .map(|language| text(language).lines().map(str::to_owned).collect::<Vec<_>>());
        let found = mixed([&lines[0], &lines[1]], &data);
        assert!(found.is_empty(), "{}", found.join("\n"));
    }
}
