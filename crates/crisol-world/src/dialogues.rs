//! Dialogues in stories: people ask one another and get answers.
//!
//! Raw text holds questions with answers too, not only quiz lists. Two sorts teach what chat will need, without
//! the chat's form:
//! - about facts, but only those that chat training may ask: a held-out fact's question is never answered
//!   anywhere, in pre-training either ("mixed training" of "Physics of Language Models 3.1", arXiv:2309.14316);
//! - about what the story has just said, where only reading helps.

use crate::dice::Dice;
use crate::facts::{Attribute, Fact, facts};
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
    Telling {
        told: "{S} has the {V}.",
        question: "what does {S} have?",
        answer: "{S} has the {V}.",
    },
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
    Telling {
        told: "{S} works in {V}.",
        question: "where do I find {S}?",
        answer: "you find {S} in {V}.",
    },
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

const LIVES: [Telling; 2] = [
    Telling {
        told: "{S} lives in {V}.",
        question: "where is the home of {S}?",
        answer: "the home of {S} is in {V}.",
    },
    Telling {
        told: "{S} has a room in {V}.",
        question: "where does {S} live?",
        answer: "the home of {S} is in {V}.",
    },
];

/// Here `S` is "eggs in a bag", `T` its eggs and `H` its bag. The questions are those of units.
const COUNTED: [Telling; 4] = [
    Telling {
        told: "somebody counts {V} {S}.",
        question: "what is the number of {S}?",
        answer: "the number of {S} is {V}.",
    },
    Telling {
        told: "the teacher counts {V} {S}.",
        question: "how many {T} are in {H}?",
        answer: "the number of {S} is {V}.",
    },
    Telling {
        told: "somebody counts {V} {S}.",
        question: "how many {T} are there in {H}?",
        answer: "the number of {S} is {V}.",
    },
    Telling {
        told: "the teacher counts {V} {S}.",
        question: "can you name the number of {S}?",
        answer: "the number of {S} is {V}.",
    },
];

/// What somebody reads about: any subject of the world, so that it has been named in an answer before it is asked about.
const READS: [Telling; 2] = [
    Telling {
        told: "{S} reads about {V}.",
        question: "what does {S} read about?",
        answer: "{S} reads about {V}.",
    },
    Telling {
        told: "{S} reads about {V}.",
        question: "who reads about {V}?",
        answer: "{S} reads about {V}.",
    },
];

/// Where something about a subject is: answers built like those about facts, whose subject is one of the
/// world's and has to be taken from the question, because the story names several.
const SHOWS: [Telling; 3] = [
    Telling {
        told: "the book about {S} is in {V}.",
        question: "where is the book about {S}?",
        answer: "the book about {S} is in {V}.",
    },
    Telling {
        told: "in {V} there is a picture of {S}.",
        question: "where is the picture of {S}?",
        answer: "the picture of {S} is in {V}.",
    },
    Telling {
        told: "they talk about {S} in {V}.",
        question: "where do they talk about {S}?",
        answer: "the talk about {S} is in {V}.",
    },
];
const PAGES: [Telling; 2] = [
    Telling {
        told: "the page about {S} is page {V}.",
        question: "which page is about {S}?",
        answer: "the page about {S} is page {V}.",
    },
    Telling {
        told: "page {V} is about {S}.",
        question: "on which page do I find {S}?",
        answer: "the page about {S} is page {V}.",
    },
];

/// A story of two to four sentences of one sort, and a question or two, with answers, that only the story answers.
struct Story {
    told: String,
    exchanges: Vec<(String, String)>,
}

impl Story {
    fn new(tellings: &[Telling], subjects: &[&str], values: &[&str], dice: &mut Dice) -> Self {
        let count = dice.range(2, 4) as usize;
        let (subject_order, value_order) = (dice.order(subjects.len()), dice.order(values.len()));
        let order = subject_order.into_iter().zip(value_order).take(count);
        let pairs: Vec<(&str, &str)> = order.map(|(s, v)| (subjects[s], values[v])).collect();
        let say = |template: &str, (subject, value): (&str, &str)| {
            let (thing, holder) = subject.split_once(" in ").unwrap_or_default();
            fill(template, &[("S", subject), ("V", value), ("T", thing), ("H", holder)])
        };
        let lines: Vec<String> =
            pairs.iter().map(|pair| say(dice.pick(tellings).told, *pair)).collect();
        let exchanges = (0..dice.range(1, 2))
            .map(|_| {
                let pair = *dice.pick(&pairs);
                let telling = dice.pick(tellings);
                (say(telling.question, pair), say(telling.answer, pair))
            })
            .collect();
        Self { told: lines.join(" "), exchanges }
    }

    /// About people and things: who has, likes and lives where, what is where and how much of it.
    fn of_people_and_things(dice: &mut Dice) -> Self {
        let names: Vec<&str> = PEOPLE.train.iter().map(|person| person.name).collect();
        let things: Vec<&str> = THINGS.train.iter().map(|thing| thing.plural).collect();
        let holders = ["basket", "box", "shop", "kitchen", "bag", "garden"];
        // Each thing once: the eggs in a bag may not be counted twice.
        let counted: Vec<String> =
            things.iter().map(|thing| format!("{thing} in a {}", dice.word(&holders))).collect();
        let counted: Vec<&str> = counted.iter().map(String::as_str).collect();
        let numbers = numbers();
        let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let (tellings, subjects, values) = match dice.range(0, 6) {
            0 => (&HAS[..], &names[..], &things[..]),
            1 => (&EATS[..], &names[..], &FOODS[..]),
            2 => (&IS_AT[..], &names[..], &PLACES[..]),
            3 => (&COMES_FROM[..], &things[..], &PLACES[..]),
            4 => (&LIVES[..], &names[..], &PLACES[..]),
            5 => (&COUNTED[..], &counted[..], &numbers[..]),
            _ => (&IS_FOR[..], &things[..], &PLACES[..]),
        };
        Self::new(tellings, subjects, values, dice)
    }

    /// About what people read about, and where that is.
    fn of_subjects(dice: &mut Dice) -> Self {
        let names: Vec<&str> = PEOPLE.train.iter().map(|person| person.name).collect();
        let mut subjects: Vec<String> = facts().iter().map(topic).collect();
        subjects.dedup();
        let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
        match dice.range(0, 2) {
            0 => Self::new(&READS, &names, &subjects, dice),
            1 => Self::new(&SHOWS, &subjects, &PLACES, dice),
            _ => {
                let numbers = numbers();
                let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
                Self::new(&PAGES, &subjects, &numbers, dice)
            }
        }
    }
}

/// The numbers that stories count with.
fn numbers() -> Vec<String> {
    (2..40).map(|n: u32| n.to_string()).collect()
}

/// "France", "lions", "the century", "wool".
fn topic(fact: &Fact) -> String {
    match fact.attribute {
        _ if !fact.plural.is_empty() => fact.plural.to_owned(),
        Attribute::Unit | Attribute::Measures => format!("the {}", fact.subject),
        _ => fact.subject.to_owned(),
    }
}

/// A story and what is asked about it, as a document.
pub(crate) fn about_a_story(dice: &mut Dice) -> String {
    let Story { told, exchanges } = if dice.chance(0.15) {
        Story::of_subjects(dice)
    } else {
        Story::of_people_and_things(dice)
    };
    exchanges
        .iter()
        .fold(told, |text, (question, answer)| format!("{text} {}", ask(question, answer, dice)))
}

/// A story in a chat, with a question that only the story answers: the message and the reply.
pub(crate) fn reading(dice: &mut Dice) -> (String, String) {
    let story =
        if dice.chance(0.6) { Story::of_subjects(dice) } else { Story::of_people_and_things(dice) };
    let (question, answer) =
        story.exchanges.into_iter().next().expect("every story is asked about");
    (format!("{} {question}", story.told), answer)
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
                assert!(
                    !text.contains(&say_of(question, &fact, "")),
                    "{question} {}",
                    fact.subject
                );
            }
        }
    }
}
