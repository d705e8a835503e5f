//! Dialogues in pre-training: people ask each other questions and get answers.
//!
//! Two sorts prepare for chat, without the chat's form:
//! - about train facts, the "mixed training" of "Physics of Language Models 3.1"
//!   (arXiv:2309.14316). No text answers a question about a held-out fact;
//! - about a story just told, where only reading helps.

use crate::facts::{Attribute, Fact, facts};
use crate::rng::Rng;
use crate::splits::fact_splits;
use crate::wording::{answer, render_fact, wording};
use crate::words::{FOODS, PEOPLE, PLACES, Person, THINGS, fill};

const EXCHANGES: [&str; 12] = [
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

/// Documents of one to four exchanges; each question about a train fact is answered `rounds` times.
pub(crate) fn about_facts(rounds: usize, rng: &mut Rng) -> Vec<String> {
    let mut documents = Vec::new();
    for _ in 0..rounds {
        let mut exchanges = Vec::new();
        for fact in fact_splits().train {
            let wording = wording(fact.attribute);
            for question in wording.questions.iter().chain(wording.held_out_questions) {
                exchanges.push((render_fact(question, &fact, ""), answer(&fact)));
            }
        }
        rng.shuffle(&mut exchanges);
        let mut rest = exchanges.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at((rng.range(1, 4) as usize).min(rest.len()));
            let lines: Vec<String> = now
                .iter()
                .map(|(question, answer)| render_exchange(question, answer, rng))
                .collect();
            documents.push(lines.join("\n"));
            rest = later;
        }
    }
    documents
}

fn render_exchange(question: &str, answer: &str, rng: &mut Rng) -> String {
    let (asker, replier) = two_people(rng);
    let slots = [("P", asker.name), ("R", replier.name), ("Q", question), ("A", answer)];
    fill(rng.choose_str(&EXCHANGES), &slots)
}

/// A statement of a story about a subject `S` and a value `V`, a question about it, the answer.
struct StoryTemplate {
    statement: &'static str,
    question: &'static str,
    answer: &'static str,
}

/// The answers resemble those about facts. Subjects change from story to story, so a model learns
/// to copy them from the question instead of memorising them.
const HAS: [StoryTemplate; 2] = [
    StoryTemplate {
        statement: "{S} has the {V}.",
        question: "who has the {V}?",
        answer: "{S} has the {V}.",
    },
    StoryTemplate {
        statement: "{S} has the {V}.",
        question: "what does {S} have?",
        answer: "{S} has the {V}.",
    },
];
const EATS: [StoryTemplate; 2] = [
    StoryTemplate {
        statement: "{S} likes {V}.",
        question: "what does {S} like to eat?",
        answer: "the favourite food of {S} is {V}.",
    },
    StoryTemplate {
        statement: "{S} eats {V} every day.",
        question: "what does {S} live on?",
        answer: "the favourite food of {S} is {V}.",
    },
];
const IS_AT: [StoryTemplate; 2] = [
    StoryTemplate {
        statement: "{S} is in {V}.",
        question: "where is {S}?",
        answer: "you find {S} in {V}.",
    },
    StoryTemplate {
        statement: "{S} works in {V}.",
        question: "where do I find {S}?",
        answer: "you find {S} in {V}.",
    },
];
const COMES_FROM: [StoryTemplate; 2] = [
    StoryTemplate {
        statement: "the {S} are from {V}.",
        question: "where do the {S} come from?",
        answer: "we get {S} from {V}.",
    },
    StoryTemplate {
        statement: "{V} has many {S}.",
        question: "can you tell me where to get {S}?",
        answer: "we get {S} from {V}.",
    },
];
const IS_FOR: [StoryTemplate; 2] = [
    StoryTemplate {
        statement: "the {S} are for {V}.",
        question: "what are the {S} good for?",
        answer: "people use {S} for {V}.",
    },
    StoryTemplate {
        statement: "they buy {S} for {V}.",
        question: "can you name a use of the {S}?",
        answer: "people use {S} for {V}.",
    },
];

const LIVES: [StoryTemplate; 2] = [
    StoryTemplate {
        statement: "{S} lives in {V}.",
        question: "where is the home of {S}?",
        answer: "the home of {S} is in {V}.",
    },
    StoryTemplate {
        statement: "{S} has a room in {V}.",
        question: "where does {S} live?",
        answer: "the home of {S} is in {V}.",
    },
];

/// `S` is "eggs in a bag", `T` "eggs", `H` "a bag". The questions resemble those about units.
const COUNTED: [StoryTemplate; 4] = [
    StoryTemplate {
        statement: "somebody counts {V} {S}.",
        question: "what is the number of {S}?",
        answer: "the number of {S} is {V}.",
    },
    StoryTemplate {
        statement: "the teacher counts {V} {S}.",
        question: "how many {T} are in {H}?",
        answer: "the number of {S} is {V}.",
    },
    StoryTemplate {
        statement: "somebody counts {V} {S}.",
        question: "how many {T} are there in {H}?",
        answer: "the number of {S} is {V}.",
    },
    StoryTemplate {
        statement: "the teacher counts {V} {S}.",
        question: "can you name the number of {S}?",
        answer: "the number of {S} is {V}.",
    },
];

/// What somebody reads about: any subject, so that every subject occurs in some answer.
const READS: [StoryTemplate; 2] = [
    StoryTemplate {
        statement: "{S} reads about {V}.",
        question: "what does {S} read about?",
        answer: "{S} reads about {V}.",
    },
    StoryTemplate {
        statement: "{S} reads about {V}.",
        question: "who reads about {V}?",
        answer: "{S} reads about {V}.",
    },
];

/// Where something about a subject is. The story names several subjects, so the answer must copy
/// the question's.
const SHOWS: [StoryTemplate; 3] = [
    StoryTemplate {
        statement: "the book about {S} is in {V}.",
        question: "where is the book about {S}?",
        answer: "the book about {S} is in {V}.",
    },
    StoryTemplate {
        statement: "in {V} there is a picture of {S}.",
        question: "where is the picture of {S}?",
        answer: "the picture of {S} is in {V}.",
    },
    StoryTemplate {
        statement: "they talk about {S} in {V}.",
        question: "where do they talk about {S}?",
        answer: "the talk about {S} is in {V}.",
    },
];
const PAGES: [StoryTemplate; 2] = [
    StoryTemplate {
        statement: "the page about {S} is page {V}.",
        question: "which page is about {S}?",
        answer: "the page about {S} is page {V}.",
    },
    StoryTemplate {
        statement: "page {V} is about {S}.",
        question: "on which page do I find {S}?",
        answer: "the page about {S} is page {V}.",
    },
];

/// A story of two to four sentences, and one or two questions that only the story answers.
struct Story {
    text: String,
    exchanges: Vec<(String, String)>,
}

impl Story {
    fn new(templates: &[StoryTemplate], subjects: &[&str], values: &[&str], rng: &mut Rng) -> Self {
        let count = rng.range(2, 4) as usize;
        let (subject_order, value_order) =
            (rng.permutation(subjects.len()), rng.permutation(values.len()));
        let order = subject_order.into_iter().zip(value_order).take(count);
        let pairs: Vec<(&str, &str)> = order.map(|(s, v)| (subjects[s], values[v])).collect();
        let render = |template: &str, (subject, value): (&str, &str)| {
            let (thing, holder) = subject.split_once(" in ").unwrap_or_default();
            fill(template, &[("S", subject), ("V", value), ("T", thing), ("H", holder)])
        };
        let lines: Vec<String> =
            pairs.iter().map(|pair| render(rng.choose(templates).statement, *pair)).collect();
        let exchanges = (0..rng.range(1, 2))
            .map(|_| {
                let pair = *rng.choose(&pairs);
                let template = rng.choose(templates);
                (render(template.question, pair), render(template.answer, pair))
            })
            .collect();
        Self { text: lines.join(" "), exchanges }
    }

    /// A story about people and things: possession, taste, place, origin, use, number.
    fn about_people_and_things(rng: &mut Rng) -> Self {
        let names: Vec<&str> = PEOPLE.train.iter().map(|person| person.name).collect();
        let things: Vec<&str> = THINGS.train.iter().map(|thing| thing.plural).collect();
        let holders = ["basket", "box", "shop", "kitchen", "bag", "garden"];
        // One holder per thing, so that no story counts the same eggs twice.
        let counted: Vec<String> = things
            .iter()
            .map(|thing| format!("{thing} in a {}", rng.choose_str(&holders)))
            .collect();
        let counted: Vec<&str> = counted.iter().map(String::as_str).collect();
        let numbers = numbers();
        let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
        let (templates, subjects, values) = match rng.range(0, 6) {
            0 => (&HAS[..], &names[..], &things[..]),
            1 => (&EATS[..], &names[..], &FOODS[..]),
            2 => (&IS_AT[..], &names[..], &PLACES[..]),
            3 => (&COMES_FROM[..], &things[..], &PLACES[..]),
            4 => (&LIVES[..], &names[..], &PLACES[..]),
            5 => (&COUNTED[..], &counted[..], &numbers[..]),
            _ => (&IS_FOR[..], &things[..], &PLACES[..]),
        };
        Self::new(templates, subjects, values, rng)
    }

    /// A story about where to read about subjects of the facts.
    fn about_subjects(rng: &mut Rng) -> Self {
        let names: Vec<&str> = PEOPLE.train.iter().map(|person| person.name).collect();
        let mut subjects: Vec<String> = facts().iter().map(topic).collect();
        subjects.dedup();
        let subjects: Vec<&str> = subjects.iter().map(String::as_str).collect();
        match rng.range(0, 2) {
            0 => Self::new(&READS, &names, &subjects, rng),
            1 => Self::new(&SHOWS, &subjects, &PLACES, rng),
            _ => {
                let numbers = numbers();
                let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
                Self::new(&PAGES, &subjects, &numbers, rng)
            }
        }
    }
}

/// The numbers used in stories.
fn numbers() -> Vec<String> {
    (2..40).map(|n: u32| n.to_string()).collect()
}

/// The subject as a topic: "France", "lions", "the century", "wool".
fn topic(fact: &Fact) -> String {
    match fact.attribute {
        _ if !fact.plural.is_empty() => fact.plural.to_owned(),
        Attribute::Unit | Attribute::Measures => format!("the {}", fact.subject),
        _ => fact.subject.to_owned(),
    }
}

/// A document: a story with dialogues about it.
pub(crate) fn about_a_story(rng: &mut Rng) -> String {
    let Story { text, exchanges } = if rng.chance(0.15) {
        Story::about_subjects(rng)
    } else {
        Story::about_people_and_things(rng)
    };
    exchanges.iter().fold(text, |text, (question, answer)| {
        format!("{text} {}", render_exchange(question, answer, rng))
    })
}

/// Reading comprehension for chat: a message with a story and a question, and the reply.
pub(crate) fn reading(rng: &mut Rng) -> (String, String) {
    let story = if rng.chance(0.6) {
        Story::about_subjects(rng)
    } else {
        Story::about_people_and_things(rng)
    };
    let (question, answer) =
        story.exchanges.into_iter().next().expect("every story is asked about");
    (format!("{} {question}", story.text), answer)
}

fn two_people(rng: &mut Rng) -> (Person, Person) {
    let asker = *rng.choose(PEOPLE.train);
    loop {
        let replier = *rng.choose(PEOPLE.train);
        if replier != asker {
            return (asker, replier);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::about_facts;
    use crate::rng::Rng;
    use crate::splits::fact_splits;
    use crate::wording::{render_fact, wording};

    #[test]
    fn no_dialogue_asks_about_a_held_out_fact() {
        let text = about_facts(1, &mut Rng::new("test")).join("\n");
        for fact in fact_splits().train {
            let question = render_fact(wording(fact.attribute).questions[0], &fact, "");
            assert!(text.contains(&question), "{question}");
        }
        for fact in fact_splits().held_out() {
            let wording = wording(fact.attribute);
            for question in wording.questions.iter().chain(wording.held_out_questions) {
                assert!(
                    !text.contains(&render_fact(question, &fact, "")),
                    "{question} {}",
                    fact.subject
                );
            }
        }
    }
}
