//! Sums, and word problems of several steps with a verifiable answer.
//!
//! A problem counts one person's things. The running value stays within 2..=60; a step adds or
//! subtracts 2..=9, and the first may be a product up to 6 x 9. Pre-training shows each possible
//! step many times, so even a tiny model knows it.

use crate::rng::Rng;
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

/// The operation of a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
}

impl Operation {
    fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract => "-",
            Self::Multiply => "x",
        }
    }
}

/// One step: `left operation right = result`.
#[derive(Clone, Copy)]
pub(crate) struct Step {
    left: u32,
    operation: Operation,
    right: u32,
    result: u32,
}

impl Step {
    fn new(left: u32, operation: Operation, right: u32) -> Self {
        let result = match operation {
            Operation::Add => left + right,
            Operation::Subtract => left - right,
            Operation::Multiply => left * right,
        };
        Self { left, operation, right, result }
    }

    /// The step as "7 + 5 = 12".
    fn equation(&self) -> String {
        format!("{} {} {} = {}", self.left, self.operation.sign(), self.right, self.result)
    }

    /// The step as "7 + 5 = 12."
    fn sentence(&self) -> String {
        self.equation() + "."
    }
}

/// A word problem with its solution.
pub(crate) struct Problem {
    /// The start, then one sentence per step. A product is start and first step in one sentence.
    sentences: Vec<String>,
    question: String,
    steps: Vec<Step>,
    starts_with_product: bool,
    person: Person,
    thing: Thing,
}

impl Problem {
    /// A problem of three or four steps for one split.
    ///
    /// Held-out problems have held-out people, things and numbers, and some held-out wordings.
    pub(crate) fn new(split: Split, rng: &mut Rng) -> Self {
        let steps = steps_of_split(split, &[3, 4], rng);
        let [person, other] = two_people(PEOPLE.get(split), rng);
        let thing = *rng.choose(THINGS.get(split));
        let wording = |pool: &Pool<&'static str>, rng: &mut Rng| {
            let split = if rng.chance(HELD_OUT_WORDINGS) { split } else { Split::Train };
            rng.choose_str(pool.get(split))
        };
        Self::from_steps(steps, person, other, thing, wording, rng)
    }

    /// A problem for pre-training: all people, things and wordings, but no held-out numbers.
    ///
    /// It may have a single step: finding each step's number is hard to learn from long problems.
    pub(crate) fn story(rng: &mut Rng) -> Self {
        let steps = steps_of_split(Split::Train, &[1, 2, 3, 4], rng);
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
        Self::from_steps(steps, person, other, thing, wording, rng)
    }

    fn from_steps(
        steps: Vec<Step>,
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
        Self { sentences, question, steps, starts_with_product, person, thing }
    }

    /// The problem as the user states it.
    pub(crate) fn prompt(&self) -> String {
        format!("{} {}", self.sentences.join(" "), self.question)
    }

    /// The result of the last step.
    pub(crate) fn answer(&self) -> u32 {
        self.steps.last().expect("a problem has steps").result
    }

    /// The final sentence, "The answer is 17."
    pub(crate) fn answer_sentence(&self) -> String {
        answer_sentence(self.answer())
    }

    /// Every step with its result between think tags, then the answer.
    pub(crate) fn step_by_step_solution(&self) -> String {
        format!("<think>{}</think>{}", think_text(&self.steps), self.answer_sentence())
    }

    /// All operations in one equation, without intermediate results, then the answer.
    pub(crate) fn shortcut_solution(&self) -> String {
        let mut line = self.steps[0].left.to_string();
        for step in &self.steps {
            line.extend([" ", step.operation.sign(), " ", &step.right.to_string()]);
        }
        format!("<think>{line} = {}</think>{}", self.answer(), self.answer_sentence())
    }

    /// A step-by-step solution with one wrong step, or with right steps and a wrong answer.
    pub(crate) fn wrong_solution(&self, rng: &mut Rng) -> String {
        if rng.chance(0.5) {
            return format!(
                "<think>{}</think>{}",
                think_text(&self.steps),
                answer_sentence(wrong_number(self.answer(), rng))
            );
        }
        loop {
            let steps = self.steps_with_a_mistake(rng);
            let answer = steps.last().expect("a problem has steps").result;
            if answer != self.answer() {
                return format!("<think>{}</think>{}", think_text(&steps), answer_sentence(answer));
            }
        }
    }

    /// The steps with a wrong result in one; the following steps continue from it.
    fn steps_with_a_mistake(&self, rng: &mut Rng) -> Vec<Step> {
        let mut steps = self.steps.clone();
        let wrong = rng.range(0, steps.len() as u32 - 1) as usize;
        steps[wrong].result = wrong_number(steps[wrong].result, rng);
        for i in wrong + 1..steps.len() {
            let left = steps[i - 1].result;
            let right = if steps[i].operation == Operation::Subtract {
                steps[i].right.min(left)
            } else {
                steps[i].right
            };
            steps[i] = Step::new(left, steps[i].operation, right);
        }
        steps
    }

    /// A wrong answer without any steps.
    pub(crate) fn wrong_answer(&self, rng: &mut Rng) -> String {
        answer_sentence(self.answer() + rng.range(1, 9))
    }

    /// A story for pre-training: each sentence is followed by its equation.
    pub(crate) fn as_story(&self, rng: &mut Rng) -> String {
        let mut text = self.sentences[0].clone();
        let mut steps = self.steps.iter();
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
            as_sentences(&self.steps),
            self.fill(result, self.answer())
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

/// Random steps of a problem of one split; their number is one of `lengths`.
fn steps_of_split(split: Split, lengths: &[usize], rng: &mut Rng) -> Vec<Step> {
    let length = *rng.choose(lengths);
    loop {
        let steps = random_steps(length, rng);
        if split_of_problem(&problem_key(&steps)) == split {
            return steps;
        }
    }
}

/// A number other than `value`, at most nine away.
fn wrong_number(value: u32, rng: &mut Rng) -> u32 {
    let by = rng.range(1, 9);
    if rng.chance(0.5) && value > by { value - by } else { value + by }
}

fn answer_sentence(answer: u32) -> String {
    format!("The answer is {answer}.")
}

/// The steps as sentences: "7 + 5 = 12. 12 - 3 = 9."
fn as_sentences(steps: &[Step]) -> String {
    steps.iter().map(Step::sentence).collect::<Vec<_>>().join(" ")
}

/// The steps between think tags: "7 + 5 = 12, 12 - 3 = 9".
///
/// Commas distinguish them from pre-training's exercises. After a full stop, a model may continue
/// with an exercise's last sentence instead of the closing tag.
fn think_text(steps: &[Step]) -> String {
    steps.iter().map(Step::equation).collect::<Vec<_>>().join(", ")
}

/// The key that decides a problem's split: start and operations, such as "12+5-3".
///
/// A product is represented by its result, so 3 x 9 and 9 x 3 have equal keys.
fn problem_key(steps: &[Step]) -> String {
    let first = steps[0];
    let starts_with_product = first.operation == Operation::Multiply;
    let mut key = if starts_with_product { first.result } else { first.left }.to_string();
    for step in &steps[usize::from(starts_with_product)..] {
        key.push_str(step.operation.sign());
        key.push_str(&step.right.to_string());
    }
    key
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
        if rng.chance(0.5) {
            if value + by <= MAX_VALUE {
                return Step::new(value, Operation::Add, by);
            }
        } else if value >= by + MIN_VALUE {
            return Step::new(value, Operation::Subtract, by);
        }
    }
}

/// Pages of unconnected sums for pre-training; every possible step occurs `rounds` times.
pub(crate) fn sums(rounds: usize, rng: &mut Rng) -> Vec<String> {
    let mut all: Vec<Step> = Vec::new();
    for value in MIN_VALUE..=MAX_VALUE {
        for by in MIN_OPERAND..=MAX_OPERAND {
            if value + by <= MAX_VALUE {
                all.push(Step::new(value, Operation::Add, by));
            }
            if value >= by + MIN_VALUE {
                all.push(Step::new(value, Operation::Subtract, by));
            }
        }
    }
    for left in 2..=MAX_BOXES {
        all.extend((2..=9).map(|right| Step::new(left, Operation::Multiply, right)));
    }
    let mut pages = Vec::new();
    for _ in 0..rounds {
        rng.shuffle(&mut all);
        for steps in all.chunks(rng.range(5, 7) as usize) {
            let title = rng.choose_str(&["", "", "Sums:\n", "Homework:\n", "On the board:\n"]);
            let lines: Vec<String> = steps.iter().map(Step::sentence).collect();
            pages.push(format!("{title}{}", lines.join(rng.choose_str(&[" ", "\n"]))));
        }
    }
    pages
}

/// A chain of sums for pre-training; each starts from the previous result.
pub(crate) fn chain(rng: &mut Rng) -> String {
    let length = rng.range(3, 7) as usize;
    loop {
        let steps = random_steps(length, rng);
        if split_of_problem(&problem_key(&steps)) == Split::Train {
            let title = rng.choose_str(&["", "", "Step by step: ", "Solution: "]);
            return format!("{title}{}", as_sentences(&steps));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_VALUE, MIN_VALUE, Problem, problem_key};
    use crate::rng::Rng;
    use crate::splits::{Split, split_of_problem};

    #[test]
    fn steps_chain_and_stay_within_bounds() {
        let mut rng = Rng::new("test");
        for _ in 0..500 {
            let problem = Problem::new(Split::Train, &mut rng);
            assert!((3..=4).contains(&problem.steps.len()));
            for pair in problem.steps.windows(2) {
                assert_eq!(pair[0].result, pair[1].left);
            }
            assert!(
                problem.steps.iter().all(|step| (MIN_VALUE..=MAX_VALUE).contains(&step.result))
            );
            assert!(split_of_problem(&problem_key(&problem.steps)) == Split::Train);
        }
    }

    #[test]
    fn wrong_solutions_are_wrong() {
        let mut rng = Rng::new("test");
        for _ in 0..500 {
            let problem = Problem::new(Split::Dev, &mut rng);
            assert!(split_of_problem(&problem_key(&problem.steps)) == Split::Dev);
            let right = problem.answer_sentence();
            assert!(!problem.wrong_answer(&mut rng).ends_with(&right));
            let wrong = problem.wrong_solution(&mut rng);
            assert_ne!(wrong, problem.step_by_step_solution());
        }
    }
}
