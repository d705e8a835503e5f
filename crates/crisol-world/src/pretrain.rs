//! Raw text for pre-training: facts in many wordings, quiz lists, dialogues, sums and stories,
//! letters and notices.

use crate::arithmetic::WordProblem;
use crate::facts::{ATTRIBUTES, Attribute, Fact, facts};
use crate::rng::Rng;
use crate::splits::{Split, cloze_statement};
use crate::wording::{before_value, render_fact, render_fact_with_person, wording};
use crate::{dialogues, questions, short_problems, sums, texts};
use std::iter::repeat_n;

/// Documents about each subject; each states all of its facts once.
const ROUNDS_BY_SUBJECT: usize = 64;
/// Rounds over all facts in random order; `repetitions` says how often each is stated.
const ROUNDS_ACROSS: usize = 68;
/// Rounds over the facts of each attribute; `repetitions` says how often each is stated.
const ROUNDS_BY_ATTRIBUTE: usize = 51;
/// Tables of each subject.
const TABLES: usize = 12;
/// How often each question is put into a quiz list.
const ROUNDS_OF_QUESTIONS: usize = 3;
/// How often each question about a train fact is answered in a dialogue.
const ROUNDS_OF_DIALOGUES: usize = 5;
/// Stories with dialogues about them.
const STORY_DIALOGUES: usize = 4200;
/// How often each arithmetic step occurs on the pages of sums.
const ROUNDS_OF_SUMS: usize = 10;
/// Documents with several connected steps, by form.
const CHAINS: usize = 1500;
const ARITHMETIC_STORIES: usize = 2900;
const SOLVED_EXERCISES: usize = 7200;
const SHORT_EXERCISES: usize = 10_000;
/// Letters, notices and stories.
const TEXTS: usize = 11_700;
/// Documents of the test split.
const TEST_DOCUMENTS: usize = 400;

/// Training documents and test documents, each in random order.
pub(crate) fn documents() -> (Vec<String>, Vec<String>) {
    let mut rng = Rng::new("pretrain");
    let mut documents = fact_documents(&mut rng);
    documents.extend(questions::training_lists(ROUNDS_OF_QUESTIONS, &mut rng));
    documents.extend(dialogues::about_facts(ROUNDS_OF_DIALOGUES, &mut rng));
    documents.extend((0..STORY_DIALOGUES).map(|_| dialogues::about_a_story(&mut rng)));
    documents.extend(sums::pages(ROUNDS_OF_SUMS, &mut rng));
    documents.extend((0..CHAINS).map(|_| sums::chain(&mut rng)));
    for _ in 0..ARITHMETIC_STORIES {
        documents.push(WordProblem::story(&mut rng).as_story(&mut rng));
    }
    for _ in 0..SOLVED_EXERCISES {
        documents.push(WordProblem::story(&mut rng).as_solved_exercise(&mut rng));
    }
    documents.extend((0..SHORT_EXERCISES).map(|_| short_problems::as_solved_exercise(&mut rng)));
    documents.extend((0..TEXTS).map(|_| texts::text(&mut rng)));
    // Short letters occur more than once; a copy must not end up in the other split.
    documents.sort_unstable();
    documents.dedup();
    rng.shuffle(&mut documents);
    let test = documents.split_off(documents.len() - TEST_DOCUMENTS);
    (documents, test)
}

/// Samples for replay in fine-tuning: 1 in 10 ordinary documents, and 1 in 8 solved exercises.
///
/// The two are separate because a solved exercise resembles a chat problem with another ending.
/// Replayed without chat problems in the batch, it would undo the chat's form.
pub(crate) fn replay(train: &[String]) -> (Vec<String>, Vec<String>) {
    let is_exercise = |document: &&String| document.contains('?') && document.contains(" = ");
    let (exercises, rest): (Vec<&String>, Vec<&String>) = train.iter().partition(is_exercise);
    let sample = |from: Vec<&String>, every| from.into_iter().step_by(every).cloned().collect();
    (sample(rest, 10), sample(exercises, 8))
}

/// A fact with its wordings in random order, used in turn.
struct Deck {
    fact: Fact,
    statements: Vec<&'static str>,
    next: usize,
}

impl Deck {
    fn new(fact: Fact, rng: &mut Rng) -> Self {
        let held_out = cloze_statement(&fact);
        let wording = wording(fact.attribute);
        let mut statements: Vec<&str> = wording
            .forward
            .iter()
            .chain(wording.backward)
            .copied()
            .filter(|s| *s != held_out)
            .collect();
        rng.shuffle(&mut statements);
        Self { fact, statements, next: 0 }
    }

    fn next_sentence(&mut self, rng: &mut Rng) -> String {
        let statement = self.statements[self.next % self.statements.len()];
        self.next += 1;
        render_fact_with_person(statement, &self.fact, rng)
    }
}

fn fact_documents(rng: &mut Rng) -> Vec<String> {
    let mut decks: Vec<Deck> = facts().into_iter().map(|fact| Deck::new(fact, rng)).collect();
    let mut documents = Vec::new();
    for subject in subjects(&decks) {
        for _ in 0..ROUNDS_BY_SUBJECT {
            documents.push(about_subject(&mut decks, &subject, rng));
        }
        for _ in 0..TABLES {
            documents.push(table(&decks, &subject, rng));
        }
    }
    for round in 0..ROUNDS_ACROSS {
        let mut order: Vec<usize> = (0..decks.len())
            .flat_map(|i| repeat_n(i, repetitions(decks[i].fact.attribute, round)))
            .collect();
        rng.shuffle(&mut order);
        for chunk in order.chunks(rng.range(4, 7) as usize) {
            documents.push(page(&mut decks, chunk, rng));
        }
    }
    for round in 0..ROUNDS_BY_ATTRIBUTE {
        for attribute in ATTRIBUTES.into_iter().flat_map(|a| repeat_n(a, repetitions(a, round))) {
            let mut chosen: Vec<usize> =
                (0..decks.len()).filter(|&i| decks[i].fact.attribute == attribute).collect();
            rng.shuffle(&mut chosen);
            for chunk in chosen.chunks(rng.range(4, 7) as usize) {
                documents.push(page(&mut decks, chunk, rng));
            }
        }
    }
    documents
}

/// How often a round states each fact of `attribute`.
///
/// Attributes of 47 countries are learnt sooner than those of two dozen units
/// (docs/experiments.md), so they are stated in every second round only.
fn repetitions(attribute: Attribute, round: usize) -> usize {
    use Attribute::{Capital, Continent, Currency, Language, Measures, Neighbour, Unit};
    match attribute {
        Capital | Continent | Currency | Language | Neighbour => {
            usize::from(round.is_multiple_of(2))
        }
        Measures | Unit => 2,
        _ => 1,
    }
}

/// Indices of the decks of each subject.
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

/// All facts of one subject, in random order. Later sentences may call the subject "it".
fn about_subject(decks: &mut [Deck], subject: &[usize], rng: &mut Rng) -> String {
    let mut order = subject.to_vec();
    rng.shuffle(&mut order);
    let title = match (rng.range(0, 4), decks[order[0]].fact.attribute) {
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
        if i > 0 && rng.chance(0.25) {
            let fact = decks[deck].fact;
            text.push_str(&render_fact(wording(fact.attribute).pronoun_statement, &fact, ""));
        } else {
            text.push_str(&decks[deck].next_sentence(rng));
        }
    }
    text
}

/// A page of facts of several subjects.
fn page(decks: &mut [Deck], chosen: &[usize], rng: &mut Rng) -> String {
    let gap = rng.choose_str(&[" ", " ", " ", "\n"]);
    let sentences: Vec<String> =
        chosen.iter().map(|&deck| decks[deck].next_sentence(rng)).collect();
    sentences.join(gap)
}

/// The facts of one subject as a small table.
fn table(decks: &[Deck], subject: &[usize], rng: &mut Rng) -> String {
    let mut order = subject.to_vec();
    rng.shuffle(&mut order);
    let mut text = render_fact("{S}", &decks[order[0]].fact, "");
    for deck in order {
        let fact = decks[deck].fact;
        text.push_str(&render_fact(&format!("\n{}", wording(fact.attribute).table_row), &fact, ""));
    }
    text
}

/// Facts to complete in the wording held out of pre-training: prompt and value.
///
/// Pre-training states every fact, so the splits divide the facts among them at random.
pub(crate) fn cloze(split: Split, count: usize) -> Vec<(String, &'static str)> {
    let mut rng = Rng::new("cloze");
    let mut facts = facts();
    rng.shuffle(&mut facts);
    let skipped = if split == Split::Dev { 0 } else { count };
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
    use crate::wording::{render_fact, wording};
    use crate::words::PEOPLE;
    use std::collections::HashMap;

    /// Facts are extractable only after many statements in many wordings (see `wording`).
    #[test]
    fn every_fact_is_stated_often_in_many_wordings_and_in_both_orders() {
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
            let counts = |statements: &[&str]| -> Vec<usize> {
                let count_all = |statement: &&str| {
                    if !statement.contains("{P}") {
                        return count(&render_fact(statement, &fact, ""));
                    }
                    let people = PEOPLE.train.iter().chain(PEOPLE.dev).chain(PEOPLE.test);
                    people.map(|person| count(&render_fact(statement, &fact, person.name))).sum()
                };
                statements.iter().map(count_all).filter(|&times| times > 0).collect()
            };
            let wording = wording(fact.attribute);
            let (forward, backward) = (counts(wording.forward), counts(wording.backward));
            let times: usize = forward.iter().chain(&backward).sum();
            let name = format!("{} {:?}", fact.subject, fact.attribute);
            assert!(times >= 60, "{name} is stated {times} times");
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
