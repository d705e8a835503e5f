//! How answers will be compared with the references of a file of problems, for `crisol data
//! inspect`.

use crisol_objectives::verifier::{Comparison, compares_as};
use crisol_text::{Body, Record};
use serde_json::{Value, json};

use crate::console::harmless;

/// References by how they are compared.
#[derive(Debug, Default)]
pub(crate) struct References {
    numbers: usize,
    choices: usize,
    /// Those that an answer must repeat, and the first of them.
    texts: usize,
    text: Option<String>,
}

impl References {
    /// Counts that of a record, if it is a problem.
    pub(crate) fn add(&mut self, record: &Record) {
        if let Body::Problem { answer, .. } = &record.body {
            match compares_as(answer) {
                Comparison::Number => self.numbers += 1,
                Comparison::Choice => self.choices += 1,
                Comparison::Text => {
                    self.texts += 1;
                    self.text.get_or_insert_with(|| answer.clone());
                }
            }
        }
    }

    /// "12 of 40 references are compared as text, e.g. `Paris`"; nothing where there are no
    /// problems.
    pub(crate) fn text(&self) -> String {
        const LONGEST: usize = 60;
        let References { numbers, choices, texts, text } = self;
        let all = numbers + choices + texts;
        match text {
            None if all == 0 => String::new(),
            None => {
                format!("references: {numbers} numbers, {choices} choices, none compared as text\n")
            }
            Some(first) => {
                let example: String = first.chars().take(LONGEST).collect();
                let more = if example.len() < first.len() { "…" } else { "" };
                let example = harmless(&example);
                format!(
                    "{texts} of {all} references are compared as text, e.g. `{example}{more}`\n"
                )
            }
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "number": self.numbers, "choice": self.choices, "text": self.texts })
    }
}
