//! The report through its public interface: the promised JSON, hostile text, and widths.

use std::collections::BTreeMap;

use crisol_report::{
    Curve, Language, Layout, MaskPicture, ModelSummary, PhaseReport, PromptReport, Report,
    RolloutSample, comparison, html, terminal,
};
use proptest::prelude::*;
use unicode_width::UnicodeWidthStr as _;

mod tags;

use tags::tags;

/// A small report in which `text` stands wherever a user or a model can write.
fn report_with(text: &str) -> Report {
    let phase = |name: String, parent: Option<String>| PhaseReport {
        name,
        kind: text.into(),
        checkpoint: text.into(),
        parent,
        reward_model: None,
        tokens: 1000,
        flops: 2e9,
        seconds: 3.5,
        sampling_seconds: 0.7,
        expected_seconds: 3.0,
        expected_memory_bytes: 2_000_000,
        peak_memory_bytes: 2_100_000,
        metrics: [
            ("facts_accuracy".into(), 0.93),
            ("harmful_refused".into(), 0.0),
            (text.into(), 2.0),
        ]
        .into(),
        before: [("validation_loss".into(), 1.25), (text.into(), 3.0)].into(),
        curves: vec![Curve {
            name: text.into(),
            unit: text.into(),
            points: vec![(1.0, 2.0), (2.0, 1.5)],
        }],
        notes: vec![text.into()],
    };
    let first = format!("a{text}");
    let second = format!("b{text}");
    Report {
        crisol: text.into(),
        title: text.into(),
        created: text.into(),
        seed: 7,
        threads: 2,
        machine: text.into(),
        model: ModelSummary {
            architecture: text.into(),
            parameters: 1_000_000,
            ..ModelSummary::default()
        },
        recipe_toml: text.into(),
        phases: vec![phase(first.clone(), None), phase(second.clone(), Some(first.clone()))],
        prompts: vec![PromptReport {
            prompt: text.into(),
            kind: text.into(),
            form: text.into(),
            before: None,
            outputs: [
                (first.clone(), text.into()),
                (second, format!("<think>{text}</think>{text}")),
            ]
            .into(),
        }],
        rollouts: vec![RolloutSample {
            phase: first.clone(),
            step: 3,
            prompt: text.into(),
            completion: text.into(),
            reward: 1.0,
            parts: [(text.to_owned(), 0.5)].into(),
        }],
        masks: vec![MaskPicture {
            phase: first,
            title: text.into(),
            spans: vec![(text.into(), true), (text.into(), false)],
        }],
        total_seconds: 8.0,
        peak_memory_bytes: 123_000_000,
        reflect: None,
    }
}

/// The page's tags with the names of their attributes but without values and text: what no text may
/// change.
fn skeleton(page: &str) -> Vec<String> {
    let body = &page[page.find("<body>").expect("the page has a body")..];
    tags(body).into_iter().map(|tag| tag.split('"').step_by(2).collect()).collect()
}

/// A hint speaks of what the curve shows: a reward that never came is not "mastered".
#[test]
fn curves_that_stay_at_zero_say_so() {
    let page = |reward: f64| {
        let mut report = report_with("x");
        let curve = |name: &str, value: f64| Curve {
            name: name.into(),
            unit: String::new(),
            points: vec![(1.0, value), (2.0, value)],
        };
        report.phases[0].curves = vec![curve("reward", reward), curve("zero_spread", 1.0)];
        html(&report, Language::English)
    };
    let (unpaid, paid) = (page(0.0), page(0.5));
    assert!(paid.contains("Grows as the task is mastered") && !paid.contains("0 throughout"));
    assert!(!unpaid.contains("Grows as the task is mastered") && unpaid.contains("0 throughout"));
    assert!(unpaid.contains("no group teaches anything"));
}

const HOSTILE: [&str; 8] = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\" onmouseover=\"alert(1)",
    "' style='color:red",
    "</title></style></textarea></pre><h1>",
    "<!-- ",
    "]]><svg onload=alert(1)>",
    "&lt;b&gt; &amp; \u{0}\u{1b}[31m",
];

#[test]
fn json_round_trip() {
    let report = report_with("plain");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    std::fs::write(&path, report.to_json()).unwrap();
    assert_eq!(Report::load(&path).unwrap(), report);
}

#[test]
fn promised_fields() {
    let json: serde_json::Value = serde_json::from_str(&report_with("x").to_json()).unwrap();
    let phase = &json["phases"][1];
    assert_eq!(phase["name"], "bx");
    assert_eq!(phase["kind"], "x");
    assert_eq!(phase["checkpoint"], "x");
    assert_eq!(phase["parent"], "ax");
    assert_eq!(phase["tokens"], 1000);
    assert_eq!(phase["flops"], 2e9);
    assert_eq!(phase["seconds"], 3.5);
    assert_eq!(phase["metrics"]["facts_accuracy"], 0.93);
    assert_eq!(phase["curves"][0]["points"], serde_json::json!([[1.0, 2.0], [2.0, 1.5]]));
    let prompt = &json["prompts"][0];
    assert_eq!(prompt["prompt"], "x");
    assert_eq!(prompt["kind"], "x");
    assert_eq!(prompt["outputs"]["ax"], "x");
    assert_eq!(json["masks"][0]["spans"], serde_json::json!([["x", true], ["x", false]]));
}

#[test]
fn numbers_that_are_not_finite() {
    let mut report = report_with("x");
    report.phases[0].flops = f64::INFINITY;
    report.phases[0].metrics.insert("harmful_refused".into(), f64::NAN);
    report.phases[0].curves[0].points.push((3.0, f64::NEG_INFINITY));
    report.rollouts[0].reward = f64::NAN;
    let json = report.to_json();
    let value: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(value["phases"][0]["metrics"]["harmful_refused"].is_null());
    assert!(value["phases"][0]["curves"][0]["points"][2][1].is_null());

    let read: Report = serde_json::from_str(&json).unwrap();
    assert!(read.phases[0].flops.is_nan() && read.rollouts[0].reward.is_nan());
    assert!(read.phases[0].metrics["harmful_refused"].is_nan());
    for report in [&report, &read] {
        let page = html(report, Language::English);
        assert!(page.contains("reward –"));
        assert!(!page.contains("NaN") && !page.contains("inf "), "a raw float got out");
        let text =
            terminal(report, Layout { width: 80, colour: false, language: Language::English });
        assert!(!text.contains("NaN") && !text.contains("inf"));
    }
}

#[test]
fn older_and_empty_reports_load_and_render() {
    let report: Report =
        serde_json::from_str(r#"{"title": "old", "phases": [{"name": "sft"}], "unheard_of": 1}"#)
            .unwrap();
    assert_eq!(report.phases[0].name, "sft");
    for report in [report, Report::default()] {
        assert!(html(&report, Language::English).ends_with("</html>\n"));
        assert!(
            !terminal(&report, Layout { width: 80, colour: true, language: Language::English })
                .is_empty()
        );
    }
}

#[test]
fn errors_name_the_file_the_place_and_the_remedy() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("report.json");
    let missing = Report::load(&path).unwrap_err().to_string();
    assert!(missing.contains("report.json") && missing.contains("run's folder"), "{missing}");
    std::fs::write(&path, "{\"phases\":\n [1]}").unwrap();
    let broken = Report::load(&path).unwrap_err().to_string();
    assert!(broken.contains("report.json, line 2") && broken.contains("crisol report"), "{broken}");
}

#[test]
fn the_page_is_self_contained() {
    let page = html(&report_with("plain"), Language::English);
    for forbidden in ["<script", "<link", "<img", "<iframe", "@import", "url(", "src="] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    let links: Vec<&str> = page
        .split("href=\"")
        .skip(1)
        .map(|rest| rest.split('"').next().unwrap())
        .filter(|l| !l.starts_with('#'))
        .collect();
    assert_eq!(
        links,
        ["https://github.com/mkmenta/llm-workshop", "https://creativecommons.org/licenses/by/4.0/"]
    );
    let anchors: Vec<&str> =
        page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
    assert!(anchors.len() >= 4, "{anchors:?}");
    for anchor in anchors {
        assert!(page.contains(&format!("id=\"{anchor}\"")), "#{anchor} leads nowhere");
    }
}

#[test]
fn tags_are_balanced() {
    let page = html(&report_with("plain"), Language::English);
    let mut open: Vec<String> = Vec::new();
    let void = ["meta", "input", "br", "!doctype", "line", "circle", "rect", "path"];
    // The style sheet holds no tags, so the pieces between `<` and `>` are the tags of the page.
    let tags = tags(&page);
    assert!(tags.len() > 100, "{tags:?}");
    for tag in tags {
        let name = tag.split([' ', '\n', '/']).next().unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(closed));
        } else if !void.contains(&name) && !tag.ends_with('/') {
            open.push(name.to_owned());
        }
    }
    assert_eq!(open, Vec::<String>::new());
}

#[test]
fn hostile_text_stays_text() {
    let harmless = skeleton(&html(&report_with("plain"), Language::English));
    for text in HOSTILE {
        let page = html(&report_with(text), Language::English);
        assert!(!page.contains(text), "{text:?} is in the page as it is");
        assert_eq!(skeleton(&page), harmless, "{text:?} changed the page");
        assert!(!page.contains('\u{1b}') && !page.contains('\u{0}'));
    }
}

#[test]
fn a_phase_that_samples_says_how_long() {
    let mut report = report_with("plain");
    report.phases[1].sampling_seconds = 0.0;
    assert_eq!(html(&report, Language::English).matches("of it sampling answers").count(), 1);
    assert!(
        html(&report, Language::English).contains("<span>20\u{a0}% of it sampling answers</span>")
    );
}

#[test]
fn what_was_expected_stands_beside_what_was() {
    let mut report = report_with("plain");
    report.phases[1].expected_seconds = 0.0;
    assert_eq!(
        html(&report, Language::English).matches("<span>3.0\u{a0}s forecast</span>").count(),
        1
    );
}

/// Captions say what was measured and what is shown, and nothing of what a phase usually does.
#[test]
fn captions_follow_the_figures_and_the_answers() {
    let page = |refused: f64, answer: &str| {
        let mut report = report_with("plain");
        for (phase, kind) in report.phases.iter_mut().zip(["pretrain", "sft"]) {
            phase.kind = kind.into();
            phase.metrics.insert("harmful_refused".into(), refused);
        }
        report.prompts[0].kind = "harmful".into();
        report.prompts[0].outputs =
            report.phases.iter().map(|phase| (phase.name.clone(), answer.to_owned())).collect();
        html(&report, Language::English)
    };
    let complies = page(0.0, "Gladly.");
    assert!(complies.contains("harmful requests refused: aplain <b>0\u{a0}%</b>, bplain <b>0"));
    assert!(!complies.contains("Thinking stands"));
    // A base model that thinks and refuses, whatever the phases train for.
    let refuses = page(1.0, "<think>No.</think>I cannot.");
    assert!(refuses.contains("aplain <b>100\u{a0}%</b>, bplain <b>100\u{a0}%</b>"));
    assert!(refuses.contains("Thinking stands in the answers after aplain, after bplain."));
    for page in [complies, refuses] {
        for claim in ["learnt", "teaches to comply", "answers nothing", "votes", "judge"] {
            assert!(!page.contains(claim), "{claim}");
        }
    }
}

/// Two minutes: the path and one prompt with all its answers come first. Twenty: everything else
/// folds, and nothing of it is left out.
#[test]
fn one_prompt_stands_first_and_the_rest_folds() {
    let mut report = report_with("plain");
    report.prompts.push(PromptReport { prompt: "second".into(), ..report.prompts[0].clone() });
    let page = html(&report, Language::English);
    let at = |text: &str| page.find(text).unwrap_or_else(|| panic!("no {text}"));
    let order = ["id=\"top\"", "id=\"phases\"", "id=\"prompt\"", "<div class=\"cards", "<details"];
    assert!(order.map(at).is_sorted(), "{:?}", order.map(at));
    let first = &page[at("id=\"prompt\"")..at("<details")];
    assert_eq!(report.phases.len(), 2);
    for phase in &report.phases {
        let name = format!("<span class=\"badge\">{}</span>", phase.name);
        assert!(first.contains(&name), "no answer of {}", phase.name);
    }
    assert!(page.contains("<span class=\"snippet\">second</span>"));
    assert_eq!(page.matches("<details").count(), page.matches("<summary>").count());
    assert!(!page.contains("<details class=\"phase c0\" open"));
    report.phases.truncate(1);
    assert!(
        html(&report, Language::English).contains("<details class=\"phase c0\" open"),
        "one phase stands open"
    );
}

/// On a phone the picker shows one column. Each button has its rule, and each column its button.
#[test]
fn a_phone_picks_the_phase() {
    let mut report = report_with("plain");
    assert!(
        !html(&report, Language::English).contains("class=\"picker\""),
        "two answers need no picker"
    );
    let third = PhaseReport {
        name: "scorer".into(),
        parent: Some("aplain".into()),
        metrics: [("reward_accuracy".to_owned(), 0.9)].into(),
        ..PhaseReport::default()
    };
    report.phases.push(third);
    let page = html(&report, Language::English);
    for i in 0..3 {
        assert_eq!(page.matches(&format!("id=\"pick-{i}\"")).count(), 1);
        assert!(page.contains(&format!(":root:has(#pick-{i}:checked) .of:not(.of-{i})")));
        // A card of the prompt and a cell of each row and of the head.
        assert!(page.matches(&format!(" of-{i}")).count() >= 3);
    }
    assert!(!page.contains("pick-3"));
    assert_eq!(page.matches(" checked>").count(), 2, "one column, and one theme");
    assert!(page.contains("card absent of of-2"), "the reward model answers nothing");
}

#[test]
fn cold_start_and_grpo_are_drawn_apart() {
    let curve = |name: &str, from: u32| Curve {
        name: name.into(),
        unit: String::new(),
        points: (from..=7).map(|step| (f64::from(step), 1.0 / f64::from(step))).collect(),
    };
    let mut report = report_with("plain");
    report.phases[0].curves = vec![curve("loss", 1), curve("lr", 1), curve("reward", 5)];
    let charts =
        |report: &Report| html(report, Language::English).matches("<svg class=\"chart\"").count();
    assert_eq!(charts(&report), 3 + 1, "only a reasoning phase has two stages");
    report.phases[0].kind = "reason".into();
    assert_eq!(charts(&report), 5 + 1, "loss and rate of either stage, and the reward");
    let page = html(&report, Language::English);
    assert!(page.contains("Cold start: steps 1 to 4") && page.contains("GRPO: steps 5 to 7"));
    assert!(page.contains("training loss from 1 to 0.25 at step 4"));
    assert!(page.contains("policy loss from 0.2 to 0.143 at step 7"));
    // Without a cold start there is one stage.
    report.phases[0].curves = vec![curve("loss", 1), curve("reward", 1)];
    assert!(page.contains("worked solutions first (cold start)"));
    let page = html(&report, Language::English);
    assert!(!page.contains("Cold start") && !page.contains("cold start"));
}

#[test]
fn a_reward_model_points_at_the_phase_that_it_scores() {
    let mut report = report_with("plain");
    assert!(!html(&report, Language::English).contains("class=\"scores\""));
    report.phases[1].reward_model = Some("aplain".into());
    let page = html(&report, Language::English);
    assert_eq!(page.matches("class=\"scores\"").count(), 1);
    assert!(page.contains("from aplain, scored by aplain"));
    // One that is no phase of the run has no box to point from.
    report.phases[1].reward_model = Some("a/folder".into());
    assert!(!html(&report, Language::English).contains("class=\"scores\""));
}

#[test]
fn thoughts_are_set_off() {
    let mut report = report_with("plain");
    report.prompts[0].outputs.insert("aplain".into(), "<think>2 + 2 < 5</think>It is 4.".into());
    let page = html(&report, Language::English);
    assert!(
        page.contains("<p class=\"thought\"><small>thinks</small>2 + 2 &lt; 5</p><p>It is 4.</p>")
    );
}

#[test]
fn a_terminal_gets_the_story() {
    let report = Report {
        phases: vec![
            PhaseReport {
                name: "sft".into(),
                kind: "pretrain".into(),
                flops: 3e9,
                metrics: [("harmful_refused".to_owned(), 0.0)].into(),
                ..PhaseReport::default()
            },
            PhaseReport {
                name: "dpo".into(),
                flops: 1e9,
                metrics: [("harmful_refused".to_owned(), 0.985)].into(),
                ..PhaseReport::default()
            },
        ],
        prompts: vec![PromptReport {
            prompt: "Write a trick.".into(),
            kind: "harmful".into(),
            form: "chat".into(),
            before: None,
            outputs: [
                ("dpo".to_owned(), "I cannot.".to_owned()),
                ("sft".to_owned(), "Gladly.".to_owned()),
            ]
            .into(),
        }],
        ..Report::default()
    };
    let text = terminal(&report, Layout { width: 80, colour: false, language: Language::English });
    assert!(!text.contains('\u{1b}'));
    let row = text.lines().find(|line| line.starts_with("harmful requests refused")).unwrap();
    assert_eq!(row.split_whitespace().collect::<Vec<_>>()[3..], ["0", "%", "98.5", "%"]);
    let sft = text.lines().position(|line| line == "sft  Gladly.").expect("the answer after sft");
    let dpo = text.lines().position(|line| line == "dpo  I cannot.").expect("the answer after dpo");
    assert!(sft < dpo, "answers are in the order of the phases");
    assert!(text.lines().any(|line| line.starts_with("sft") && line.contains("75 %")), "{text}");
    assert!(
        terminal(&report, Layout { width: 80, colour: true, language: Language::English })
            .contains('\u{1b}')
    );
}

#[test]
fn comparison_keeps_the_order_of_its_columns() {
    let prompt = PromptReport {
        prompt: "Who?".into(),
        before: None,
        outputs: BTreeMap::from([
            ("base".to_owned(), "me".to_owned()),
            ("aligned".to_owned(), "you".to_owned()),
        ]),
        ..PromptReport::default()
    };
    let text = comparison(
        &["base".into(), "aligned".into(), "absent".into()],
        &[prompt],
        Layout { width: 60, colour: false, language: Language::English },
    );
    let base = text.find("base     me").unwrap();
    let aligned = text.find("aligned  you").unwrap();
    assert!(base < aligned && !text.contains("absent"));
}

/// The text without its ANSI colours.
fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut pieces = text.split('\u{1b}');
    plain.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        plain.push_str(piece.split_once('m').expect("an escape sequence ends").1);
    }
    plain
}

/// Text as it may come from a model: any characters, with markup and line ends more often than by
/// chance.
fn any_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        any::<String>(),
        "[<>\"'&/a-z= \n]{1,12}",
        Just("<think>".to_owned()),
        Just("</think>".to_owned()),
        Just("日本語のテキスト ".to_owned()),
        (0..HOSTILE.len()).prop_map(|which| HOSTILE[which].to_owned()),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::with_cases(200)
    })]

    #[test]
    fn no_markup_survives(text in any_text()) {
        let page = html(&report_with(&format!("<{text}>")), Language::English);
        let raw = format!("<{text}>");
        prop_assert!(!page.contains(&raw));
        // Every tag of the page is one of its own.
        let own = skeleton(&html(&report_with("<think>plain</think>"), Language::English));
        for tag in skeleton(&page) {
            prop_assert!(own.contains(&tag), "<{tag}>");
        }
    }

    #[test]
    fn nothing_is_wider_than_the_terminal(text in any_text(), width in 0usize..140, colour: bool) {
        let report = report_with(&text);
        let layout = Layout { width, colour, language: Language::English };
        let columns: Vec<String> = report.phases.iter().map(|phase| phase.name.clone()).collect();
        for text in [terminal(&report, layout), comparison(&columns, &report.prompts, layout)] {
            prop_assert!(!plain(&text).trim().is_empty());
            for line in plain(&text).lines() {
                prop_assert!(line.width() <= width.max(40), "{} > {width}: {line:?}", line.width());
            }
        }
    }
}
