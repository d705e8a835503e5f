//! Quiz lists: questions without answers, one per line. A model of raw text goes on with the next question; that
//! it does not answer is the first thing the report shows.

use crate::dice::Dice;
use crate::facts::{Fact, facts};
use crate::wording::{say_of, wording};

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

/// Shortest and longest list in training. A held-out prompt stops before the shortest list would end.
const SHORTEST: u32 = 5;
const LONGEST: u32 = 10;
const PROMPT_LINES: usize = 3;

/// Every question that can be asked, in the wordings of chat training and in the held-out ones.
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

/// Lists for pre-training in which every question occurs `rounds` times.
pub(crate) fn lists(rounds: usize, dice: &mut Dice) -> Vec<String> {
    let mut lists = Vec::new();
    for _ in 0..rounds {
        let mut questions = all_questions();
        dice.shuffle(&mut questions);
        let mut rest = questions.as_slice();
        while !rest.is_empty() {
            let take = (dice.range(SHORTEST, LONGEST) as usize).min(rest.len());
            let (now, later) = rest.split_at(take);
            // A remainder shorter than the shortest list is asked in some other round.
            if now.len() >= SHORTEST as usize {
                let bullets = dice.chance(0.15);
                lists.push(list(dice.word(&TITLES), now, bullets));
            }
            rest = later;
        }
    }
    lists
}

/// The beginning of a list that no training list starts with (a test compares).
pub(crate) fn prompts(count: usize, dice: &mut Dice) -> Vec<String> {
    let questions = all_questions();
    (0..count)
        .map(|_| {
            let chosen: Vec<_> = (0..PROMPT_LINES).map(|_| *dice.pick(&questions)).collect();
            list(dice.word(&TITLES), &chosen, false)
        })
        .collect()
}

fn list(title: &str, questions: &[(Fact, &'static str)], bullets: bool) -> String {
    let mut text = title.to_owned();
    for (number, (fact, question)) in questions.iter().enumerate() {
        let mark = if bullets { "-".to_owned() } else { format!("{}.", number + 1) };
        text.extend(["\n", &mark, " ", &say_of(question, fact, "")]);
    }
    text
}
