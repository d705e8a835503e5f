//! Word problems of several steps with a verifiable answer.
//!
//! A problem counts one person's things. The running value stays within 2..=60; a step adds or
//! subtracts 2..=9, and the first may be a product up to 6 x 9. Pre-training shows each possible
//! step many times (`sums.rs`), so even a tiny model knows it.

use crate::rng::Rng;
use crate::solution::{Operation, Problem, Solution, Step, as_sentences};
use crate::splits::{Pool, Split, split_of_problem};
use crate::words::{PEOPLE, Person, THINGS, Thing, fill};

/// Bounds of the running value. At least two, because "1 apples" is not English.
const MIN_VALUE: u32 = 2;
const MAX_VALUE: u32 = 60;
/// Largest number added or subtracted.
const MAX_OPERAND: u32 = 9;
/// Smallest number added or subtracted.
const MIN_OPERAND: u32 = 2;
/// Largest first factor of a product.
const MAX_BOXES: u32 = 6;
/// Share of the sentences of a held-out problem that use a held-out wording.
const HELD_OUT_WORDINGS: f64 = 0.35;

const START: Pool<&str> = Pool {
    train: &["{P} has {n} {o}."],
    dev: &["{P} starts with {n} {o}.", "{P} owns {n} {o}."],
    test: &["{P} begins with {n} {o}.", "{P} keeps {n} {o}."],
};
const PRODUCT: Pool<&str> = Pool {
    train: &["{P} has {m} boxes with {n} {o} each.", "{P} has {m} bags with {n} {o} each."],
    dev: &[
        "{P} fills {m} baskets with {n} {o} each.",
        "{P} has {m} boxes with {n} {o} in each box.",
    ],
    test: &[
        "{P} packs {m} crates with {n} {o} each.",
        "{P} has {m} boxes with {n} {o} in every box.",
    ],
};
const ADD: Pool<&str> = Pool {
    train: &[
        "{he} gets {n} more.",
        "{he} finds {n} more.",
        "{he} buys {n} more.",
        "{Q} gives {him} {n} more.",
    ],
    dev: &["{he} receives {n} more.", "{Q} brings {him} {n} more."],
    test: &["{he} picks up {n} more.", "{Q} sends {him} {n} more."],
};
const SUBTRACT: Pool<&str> = Pool {
    train: &["{he} gives {n} to {Q}.", "{he} loses {n}.", "{he} sells {n}."],
    dev: &["{he} hands {n} to {Q}.", "{he} throws {n} away."],
    test: &["{he} drops {n}.", "{he} lends {n} to {Q}."],
};
const SUBTRACT_FOOD: Pool<&str> = Pool {
    train: &["{he} gives {n} to {Q}.", "{he} loses {n}.", "{he} sells {n}.", "{he} eats {n}."],
    ..SUBTRACT
};
const CONNECTIVES: [&str; 5] = ["", "", "then ", "after that ", "later "];
const QUESTION: Pool<&str> = Pool {
    train: &[
        "how many {o} does {P} have now?",
        "how many {o} does {he} have in the end?",
        "how many {o} are there now?",
    ],
    dev: &["how many {o} does {P} own now?", "how many {o} are left in the end?"],
    test: &["how many {o} has {P} got now?", "how many {o} remain in the end?"],
};

/// A word problem and what it is about.
pub(crate) struct WordProblem {
    /// The start, then one sentence per step. A product is start and first step in one sentence.
    sentences: Vec<String>,
    question: String,
    solution: Solution,
    starts_with_product: bool,
    person: Person,
    thing: Thing,
}

impl WordProblem {
    /// A problem of three or four steps for one split.
    ///
    /// Held-out problems have held-out people, things and numbers, and some held-out wordings.
    pub(crate) fn long(split: Split, rng: &mut Rng) -> Problem {
        Self::new(steps_of_split(split, &[3, 4], rng), split, rng).problem()
    }

    /// A problem of these steps for one split.
    pub(crate) fn new(solution: Solution, split: Split, rng: &mut Rng) -> Self {
        let [person, other] = two_people(PEOPLE.get(split), rng);
        let thing = *rng.choose(THINGS.get(split));
        let wording = |pool: &Pool<&'static str>, rng: &mut Rng| {
            let split = if rng.chance(HELD_OUT_WORDINGS) { split } else { Split::Train };
            rng.choose_str(pool.get(split))
        };
        Self::from_steps(solution, person, other, thing, wording, rng)
    }

    /// A problem for pre-training: all people, things and wordings, but no held-out numbers.
    ///
    /// It may have a single step: finding each step's number is hard to learn from long problems.
    pub(crate) fn story(rng: &mut Rng) -> Self {
        let solution = steps_of_split(Split::Train, &[1, 2, 3, 4], rng);
        let held_out_cast = rng.chance(0.4);
        let [person, other] = if held_out_cast {
            two_people(if rng.chance(0.5) { PEOPLE.dev } else { PEOPLE.test }, rng)
        } else {
            two_people(PEOPLE.train, rng)
        };
        let held_out_thing = held_out_cast && rng.chance(0.8);
        let thing = *if held_out_thing { THINGS.held_out(rng) } else { rng.choose(THINGS.train) };
        let wording = |pool: &Pool<&'static str>, rng: &mut Rng| {
            if rng.chance(0.45) { *pool.held_out(rng) } else { rng.choose_str(pool.train) }
        };
        Self::from_steps(solution, person, other, thing, wording, rng)
    }

    fn from_steps(
        solution: Solution,
        person: Person,
        other: Person,
        thing: Thing,
        wording: impl Fn(&Pool<&'static str>, &mut Rng) -> &'static str,
        rng: &mut Rng,
    ) -> Self {
        let sentence = |template: &str, connective: &str, m: u32, n: u32| {
            let (m, n) = (m.to_string(), n.to_string());
            fill(
                &format!("{connective}{template}"),
                &[
                    ("P", person.name),
                    ("Q", other.name),
                    ("he", person.subject()),
                    ("him", person.object()),
                    ("o", thing.plural),
                    ("m", &m),
                    ("n", &n),
                ],
            )
        };
        let steps = &solution.asked;
        let first = steps[0];
        let starts_with_product = first.operation == Operation::Multiply;
        let mut sentences = Vec::with_capacity(steps.len() + 1);
        if starts_with_product {
            let template = wording(&PRODUCT, rng);
            sentences.push(sentence(template, "", first.left, first.right));
        } else {
            sentences.push(sentence(wording(&START, rng), "", 0, first.left));
        }
        for step in &steps[usize::from(starts_with_product)..] {
            let template = match (step.operation, thing.food) {
                (Operation::Subtract, true) => wording(&SUBTRACT_FOOD, rng),
                (Operation::Subtract, false) => wording(&SUBTRACT, rng),
                _ => wording(&ADD, rng),
            };
            sentences.push(sentence(template, rng.choose_str(&CONNECTIVES), 0, step.right));
        }
        let question = sentence(wording(&QUESTION, rng), "", 0, 0);
        Self { sentences, question, solution, starts_with_product, person, thing }
    }

    fn prompt(&self) -> String {
        format!("{} {}", self.sentences.join(" "), self.question)
    }

    /// The problem as the user states it, with its solution.
    pub(crate) fn problem(self) -> Problem {
        Problem { prompt: self.prompt(), solution: self.solution }
    }

    /// A story for pre-training: each sentence is followed by its equation.
    pub(crate) fn as_story(&self, rng: &mut Rng) -> String {
        let mut text = self.sentences[0].clone();
        let mut steps = self.solution.asked.iter();
        let push_step = |text: &mut String, step: &Step, rng: &mut Rng| {
            text.push(' ');
            text.push_str(&step.sentence());
            if rng.chance(0.5) {
                let now = rng.choose_str(&[
                    "now {he} has {n} {o}.",
                    "{he} has {n} {o} now.",
                    "that makes {n} {o}.",
                ]);
                text.push(' ');
                text.push_str(&self.fill(now, step.result));
            }
        };
        if self.starts_with_product {
            push_step(&mut text, steps.next().expect("a problem has steps"), rng);
        }
        for (sentence, step) in self.sentences[1..].iter().zip(steps) {
            text.push(' ');
            text.push_str(sentence);
            push_step(&mut text, step, rng);
        }
        text
    }

    /// A solved exercise for pre-training: the problem, all equations, the result in words.
    pub(crate) fn as_solved_exercise(&self, rng: &mut Rng) -> String {
        let result = rng.choose_str(&[
            "the answer is {n}.",
            "so {P} has {n} {o}.",
            "{P} has {n} {o} now.",
            "there are {n} {o}.",
            "the result is {n}.",
        ]);
        let break_line = rng.choose_str(&[" ", "\n"]);
        format!(
            "{}{break_line}{}{break_line}{}",
            self.prompt(),
            as_sentences(&self.solution.worked),
            self.fill(result, self.solution.answer())
        )
    }

    fn fill(&self, template: &str, n: u32) -> String {
        fill(
            template,
            &[
                ("P", self.person.name),
                ("he", self.person.subject()),
                ("o", self.thing.plural),
                ("n", &n.to_string()),
            ],
        )
    }
}

/// Two different people.
fn two_people(people: &[Person], rng: &mut Rng) -> [Person; 2] {
    let order = rng.permutation(people.len());
    [people[order[0]], people[order[1]]]
}

/// A random problem's steps for one split; their number is one of `lengths`.
pub(crate) fn steps_of_split(split: Split, lengths: &[usize], rng: &mut Rng) -> Solution {
    let length = *rng.choose(lengths);
    loop {
        let solution = Solution::new(random_steps(length, rng));
        if split_of_problem(&solution.key()) == split {
            return solution;
        }
    }
}

/// `length` random steps; each starts from the previous result.
fn random_steps(length: usize, rng: &mut Rng) -> Vec<Step> {
    let mut steps = Vec::with_capacity(length);
    if rng.chance(0.3) {
        steps.push(random_product(rng));
    } else {
        let start = rng.range(3, 20);
        steps.push(random_step_from(start, rng));
    }
    while steps.len() < length {
        let value = steps.last().map_or(0, |step: &Step| step.result);
        steps.push(random_step_from(value, rng));
    }
    steps
}

fn random_product(rng: &mut Rng) -> Step {
    loop {
        let step = Step::new(rng.range(2, MAX_BOXES), Operation::Multiply, rng.range(2, 9));
        if step.result <= MAX_VALUE {
            return step;
        }
    }
}

fn random_step_from(value: u32, rng: &mut Rng) -> Step {
    loop {
        let by = rng.range(MIN_OPERAND, MAX_OPERAND);
        if let Some(step) = Step::add_or_subtract(value, by, MIN_VALUE..=MAX_VALUE, rng) {
            return step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_chain_and_stay_within_bounds() {
        let mut rng = Rng::new("test");
        for _ in 0..500 {
            let solution = WordProblem::long(Split::Train, &mut rng).solution;
            let steps = &solution.asked;
            assert!((3..=4).contains(&steps.len()) && steps.len() == solution.worked.len());
            for pair in steps.windows(2) {
                assert_eq!(pair[0].result, pair[1].left);
            }
            assert!(steps.iter().all(|step| (MIN_VALUE..=MAX_VALUE).contains(&step.result)));
            assert!(split_of_problem(&solution.key()) == Split::Train);
        }
    }
}
