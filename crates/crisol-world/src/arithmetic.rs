//! Sums, and word problems of several steps with an answer that can be checked.
//!
//! A problem follows one person and one kind of thing. The running number stays within 2..=60 and each step adds
//! or takes away 2..=9 (a problem may start with a product up to 6 x 9), so that every single step is a fact the
//! tiny model has met many times.

use crate::dice::Dice;
use crate::splits::{Pool, Side, side_of_tuple};
use crate::words::{PEOPLE, Person, THINGS, Thing, fill};

/// Bounds of the running number. Two and more, because "1 apples" is not English.
const LOWEST: u32 = 2;
const HIGHEST: u32 = 60;
/// Largest number that is added or taken away.
const LARGEST_OPERAND: u32 = 9;
/// Smallest one: "1 more" teaches little.
const SMALLEST_OPERAND: u32 = 2;
/// Most boxes of a product.
const MAX_BOXES: u32 = 6;
/// Share of the wordings of a held-out problem that chat training never uses.
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
const TAKE: Pool<&str> = Pool {
    train: &["{he} gives {n} to {Q}.", "{he} loses {n}.", "{he} sells {n}."],
    dev: &["{he} hands {n} to {Q}.", "{he} throws {n} away."],
    test: &["{he} drops {n}.", "{he} lends {n} to {Q}."],
};
const TAKE_FOOD: Pool<&str> = Pool {
    train: &["{he} gives {n} to {Q}.", "{he} loses {n}.", "{he} sells {n}.", "{he} eats {n}."],
    ..TAKE
};
const LINKS: [&str; 5] = ["", "", "then ", "after that ", "later "];
const QUESTION: Pool<&str> = Pool {
    train: &[
        "how many {o} does {P} have now?",
        "how many {o} does {he} have in the end?",
        "how many {o} are there now?",
    ],
    dev: &["how many {o} does {P} own now?", "how many {o} are left in the end?"],
    test: &["how many {o} has {P} got now?", "how many {o} remain in the end?"],
};

/// What a step does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Take,
    Times,
}

impl Operation {
    fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Take => "-",
            Self::Times => "x",
        }
    }
}

/// One step: `left sign right = result`.
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
            Operation::Take => left - right,
            Operation::Times => left * right,
        };
        Self { left, operation, right, result }
    }

    /// "7 + 5 = 12"
    fn equation(&self) -> String {
        format!("{} {} {} = {}", self.left, self.operation.sign(), self.right, self.result)
    }

    /// "7 + 5 = 12."
    fn sentence(&self) -> String {
        self.equation() + "."
    }
}

/// A word problem with its solution.
pub(crate) struct Problem {
    /// One sentence for the start and one per further step. A start with a product is itself the first step.
    sentences: Vec<String>,
    question: String,
    steps: Vec<Step>,
    starts_with_product: bool,
    person: Person,
    thing: Thing,
}

impl Problem {
    /// A new problem of three or four steps for one split. Held-out problems have held-out people, things and numbers;
    /// a third of their wordings is held out too.
    pub(crate) fn new(side: Side, dice: &mut Dice) -> Self {
        let steps = new_steps(side, &[3, 4], dice);
        let [person, other] = two(PEOPLE.of(side), dice);
        let thing = *dice.pick(THINGS.of(side));
        let wording = |pool: &Pool<&'static str>, dice: &mut Dice| {
            let side = if dice.chance(HELD_OUT_WORDINGS) { side } else { Side::Train };
            dice.word(pool.of(side))
        };
        Self::tell(steps, person, other, thing, wording, dice)
    }

    /// A problem for pre-training, which knows all people, things and wordings, but no held-out numbers. Some are shorter
    /// than the chat's: to find the number of the right sentence for each step is hard to learn from long ones alone.
    pub(crate) fn story(dice: &mut Dice) -> Self {
        let steps = new_steps(Side::Train, &[1, 2, 3, 4], dice);
        let held_out_cast = dice.chance(0.4);
        let [person, other] = if held_out_cast {
            two(if dice.chance(0.5) { PEOPLE.dev } else { PEOPLE.test }, dice)
        } else {
            two(PEOPLE.train, dice)
        };
        let held_out_thing = held_out_cast && dice.chance(0.8);
        let thing = *if held_out_thing { THINGS.held_out(dice) } else { dice.pick(THINGS.train) };
        let wording = |pool: &Pool<&'static str>, dice: &mut Dice| {
            if dice.chance(0.45) { *pool.held_out(dice) } else { dice.word(pool.train) }
        };
        Self::tell(steps, person, other, thing, wording, dice)
    }

    fn tell(
        steps: Vec<Step>,
        person: Person,
        other: Person,
        thing: Thing,
        wording: impl Fn(&Pool<&'static str>, &mut Dice) -> &'static str,
        dice: &mut Dice,
    ) -> Self {
        let say = |template: &str, link: &str, m: u32, n: u32| {
            let (m, n) = (m.to_string(), n.to_string());
            fill(
                &format!("{link}{template}"),
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
        let starts_with_product = first.operation == Operation::Times;
        let mut sentences = Vec::with_capacity(steps.len() + 1);
        if starts_with_product {
            let template = wording(&PRODUCT, dice);
            sentences.push(say(template, "", first.left, first.right));
        } else {
            sentences.push(say(wording(&START, dice), "", 0, first.left));
        }
        for step in &steps[usize::from(starts_with_product)..] {
            let template = match (step.operation, thing.food) {
                (Operation::Take, true) => wording(&TAKE_FOOD, dice),
                (Operation::Take, false) => wording(&TAKE, dice),
                _ => wording(&ADD, dice),
            };
            sentences.push(say(template, dice.word(&LINKS), 0, step.right));
        }
        let question = say(wording(&QUESTION, dice), "", 0, 0);
        Self { sentences, question, steps, starts_with_product, person, thing }
    }

    /// The problem as it is asked.
    pub(crate) fn prompt(&self) -> String {
        format!("{} {}", self.sentences.join(" "), self.question)
    }

    /// The number that answers it.
    pub(crate) fn answer(&self) -> u32 {
        self.steps.last().expect("a problem has steps").result
    }

    /// "The answer is 17."
    pub(crate) fn direct(&self) -> String {
        say_answer(self.answer())
    }

    /// Every step with its result, in thinking marks, then the answer.
    pub(crate) fn careful(&self) -> String {
        format!("<think>{}</think>{}", thought(&self.steps), self.direct())
    }

    /// All operations in one line without the results in between, then the answer: right, but a leap.
    pub(crate) fn leap(&self) -> String {
        let mut line = self.steps[0].left.to_string();
        for step in &self.steps {
            line.extend([" ", step.operation.sign(), " ", &step.right.to_string()]);
        }
        format!("<think>{line} = {}</think>{}", self.answer(), self.direct())
    }

    /// A careful-looking solution that goes wrong: in a step, or in reading off the last result.
    pub(crate) fn wrong(&self, dice: &mut Dice) -> String {
        if dice.chance(0.5) {
            return format!(
                "<think>{}</think>{}",
                thought(&self.steps),
                say_answer(off_by(self.answer(), dice))
            );
        }
        loop {
            let steps = self.steps_with_a_mistake(dice);
            let answer = steps.last().expect("a problem has steps").result;
            if answer != self.answer() {
                return format!("<think>{}</think>{}", thought(&steps), say_answer(answer));
            }
        }
    }

    /// The steps, one with a wrong result from which the others go on.
    fn steps_with_a_mistake(&self, dice: &mut Dice) -> Vec<Step> {
        let mut steps = self.steps.clone();
        let at = dice.range(0, steps.len() as u32 - 1) as usize;
        steps[at].result = off_by(steps[at].result, dice);
        for i in at + 1..steps.len() {
            let left = steps[i - 1].result;
            let right = if steps[i].operation == Operation::Take {
                steps[i].right.min(left)
            } else {
                steps[i].right
            };
            steps[i] = Step::new(left, steps[i].operation, right);
        }
        steps
    }

    /// "The answer is …" with a wrong number and without thinking.
    pub(crate) fn wrong_guess(&self, dice: &mut Dice) -> String {
        say_answer(self.answer() + dice.range(1, 9))
    }

    /// A story for pre-training: each sentence is followed by its step.
    pub(crate) fn told_step_by_step(&self, dice: &mut Dice) -> String {
        let mut text = self.sentences[0].clone();
        let mut steps = self.steps.iter();
        let tell = |text: &mut String, step: &Step, dice: &mut Dice| {
            text.push(' ');
            text.push_str(&step.sentence());
            if dice.chance(0.5) {
                let now = dice.word(&[
                    "now {he} has {n} {o}.",
                    "{he} has {n} {o} now.",
                    "that makes {n} {o}.",
                ]);
                text.push(' ');
                text.push_str(&self.fill(now, step.result));
            }
        };
        if self.starts_with_product {
            tell(&mut text, steps.next().expect("a problem has steps"), dice);
        }
        for (sentence, step) in self.sentences[1..].iter().zip(steps) {
            text.push(' ');
            text.push_str(sentence);
            tell(&mut text, step, dice);
        }
        text
    }

    /// A page of an exercise book for pre-training: the problem, then all steps, then the result in words.
    pub(crate) fn solved(&self, dice: &mut Dice) -> String {
        let result = dice.word(&[
            "the answer is {n}.",
            "so {P} has {n} {o}.",
            "{P} has {n} {o} now.",
            "there are {n} {o}.",
            "the result is {n}.",
        ]);
        let break_line = dice.word(&[" ", "\n"]);
        format!(
            "{}{break_line}{}{break_line}{}",
            self.prompt(),
            equations(&self.steps),
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
fn two(people: &[Person], dice: &mut Dice) -> [Person; 2] {
    let order = dice.order(people.len());
    [people[order[0]], people[order[1]]]
}

/// The steps of a new problem of one split, as many as one of `lengths`.
fn new_steps(side: Side, lengths: &[usize], dice: &mut Dice) -> Vec<Step> {
    let length = *dice.pick(lengths);
    loop {
        let steps = steps(length, dice);
        if side_of_tuple(&tuple(&steps)) == side {
            return steps;
        }
    }
}

/// Another number than `value`, up to nine away.
fn off_by(value: u32, dice: &mut Dice) -> u32 {
    let by = dice.range(1, 9);
    if dice.chance(0.5) && value > by { value - by } else { value + by }
}

fn say_answer(answer: u32) -> String {
    format!("The answer is {answer}.")
}

/// The steps as sentences, as in an exercise book.
fn equations(steps: &[Step]) -> String {
    steps.iter().map(Step::sentence).collect::<Vec<_>>().join(" ")
}

/// The steps as a chat thinks them. Commas keep it apart from the exercise books of pre-training: where the steps end
/// with a full stop, a model that has read those may go on with their last sentence instead of ending its thought.
fn thought(steps: &[Step]) -> String {
    steps.iter().map(Step::equation).collect::<Vec<_>>().join(", ")
}

/// The start and the operations of a problem, as one word. A product counts as its result: 3 x 9 and 9 x 3 start
/// the same sum.
fn tuple(steps: &[Step]) -> String {
    let first = steps[0];
    let starts_with_product = first.operation == Operation::Times;
    let mut tuple = if starts_with_product { first.result } else { first.left }.to_string();
    for step in &steps[usize::from(starts_with_product)..] {
        tuple.push_str(step.operation.sign());
        tuple.push_str(&step.right.to_string());
    }
    tuple
}

/// `length` steps, each going on from the result of the one before.
fn steps(length: usize, dice: &mut Dice) -> Vec<Step> {
    let mut steps = Vec::with_capacity(length);
    if dice.chance(0.3) {
        steps.push(product(dice));
    } else {
        let start = dice.range(3, 20);
        steps.push(step_from(start, dice));
    }
    while steps.len() < length {
        let value = steps.last().map_or(0, |step: &Step| step.result);
        steps.push(step_from(value, dice));
    }
    steps
}

fn product(dice: &mut Dice) -> Step {
    loop {
        let step = Step::new(dice.range(2, MAX_BOXES), Operation::Times, dice.range(2, 9));
        if step.result <= HIGHEST {
            return step;
        }
    }
}

fn step_from(value: u32, dice: &mut Dice) -> Step {
    loop {
        let by = dice.range(SMALLEST_OPERAND, LARGEST_OPERAND);
        if dice.chance(0.5) {
            if value + by <= HIGHEST {
                return Step::new(value, Operation::Add, by);
            }
        } else if value >= by + LOWEST {
            return Step::new(value, Operation::Take, by);
        }
    }
}

/// Pages of unconnected sums for pre-training, on which every single step of the world occurs `rounds` times.
pub(crate) fn sums(rounds: usize, dice: &mut Dice) -> Vec<String> {
    let mut all: Vec<Step> = Vec::new();
    for value in LOWEST..=HIGHEST {
        for by in SMALLEST_OPERAND..=LARGEST_OPERAND {
            if value + by <= HIGHEST {
                all.push(Step::new(value, Operation::Add, by));
            }
            if value >= by + LOWEST {
                all.push(Step::new(value, Operation::Take, by));
            }
        }
    }
    for left in 2..=MAX_BOXES {
        all.extend((2..=9).map(|right| Step::new(left, Operation::Times, right)));
    }
    let mut pages = Vec::new();
    for _ in 0..rounds {
        dice.shuffle(&mut all);
        for steps in all.chunks(dice.range(5, 7) as usize) {
            let title = dice.word(&["", "", "Sums:\n", "Homework:\n", "On the board:\n"]);
            let lines: Vec<String> = steps.iter().map(Step::sentence).collect();
            pages.push(format!("{title}{}", lines.join(dice.word(&[" ", "\n"]))));
        }
    }
    pages
}

/// A chain of sums for pre-training: each goes on from the result before.
pub(crate) fn chain(dice: &mut Dice) -> String {
    let length = dice.range(3, 7) as usize;
    loop {
        let steps = steps(length, dice);
        if side_of_tuple(&tuple(&steps)) == Side::Train {
            let title = dice.word(&["", "", "Step by step: ", "Solution: "]);
            return format!("{title}{}", equations(&steps));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{HIGHEST, LOWEST, Problem, tuple};
    use crate::dice::Dice;
    use crate::splits::{Side, side_of_tuple};

    #[test]
    fn steps_go_on_from_each_other_within_bounds() {
        let mut dice = Dice::new("test");
        for _ in 0..500 {
            let problem = Problem::new(Side::Train, &mut dice);
            assert!((3..=4).contains(&problem.steps.len()));
            for pair in problem.steps.windows(2) {
                assert_eq!(pair[0].result, pair[1].left);
            }
            assert!(problem.steps.iter().all(|step| (LOWEST..=HIGHEST).contains(&step.result)));
            assert!(side_of_tuple(&tuple(&problem.steps)) == Side::Train);
        }
    }

    #[test]
    fn wrong_solutions_are_wrong() {
        let mut dice = Dice::new("test");
        for _ in 0..500 {
            let problem = Problem::new(Side::Dev, &mut dice);
            assert!(side_of_tuple(&tuple(&problem.steps)) == Side::Dev);
            let right = problem.direct();
            assert!(!problem.wrong_guess(&mut dice).ends_with(&right));
            let wrong = problem.wrong(&mut dice);
            assert_ne!(wrong, problem.careful());
        }
    }
}
