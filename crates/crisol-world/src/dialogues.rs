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
use crate::words::{FOODS, PEOPLE, PLACES, Person, THINGS, fill};

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
        for fact in fact_split().train {
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

/// What a story tells of somebody or something (`S`) and what (`V`), a question about it, and the answer.
struct Telling {
    told: &'static str,
    question: &'static str,
    answer: &'static str,
}

/// The answers are built like those about facts, so that finding the subject in the question is learnt on
/// subjects that change from story to story and cannot be learnt by heart.
const HAS: [Telling; 2] = [
    Telling { told: "{S} has the {V}.", question: "who has the {V}?", answer: "{S} has the {V}." },
    Telling { told: "{S} has the {V}.", question: "what does {S} have?", answer: "{S} has the {V}." },
];
const EATS: [Telling; 2] = [
    Telling {
        told: "{S} likes {V}.",
        question: "what does {S} like to eat?",
        answer: "the favourite food of {S} is {V}.",
    },
    Telling {
        told: "{S} eats {V} every day.",
        question: "what does {S} live on?",
        answer: "the favourite food of {S} is {V}.",
    },
];
const IS_AT: [Telling; 2] = [
    Telling { told: "{S} is in {V}.", question: "where is {S}?", answer: "you find {S} in {V}." },
    Telling { told: "{S} works in {V}.", question: "where do I find {S}?", answer: "you find {S} in {V}." },
];
const COMES_FROM: [Telling; 2] = [
    Telling {
        told: "the {S} are from {V}.",
        question: "where do the {S} come from?",
        answer: "we get {S} from {V}.",
    },
    Telling {
        told: "{V} has many {S}.",
        question: "can you tell me where to get {S}?",
        answer: "we get {S} from {V}.",
    },
];
const IS_FOR: [Telling; 2] = [
    Telling {
        told: "the {S} are for {V}.",
        question: "what are the {S} good for?",
        answer: "people use {S} for {V}.",
    },
    Telling {
        told: "they buy {S} for {V}.",
        question: "can you name a use of the {S}?",
        answer: "people use {S} for {V}.",
    },
];

/// A story of two to four sentences of one sort, and a question or two that only the story answers.
pub(crate) fn about_a_story(dice: &mut Dice) -> String {
    let mut names: Vec<&str> = PEOPLE.train.iter().map(|person| person.name).collect();
    let mut things: Vec<&str> = THINGS.train.iter().map(|thing| thing.plural).collect();
    let mut places = PLACES.to_vec();
    let mut foods = FOODS.to_vec();
    for words in [&mut names, &mut things, &mut places, &mut foods] {
        dice.shuffle(words);
    }
    let (tellings, subjects, values) = match dice.range(0, 4) {
        0 => (&HAS, &names, &things),
        1 => (&EATS, &names, &foods),
        2 => (&IS_AT, &names, &places),
        3 => (&COMES_FROM, &things, &places),
        _ => (&IS_FOR, &things, &places),
    };
    let count = dice.range(2, 4) as usize;
    let pairs: Vec<(&str, &str)> = subjects.iter().copied().zip(values.iter().copied()).take(count).collect();
    let say =
        |template: &str, (subject, value): (&str, &str)| fill(template, &[("S", subject), ("V", value)]);
    let mut lines: Vec<String> = pairs.iter().map(|pair| say(dice.pick(tellings).told, *pair)).collect();
    for _ in 0..dice.range(1, 2) {
        let pair = *dice.pick(&pairs);
        let telling = dice.pick(tellings);
        lines.push(ask(&say(telling.question, pair), &say(telling.answer, pair), dice));
    }
    lines.join(" ")
}

fn two_people(dice: &mut Dice) -> (Person, Person) {
    let asker = *dice.pick(PEOPLE.train);
    loop {
        let replier = *dice.pick(PEOPLE.train);
        if replier != asker {
            return (asker, replier);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::about_facts;
    use crate::dice::Dice;
    use crate::splits::fact_split;
    use crate::wording::{say_of, wording};

    #[test]
    fn questions_about_held_out_facts_are_answered_in_no_wording() {
        let text = about_facts(1, &mut Dice::new("test")).join("\n");
        for fact in fact_split().held_out() {
            let wording = wording(fact.attribute);
            for question in wording.questions.iter().chain(wording.held_out_questions) {
                assert!(!text.contains(&say_of(question, &fact, "")), "{question} {}", fact.subject);
            }
        }
    }
}
