//! Rewards that need no model: is the answer in the agreed form, and is it right?
//!
//! A reasoning answer is `<think>` work `</think>` answer. Format and correctness are scored
//! separately, because a model that is right without the format, or wrong within it, needs a
//! different signal (the rule-based accuracy and format rewards of DeepSeek-R1, arXiv:2501.12948,
//! section 2.2.2).
//!
//! The reference decides how answers are compared ([`compares_as`]): numbers by their exact value,
//! choices by their letter, and everything else as text.

mod choice;
mod notation;
mod number;
mod quantity;
mod units;

use notation::{last_boxed, normal, plain};
use quantity::{Quantity, numbers, whole};

const OPEN: &str = "<think>";
const CLOSE: &str = "</think>";

/// What the verifier says about one completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// One `<think>…</think>` at the start, not empty, closed, and a non-empty answer after it.
    pub format: bool,
    /// The answer equals the reference.
    pub correct: bool,
}

/// How answers are compared with a reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// By their exact value: `0.5`, `1/2`, and `\frac{1}{2}` are equal.
    Number,
    /// By the letter of a choice, A to J.
    Choice,
    /// As text, but for case, white space, and punctuation around it.
    Text,
}

/// How answers are compared with `reference`. Of a reference with its working, as in GSM8K
/// (arXiv:2110.14168), the answer after `####` counts.
pub fn compares_as(reference: &str) -> Comparison {
    let reference = plain(final_part(reference));
    if whole(&reference).is_some() {
        Comparison::Number
    } else if choice::of_reference(&reference).is_some() {
        Comparison::Choice
    } else {
        Comparison::Text
    }
}

/// Checks a completion (the text after the prompt, without special tokens) against the reference.
///
/// The answer is the text after the last `</think>`, or all of it without think tags; unclosed
/// thinking has no answer. In it the first of these counts: the last `\boxed{}`, the text after the
/// last `####`, the text after the last "answer is" (or "answer:"). Without them a number is the
/// last one, a choice the answer's letter, and a text the whole answer.
///
/// If the prompt already opened the thought, `completion` must begin with the tag that
/// [`left_open`] returns.
pub fn verify(completion: &str, reference: &str) -> Verdict {
    let correct = answer_part(completion).is_some_and(|answer| is_correct(answer, reference));
    Verdict { format: has_format(completion), correct }
}

/// The unclosed `<think>` of `prompt` (which a template may write when it opens the assistant's
/// turn) and the text after it. Empty if there is none.
pub fn left_open(prompt: &str) -> &str {
    match prompt.rfind(OPEN) {
        Some(at) if !prompt[at..].contains(CLOSE) => &prompt[at..],
        _ => "",
    }
}

fn has_format(completion: &str) -> bool {
    let Some((before, rest)) = completion.split_once(OPEN) else { return false };
    let Some((thought, answer)) = rest.split_once(CLOSE) else { return false };
    let untagged = |text: &str| !text.contains(OPEN) && !text.contains(CLOSE);
    before.trim().is_empty()
        && !thought.trim().is_empty()
        && !answer.trim().is_empty()
        && untagged(thought)
        && untagged(answer)
}

fn answer_part(completion: &str) -> Option<&str> {
    let answer = completion.rsplit_once(CLOSE).map_or(completion, |(_, answer)| answer);
    (!answer.contains(OPEN)).then_some(answer)
}

fn is_correct(answer: &str, reference: &str) -> bool {
    let reference = plain(final_part(reference));
    if let Some(wanted) = whole(&reference) {
        number_of(answer).is_some_and(|given| given.answers(&wanted))
    } else if let Some(letter) = choice::of_reference(&reference) {
        choice::of_answer(answer, explicit(answer)) == Some(letter)
    } else {
        is_text(answer, &normal(&reference))
    }
}

/// What counts of a reference, or of an answer that is marked as such.
fn final_part(text: &str) -> &str {
    let text = text.rsplit_once("####").map_or(text, |(_, last)| last);
    last_boxed(text).unwrap_or(text)
}

/// What an answer itself marks as its answer.
#[derive(Clone, Copy, Debug)]
enum Explicit<'a> {
    /// All that stands in the last box.
    Boxed(&'a str),
    /// The line after the last `####`.
    Marked(&'a str),
    /// What follows the last "answer is".
    Said(&'a str),
}

fn explicit(answer: &str) -> Option<Explicit<'_>> {
    if let Some(boxed) = last_boxed(answer) {
        return Some(Explicit::Boxed(boxed));
    }
    if let Some((_, rest)) = answer.rsplit_once("####") {
        return Some(Explicit::Marked(rest.trim_start().lines().next().unwrap_or("")));
    }
    // ASCII case only, so that places are the same in both.
    let lower = answer.to_ascii_lowercase();
    let said = lower.rmatch_indices("answer").find_map(|(at, word)| {
        let rest = &answer[at + word.len()..];
        let decorated = |c: char| c.is_whitespace() || "*_\"".contains(c);
        let verb = rest.trim_start_matches(decorated);
        let after = [":", "=", "is", "equals", "would be", "will be", "must be", "should be"]
            .into_iter()
            .find_map(|verb_name| strip_word(verb, verb_name))?;
        let after = after.trim_start_matches(decorated);
        Some(after.strip_prefix(':').unwrap_or(after))
    });
    said.filter(|rest| !rest.trim().is_empty()).map(Explicit::Said)
}

/// What follows `word`, in any case, if `text` begins with it and it ends there.
fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(word.len())?;
    let ends = !word.ends_with(char::is_alphabetic) || !rest.starts_with(char::is_alphanumeric);
    (head.eq_ignore_ascii_case(word) && ends).then_some(rest)
}

/// The number that an answer gives.
fn number_of(answer: &str) -> Option<Quantity> {
    match explicit(answer) {
        Some(Explicit::Boxed(boxed)) => {
            let boxed = plain(boxed);
            whole(&boxed).or_else(|| only_number(&boxed))
        }
        Some(Explicit::Marked(rest)) => {
            let rest = plain(rest);
            whole(&rest).or_else(|| numbers(&rest).pop())
        }
        Some(Explicit::Said(rest)) => {
            let rest = plain(rest);
            let found = numbers(&rest);
            if found.is_empty() {
                // "7 is the answer: …" and the like.
                return numbers(&plain(answer)).pop();
            }
            first_result(&rest, &found)
        }
        None => {
            let answer = plain(answer);
            whole(&answer).or_else(|| numbers(&answer).pop())
        }
    }
}

/// The number in a box that has words beside it: "The total is 5".
fn only_number(text: &str) -> Option<Quantity> {
    let found = numbers(text);
    let [quantity] = found.as_slice() else { return None };
    let before: String = text.chars().take(quantity.start).collect();
    let after: String = text.chars().skip(quantity.end).collect();
    // "(B) 12" is the number of a choice.
    let is_word = |word: &str| {
        let letters = word.chars().filter(|c| c.is_alphabetic()).count();
        letters > 1 || letters == 1 && word.starts_with('(') && word.ends_with(')')
    };
    let words = |text: &str| text.split_whitespace().all(is_word);
    let spaced =
        after.is_empty() || after.starts_with(|c: char| c.is_whitespace() || ".,".contains(c));
    let plain_words =
        |text: &str| !text.contains(|c: char| "\\√π^+*/×·<>≤≥".contains(c)) && words(text);
    (plain_words(&before) && plain_words(after.trim_end_matches(['.', ',', ' '])) && spaced)
        .then(|| quantity.clone())
}

/// The first number, or the result of a calculation that begins with it ("3 + 4 = 7"). `None` for
/// alternatives ("3 or 4").
fn first_result(text: &str, found: &[Quantity]) -> Option<Quantity> {
    let mut result = &found[0];
    for next in &found[1..] {
        let gap: String = text.chars().take(next.start).skip(result.end).collect();
        let ends =
            gap.contains(['\n', ';']) || gap.contains(". ") || gap.trim_start().starts_with("so ");
        if !ends && gap.contains(['=', '≈']) || gap.chars().all(|c| " +-*/×·÷x()".contains(c))
        {
            result = next;
        } else if matches!(gap.trim(), "or" | "and" | "," | ", and" | ", or" | "/")
            && !result.equals(next)
        {
            return None;
        } else {
            break;
        }
    }
    Some(result.clone())
}

/// Whether an answer is the reference as text.
fn is_text(answer: &str, reference: &str) -> bool {
    let is_it = |text: &str| normal(text) == reference;
    if reference.is_empty() {
        return false;
    }
    match explicit(answer) {
        Some(Explicit::Boxed(boxed)) => is_it(boxed),
        Some(Explicit::Marked(rest)) => is_it(rest),
        // A sentence may end within the reference ("St. Ives"), or go on after it.
        Some(Explicit::Said(rest)) => {
            let ends =
                rest.match_indices(['.', '\n', ',', ';']).map(|(at, _)| &rest[..at]).take(20);
            ends.chain([rest]).any(is_it)
        }
        None => is_it(answer),
    }
}
