//! Dialogues in stories: people ask one another and get answers.
//!
//! Raw text holds questions with answers too, not only quiz lists. Two sorts teach what chat will need, without
//! the chat's form:
//! - about facts, but only those that chat training may ask: a held-out fact's question is never answered
//!   anywhere, in pre-training either ("mixed training" of "Physics of Language Models 3.1", arXiv:2309.14316);
//! - about what the story has just said, where only reading helps.

use crate::dice::Dice;
use crate::splits::fact_split;
use crate::wording::{answer, say_of, wording};
use crate::words::{PEOPLE, Person, THINGS, fill};

const ASKING: [&str; 12] = [
    "{P} asks {R}: {Q} {R} says: {A}",
    "{P} wants to know: {Q} {R} says: {A}",
    "The teacher asks {P}: {Q} {P} says: {A}",
    "{Q} {P} asks. {A} {R} says.",
    "{R} tells {P} what {P} asks. {Q} {A}",
    "{P} does not know it. {Q} {R} knows. {A}",
    "{P}: {Q}\n{R}: {A}",
    "{P}: {Q} {R}: {A}",
    "Question: {Q}\nAnswer: {A}",
    "{Q}\n{A}",
    "{Q} {A}",
    "The guest asked: {Q} And this was the answer: {A}",
];

/// Dialogues in which each question about a fact that may be asked is asked and answered `rounds` times, some of them
/// to a document.
pub(crate) fn about_facts(rounds: usize, dice: &mut Dice) -> Vec<String> {
    let mut documents = Vec::new();
    for _ in 0..rounds {
        let mut exchanges = Vec::new();
        for fact in fact_split().asked {
            let wording = wording(fact.attribute);
            for question in wording.questions.iter().chain(wording.held_out_questions) {
                exchanges.push((say_of(question, &fact, ""), answer(&fact)));
            }
        }
        dice.shuffle(&mut exchanges);
        let mut rest = exchanges.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at((dice.range(1, 4) as usize).min(rest.len()));
            let lines: Vec<String> =
                now.iter().map(|(question, answer)| ask(question, answer, dice)).collect();
            documents.push(lines.join("\n"));
            rest = later;
        }
    }
    documents
}

fn ask(question: &str, answer: &str, dice: &mut Dice) -> String {
    let (asker, replier) = two_people(dice);
    let slots = [("P", asker.name), ("R", replier.name), ("Q", question), ("A", answer)];
    fill(dice.word(&ASKING), &slots)
}

/// A story of who has what, and a question that only the story answers.
pub(crate) fn about_a_story(dice: &mut Dice) -> String {
    let mut people: Vec<Person> = PEOPLE.to_vec();
    dice.shuffle(&mut people);
    let mut things: Vec<&str> = THINGS.iter().map(|thing| thing.plural).collect();
    dice.shuffle(&mut things);
    let holders: Vec<(&str, &str)> =
        people.iter().zip(&things).take(dice.range(2, 4) as usize).map(|(p, t)| (p.name, *t)).collect();
    let mut lines: Vec<String> =
        holders.iter().map(|(name, thing)| format!("{name} has the {thing}.")).collect();
    for _ in 0..dice.range(1, 2) {
        let (name, thing) = *dice.pick(&holders);
        let (question, answer) = if dice.chance(0.5) {
            (format!("Who has the {thing}?"), format!("{name} has the {thing}."))
        } else {
            (format!("What does {name} have?"), format!("{name} has the {thing}."))
        };
        lines.push(ask(&question, &answer, dice));
    }
    lines.join(" ")
}

fn two_people(dice: &mut Dice) -> (Person, Person) {
    let asker = *dice.pick(&PEOPLE);
    loop {
        let replier = *dice.pick(&PEOPLE);
        if replier != asker {
            return (asker, replier);
        }
    }
}
