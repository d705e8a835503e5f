//! Questions that come later in a conversation, after earlier exchanges.
//!
//! A model that has met a sort of question only as the first of a conversation takes it for
//! something else when it comes later (`docs/experiments.md`, "Later questions").

use crate::arithmetic::WordProblem;
use crate::chat::{Conversation, fact_questions, held_out_requests};
use crate::facts::Fact;
use crate::loose_questions::loose_question;
use crate::request_kinds::KINDS;
use crate::rng::Rng;
use crate::short_problems::short_problem;
use crate::solution::Problem;
use crate::splits::{Split, fact_splits};
use crate::talk::{held_out_task, small_talk, task};
use crate::unknown::{UNKNOWN_REPLY, UnknownQuestion, unknown_question};
use crate::wording::{answer, render_fact, wording};
use serde_json::{Value, json};

/// Letters of a conversation at most. With the marks of the chat and room for an answer that is
/// what the embedded recipe's context of 256 tokens holds.
const LETTERS: usize = 520;

/// How many exchanges come before, drawn uniformly. Those that do not fit are left out.
const COUNTS: [usize; 5] = [1, 1, 2, 3, 4];

/// Held-out questions of each kind.
const EACH: usize = 120;

/// An earlier message and its reply.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Earlier {
    pub(crate) turns: [String; 2],
    /// Whether the reply is trained, in files that train replies.
    pub(crate) trained: bool,
}

/// A sort of earlier exchange, as an aligned assistant answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// A fact, asked and answered.
    Fact,
    /// A problem, mostly a short one, solved step by step.
    Problem,
    /// Small talk or a small task.
    Talk,
    /// A question without an answer, and the honest reply.
    Unknown,
    /// A harmful request, refused.
    Refusal,
}

/// What may come before in reasoning: the model has not learnt honesty and refusals yet.
pub(crate) const BEFORE_ALIGNMENT: &[Sort] = &[Sort::Fact, Sort::Problem, Sort::Talk];

/// What may come before in alignment.
pub(crate) const ALIGNED: &[Sort] =
    &[Sort::Fact, Sort::Fact, Sort::Problem, Sort::Talk, Sort::Unknown, Sort::Refusal];

/// Later questions of one training file.
pub(crate) struct LaterQuestions {
    /// A stream of its own, so that all else in the file stays as it was.
    rng: Rng,
    facts: Vec<Fact>,
    sorts: &'static [Sort],
}

impl LaterQuestions {
    /// With these sorts of exchanges before them, for the file called `file`.
    pub(crate) fn new(file: &str, sorts: &'static [Sort]) -> Self {
        Self { rng: Rng::new(&format!("{file}.later")), facts: fact_splits().train, sorts }
    }

    /// The conversation after earlier exchanges, with probability `share` and if any fit.
    pub(crate) fn draw(&mut self, share: f64, first: &Conversation) -> Option<Conversation> {
        let Self { rng, facts, sorts } = self;
        let drawn = rng.chance(share);
        let later = drawn.then(|| after_others(first.clone(), Split::Train, facts, sorts, rng));
        later.filter(|later| !later.earlier.is_empty())
    }
}

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
            let prompt = held_out(question, split, &facts, &mut rng).messages();
            match answer {
                Some(answer) => json!({ "prompt": prompt, "answer": answer, "kind": kind }),
                None => json!({ "prompt": prompt, "kind": kind }),
            }
        })
        .collect()
}

/// A question of a held-out split after exchanges of that split, whose facts are given.
fn held_out(question: String, split: Split, facts: &[Fact], rng: &mut Rng) -> Conversation {
    let first = Conversation::open(question);
    loop {
        let later = after_others(first.clone(), split, facts, ALIGNED, rng);
        if !later.earlier.is_empty() {
            return later;
        }
    }
}

/// The conversation after one to four exchanges, as many as fit.
fn after_others(
    mut conversation: Conversation,
    split: Split,
    facts: &[Fact],
    sorts: &[Sort],
    rng: &mut Rng,
) -> Conversation {
    let system = conversation.system.map_or(0, str::len);
    let mut letters = system + conversation.turns.iter().map(String::len).sum::<usize>();
    let count = *rng.choose(&COUNTS);
    while conversation.earlier.len() < count {
        let sort = *rng.choose(sorts);
        let turns = exchange(sort, split, facts, rng);
        // Who asks the same again gets an answer to copy.
        let earlier = conversation.earlier.iter().map(|exchange| &exchange.turns[0]);
        if earlier.chain(&conversation.turns).any(|message| *message == turns[0]) {
            continue;
        }
        letters += turns.iter().map(String::len).sum::<usize>();
        if letters > LETTERS {
            break;
        }
        // Trained, they would be many more train facts and honest replies, at the cost of held-out
        // facts.
        let trained = !matches!(sort, Sort::Fact | Sort::Unknown);
        conversation.earlier.insert(0, Earlier { turns, trained });
    }
    conversation
}

/// A message and its reply.
fn exchange(sort: Sort, split: Split, facts: &[Fact], rng: &mut Rng) -> [String; 2] {
    let is_held_out = split != Split::Train;
    match sort {
        Sort::Fact => {
            let fact = *rng.choose(facts);
            let wording = wording(fact.attribute);
            let question = if is_held_out {
                rng.choose_str(wording.held_out_questions).to_owned()
            } else if rng.chance(0.25) {
                loose_question(fact.attribute, rng)
            } else {
                rng.choose_str(wording.questions).to_owned()
            };
            [render_fact(&question, &fact, ""), answer(&fact)]
        }
        Sort::Problem => {
            let is_short = is_held_out || rng.chance(0.7);
            let Problem { prompt, solution } =
                if is_short { short_problem(split, rng) } else { WordProblem::long(split, rng) };
            [prompt, solution.step_by_step()]
        }
        Sort::Talk => {
            let talk = match rng.chance(0.5) {
                true => small_talk(rng),
                false if is_held_out => held_out_task(split, rng),
                false => task(rng),
            };
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
