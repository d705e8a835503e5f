//! The page of a replay of the workshop's notebook, and the comparison with its stored answers.

use crisol_report::{
    Demonstration, Language, NotebookModel, NotebookReport, PromptReport, StoredAnswer,
    notebook_html,
};

mod tags;

use tags::tags;

/// A report in which `text` stands wherever a user or a model can write.
fn report_with(text: &str) -> NotebookReport {
    let role = format!("r{text}");
    NotebookReport {
        crisol: text.into(),
        created: text.into(),
        machine: text.into(),
        max_new_tokens: 100,
        models: vec![
            NotebookModel {
                role: role.clone(),
                name: text.into(),
                notebook: text.into(),
                parameters: 7,
                ..NotebookModel::default()
            },
            NotebookModel {
                role: "other".into(),
                name: text.into(),
                notebook: text.into(),
                ..NotebookModel::default()
            },
        ],
        demonstrations: vec![
            Demonstration {
                role: role.clone(),
                shows: text.into(),
                given: text.into(),
                answer: text.into(),
                notebook: Some(StoredAnswer::compare(&format!("same{text}"), "same")),
                ..Demonstration::default()
            },
            Demonstration {
                role: role.clone(),
                prompt: text.into(),
                problem: text.into(),
                ..Demonstration::default()
            },
        ],
        prompts: vec![PromptReport {
            prompt: text.into(),
            form: "chat".into(),
            before: None,
            outputs: [(role, text.into())].into(),
            ..PromptReport::default()
        }],
    }
}

#[test]
fn the_page_is_self_contained_and_hostile_text_stays_text() {
    let plain = notebook_html(&report_with("plain"), Language::English);
    for forbidden in ["<script", "<link", "<img", "<iframe", "@import", "url(", "src="] {
        assert!(!plain.contains(forbidden), "{forbidden}");
    }
    for text in ["<script>alert(1)</script>", "\"><b onclick=x>", "a & b <i>", "\u{1b}[31m"] {
        let page = notebook_html(&report_with(text), Language::English);
        assert!(!page.contains(text), "{text:?} is in the page as it is");
        assert_eq!(tags(&page), tags(&plain), "{text:?} changed the page");
    }
}

#[test]
fn where_answers_part_is_said_in_characters() {
    let compare = |stored: &str, answer: &str| {
        let stored = StoredAnswer::compare(stored, answer);
        (stored.differs_at, stored.verdict(Language::English))
    };
    assert_eq!(compare("añb", "añb"), (None, "equal to the notebook's stored answer".to_owned()));
    let (at, verdict) = compare("añbcd", "añb日");
    assert!(at == Some(3) && verdict.contains("for 3 of its 5 characters"), "{verdict}");
    // One that ends early differs where it ends.
    assert_eq!(compare("abc", "ab").0, Some(2));
    assert_eq!(compare("ab", "abc").0, Some(2));
    assert!(compare("a", "b").1.contains("from the first character on"));
}

#[test]
fn a_model_of_its_own_is_said_not_to_be_compared() {
    let page = notebook_html(&report_with("plain"), Language::English);
    assert!(page.contains("plain (in the notebook: plain)") && page.contains("<mark>plain</mark>"));
    assert!(page.contains(", as plain text"));
}
