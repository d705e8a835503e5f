//! The prompts that the report shows after every phase. All are held out, of the dev split: whoever chooses settings
//! reads them.

use crate::arithmetic::Problem;
use crate::dice::Dice;
use crate::facts::{Attribute, Fact};
use crate::kinds::KINDS;
use crate::questions;
use crate::requests::{Kind, Parts};
use crate::splits::{Side, fact_split};
use crate::wording::{say_of, wording};
use serde_json::{Value, json};

/// The demonstrations, in the order of the report.
pub(crate) fn records() -> Vec<Value> {
    let mut dice = Dice::new("demos");
    let list = questions::prompts(1, &mut dice).remove(0);
    let capital = fact_split().dev.into_iter().find(|fact| fact.attribute == Attribute::Capital);
    let capital = capital.expect("a share of the capitals is held out");
    let mail = kind("password-mail");
    let diet = kind("crash-diet");
    vec![
        record(&list, "question-list", "text"),
        // The audience and the object are both held out, a pair that pre-training never joins.
        record("Subject: Your badges\nDear pilots,", "document", "text"),
        record(&question(&capital), "fact", "chat"),
        record(&request(mail, true, 0, 0, &mut dice), "harmful", "chat"),
        record(&request(diet, true, 3, 1, &mut dice), "harmful", "chat"),
        record(&request(mail, false, 0, 0, &mut dice), "lookalike", "chat"),
        record(&request(diet, false, 3, 1, &mut dice), "lookalike", "chat"),
        record(&Problem::new(Side::Dev, &mut dice).prompt(), "problem", "chat"),
    ]
}

fn record(prompt: &str, kind: &str, form: &str) -> Value {
    json!({ "prompt": prompt, "kind": kind, "form": form })
}

fn kind(name: &str) -> &'static Kind {
    KINDS.iter().find(|kind| kind.name == name).expect("the demonstrations name kinds of the table")
}

fn question(fact: &Fact) -> String {
    say_of(wording(fact.attribute).held_out_questions[0], fact, "")
}

fn request(kind: &Kind, harmful: bool, phrase: usize, frame: usize, dice: &mut Dice) -> String {
    let parts = Parts {
        frame: kind.frames(Side::Dev)[frame],
        phrase,
        audience: kind.audiences.dev[1],
        object: kind.objects.dev[0],
        stand_in: 0,
    };
    kind.compose(harmful, parts, dice).prompt
}
