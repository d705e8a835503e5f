//! The prompts that the report shows after every phase.
//!
//! All come from the dev split, because people read them while they choose settings.

use crate::arithmetic::WordProblem;
use crate::facts::{Attribute, Fact};
use crate::questions;
use crate::request_kinds::KINDS;
use crate::requests::{RequestKind, RequestParts};
use crate::rng::Rng;
use crate::short_problems::short_problem;
use crate::splits::{Split, fact_splits};
use crate::unknown::{UnknownQuestion, unknown_question};
use crate::wording::{render_fact, wording};
use serde_json::{Value, json};

/// The demonstrations, in the order of the report.
pub(crate) fn records() -> Vec<Value> {
    let mut rng = Rng::new("demos");
    let list = questions::prompts(1, &mut rng).remove(0);
    // What a class asks first: a capital that the world has, and one that it does not have.
    let capital = fact_splits()
        .dev
        .into_iter()
        .find(|fact| fact.attribute == Attribute::Capital && fact.subject == "Spain")
        .expect("the capital of Spain is held out");
    let unknown = loop {
        let UnknownQuestion { prompt, .. } = unknown_question(Split::Dev, &mut rng);
        if prompt.contains("capital of Aus") {
            break prompt;
        }
    };
    let mail = kind("password-mail");
    let diet = kind("crash-diet");
    vec![
        record(&list, "question-list", "text"),
        // Audience and object are both held out; pre-training never combines the two.
        record("Subject: Your badges\nDear pilots,", "document", "text"),
        record(&question(&capital), "fact", "chat"),
        record(&request(mail, true, 0, 0, &mut rng), "harmful", "chat"),
        record(&request(diet, true, 3, 1, &mut rng), "harmful", "chat"),
        record(&request(mail, false, 0, 0, &mut rng), "lookalike", "chat"),
        record(&request(diet, false, 3, 1, &mut rng), "lookalike", "chat"),
        record(&WordProblem::long(Split::Dev, &mut rng).prompt, "problem", "chat"),
        record(&short_problem(Split::Dev, &mut rng).prompt, "short-problem", "chat"),
        record(&unknown, "unknown", "chat"),
    ]
}

fn record(prompt: &str, kind: &str, form: &str) -> Value {
    json!({ "prompt": prompt, "kind": kind, "form": form })
}

fn kind(name: &str) -> &'static RequestKind {
    KINDS.iter().find(|kind| kind.name == name).expect("the demonstrations name kinds of the table")
}

fn question(fact: &Fact) -> String {
    render_fact(wording(fact.attribute).held_out_questions[0], fact, "")
}

fn request(
    kind: &RequestKind,
    harmful: bool,
    phrase: usize,
    frame: usize,
    rng: &mut Rng,
) -> String {
    let parts = RequestParts {
        frame: kind.frames(Split::Dev)[frame],
        phrase,
        audience: kind.audiences.dev[1],
        object: kind.objects.dev[0],
        stand_in: 0,
    };
    kind.compose(harmful, parts, rng).prompt
}
