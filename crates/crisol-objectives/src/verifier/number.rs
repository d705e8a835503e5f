//! Exact rational numbers of bounded size: equality has no rounding, and no answer is expensive.

/// Base of a digit: nine decimal digits.
const BASE: u64 = 1_000_000_000;
/// Maximum decimal digits of a natural number. Longer ones are not numbers to the verifier.
const MAX_DIGITS: usize = 1000;

/// A natural number: digits in base [`BASE`], least significant first, without leading zeros.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Natural(Vec<u32>);

impl Natural {
    fn one() -> Self {
        Natural(vec![1])
    }

    /// From ASCII digits.
    fn parse(digits: &str) -> Option<Self> {
        let digits = digits.trim_start_matches('0').as_bytes();
        if digits.len() > MAX_DIGITS {
            return None;
        }
        let group =
            |nine: &[u8]| nine.iter().fold(0, |sum, digit| 10 * sum + u32::from(digit - b'0'));
        Some(Natural(digits.rchunks(9).map(group).collect()))
    }

    fn is_zero(&self) -> bool {
        self.0.is_empty()
    }

    /// The product, however long.
    fn times(&self, other: &Self) -> Self {
        let mut digits = vec![0_u32; self.0.len() + other.0.len()];
        for (i, &a) in self.0.iter().enumerate() {
            let mut carry = 0;
            for (j, &b) in other.0.iter().enumerate() {
                let sum = u64::from(a) * u64::from(b) + u64::from(digits[i + j]) + carry;
                digits[i + j] = (sum % BASE) as u32;
                carry = sum / BASE;
            }
            digits[i + other.0.len()] = carry as u32;
        }
        Self::trimmed(digits)
    }

    fn plus(&self, other: &Self) -> Self {
        let mut digits = Vec::new();
        let mut carry = 0;
        for i in 0..self.0.len().max(other.0.len()) {
            let at = |n: &Self| u64::from(n.0.get(i).copied().unwrap_or(0));
            let sum = at(self) + at(other) + carry;
            digits.push((sum % BASE) as u32);
            carry = sum / BASE;
        }
        digits.push(carry as u32);
        Self::trimmed(digits)
    }

    fn trimmed(mut digits: Vec<u32>) -> Self {
        while digits.last() == Some(&0) {
            digits.pop();
        }
        Natural(digits)
    }

    /// `self`, unless it is too long.
    fn bounded(self) -> Option<Self> {
        (9 * self.0.len() <= MAX_DIGITS + 9).then_some(self)
    }

    fn power(&self, exponent: u32) -> Option<Self> {
        if self.0.is_empty() || self.0 == [1] {
            return Some(if exponent == 0 { Self::one() } else { self.clone() });
        }
        // A base of at least two exceeds the bound within four steps per decimal digit.
        let mut power = Self::one();
        for _ in 0..exponent {
            power = power.times(self).bounded()?;
        }
        Some(power)
    }
}

/// A rational number, not reduced; equality compares values.
#[derive(Clone, Debug)]
pub(super) struct Number {
    negative: bool,
    numerator: Natural,
    /// Not zero.
    denominator: Natural,
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        let (left, right) =
            (self.numerator.times(&other.denominator), other.numerator.times(&self.denominator));
        left == right && (self.negative == other.negative || left.is_zero())
    }
}

impl Number {
    /// A decimal number from the digits before and after the point.
    pub(super) fn decimal(whole: &str, fraction: &str) -> Option<Self> {
        let numerator = Natural::parse(&format!("{whole}{fraction}"))?;
        let denominator = ten_to(u32::try_from(fraction.len()).ok()?)?;
        Some(Number { negative: false, numerator, denominator })
    }

    pub(super) fn negated(self) -> Self {
        Number { negative: !self.negative, ..self }
    }

    pub(super) fn is_zero(&self) -> bool {
        self.numerator.is_zero()
    }

    pub(super) fn times(&self, other: &Self) -> Option<Self> {
        Some(Number {
            negative: self.negative != other.negative,
            numerator: self.numerator.times(&other.numerator).bounded()?,
            denominator: self.denominator.times(&other.denominator).bounded()?,
        })
    }

    pub(super) fn divided_by(&self, other: &Self) -> Option<Self> {
        if other.is_zero() {
            return None;
        }
        let Number { negative, numerator, denominator } = other.clone();
        self.times(&Number { negative, numerator: denominator, denominator: numerator })
    }

    /// The sum of two numbers that are not negative.
    pub(super) fn plus(&self, other: &Self) -> Option<Self> {
        let left = self.numerator.times(&other.denominator);
        let right = other.numerator.times(&self.denominator);
        Some(Number {
            negative: false,
            numerator: left.plus(&right).bounded()?,
            denominator: self.denominator.times(&other.denominator).bounded()?,
        })
    }

    /// A power with an integer exponent, unless it is too long.
    pub(super) fn power(&self, exponent: i32) -> Option<Self> {
        let size = exponent.unsigned_abs();
        if exponent < 0 {
            let inverse = Number::decimal("1", "")?.divided_by(self)?;
            return inverse.power(i32::try_from(size).ok()?);
        }
        Some(Number {
            negative: self.negative && size % 2 == 1,
            numerator: self.numerator.power(size)?,
            denominator: self.denominator.power(size)?,
        })
    }

    /// A hundredth of it.
    pub(super) fn percent(&self) -> Option<Self> {
        self.divided_by(&Number::decimal("100", "")?)
    }

    /// Whether it is less than one, as the fraction of a mixed number is.
    pub(super) fn is_proper(&self) -> bool {
        let (n, d) = (&self.numerator.0, &self.denominator.0);
        (n.len(), n.iter().rev().collect::<Vec<_>>()) < (d.len(), d.iter().rev().collect())
    }
}

fn ten_to(exponent: u32) -> Option<Natural> {
    Natural(vec![10]).power(exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Number {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        Number::decimal(whole, fraction).expect("a short number")
    }

    #[test]
    fn arithmetic_equals_that_of_the_machine() {
        let values =
            [0_u128, 1, 9, 10, 999_999_999, 1_000_000_000, 1_000_000_001, 123_456_789_012_345];
        for a in values {
            for b in values {
                let [x, y] = [a, b].map(|n| number(&n.to_string()));
                assert_eq!(x.times(&y).unwrap(), number(&(a * b).to_string()), "{a} * {b}");
                assert_eq!(x.plus(&y).unwrap(), number(&(a + b).to_string()), "{a} + {b}");
                assert_eq!(x == y, a == b, "{a} == {b}");
                if b > 0 {
                    assert_eq!(x.divided_by(&y).unwrap().times(&y).unwrap(), x);
                    assert_eq!(x.divided_by(&y).unwrap().is_proper(), a < b, "{a} / {b}");
                }
            }
        }
        assert_eq!(number("2").power(10).unwrap(), number("1024"));
        assert_eq!(number("10").power(-2).unwrap(), number("0.01"));
        assert_eq!(number("0").negated(), number("0"));
        assert_ne!(number("1").negated(), number("1"));
    }

    #[test]
    fn what_is_too_long_is_no_number() {
        assert!(Number::decimal(&"9".repeat(MAX_DIGITS), "").is_some());
        assert!(Number::decimal(&"9".repeat(MAX_DIGITS + 1), "").is_none());
        assert!(number("10").power(i32::MAX).is_none());
        assert!(number("10").power(i32::MIN + 1).is_none());
        assert!(number("0").power(-1).is_none());
        assert!(number("3").divided_by(&number("0")).is_none());
        assert_eq!(number("1").power(i32::MAX).unwrap(), number("1"));
    }
}
