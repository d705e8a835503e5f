//! The page and the summary of `crisol reflect`.

use std::collections::BTreeMap;

use crisol_report::{
    AlarmClicks, Audience, ClickPredictor, Curve, FeedFigures, ItemFigures, Language, Layout,
    PhaseReport, ReflectModel, ReflectPrompt, ReflectReport, Report, reflect_html, reflect_summary,
};

mod tags;

use tags::tags;

/// A report in which `text` stands wherever a user or a model can write.
fn report_with(text: &str) -> Report {
    let audience = |bad: f64, clicks: f64| {
        let all = ItemFigures {
            answers: 100,
            unread: 3,
            alarming_or_false: bad,
            clicks,
            predicted_clicks: clicks + 0.2,
            ..ItemFigures::default()
        };
        Audience { all, curious: all, anxious: all }
    };
    let feeds: BTreeMap<String, FeedFigures> = ["curious", "anxious"]
        .map(|habit| (habit.to_owned(), FeedFigures { worry: 2.5, ..FeedFigures::default() }))
        .into();
    let model = |name: &str, bad, clicks| ReflectModel {
        name: name.to_owned(),
        picks: audience(bad, clicks),
        writes: audience(bad, clicks),
        feeds: feeds.clone(),
    };
    let curve = |name: &str, to: f64| Curve {
        name: name.to_owned(),
        unit: String::new(),
        points: vec![(1.0, 0.5), (2.0, to)],
    };
    let at = |words: usize| AlarmClicks { words, predicted: 0.5, true_clicks: 0.4, in_log: 4 };
    Report {
        crisol: text.into(),
        created: text.into(),
        machine: "Imaginary 9000, 2 cores".into(),
        seed: 7,
        phases: vec![PhaseReport {
            name: "engagement".into(),
            kind: "reason".into(),
            curves: vec![
                curve("reward/written_predicted", 0.92),
                curve("reward/written_clicks", 0.31),
            ],
            ..PhaseReport::default()
        }],
        reflect: Some(ReflectReport {
            readers: 32,
            feed_items: 20,
            predictor: ClickPredictor {
                alarm: (0..=8).map(at).collect(),
                ..ClickPredictor::default()
            },
            models: vec![
                model("base", 0.5, 0.3),
                model("engagement", 0.96, 0.52),
                model("preference", 0.24, 0.33),
                model(text, 0.5, 0.4),
            ],
            prompts: vec![ReflectPrompt {
                prompt: text.into(),
                outputs: [("engagement".to_owned(), text.to_owned())].into(),
            }],
        }),
        ..Report::default()
    }
}

#[test]
fn the_page_is_self_contained_and_hostile_text_stays_text() {
    for language in Language::ALL {
        let plain = reflect_html(&report_with("plain"), language);
        let hostile = reflect_html(
            &report_with("\"><script>alert(1)</script><img src=x onerror=y>'"),
            language,
        );
        let (plain_tags, hostile_tags) = (tags(&plain), tags(&hostile));
        assert_eq!(plain_tags.len(), hostile_tags.len());
        assert!(!hostile.contains("<script") && !hostile.contains("<img"));
        assert!(!plain.contains("http://") && !plain.contains("src="), "self-contained");
    }
}

#[test]
fn the_questions_are_answered_with_the_figures_of_the_run() {
    let page = reflect_html(&report_with("plain"), Language::English);
    for said in ["96\u{a0}% of the picks", "24\u{a0}%", "From step 2 on", "up to 8 words", "seed 7"]
    {
        assert!(page.contains(said), "{said}");
    }
    let page = reflect_html(&report_with("plain"), Language::Spanish);
    for said in ["Desde el paso 2", "Preguntas", "semilla 7"] {
        assert!(page.contains(said), "{said}");
    }
    assert_eq!(reflect_html(&Report::default(), Language::English), "");
}

#[test]
fn the_summary_sets_the_models_side_by_side() {
    let reflect = report_with("plain").reflect.expect("it was made with one");
    for language in Language::ALL {
        for width in [40, 80, 160] {
            let text = reflect_summary(&reflect, Layout { width, colour: false, language });
            for model in ["base", "engagement", "preference", "plain"] {
                assert_eq!(
                    text.lines()
                        .filter(|line| line.starts_with(model) && line.contains('%'))
                        .count(),
                    2
                );
            }
        }
    }
    let layout = Layout { width: 100, colour: false, language: Language::English };
    assert!(reflect_summary(&reflect, layout).contains("4.0 times"));
}
