//! Rewards that need no model: is the answer in the agreed form, and is it right?
//!
//! A reasoning answer is `<think>` some work `</think>` and then the answer itself. Form and correctness are
//! judged apart, because a model that is right without the form, or keeps the form and is wrong, needs
//! different help (the rule-based accuracy and format rewards of DeepSeek-R1, arXiv:2501.12948, section
//! 2.2.2). How the two become one reward is the phase's business.

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

/// Judges a completion (the text after the prompt, without special tokens) against the reference answer.
///
/// The answer is what follows the last `</think>`, or everything where there are no think tags; thinking that
/// was never closed has no answer. If the reference is a number, the last number of the answer must equal
/// it: `1,234`, `$1234`, `01234.`, and `1234.0` are all the same. Otherwise the answer must be the
/// reference, but for white space, a final full stop and a `$` in front. Of a reference with its working, as
/// in GSM8K (arXiv:2110.14168), what follows the last `####` counts.
pub fn verify(completion: &str, reference: &str) -> Verdict {
    let correct = answer_part(completion).is_some_and(|answer| is_correct(answer, reference));
    Verdict { format: has_format(completion), correct }
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
    let reference = reference.rsplit_once("####").map_or(reference, |(_, last)| last);
    let reference = plain_text(reference);
    let only_number = reference.chars().all(|c| c.is_ascii_digit() || "-−$,.".contains(c));
    match numbers(&reference).as_slice() {
        [number] if only_number => numbers(answer).last() == Some(number),
        _ => !reference.is_empty() && plain_text(answer) == reference,
    }
}

/// Single spaces, no full stop at the end, no `$` in front.
fn plain_text(text: &str) -> String {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = words.strip_suffix('.').unwrap_or(&words);
    words.strip_prefix('$').unwrap_or(words).trim().to_owned()
}

/// The numbers in a text, each in its one normal form, as text: so they compare exactly at any length.
fn numbers(text: &str) -> Vec<String> {
    let chars: Vec<char> = text.chars().collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let before = at.checked_sub(1).map(|i| chars[i]);
        let starts = chars[at].is_ascii_digit() || (chars[at] == '.' && digits(&chars, at + 1) > 0);
        if !starts {
            at += 1;
        } else if before.is_some_and(char::is_alphabetic) {
            // A digit inside a word (the 2 of "m2") is no number of its own.
            at += digits(&chars, at).max(1);
        } else {
            let negative = is_negative(&chars, at);
            let (magnitude, end) = magnitude_at(&chars, at);
            found.push(if negative && magnitude != "0" { format!("-{magnitude}") } else { magnitude });
            at = end;
        }
    }
    found
}

/// How many digits follow one another from `at` on.
fn digits(chars: &[char], at: usize) -> usize {
    chars.iter().skip(at).take_while(|c| c.is_ascii_digit()).count()
}

/// Whether a minus (not one between two operands) stands before the number at `start`, or before its `$`.
fn is_negative(chars: &[char], start: usize) -> bool {
    let left = &chars[..start];
    let left = left.strip_suffix(&['$']).unwrap_or(left);
    match left {
        [.., operand, '-' | '−'] => !operand.is_alphanumeric() && *operand != ')',
        ['-' | '−'] => true,
        _ => false,
    }
}

/// The normal form of the number that starts at `start`, without its sign, and where it ends: no thousands
/// commas, no zeros in front or at the end of a fraction.
fn magnitude_at(chars: &[char], start: usize) -> (String, usize) {
    let mut end = start + digits(chars, start);
    let mut whole: String = chars[start..end].iter().collect();
    // Thousands: one to three digits, then groups of exactly three.
    if (1..=3).contains(&whole.len()) {
        while chars.get(end) == Some(&',') && digits(chars, end + 1) == 3 {
            whole.extend(&chars[end + 1..end + 4]);
            end += 4;
        }
    }
    let mut fraction = String::new();
    if chars.get(end) == Some(&'.') {
        let n = digits(chars, end + 1);
        if n > 0 {
            fraction.extend(&chars[end + 1..end + 1 + n]);
            end += 1 + n;
        }
    }
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    let whole = if whole.is_empty() { "0" } else { whole };
    (if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }, end)
}
