//! Physical quantities as distinct types, and their parsing.
//!
//! All are f64: the largest (10²⁵ FLOPs) fit no integer, and every integer that must be exact
//! (parameters, bytes of a tensor) is below 2⁵³.

use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, Mul, Sub};

use thiserror::Error;

macro_rules! quantity {
    ($($(#[$doc:meta])+ $name:ident;)+) => {$(
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
        pub struct $name(pub f64);

        impl Add for $name {
            type Output = $name;
            fn add(self, other: $name) -> $name {
                $name(self.0 + other.0)
            }
        }
        impl AddAssign for $name {
            fn add_assign(&mut self, other: $name) {
                self.0 += other.0;
            }
        }
        impl Sub for $name {
            type Output = $name;
            fn sub(self, other: $name) -> $name {
                $name(self.0 - other.0)
            }
        }
        impl Mul<f64> for $name {
            type Output = $name;
            fn mul(self, factor: f64) -> $name {
                $name(self.0 * factor)
            }
        }
        impl Div<f64> for $name {
            type Output = $name;
            fn div(self, divisor: f64) -> $name {
                $name(self.0 / divisor)
            }
        }
        /// The ratio of two quantities.
        impl Div for $name {
            type Output = f64;
            fn div(self, other: $name) -> f64 {
                self.0 / other.0
            }
        }
        impl Sum for $name {
            fn sum<I: Iterator<Item = $name>>(all: I) -> $name {
                $name(all.map(|one| one.0).sum())
            }
        }
    )+};
}

quantity! {
    /// Tokens.
    Tokens;
    /// Floating-point operations; a multiply-add is two.
    Flops;
    /// Bytes.
    Bytes;
    /// Seconds.
    Seconds;
    /// US dollars.
    Dollars;
    /// Energy in joules.
    Joules;
    /// Operations per token.
    FlopsPerToken;
    /// Operations per second.
    FlopRate;
    /// Bytes per second.
    ByteRate;
    /// Tokens per second.
    TokenRate;
    /// Dollars per second.
    Price;
    /// Power in watts.
    Watts;
}

/// Defines `$product = $a * $b`, commutative, and both divisions.
macro_rules! product {
    ($($product:ident = $a:ident * $b:ident;)+) => {$(
        impl Mul<$b> for $a {
            type Output = $product;
            fn mul(self, other: $b) -> $product {
                $product(self.0 * other.0)
            }
        }
        impl Mul<$a> for $b {
            type Output = $product;
            fn mul(self, other: $a) -> $product {
                $product(self.0 * other.0)
            }
        }
        impl Div<$a> for $product {
            type Output = $b;
            fn div(self, other: $a) -> $b {
                $b(self.0 / other.0)
            }
        }
        impl Div<$b> for $product {
            type Output = $a;
            fn div(self, other: $b) -> $a {
                $a(self.0 / other.0)
            }
        }
    )+};
}

product! {
    Flops = FlopsPerToken * Tokens;
    Flops = FlopRate * Seconds;
    Bytes = ByteRate * Seconds;
    Tokens = TokenRate * Seconds;
    Dollars = Price * Seconds;
    Joules = Watts * Seconds;
}

const SECONDS_PER_HOUR: f64 = 3600.0;

impl Seconds {
    /// Converts from hours.
    pub fn from_hours(hours: f64) -> Seconds {
        Seconds(hours * SECONDS_PER_HOUR)
    }

    /// Converts to hours.
    pub fn hours(self) -> f64 {
        self.0 / SECONDS_PER_HOUR
    }
}

impl Price {
    /// Converts from dollars per hour.
    pub fn per_hour(dollars: f64) -> Price {
        Price(dollars / SECONDS_PER_HOUR)
    }

    /// Converts to dollars per hour.
    pub fn dollars_per_hour(self) -> f64 {
        self.0 * SECONDS_PER_HOUR
    }
}

impl Joules {
    /// Converts to kilowatt-hours.
    pub fn kilowatt_hours(self) -> f64 {
        self.0 / (1e3 * SECONDS_PER_HOUR)
    }
}

/// Why a text is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum QuantityError {
    /// It is not a number with a known unit.
    #[error("a number such as {example} is needed")]
    Unreadable {
        /// An example of the expected form.
        example: &'static str,
    },
    /// It is zero, negative or absurdly large.
    #[error("it must be more than 0 and below 10^30")]
    OutOfRange,
}

/// Parses a positive number with an optional unit of `units`, case-insensitive. An empty unit name
/// allows a bare number.
fn quantity(
    text: &str,
    units: &[(&str, f64)],
    example: &'static str,
) -> Result<f64, QuantityError> {
    let text = text.trim();
    // Longest number first: the `e` of an exponent is not a unit.
    let number_ends = |at: usize| {
        let (number, unit) = (text[..at].trim_end(), text[at..].trim());
        let factor = units.iter().find(|(name, _)| unit.eq_ignore_ascii_case(name))?.1;
        Some(number.replace('_', "").parse::<f64>().ok()? * factor)
    };
    let value = text
        .char_indices()
        .map(|(at, _)| at)
        .chain([text.len()])
        .rev()
        .find_map(number_ends)
        .ok_or(QuantityError::Unreadable { example })?;
    if value > 0.0 && value < 1e30 { Ok(value) } else { Err(QuantityError::OutOfRange) }
}

/// Parses a count, such as `2T`, `14.8T`, `7B`, `300K` or `1e21` (B is 10⁹).
pub fn count(text: &str) -> Result<f64, QuantityError> {
    const UNITS: [(&str, f64); 7] =
        [("", 1.0), ("K", 1e3), ("M", 1e6), ("B", 1e9), ("G", 1e9), ("T", 1e12), ("P", 1e15)];
    quantity(text, &UNITS, "2T, 7B, 300M or 1e21")
}

/// Parses dollars, such as `5000`, `$300K` or `2.5M`.
pub fn dollars(text: &str) -> Result<Dollars, QuantityError> {
    count(text.trim().trim_start_matches('$')).map(Dollars).map_err(|error| match error {
        QuantityError::Unreadable { .. } => {
            QuantityError::Unreadable { example: "5000, $300K or 2.5M" }
        }
        QuantityError::OutOfRange => error,
    })
}

/// Parses bytes, such as `80GB` or `24GiB`.
pub fn bytes(text: &str) -> Result<Bytes, QuantityError> {
    const UNITS: [(&str, f64); 9] = [
        ("", 1.0),
        ("KB", 1e3),
        ("MB", 1e6),
        ("GB", 1e9),
        ("TB", 1e12),
        ("KiB", 1024.0),
        ("MiB", 1_048_576.0),
        ("GiB", 1_073_741_824.0),
        ("TiB", 1_099_511_627_776.0),
    ];
    quantity(text, &UNITS, "500MB, 80GB or 24GiB").map(Bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn quantities_are_read_as_people_write_them() {
        for (text, value) in [
            ("2T", 2e12),
            ("14.8T", 14.8e12),
            ("7B", 7e9),
            ("7b", 7e9),
            (" 300 K ", 3e5),
            ("1e21", 1e21),
            ("1.5e3M", 1.5e9),
            ("1_000", 1000.0),
        ] {
            assert_eq!(count(text), Ok(value), "{text}");
        }
        assert_eq!(dollars("$300K"), Ok(Dollars(3e5)));
        assert_eq!(bytes("24GiB"), Ok(Bytes(24.0 * 1_073_741_824.0)));
        assert_eq!(bytes("200kb"), Ok(Bytes(2e5)));
        for text in
            ["", "T", "2X", "2TT", "two", "2 T tokens", "inf", "nan", "1e400", "2.5.1B", "é"]
        {
            assert!(count(text).is_err(), "{text}");
        }
        for text in ["0", "-1B", "-0.0", "1e30"] {
            assert_eq!(count(text), Err(QuantityError::OutOfRange), "{text}");
        }
        assert!(bytes("GB").is_err() && bytes("5GH").is_err() && dollars("€5").is_err());
    }

    #[test]
    fn what_is_multiplied_is_divided_again() {
        let work = FlopRate(3.0) * Seconds(4.0);
        assert_eq!(
            (work, work / FlopRate(3.0), work / Seconds(4.0)),
            (Flops(12.0), Seconds(4.0), FlopRate(3.0))
        );
        assert_eq!(Flops(6.0) / Flops(3.0), 2.0);
        assert_eq!(Seconds::from_hours(2.0), Seconds(7200.0));
        assert_eq!(Price::per_hour(3600.0) * Seconds(2.0), Dollars(2.0));
        assert_eq!((Watts(500.0) * Seconds::from_hours(2.0)).kilowatt_hours(), 1.0);
    }

    proptest! {
        #[test]
        fn no_text_is_a_panic(text in ".{0,20}") {
            for value in [count(&text), bytes(&text).map(|b| b.0), dollars(&text).map(|d| d.0)] {
                let in_range = |value: &f64| *value > 0.0 && *value < 1e30;
                prop_assert!(value.as_ref().ok().is_none_or(in_range));
            }
        }

        #[test]
        fn numbers_are_read_back(number in 1e-3..1e15_f64) {
            prop_assert_eq!(count(&number.to_string()), Ok(number));
        }
    }
}
