//! Sums without words for pre-training: pages of single steps, chains of connected ones.

use crate::arithmetic::steps_of_split;
use crate::rng::Rng;
use crate::solution::{Operation, Step, as_sentences};
use crate::splits::Split;

/// Largest number of a sum.
pub(crate) const MAX_SUM: u32 = 99;
/// Largest factors of a product.
pub(crate) const MAX_FACTOR: u32 = 9;

/// Every step that a solution may need: a number of up to two digits and one of one digit, or
/// tens; products up to 9 x 9.
fn steps() -> Vec<Step> {
    let mut all = Vec::new();
    for value in 0..=MAX_SUM {
        for by in (1..=9).chain((10..MAX_SUM).step_by(10)) {
            if value + by <= MAX_SUM {
                all.push(Step::new(value, Operation::Add, by));
            }
            if value >= by {
                all.push(Step::new(value, Operation::Subtract, by));
            }
        }
    }
    for left in 2..=MAX_FACTOR {
        // Few next to the sums, and nothing about one product follows from another.
        for _ in 0..PRODUCT_REPETITIONS {
            all.extend((2..=MAX_FACTOR).map(|right| Step::new(left, Operation::Multiply, right)));
        }
    }
    all
}

/// How often a page of sums shows a product for one showing of a sum.
const PRODUCT_REPETITIONS: usize = 4;

/// Pages of unconnected sums; every step occurs at least `rounds` times.
pub(crate) fn pages(rounds: usize, rng: &mut Rng) -> Vec<String> {
    let mut all = steps();
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

/// A chain of sums; each starts from the previous result.
pub(crate) fn chain(rng: &mut Rng) -> String {
    let solution = steps_of_split(Split::Train, &[3, 4, 5, 6, 7], rng);
    let title = rng.choose_str(&["", "", "Step by step: ", "Solution: "]);
    format!("{title}{}", as_sentences(&solution.worked))
}
