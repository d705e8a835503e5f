//! What `crisol notebook` reports: the workshop's demonstrations with models of the three phases,
//! and the same prompts to all three.

use serde::Serialize;

use crate::{Language, PromptReport};

/// The content of the `report.json` of a replay of the workshop's notebook.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NotebookReport {
    /// Version of Crisol that wrote the report.
    pub crisol: String,
    /// When it was made, as the caller wants it shown.
    pub created: String,
    /// The machine, in words.
    pub machine: String,
    /// Maximum new tokens of an answer.
    pub max_new_tokens: usize,
    /// The three models, in the notebook's order.
    pub models: Vec<NotebookModel>,
    /// The notebook's demonstrations, in its order.
    pub demonstrations: Vec<Demonstration>,
    /// The same prompts to all three models, answers by role. An answer that is missing would be
    /// that to the same prompt as text, or has no room in the model's context.
    pub prompts: Vec<PromptReport>,
}

/// A model in one of the three roles.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct NotebookModel {
    /// `base`, `chat` or `aligned`.
    pub role: String,
    /// The model, as it was named.
    pub name: String,
    /// The model that the notebook has in this role.
    pub notebook: String,
    /// Architecture family.
    pub architecture: String,
    /// Parameters.
    pub parameters: u64,
    /// Whether it has a chat template; without one, messages are given to it as plain text.
    pub chat_template: bool,
}

/// One demonstration.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Demonstration {
    /// Cell of the notebook, from 0.
    pub cell: usize,
    /// The model's role.
    pub role: String,
    /// The notebook's remark on its own model.
    pub shows: String,
    /// `text` (the model continues it) or `chat` (the user's message).
    pub form: String,
    /// The text or message.
    pub prompt: String,
    /// The text of the prompt's tokens, special ones included: what the model was really given.
    pub given: String,
    /// The model's answer.
    pub answer: String,
    /// Whether the answer is a refusal, where the notebook speaks of refusing.
    pub refused: Option<bool>,
    /// Why there is no answer, or empty.
    pub problem: String,
    /// New tokens.
    pub tokens: usize,
    /// Seconds for them, the prompt's included.
    pub seconds: f64,
    /// The comparison with the notebook, where the model is the notebook's own.
    pub notebook: Option<StoredAnswer>,
}

/// The answer that the notebook has stored, beside the one that was given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct StoredAnswer {
    /// The notebook's.
    pub answer: String,
    /// The first character, from 0, at which the two differ; nothing where they are equal.
    pub differs_at: Option<usize>,
}

impl StoredAnswer {
    /// Compares an answer with a stored one.
    pub fn compare(stored: &str, answer: &str) -> Self {
        let same = stored.chars().zip(answer.chars()).take_while(|(a, b)| a == b).count();
        Self { answer: stored.to_owned(), differs_at: (stored != answer).then_some(same) }
    }

    /// The result of the comparison in words.
    pub fn verdict(&self, language: Language) -> String {
        let texts = &language.texts().notebook;
        let length = self.answer.chars().count();
        match self.differs_at {
            None => texts.equal.to_owned(),
            Some(0) => texts.differs.to_owned(),
            Some(at) => (texts.differs_after)([&at, &length]),
        }
    }
}

impl NotebookReport {
    /// Whether the model of a role is the notebook's own, so that its answers are compared.
    pub fn is_compared(&self, role: &str) -> bool {
        self.demonstrations
            .iter()
            .any(|demonstration| demonstration.role == role && demonstration.notebook.is_some())
    }

    /// The report as indented JSON.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data with string keys always serialises")
            + "\n"
    }
}
