//! Multiple choice: a reference that is one letter from A to J, and the letter that an answer
//! chooses.

use super::Explicit;
use super::notation::plain;

/// The letter of a reference: "B", "(B)", "B.", "(b)", "B) Paris".
pub(super) fn of_reference(reference: &str) -> Option<char> {
    let reference = reference.trim();
    let (letter, rest) = leading_letter(reference)?;
    let bare = reference.starts_with(|c: char| c.is_ascii_lowercase());
    let alone = rest.trim_matches(|c: char| ").:]}* ".contains(c)).is_empty();
    let labels = [") ", ". ", ": "].iter().any(|label| rest.starts_with(label)) && !bare;
    // A bare small letter is a variable.
    ((alone && !bare) || labels).then_some(letter)
}

/// The letter that an answer chooses.
pub(super) fn of_answer(answer: &str, explicit: Option<Explicit<'_>>) -> Option<char> {
    match explicit {
        Some(Explicit::Boxed(text) | Explicit::Marked(text) | Explicit::Said(text)) => {
            chosen(&plain(text), true)
        }
        None => {
            let answer = plain(answer);
            chosen(&answer, false).or_else(|| named(&answer))
        }
    }
}

/// The letter that a text begins with and chooses; `None` if it goes on to another one. After "the
/// answer is" (`marked`), any text may follow.
fn chosen(text: &str, marked: bool) -> Option<char> {
    let mut text = text.trim();
    for word in ["option", "choice", "answer"] {
        let head = text.get(..word.len()).filter(|head| head.eq_ignore_ascii_case(word));
        text = head.map_or(text, |_| text[word.len()..].trim_start_matches([' ', ':']));
    }
    let bare = text.starts_with(|c: char| c.is_ascii_alphabetic());
    let (letter, rest) = leading_letter(text)?;
    let small = text.contains(letter.to_ascii_lowercase()) && !text.contains(letter);
    let rest = rest.trim_start_matches(['*', '"', '}', ']']);
    let ends = rest.trim().is_empty();
    let labels = rest.starts_with([')', '.', ':', ',', ';', '\n', '!', '(']);
    let goes_on = rest.starts_with(' ');
    // "a dog", "A dog" and "I know" choose nothing.
    let may_be_word = !marked || bare && (small || matches!(letter, 'A' | 'I'));
    let is_word = may_be_word && goes_on && !follows_a_choice(rest);
    let hedged = ["or", "and", ",", "/", "&"].into_iter().any(|hedge| {
        let next =
            rest.trim_start().trim_start_matches([')', '.']).trim_start().strip_prefix(hedge);
        next.and_then(|next| leading_letter(next.trim_start())).is_some_and(|(_, after)| {
            !after.starts_with(char::is_alphanumeric)
                && !after.starts_with(|c: char| c == ' ' && hedge == ",")
        })
    });
    ((ends || labels || goes_on) && !is_word && !hedged).then_some(letter)
}

/// Whether a word follows that continues after a chosen letter.
fn follows_a_choice(rest: &str) -> bool {
    let word = rest.split_whitespace().next().unwrap_or("");
    ["because", "since", "as", "is"].contains(&word.trim_end_matches(','))
}

/// The only letter in parentheses or after "option" anywhere in a text.
fn named(text: &str) -> Option<char> {
    let mut letters = Vec::new();
    let chars: Vec<char> = text.chars().collect();
    for (i, c) in chars.iter().enumerate() {
        let in_parentheses = i > 0 && chars[i - 1] == '(' && chars.get(i + 1) == Some(&')');
        let before: String =
            chars[..i].iter().rev().take(7).collect::<Vec<_>>().into_iter().rev().collect();
        let after_option =
            ["option ", "choice "].iter().any(|word| before.eq_ignore_ascii_case(word));
        let ends = !chars.get(i + 1).is_some_and(|c| c.is_alphanumeric());
        if is_letter(*c) && (in_parentheses || after_option && ends) {
            letters.push(c.to_ascii_uppercase());
        }
    }
    letters.dedup();
    match letters.as_slice() {
        [letter] => Some(*letter),
        _ => None,
    }
}

/// The letter that a text begins with, without marks around it, and the rest.
fn leading_letter(text: &str) -> Option<(char, &str)> {
    let text = text.trim_start_matches(['(', '[', '{', '*', '"', ' ']);
    let letter = text.chars().next().filter(|c| is_letter(*c))?;
    let rest = &text[1..];
    (!rest.starts_with(|c: char| c.is_alphanumeric() || c == '\'' || c == '’'))
        .then_some((letter.to_ascii_uppercase(), rest))
}

fn is_letter(c: char) -> bool {
    matches!(c.to_ascii_uppercase(), 'A'..='J')
}
