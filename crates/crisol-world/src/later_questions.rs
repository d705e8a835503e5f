//! Held-out questions that come later in a conversation, after earlier exchanges.
//!
//! No training record has them: what they measure is whether a model that was taught one question a
//! conversation answers the second, too.

use crate::chat::{Conversation, fact_questions, held_out_requests};
use crate::facts::Fact;
use crate::request_kinds::KINDS;
use crate::rng::Rng;
use crate::short_problems::short_problem;
use crate::solution::Problem;
use crate::splits::{Split, fact_splits};
use crate::talk::{held_out_task, small_talk};
use crate::unknown::{UNKNOWN_REPLY, UnknownQuestion, unknown_question};
use crate::wording::{answer, render_fact, wording};
use serde_json::{Value, json};

/// Letters of a conversation at most. With the marks of the chat and room for an answer that is
/// what the embedded recipe's context of 256 tokens holds.
const LETTERS: usize = 560;

/// How many exchanges come before, drawn uniformly. Those that do not fit are left out.
const COUNTS: [usize; 5] = [1, 1, 2, 3, 4];

/// Questions of each kind.
const EACH: usize = 120;

/// A sort of earlier exchange, as an aligned assistant answers it.
#[derive(Clone, Copy)]
enum Sort {
    /// A fact, asked and answered.
    Fact,
    /// A short problem, solved step by step.
    Problem,
    /// Small talk or a small task.
    Talk,
    /// A question without an answer, and the honest reply.
    Unknown,
    /// A harmful request, refused.
    Refusal,
}

const SORTS: [Sort; 6] =
    [Sort::Fact, Sort::Fact, Sort::Problem, Sort::Talk, Sort::Unknown, Sort::Refusal];

/// Facts, short problems, unknown questions and harmful requests, each after earlier exchanges. All
/// content is of the split.
pub(crate) fn records(split: Split) -> Vec<Value> {
    let mut rng = Rng::new(&format!("later-questions.{}", split.name()));
    let mut questions: Vec<(String, &str, Option<String>)> = Vec::with_capacity(4 * EACH);
    for (question, answer) in fact_questions(split).into_iter().take(EACH) {
        questions.push((question, "fact", Some(answer.to_owned())));
    }
    for _ in 0..EACH {
        let Problem { prompt, solution } = short_problem(split, &mut rng);
        questions.push((prompt, "problem", Some(solution.answer().to_string())));
    }
    for _ in 0..EACH {
        let UnknownQuestion { prompt, .. } = unknown_question(split, &mut rng);
        questions.push((prompt, "unknown", None));
    }
    for request in held_out_requests(true, split, EACH / KINDS.len(), &mut rng) {
        questions.push((request.prompt, "harmful", None));
    }
    let facts = fact_splits().get(split);
    questions
        .into_iter()
        .map(|(question, kind, answer)| {
            let prompt = after_others(question, split, &facts, &mut rng).messages();
            match answer {
                Some(answer) => json!({ "prompt": prompt, "answer": answer, "kind": kind }),
                None => json!({ "prompt": prompt, "kind": kind }),
            }
        })
        .collect()
}

/// The conversation that the question ends, after one to four exchanges, as many as fit.
fn after_others(question: String, split: Split, facts: &[Fact], rng: &mut Rng) -> Conversation {
    let mut letters = question.len();
    let mut turns = vec![question];
    let count = *rng.choose(&COUNTS);
    while turns.len() / 2 < count {
        let earlier = exchange(*rng.choose(&SORTS), split, facts, rng);
        // Who asks the same again gets an answer to copy.
        if turns.contains(&earlier[0]) {
            continue;
        }
        letters += earlier.iter().map(String::len).sum::<usize>();
        if letters > LETTERS {
            break;
        }
        turns.splice(0..0, earlier);
    }
    Conversation { system: None, turns }
}

/// A message and its reply.
fn exchange(sort: Sort, split: Split, facts: &[Fact], rng: &mut Rng) -> [String; 2] {
    match sort {
        Sort::Fact => {
            let fact = *rng.choose(facts);
            let question = rng.choose_str(wording(fact.attribute).held_out_questions);
            [render_fact(question, &fact, ""), answer(&fact)]
        }
        Sort::Problem => {
            let Problem { prompt, solution } = short_problem(split, rng);
            [prompt, solution.step_by_step()]
        }
        Sort::Talk => {
            let talk = if rng.chance(0.5) { small_talk(rng) } else { held_out_task(split, rng) };
            let mut turns = talk.turns.into_iter();
            [(); 2].map(|()| turns.next().expect("talk is a message and its reply"))
        }
        Sort::Unknown => [unknown_question(split, rng).prompt, UNKNOWN_REPLY.to_owned()],
        Sort::Refusal => {
            // Six requests have all six verb phrases.
            let mut requests = rng.choose(&KINDS).requests(true, split, 6, rng);
            let request = requests.swap_remove(rng.range(0, 5) as usize);
            [request.prompt, request.refusal]
        }
    }
}
