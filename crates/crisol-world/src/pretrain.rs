//! Raw text for pre-training: facts in many wordings, quiz lists, dialogues, sums and stories, letters and notices.

use crate::arithmetic::{Problem, chain, sums};
use crate::dice::Dice;
use crate::facts::{ATTRIBUTES, Attribute, Fact, facts};
use crate::splits::{Side, cloze_statement};
use crate::wording::{before_value, say, say_of, wording};
use crate::{dialogues, questions, texts};
use std::iter::repeat_n;

/// How often each fact is told in documents about its subject, and rounds across subjects and along one attribute, in each of
/// which it is told as often as `tellings` says.
const ROUNDS_BY_SUBJECT: usize = 64;
const ROUNDS_ACROSS: usize = 68;
const ROUNDS_BY_ATTRIBUTE: usize = 51;
/// Tables about each subject.
const TABLES: usize = 12;
/// How often each question occurs in a quiz list.
const ROUNDS_OF_QUESTIONS: usize = 3;
/// How often each question that may be answered is answered in a dialogue.
const ROUNDS_OF_DIALOGUES: usize = 5;
/// Dialogues about what the story has just said.
const STORY_DIALOGUES: usize = 4200;
/// How often each single step of arithmetic occurs on a page of sums.
const ROUNDS_OF_SUMS: usize = 20;
/// Documents of connected arithmetic, by form.
const CHAINS: usize = 1500;
const TOLD: usize = 2900;
const SOLVED: usize = 7200;
/// Letters, notices, stories.
const TEXTS: usize = 11_700;
/// Documents kept as test text.
const TEST_DOCUMENTS: usize = 400;

/// Training documents and test documents, each in random order.
pub(crate) fn documents() -> (Vec<String>, Vec<String>) {
    let mut dice = Dice::new("pretrain");
    let mut documents = fact_documents(&mut dice);
    documents.extend(questions::lists(ROUNDS_OF_QUESTIONS, &mut dice));
    documents.extend(dialogues::about_facts(ROUNDS_OF_DIALOGUES, &mut dice));
    documents.extend((0..STORY_DIALOGUES).map(|_| dialogues::about_a_story(&mut dice)));
    documents.extend(sums(ROUNDS_OF_SUMS, &mut dice));
    documents.extend((0..CHAINS).map(|_| chain(&mut dice)));
    for _ in 0..TOLD {
        documents.push(Problem::story(&mut dice).told_step_by_step(&mut dice));
    }
    for _ in 0..SOLVED {
        documents.push(Problem::story(&mut dice).solved(&mut dice));
    }
    documents.extend((0..TEXTS).map(|_| texts::text(&mut dice)));
    // Short letters come up more than once. One copy is enough, and no test document may be a training document.
    documents.sort_unstable();
    documents.dedup();
    dice.shuffle(&mut documents);
    let test = documents.split_off(documents.len() - TEST_DOCUMENTS);
    (documents, test)
}

/// A sample of the text, for fine-tuning that is not to forget: one in fourteen of the documents that are no exercises, and
/// one in eight of the exercises with their solutions. The words of an exercise are those of the chat's problems, and its
/// ending is not; beside updates that have no worked problems in the chat's form, it would undo that form.
pub(crate) fn replay(train: &[String]) -> (Vec<String>, Vec<String>) {
    let is_exercise =
        |document: &&String| document.contains("ow many ") && document.contains(" = ");
    let (exercises, rest): (Vec<&String>, Vec<&String>) = train.iter().partition(is_exercise);
    let sample = |of: Vec<&String>, every| of.into_iter().step_by(every).cloned().collect();
    (sample(rest, 14), sample(exercises, 8))
}

/// A fact with its wordings in random order; each is used as often as every other.
struct Deck {
    fact: Fact,
    statements: Vec<&'static str>,
    next: usize,
}

impl Deck {
    fn new(fact: Fact, dice: &mut Dice) -> Self {
        let held_out = cloze_statement(&fact);
        let wording = wording(fact.attribute);
        let mut statements: Vec<&str> = wording
            .forward
            .iter()
            .chain(wording.backward)
            .copied()
            .filter(|s| *s != held_out)
            .collect();
        dice.shuffle(&mut statements);
        Self { fact, statements, next: 0 }
    }

    fn say(&mut self, dice: &mut Dice) -> String {
        let statement = self.statements[self.next % self.statements.len()];
        self.next += 1;
        say(statement, &self.fact, dice)
    }
}

fn fact_documents(dice: &mut Dice) -> Vec<String> {
    let mut decks: Vec<Deck> = facts().into_iter().map(|fact| Deck::new(fact, dice)).collect();
    let mut documents = Vec::new();
    for subject in subjects(&decks) {
        for _ in 0..ROUNDS_BY_SUBJECT {
            documents.push(about_subject(&mut decks, &subject, dice));
        }
        for _ in 0..TABLES {
            documents.push(table(&decks, &subject, dice));
        }
    }
    for round in 0..ROUNDS_ACROSS {
        let mut order: Vec<usize> = (0..decks.len())
            .flat_map(|i| repeat_n(i, tellings(decks[i].fact.attribute, round)))
            .collect();
        dice.shuffle(&mut order);
        for chunk in order.chunks(dice.range(4, 7) as usize) {
            documents.push(page(&mut decks, chunk, dice));
        }
    }
    for round in 0..ROUNDS_BY_ATTRIBUTE {
        for attribute in ATTRIBUTES.into_iter().flat_map(|a| repeat_n(a, tellings(a, round))) {
            let mut chosen: Vec<usize> =
                (0..decks.len()).filter(|&i| decks[i].fact.attribute == attribute).collect();
            dice.shuffle(&mut chosen);
            for chunk in chosen.chunks(dice.range(4, 7) as usize) {
                documents.push(page(&mut decks, chunk, dice));
            }
        }
    }
    documents
}

/// How often a fact is told in one round across subjects or along its attribute: what is told of 46 countries is learnt sooner
/// than what is told of two dozen units (docs/experiments.md).
fn tellings(attribute: Attribute, round: usize) -> usize {
    use Attribute::{Capital, Continent, Currency, Language, Measures, Neighbour, Unit};
    match attribute {
        Capital | Continent | Currency | Language | Neighbour => {
            usize::from(round.is_multiple_of(2))
        }
        Measures | Unit => 2,
        _ => 1,
    }
}

/// The decks of each subject.
fn subjects(decks: &[Deck]) -> Vec<Vec<usize>> {
    let mut subjects: Vec<Vec<usize>> = Vec::new();
    for (i, deck) in decks.iter().enumerate() {
        match subjects.last_mut() {
            Some(last) if decks[last[0]].fact.subject == deck.fact.subject => last.push(i),
            _ => subjects.push(vec![i]),
        }
    }
    subjects
}

/// Everything about one subject, in random order. After the first sentence "it" may stand for the subject.
fn about_subject(decks: &mut [Deck], subject: &[usize], dice: &mut Dice) -> String {
    let mut order = subject.to_vec();
    dice.shuffle(&mut order);
    let title = match (dice.range(0, 4), decks[order[0]].fact.attribute) {
        (0, Attribute::Unit) => "Measures: ",
        (0, _) => "Did you know? ",
        (1, _) => "From the lexicon: ",
        _ => "",
    };
    let mut text = title.to_owned();
    for (i, &deck) in order.iter().enumerate() {
        if i > 0 {
            text.push(' ');
        }
        if i > 0 && dice.chance(0.25) {
            let fact = decks[deck].fact;
            text.push_str(&say_of(wording(fact.attribute).short, &fact, ""));
        } else {
            text.push_str(&decks[deck].say(dice));
        }
    }
    text
}

/// A page on several subjects.
fn page(decks: &mut [Deck], chosen: &[usize], dice: &mut Dice) -> String {
    let gap = dice.word(&[" ", " ", " ", "\n"]);
    let sentences: Vec<String> = chosen.iter().map(|&deck| decks[deck].say(dice)).collect();
    sentences.join(gap)
}

/// A subject as a small table.
fn table(decks: &[Deck], subject: &[usize], dice: &mut Dice) -> String {
    let mut order = subject.to_vec();
    dice.shuffle(&mut order);
    let mut text = say_of("{S}", &decks[order[0]].fact, "");
    for deck in order {
        let fact = decks[deck].fact;
        text.push_str(&say_of(&format!("\n{}", wording(fact.attribute).entry), &fact, ""));
    }
    text
}

/// Facts to complete, in the one wording that pre-training keeps back: the prompt and the value. Pre-training tells all
/// facts, so here the splits share out the statements.
pub(crate) fn cloze(side: Side, count: usize) -> Vec<(String, &'static str)> {
    let mut dice = Dice::new("cloze");
    let mut facts = facts();
    dice.shuffle(&mut facts);
    let skipped = if side == Side::Dev { 0 } else { count };
    facts
        .iter()
        .skip(skipped)
        .take(count)
        .map(|fact| {
            let prompt =
                before_value(cloze_statement(fact), fact).expect("cloze statements have a value");
            (prompt, fact.value)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::documents;
    use crate::facts::facts;
    use crate::wording::{say_of, wording};
    use crate::words::PEOPLE;
    use std::collections::HashMap;

    /// "Extractable" needs many showings in many wordings (see the module `wording`).
    #[test]
    fn every_fact_is_told_often_in_many_wordings_and_in_both_orders() {
        let (train, _) = documents();
        let mut sentences: HashMap<String, usize> = HashMap::new();
        for document in &train {
            let document = document.replace("Did you know? ", "").replace("From the lexicon: ", "");
            for sentence in document.split_inclusive(['.', '\n']) {
                *sentences.entry(sentence.trim().to_owned()).or_default() += 1;
            }
        }
        let count = |sentence: &str| sentences.get(sentence).copied().unwrap_or(0);
        for fact in facts() {
            let told = |statements: &[&str]| -> Vec<usize> {
                let count_all = |statement: &&str| {
                    if !statement.contains("{P}") {
                        return count(&say_of(statement, &fact, ""));
                    }
                    let people = PEOPLE.train.iter().chain(PEOPLE.dev).chain(PEOPLE.test);
                    people.map(|person| count(&say_of(statement, &fact, person.name))).sum()
                };
                statements.iter().map(count_all).filter(|&times| times > 0).collect()
            };
            let wording = wording(fact.attribute);
            let (forward, backward) = (told(wording.forward), told(wording.backward));
            let times: usize = forward.iter().chain(&backward).sum();
            let name = format!("{} {:?}", fact.subject, fact.attribute);
            assert!(times >= 60, "{name} is told {times} times");
            assert!(forward.len() + backward.len() >= 15, "{name} has too few wordings");
            assert!(
                forward.iter().sum::<usize>() >= 20 && backward.iter().sum::<usize>() >= 20,
                "{name}"
            );
            assert!(
                forward.len() < wording.forward.len(),
                "{name}: no wording is held out for the cloze"
            );
        }
    }
}
