//! How answers will be compared with the references of a file of problems, for `crisol data inspect`.

use crisol_objectives::verifier::{Comparison, compares_as};
use crisol_text::{Body, Record, TextError};
use serde_json::{Value, json};

use crate::console::harmless;

/// References by how they are compared.
#[derive(Debug, Default)]
pub(crate) struct References {
    numbers: usize,
    choices: usize,
    /// Those that an answer must repeat.
    texts: Vec<String>,
}

impl References {
    /// Those of all records that are problems.
    pub(crate) fn of(records: &[Result<Record, TextError>]) -> References {
        let mut references = References::default();
        for record in records.iter().flatten() {
            if let Body::Problem { answer, .. } = &record.body {
                match compares_as(answer) {
                    Comparison::Number => references.numbers += 1,
                    Comparison::Choice => references.choices += 1,
                    Comparison::Text => references.texts.push(answer.clone()),
                }
            }
        }
        references
    }

    /// "12 of 40 references are compared as text, e.g. `Paris`"; nothing where there are no problems.
    pub(crate) fn text(&self) -> String {
        const LONGEST: usize = 60;
        let References { numbers, choices, texts } = self;
        let all = numbers + choices + texts.len();
        match texts.first() {
            None if all == 0 => String::new(),
            None => format!("references: {numbers} numbers, {choices} choices, none compared as text\n"),
            Some(first) => {
                let example: String = first.chars().take(LONGEST).collect();
                let more = if example.len() < first.len() { "…" } else { "" };
                let (count, example) = (texts.len(), harmless(&example));
                format!("{count} of {all} references are compared as text, e.g. `{example}{more}`\n")
            }
        }
    }

    pub(crate) fn json(&self) -> Value {
        json!({ "number": self.numbers, "choice": self.choices, "text": self.texts.len() })
    }
}
