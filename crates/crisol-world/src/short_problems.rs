//! Problems of one and two steps, as people type them: "12+7", "what is 30 minus 14?", "I have 17
//! apples and get 26 more. How many do I have now?".
//!
//! Numbers have up to two digits, results are within 0..=99, products within 9 x 9.

use crate::arithmetic::WordProblem;
use crate::rng::Rng;
use crate::solution::{Operation, Problem, Solution, Step, as_sentences};
use crate::splits::{Pool, Split, split_of_problem};
use crate::sums::{MAX_FACTOR, MAX_SUM};
use crate::words::{PEOPLE, THINGS, fill};

/// Share of the held-out problems in a held-out wording. The others have only new numbers, and in
/// stories new people and things.
const HELD_OUT_WORDINGS: f64 = 0.5;

/// `e` is an expression such as "12 + 7" or "12 plus 7".
const EXPRESSIONS: Pool<&str> = Pool {
    train: &[
        "{e}",
        "{e}",
        "{e}?",
        "{e} =",
        "{e} = ?",
        "what is {e}?",
        "what is {e}",
        "what's {e}?",
        "how much is {e}?",
        "and what is {e}?",
        "calculate {e}.",
        "compute {e}.",
        "solve {e}.",
        "please solve {e}.",
        "please calculate {e}",
        "can you calculate {e}?",
        "can you tell me what {e} is?",
        "do you know what {e} is?",
        "hello, what is {e}?",
        "tell me {e}.",
        "I need {e}.",
        "{e} is how much?",
        "how much do I get for {e}?",
        "the sum is {e}. what is the answer?",
        "my homework: {e}",
        "add it up: {e}",
    ],
    dev: &[
        "how much does {e} make?",
        "can you solve {e}?",
        "what do I get for {e}?",
        "{e} is what?",
    ],
    test: &["work out {e}.", "what is the result of {e}?", "what does {e} give?", "{e}, please"],
};

/// The forms of one operation: a symbol with spaces, without them, a word, one or the other.
fn signs(operation: Operation) -> [&'static str; 4] {
    match operation {
        Operation::Add => [" + ", "+", " plus ", " plus "],
        Operation::Subtract => [" - ", "-", " minus ", " minus "],
        Operation::Multiply => [" x ", "x", " times ", "*"],
    }
}

/// One step about things: `P` is a person, `n` and `m` numbers, `o` things.
struct Stories {
    add: Pool<&'static str>,
    subtract: Pool<&'static str>,
    multiply: Pool<&'static str>,
}

const STORIES: Stories = Stories {
    add: Pool {
        train: &[
            "I have {n} {o} and get {m} more. how many do I have now?",
            "I have {n} {o} and buy {m} more. how many {o} do I have?",
            "{P} has {n} {o} and finds {m} more. how many {o} does {P} have now?",
            "{P} has {n} {o} and gets {m} more. how many does {he} have?",
            "there are {n} {o} in a box and {m} {o} in a bag. how many {o} are there?",
            "if I have {n} {o} and get {m} more, how many do I have?",
            "how many {o} are {n} {o} and {m} {o}?",
            "{P} has {n} {o}. {Q} has {m}. how many {o} do they have together?",
        ],
        dev: &[
            "I own {n} {o} and find {m} more. how many {o} do I own?",
            "{P} has {n} {o} and {Q} gives {him} {m}. how many {o} has {P}?",
        ],
        test: &[
            "you have {n} {o} and receive {m} more. how many {o} do you have now?",
            "{P} had {n} {o} and got {m} more. how many {o} are there now?",
        ],
    },
    subtract: Pool {
        train: &[
            "I have {n} {o} and give away {m}. how many do I have now?",
            "I have {n} {o} and lose {m}. how many {o} are left?",
            "{P} has {n} {o} and sells {m}. how many {o} does {P} have now?",
            "{P} has {n} {o} and gives {m} to {Q}. how many does {he} have?",
            "there are {n} {o} in a box. {P} takes {m}. how many {o} are left?",
            "if I have {n} {o} and lose {m}, how many do I have?",
        ],
        dev: &[
            "I own {n} {o} and {Q} takes {m}. how many {o} are left?",
            "{P} has {n} {o} and {Q} takes {m}. how many {o} has {P} now?",
        ],
        test: &[
            "you have {n} {o} and drop {m}. how many {o} do you have now?",
            "{P} had {n} {o} and lost {m}. how many {o} remain?",
        ],
    },
    multiply: Pool {
        train: &[
            "I have {n} boxes with {m} {o} each. how many {o} do I have?",
            "there are {n} bags with {m} {o} each. how many {o} are there?",
            "{P} has {n} boxes with {m} {o} each. how many {o} does {he} have?",
            "{P} buys {m} {o} a day for {n} days. how many {o} does {P} have?",
        ],
        dev: &["I own {n} baskets with {m} {o} each. how many {o} do I own?"],
        test: &["you have {n} crates with {m} {o} each. how many {o} is that?"],
    },
};

impl Stories {
    fn of(&self, operation: Operation) -> &Pool<&'static str> {
        match operation {
            Operation::Add => &self.add,
            Operation::Subtract => &self.subtract,
            Operation::Multiply => &self.multiply,
        }
    }
}

/// A problem of one or two steps for one split.
pub(crate) fn short_problem(split: Split, rng: &mut Rng) -> Problem {
    let wording = if rng.chance(HELD_OUT_WORDINGS) { split } else { Split::Train };
    short_problem_worded(split, wording, rng)
}

/// The same in the wordings of another split.
fn short_problem_worded(split: Split, wording: Split, rng: &mut Rng) -> Problem {
    match rng.range(0, 9) {
        0..=4 => expression(steps(1, split, rng), wording, rng),
        5 | 6 => expression(steps(2, split, rng), wording, rng),
        7 | 8 => story(steps(1, split, rng), split, wording, rng),
        _ => loop {
            let solution = steps(2, split, rng);
            if counts_things(&solution) {
                break WordProblem::new(solution, split, rng).problem();
            }
        },
    }
}

/// A solved short problem for pre-training: all wordings, but no held-out numbers.
pub(crate) fn as_solved_exercise(rng: &mut Rng) -> String {
    let wording = *rng.choose(&[Split::Train, Split::Train, Split::Dev, Split::Test]);
    // An unfinished equation before the solution would look like a step.
    let Problem { prompt, solution } = loop {
        let problem = short_problem_worded(Split::Train, wording, rng);
        if !problem.prompt.contains('=') {
            break problem;
        }
    };
    let break_line = rng.choose_str(&[" ", "\n"]);
    let result = rng.choose_str(&["The answer is ", "The result is ", "So it is "]);
    let answer = solution.answer();
    format!("{prompt}{break_line}{}{break_line}{result}{answer}.", as_sentences(&solution.worked))
}

/// The problem as an expression. People write symbols and words, and seldom a capital letter.
fn expression(solution: Solution, wording: Split, rng: &mut Rng) -> Problem {
    let form = rng.range(0, 3) as usize;
    let expression = solution.expression(|operation| signs(operation)[form].to_owned());
    let template = rng.choose_str(EXPRESSIONS.get(wording));
    let prompt = if rng.chance(0.3) {
        template.replace("{e}", &expression)
    } else {
        fill(template, &[("e", &expression)])
    };
    Problem { prompt, solution }
}

/// The problem in one or two sentences about things.
fn story(mut solution: Solution, split: Split, wording: Split, rng: &mut Rng) -> Problem {
    while !counts_things(&solution) {
        solution = steps(1, split, rng);
    }
    let order = rng.permutation(PEOPLE.get(split).len());
    let [person, other] = [order[0], order[1]].map(|i| PEOPLE.get(split)[i]);
    let step = solution.asked[0];
    let prompt = fill(
        rng.choose_str(STORIES.of(step.operation).get(wording)),
        &[
            ("P", person.name),
            ("Q", other.name),
            ("he", person.subject()),
            ("him", person.object()),
            ("o", rng.choose(THINGS.get(split)).plural),
            ("n", &step.left.to_string()),
            ("m", &step.right.to_string()),
        ],
    );
    Problem { prompt, solution }
}

/// Whether every number can count things in the plural.
fn counts_things(solution: &Solution) -> bool {
    solution.asked.iter().all(|step| step.left >= 2 && step.right >= 2 && step.result >= 2)
}

/// Random steps of one split.
fn steps(count: usize, split: Split, rng: &mut Rng) -> Solution {
    loop {
        let first = if rng.chance(0.25) {
            Step::new(rng.range(2, MAX_FACTOR), Operation::Multiply, rng.range(2, MAX_FACTOR))
        } else {
            let largest = if rng.chance(0.5) { 20 } else { MAX_SUM };
            let value = rng.range(0, largest);
            sum(value, rng)
        };
        let mut steps = vec![first];
        while steps.len() < count {
            steps.push(sum(steps[steps.len() - 1].result, rng));
        }
        let solution = Solution::new(steps);
        if split_of_problem(&solution.key()) == split {
            return solution;
        }
    }
}

/// A sum that starts from `value`; three in five of the second numbers have one digit.
fn sum(value: u32, rng: &mut Rng) -> Step {
    loop {
        let by = if rng.chance(0.6) { rng.range(1, 9) } else { rng.range(10, MAX_SUM) };
        if let Some(step) = Step::add_or_subtract(value, by, 0..=MAX_SUM, rng) {
            return step;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_step_of_a_solution_is_on_the_pages_of_sums() {
        let mut rng = Rng::new("test");
        let pages = crate::sums::pages(1, &mut rng).join("\n");
        for _ in 0..2000 {
            let Problem { prompt, solution } = short_problem(Split::Train, &mut rng);
            assert!((1..=2).contains(&solution.asked.len()), "{prompt}");
            for step in &solution.worked {
                assert!(pages.contains(&step.sentence()), "{prompt}: {}", step.sentence());
            }
        }
    }

    #[test]
    fn held_out_problems_have_held_out_numbers_and_half_a_held_out_wording() {
        let mut rng = Rng::new("test");
        for split in [Split::Dev, Split::Test] {
            let mut prompts = BTreeSet::new();
            let openings: Vec<String> = EXPRESSIONS
                .get(split)
                .iter()
                .filter_map(|template| template.split_once("{e}"))
                .map(|(before, _)| before.to_lowercase())
                .filter(|before| !before.is_empty())
                .collect();
            for _ in 0..400 {
                let problem = short_problem(split, &mut rng);
                assert!(split_of_problem(&problem.solution.key()) == split);
                prompts.insert(problem.prompt.to_lowercase());
            }
            let new = prompts.iter().filter(|prompt| {
                openings.iter().any(|opening| prompt.starts_with(opening.as_str()))
            });
            assert!(new.count() > 60);
        }
    }
}
