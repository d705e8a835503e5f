//! Quiz lists: questions without answers, one per line.
//!
//! A base model continues a list with another question instead of answering. The report opens
//! with this.

use crate::facts::{Fact, facts};
use crate::rng::Rng;
use crate::wording::{render_fact, wording};

const TITLES: [&str; 10] = [
    "Questions for the quiz night:",
    "Quiz for Monday:",
    "Questions for the class:",
    "Questions for the school quiz:",
    "The big quiz:",
    "Questions for the guests:",
    "A quiz for the family:",
    "Questions for the second round:",
    "What the teacher wants to know:",
    "Quiz of the week:",
];

/// Fewest and most questions of a training list.
const MIN_QUESTIONS: u32 = 5;
const MAX_QUESTIONS: u32 = 10;
/// Questions of a held-out prompt: fewer than any training list has, so the list goes on.
const PROMPT_LINES: usize = 3;

/// Every question about every fact, in training and held-out wordings.
fn all_questions() -> Vec<(Fact, &'static str)> {
    let mut all = Vec::new();
    for fact in facts() {
        let wording = wording(fact.attribute);
        for question in wording.questions.iter().chain(wording.held_out_questions) {
            all.push((fact, *question));
        }
    }
    all
}

/// Pre-training lists; each round asks every question at most once.
pub(crate) fn training_lists(rounds: usize, rng: &mut Rng) -> Vec<String> {
    let mut lists = Vec::new();
    for _ in 0..rounds {
        let mut questions = all_questions();
        rng.shuffle(&mut questions);
        let mut rest = questions.as_slice();
        while !rest.is_empty() {
            let take = (rng.range(MIN_QUESTIONS, MAX_QUESTIONS) as usize).min(rest.len());
            let (now, later) = rest.split_at(take);
            // A remainder below the minimum is dropped; other rounds ask its questions.
            if now.len() >= MIN_QUESTIONS as usize {
                let bullets = rng.chance(0.15);
                lists.push(list(rng.choose_str(&TITLES), now, bullets));
            }
            rest = later;
        }
    }
    lists
}

/// Openings of lists that start no training list (`tests/world.rs` checks).
pub(crate) fn prompts(count: usize, rng: &mut Rng) -> Vec<String> {
    let questions = all_questions();
    (0..count)
        .map(|_| {
            let chosen: Vec<_> = (0..PROMPT_LINES).map(|_| *rng.choose(&questions)).collect();
            list(rng.choose_str(&TITLES), &chosen, false)
        })
        .collect()
}

fn list(title: &str, questions: &[(Fact, &'static str)], bullets: bool) -> String {
    let mut text = title.to_owned();
    for (number, (fact, question)) in questions.iter().enumerate() {
        let mark = if bullets { "-".to_owned() } else { format!("{}.", number + 1) };
        text.extend(["\n", &mark, " ", &render_fact(question, fact, "")]);
    }
    text
}
