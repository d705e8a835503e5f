//! The steps of a problem and its solutions, right and wrong.
//!
//! A sum of two numbers of two digits is worked by tens, then ones: 17 + 26 becomes 17 + 20 = 37,
//! 37 + 6 = 43. So a model needs only the steps that pre-training shows many times.

use std::ops::RangeInclusive;

use crate::rng::Rng;

/// The operation of a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Add,
    Subtract,
    Multiply,
}

impl Operation {
    pub(crate) fn sign(self) -> &'static str {
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
    pub(crate) left: u32,
    pub(crate) operation: Operation,
    pub(crate) right: u32,
    pub(crate) result: u32,
}

impl Step {
    pub(crate) fn new(left: u32, operation: Operation, right: u32) -> Self {
        let result = match operation {
            Operation::Add => left + right,
            Operation::Subtract => left - right,
            Operation::Multiply => left * right,
        };
        Self { left, operation, right, result }
    }

    /// Adds or subtracts `by`, by chance; `None` if the result would be outside `results`.
    pub(crate) fn add_or_subtract(
        value: u32,
        by: u32,
        results: RangeInclusive<u32>,
        rng: &mut Rng,
    ) -> Option<Self> {
        if rng.chance(0.5) {
            (value + by <= *results.end()).then(|| Self::new(value, Operation::Add, by))
        } else {
            (value >= by + results.start()).then(|| Self::new(value, Operation::Subtract, by))
        }
    }

    /// The step as "7 + 5 = 12".
    fn equation(&self) -> String {
        format!("{} {} {} = {}", self.left, self.operation.sign(), self.right, self.result)
    }

    /// The step as "7 + 5 = 12."
    pub(crate) fn sentence(&self) -> String {
        self.equation() + "."
    }

    /// The same by tens, then ones, where the right number has both.
    fn by_tens_and_ones(self) -> Vec<Self> {
        let (tens, ones) = (self.right / 10 * 10, self.right % 10);
        if self.operation == Operation::Multiply || tens == 0 || ones == 0 {
            return vec![self];
        }
        let first = Self::new(self.left, self.operation, tens);
        vec![first, Self::new(first.result, self.operation, ones)]
    }
}

/// A problem and its solution.
pub(crate) struct Problem {
    /// The problem as the user states it.
    pub(crate) prompt: String,
    pub(crate) solution: Solution,
}

/// The steps of a problem.
#[derive(Clone)]
pub(crate) struct Solution {
    /// The steps as the problem asks for them; each starts from the previous result.
    pub(crate) asked: Vec<Step>,
    /// The same, by tens and ones.
    pub(crate) worked: Vec<Step>,
}

impl Solution {
    /// `steps` must not be empty.
    pub(crate) fn new(steps: Vec<Step>) -> Self {
        let worked = steps.iter().flat_map(|step| step.by_tens_and_ones()).collect();
        Self { asked: steps, worked }
    }

    /// The result of the last step.
    pub(crate) fn answer(&self) -> u32 {
        last_result(&self.asked)
    }

    /// The final sentence, "The answer is 17."
    pub(crate) fn answer_sentence(&self) -> String {
        answer_sentence(self.answer())
    }

    /// Every step with its result between think tags, then the answer.
    pub(crate) fn step_by_step(&self) -> String {
        thought_and_answer(&self.worked, self.answer())
    }

    /// All operations in one equation, without intermediate results, then the answer.
    pub(crate) fn shortcut(&self) -> String {
        let equation = self.expression(|operation| format!(" {} ", operation.sign()));
        format!("<think>{equation} = {}</think>{}", self.answer(), self.answer_sentence())
    }

    /// All operations in one expression, such as "12 + 5 - 3"; `sign` writes an operation with the
    /// spaces around it.
    pub(crate) fn expression(&self, sign: impl Fn(Operation) -> String) -> String {
        let mut expression = self.asked[0].left.to_string();
        for step in &self.asked {
            expression.push_str(&sign(step.operation));
            expression.push_str(&step.right.to_string());
        }
        expression
    }

    /// A step-by-step solution with one wrong step, or with right steps and a wrong answer.
    pub(crate) fn wrong(&self, rng: &mut Rng) -> String {
        if rng.chance(0.5) {
            return thought_and_answer(&self.worked, wrong_number(self.answer(), rng));
        }
        loop {
            let steps = self.steps_with_a_mistake(rng);
            let answer = last_result(&steps);
            if answer != self.answer() {
                return thought_and_answer(&steps, answer);
            }
        }
    }

    /// The steps with a wrong result in one; the following steps continue from it.
    fn steps_with_a_mistake(&self, rng: &mut Rng) -> Vec<Step> {
        let mut steps = self.worked.clone();
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

    /// The key that decides a problem's split: start and operations, such as "12+5-3".
    ///
    /// A product is represented by its result, so 3 x 9 and 9 x 3 have equal keys.
    pub(crate) fn key(&self) -> String {
        let first = self.asked[0];
        let starts_with_product = first.operation == Operation::Multiply;
        let mut key = if starts_with_product { first.result } else { first.left }.to_string();
        for step in &self.asked[usize::from(starts_with_product)..] {
            key.push_str(step.operation.sign());
            key.push_str(&step.right.to_string());
        }
        key
    }
}

fn last_result(steps: &[Step]) -> u32 {
    steps.last().expect("a problem has steps").result
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
pub(crate) fn as_sentences(steps: &[Step]) -> String {
    steps.iter().map(Step::sentence).collect::<Vec<_>>().join(" ")
}

/// The steps between think tags, "7 + 5 = 12, 12 - 3 = 9", then the answer.
///
/// Commas distinguish them from pre-training's exercises. After a full stop, a model may continue
/// with an exercise's last sentence instead of the closing tag.
fn thought_and_answer(steps: &[Step], answer: u32) -> String {
    let thought = steps.iter().map(Step::equation).collect::<Vec<_>>().join(", ");
    format!("<think>{thought}</think>{}", answer_sentence(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_two_digits_are_worked_by_tens_then_ones() {
        let solution = Solution::new(vec![
            Step::new(17, Operation::Add, 26),
            Step::new(43, Operation::Subtract, 20),
            Step::new(23, Operation::Subtract, 4),
        ]);
        assert_eq!(
            solution.step_by_step(),
            "<think>17 + 20 = 37, 37 + 6 = 43, 43 - 20 = 23, 23 - 4 = 19</think>The answer is 19."
        );
        assert_eq!(solution.shortcut(), "<think>17 + 26 - 20 - 4 = 19</think>The answer is 19.");
        assert_eq!(solution.key(), "17+26-20-4");
    }

    #[test]
    fn wrong_solutions_are_wrong() {
        let mut rng = Rng::new("test");
        let solution = Solution::new(vec![
            Step::new(6, Operation::Multiply, 9),
            Step::new(54, Operation::Subtract, 35),
        ]);
        for _ in 0..500 {
            assert!(!solution.wrong_answer(&mut rng).ends_with(&solution.answer_sentence()));
            assert_ne!(solution.wrong(&mut rng), solution.step_by_step());
        }
    }
}
