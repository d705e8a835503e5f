//! Numbers in a text as people and models write them, each with its percent sign or unit.

use super::notation::{LONGEST_ARGUMENT, braced};
use super::number::Number;
use super::units::{is_unit, leading_unit};

/// Fractions of one character.
const VULGAR: &[(char, &str, &str)] = &[
    ('½', "1", "2"),
    ('⅓', "1", "3"),
    ('⅔', "2", "3"),
    ('¼', "1", "4"),
    ('¾', "3", "4"),
    ('⅕', "1", "5"),
    ('⅛', "1", "8"),
];
const SUPERSCRIPTS: &str = "⁰¹²³⁴⁵⁶⁷⁸⁹";
const CURRENCIES: &str = "$€£¥";
/// Words that multiply the number before them by a power of ten.
const SCALES: &[(&str, i32)] =
    &[("hundred", 2), ("thousand", 3), ("million", 6), ("billion", 9), ("trillion", 12)];
/// Letters that turn a number into an algebraic term. Others are units ("5m") or end ordinals
/// ("5th").
const VARIABLES: &str = "abcijknpqrwxyzπ√";

/// A number of a text.
#[derive(Clone, Debug)]
pub(super) struct Quantity {
    /// The value without a percent sign; `None` if it cannot be compared, such as "2x".
    value: Option<Number>,
    percent: bool,
    /// Its unit, if it is in the table.
    unit: Option<String>,
    /// Start, with sign and currency, in characters.
    pub(super) start: usize,
    /// End, with the percent sign and without the unit.
    pub(super) end: usize,
}

impl Quantity {
    /// Whether an answer equals the reference. Values are compared exactly. A percentage equals
    /// both its value and its number (50% is 0.5 and 50), because references omit the sign as often
    /// as answers. Different units differ; a unit that one side omits is ignored.
    pub(super) fn answers(&self, reference: &Quantity) -> bool {
        let (Some(value), Some(wanted)) = (&self.value, &reference.value) else { return false };
        if let (Some(unit), Some(other)) = (&self.unit, &reference.unit)
            && unit != other
        {
            return false;
        }
        let (percentage, bare, other) = match (self.percent, reference.percent) {
            (true, false) => (value, wanted, reference),
            (false, true) => (wanted, value, self),
            _ => return value == wanted,
        };
        other.unit.is_none() && (percentage == bare || percentage.percent().as_ref() == Some(bare))
    }

    /// Whether both have the same value.
    pub(super) fn equals(&self, other: &Quantity) -> bool {
        self.value == other.value && self.percent == other.percent
    }
}

/// The only quantity of a text, with its unit: for references and the contents of a box.
pub(super) fn whole(text: &str) -> Option<Quantity> {
    let text = text.trim().trim_end_matches(['.', ',', ';', ':', '!', ' ']);
    // Of an equation, the right side.
    let text = text.rsplit_once(['=', '≈']).map_or(text, |(_, right)| right).trim();
    let text = text.replace("**", "");
    let mut text = text.trim();
    while let Some(inner) = enclosed(text) {
        text = inner.trim();
    }
    // A sign may be separated.
    let (sign, magnitude) = match text.chars().next() {
        Some(sign @ ('+' | '-')) => (sign.to_string(), text[1..].trim_start()),
        _ => (String::new(), text),
    };
    let text = sign + magnitude;
    let found = numbers(&text);
    let [quantity] = found.as_slice() else { return None };
    let chars: Vec<char> = text.chars().collect();
    let before = &chars[..quantity.start];
    let after: String = chars[quantity.end..].iter().collect();
    let after = after.trim_end();
    let stands_alone = before.iter().all(|c| "+ ".contains(*c) || CURRENCIES.contains(*c));
    let complete = after.is_empty() || CURRENCIES.contains(after.trim()) || is_unit(after);
    // A letter right after a reference may be a variable: "5m", unlike "5 m".
    let glued = after.chars().count() == 1 && after.chars().all(char::is_alphabetic);
    (quantity.value.is_some() && stands_alone && complete && !glued).then(|| quantity.clone())
}

/// The text within parentheses or braces around a whole text.
fn enclosed(text: &str) -> Option<&str> {
    if let Some((inner, "")) = braced(text) {
        return Some(inner);
    }
    let inner = text.strip_prefix('(')?.strip_suffix(')')?;
    (!inner.contains(['(', ')'])).then_some(inner)
}

/// The numbers of a text, from left to right.
pub(super) fn numbers(text: &str) -> Vec<Quantity> {
    let text = Text(text.chars().collect());
    let mut found = Vec::new();
    let mut at = 0;
    while at < text.0.len() {
        if let Some(quantity) = text.quantity(at) {
            at = quantity.end;
            found.push(quantity);
        } else if text.digits(at) > 0 {
            at += text.digits(at);
        } else {
            at += 1;
        }
    }
    found
}

struct Text(Vec<char>);

impl Text {
    fn at(&self, i: usize) -> Option<char> {
        self.0.get(i).copied()
    }

    /// Number of consecutive ASCII digits from `at` on.
    fn digits(&self, at: usize) -> usize {
        self.0.iter().skip(at).take_while(|c| c.is_ascii_digit()).count()
    }

    fn starts_with(&self, at: usize, text: &str) -> bool {
        text.chars().enumerate().all(|(i, c)| self.at(at + i) == Some(c))
    }

    fn after_spaces(&self, at: usize) -> usize {
        at + self.0.iter().skip(at).take_while(|c| **c == ' ').count()
    }

    fn string(&self, start: usize, end: usize) -> String {
        self.0[start..end].iter().collect()
    }

    /// The quantity whose digits begin at `at`.
    fn quantity(&self, at: usize) -> Option<Quantity> {
        let before = at.checked_sub(1).map(|i| self.0[i]);
        let letter = before.is_some_and(char::is_alphabetic);
        // The 2 of "m2", "cm^2", "x_1" and "x^{10}" is not a number of its own.
        let raised = self.belongs_to_name(at);
        let is_fraction = self.starts_with(at, "\\frac");
        if raised || letter && !is_fraction {
            return None;
        }
        let (mut value, mut end) =
            if is_fraction { self.fraction(at) } else { self.magnitude(at)? };
        // After a root, a symbol or a command the number is part of a term.
        let mut left = &self.0[..at];
        let mut of_command = false;
        while let [rest @ .., bracket @ ('{' | '(' | '[' | ' ')] = left {
            of_command =
                *bracket == '{' && rest.last().is_some_and(|c| c.is_alphabetic() || *c == '}');
            left = rest;
        }
        let of_term = of_command
            || left.last().is_some_and(|c| "√π".contains(*c))
            || matches!(left, [.., symbol, '/'] if symbol.is_alphabetic() || ")}".contains(*symbol))
            || letter;
        if of_term || self.is_term(end) {
            value = None;
        }
        let (mut start, negative) = self.sign(at);
        let mut unit = None;
        let currency = start.max(at.saturating_sub(1));
        for i in [start, currency] {
            if let Some(c) = self.at(i).filter(|c| i < at && CURRENCIES.contains(*c)) {
                unit = leading_unit(&c.to_string());
                start = start.min(i);
            }
        }
        if negative {
            value = value.map(Number::negated);
        }
        let mut scaled = end;
        while let Some((power, after)) = self.scale(scaled) {
            value = value.and_then(|v| v.times(&Number::decimal("10", "")?.power(power)?));
            (end, scaled) = (after, after);
        }
        let percent_at = self.after_spaces(end);
        let percent = ["%", "percent", "per cent"]
            .into_iter()
            .find(|sign| self.starts_with(percent_at, sign));
        if let Some(sign) = percent {
            end = percent_at + sign.chars().count();
        }
        let follows = self.string(end, self.0.len().min(end + 60));
        let unit = unit.or_else(|| leading_unit(&follows).filter(|_| percent.is_none()));
        Some(Quantity { value, percent: percent.is_some(), unit, start, end })
    }

    /// Whether the digits at `at` are an exponent or an index of a name.
    fn belongs_to_name(&self, at: usize) -> bool {
        let mut left = &self.0[..at];
        while let [rest @ .., '{' | '-' | '+' | '('] = left {
            left = rest;
        }
        matches!(left, [.., name, '^' | '_'] if name.is_alphanumeric() || ")}]°".contains(*name))
    }

    /// Whether what follows a number makes it a term of algebra: "2x", "2 √3", "2π", "2\alpha".
    fn is_term(&self, end: usize) -> bool {
        let glued = self.at(end);
        let next_is_letter = self.at(end + 1).is_some_and(char::is_alphabetic);
        let symbol = self.at(self.after_spaces(end));
        symbol.is_some_and(|c| "π√".contains(c))
            || glued == Some('\\') && next_is_letter
            || glued == Some('^')
            || glued.is_some_and(|c| VARIABLES.contains(c)) && !next_is_letter
    }

    /// Start of the sign or currency before the number at `at`, and whether the sign is a minus
    /// that is not between two operands.
    fn sign(&self, at: usize) -> (usize, bool) {
        let currency = |i: usize| i > 0 && CURRENCIES.contains(self.0[i - 1]);
        let mut start = at;
        if currency(start) {
            start -= 1;
        }
        let minus = start > 0 && self.0[start - 1] == '-';
        let operand = |c: char| c.is_alphanumeric() || c == ')' || c == '}';
        if minus && !(start > 1 && operand(self.0[start - 2])) {
            return (start - 1, true);
        }
        (start, false)
    }

    /// `\frac{a}{b}` and `\frac12`; without a value if the parts are not numbers.
    fn fraction(&self, at: usize) -> (Option<Number>, usize) {
        let mut end = at + "\\frac".len();
        let mut parts = Vec::new();
        for _ in 0..2 {
            end = self.after_spaces(end);
            let longest = self.0.len().min(end + LONGEST_ARGUMENT);
            let rest = self.string(end, longest);
            if let Some((inner, after)) = braced(&rest) {
                // Nested fractions are compared as text.
                let part = if inner.contains("\\frac") { None } else { whole(inner) };
                parts.push(part.filter(|part| !part.percent).and_then(|part| part.value));
                end = longest - after.chars().count();
            } else if let Some(digit) = self.at(end).filter(char::is_ascii_digit) {
                parts.push(Number::decimal(&digit.to_string(), ""));
                end += 1;
            } else {
                return (None, end);
            }
        }
        let value = match parts.as_slice() {
            [Some(a), Some(b)] => a.divided_by(b),
            _ => None,
        };
        (value, end)
    }

    /// The unsigned number at `at`, and its end.
    fn magnitude(&self, at: usize) -> Option<(Option<Number>, usize)> {
        if let Some(value) = self.vulgar(at) {
            return Some((Some(value), at + 1));
        }
        let (whole, fraction, end) = self.decimal(at)?;
        let value = Number::decimal(&whole, &fraction);
        if fraction.is_empty() {
            if let Some((part, end)) = self.proper_part(end) {
                return Some((value.and_then(|value| value.plus(&part?)), end));
            }
            if let Some((value, end)) = self.slash(value.as_ref(), end) {
                return Some((value, end));
            }
        }
        Some(self.exponents(value, end))
    }

    /// The digits before and after the point. Groups of thousands are exactly three digits after
    /// one to three.
    fn decimal(&self, at: usize) -> Option<(String, String, usize)> {
        let mut end = at + self.digits(at);
        let mut whole = self.string(at, end);
        if (1..=3).contains(&whole.len())
            && let Some(separator) = self.at(end).filter(|c| ",_ ".contains(*c))
        {
            while self.at(end) == Some(separator) && self.digits(end + 1) == 3 {
                // "1 000/3" is at most a mixed number.
                if separator == ' ' && self.at(end + 4) == Some('/') {
                    break;
                }
                whole.extend(&self.0[end + 1..end + 4]);
                end += 4;
            }
        }
        let mut fraction = String::new();
        if self.at(end) == Some('.') && self.digits(end + 1) > 0 {
            let last = end + 1 + self.digits(end + 1);
            fraction = self.string(end + 1, last);
            end = last;
        }
        (!whole.is_empty() || !fraction.is_empty()).then_some((whole, fraction, end))
    }

    fn vulgar(&self, at: usize) -> Option<Number> {
        let (_, a, b) = VULGAR.iter().find(|(c, _, _)| self.at(at) == Some(*c))?;
        Number::decimal(a, "")?.divided_by(&Number::decimal(b, "")?)
    }

    /// The fraction of a mixed number whose whole part ends at `end`: "1 1/2", "1½",
    /// `1\frac{1}{2}`.
    fn proper_part(&self, end: usize) -> Option<(Option<Number>, usize)> {
        let at = self.after_spaces(end);
        let (value, last) = if let Some(value) = self.vulgar(at) {
            (Some(value), at + 1)
        } else if self.starts_with(at, "\\frac") {
            self.fraction(at)
        } else if at > end && self.digits(at) > 0 {
            let numerator = Number::decimal(&self.string(at, at + self.digits(at)), "");
            self.slash(numerator.as_ref(), at + self.digits(at))?
        } else {
            return None;
        };
        value.as_ref().is_none_or(Number::is_proper).then_some((value, last))
    }

    /// The fraction of a number that ends at `end` and of one after a slash. A second slash makes
    /// it a date, without a value.
    fn slash(&self, numerator: Option<&Number>, end: usize) -> Option<(Option<Number>, usize)> {
        let slash = self.after_spaces(end);
        let spaced = slash > end;
        let at = self.after_spaces(slash + 1);
        if self.at(slash) != Some('/') || spaced != (at > slash + 1) || self.digits(at) == 0 {
            return None;
        }
        let mut last = at + self.digits(at);
        let mut value = numerator
            .zip(Number::decimal(&self.string(at, last), "").as_ref())
            .and_then(|(a, b)| a.divided_by(b));
        while self.at(last) == Some('/') && self.digits(last + 1) > 0 {
            value = None;
            last += 1 + self.digits(last + 1);
        }
        Some((value, last))
    }

    /// Powers: `1e3`, `10^3`, `10³`, `1 × 10^{-3}`.
    fn exponents(&self, mut value: Option<Number>, mut end: usize) -> (Option<Number>, usize) {
        if matches!(self.at(end), Some('e' | 'E'))
            && let Some((exponent, last)) = self.integer(end + 1)
            && !self.at(last).is_some_and(char::is_alphanumeric)
        {
            return (scaled(value, exponent), last);
        }
        if let Some((exponent, last)) = self.power(end) {
            value = exponent.and_then(|exponent| value?.power(exponent));
            end = last;
        }
        let sign = self.after_spaces(end);
        let ten = self.after_spaces(sign + 1);
        if matches!(self.at(sign), Some('×' | '·' | '*' | 'x'))
            && self.starts_with(ten, "10")
            && let Some((exponent, last)) = self.power(ten + 2)
        {
            return (scaled(value, exponent), last);
        }
        (value, end)
    }

    /// An exponent after `^`, or raised.
    fn power(&self, at: usize) -> Option<(Option<i32>, usize)> {
        let raised = |i: usize| self.at(i).and_then(|c| SUPERSCRIPTS.chars().position(|s| s == c));
        let minus = self.at(at) == Some('⁻');
        let first = at + usize::from(minus);
        if raised(first).is_some() {
            let mut end = first;
            let mut exponent = 0_i32;
            while let Some(digit) = raised(end) {
                exponent = exponent.saturating_mul(10).saturating_add(digit as i32);
                end += 1;
            }
            return Some((Some(if minus { -exponent } else { exponent }), end));
        }
        if self.at(at) != Some('^') {
            return None;
        }
        let close = match self.at(at + 1) {
            Some('{') => Some('}'),
            Some('(') => Some(')'),
            _ => None,
        };
        let (exponent, end) = self.integer(at + 1 + usize::from(close.is_some()))?;
        if close.is_some() && self.at(end) != close {
            return None;
        }
        Some((exponent, end + usize::from(close.is_some())))
    }

    /// A signed integer; without a value if it is too large for an exponent.
    fn integer(&self, at: usize) -> Option<(Option<i32>, usize)> {
        let first = at + usize::from(matches!(self.at(at), Some('-' | '+')));
        let end = first + self.digits(first);
        let digits = self.string(first, end);
        let magnitude: Option<i32> = digits.parse().ok();
        let signed = magnitude.map(|n| if self.at(at) == Some('-') { -n } else { n });
        (end > first).then_some((signed, end))
    }

    /// The power of ten of a word after a number, and the word's end.
    fn scale(&self, end: usize) -> Option<(i32, usize)> {
        let at = self.after_spaces(end);
        let letters = self.0.iter().skip(at).take_while(|c| c.is_alphabetic()).count();
        let word = self.string(at, at + letters).to_lowercase();
        let (_, power) = SCALES.iter().find(|(name, _)| *name == word)?;
        (at > end).then_some((*power, at + letters))
    }
}

fn scaled(value: Option<Number>, exponent: Option<i32>) -> Option<Number> {
    value?.times(&Number::decimal("10", "")?.power(exponent?)?)
}
