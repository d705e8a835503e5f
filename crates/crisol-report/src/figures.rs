//! Formatting of numbers. A number that is not finite is written `–`. A no-break space joins
//! a number and its unit.
//!
//! The functions write English. [`Language`]'s methods of the same names write a language's own:
//! Spanish has a decimal comma, and a no-break space between thousands from 10 000 on.

use crate::{Language, ModelSummary};

impl Language {
    /// A number that is written in English, as this language writes it.
    pub(crate) fn localised(self, number: &str) -> String {
        match self {
            Language::English => number.to_owned(),
            Language::Spanish => {
                let whole = number.split('.').next().unwrap_or_default();
                let digits = whole.chars().filter(char::is_ascii_digit).count();
                let between = if digits < 5 { "" } else { "\u{a0}" };
                number.replace(',', between).replace('.', ",")
            }
        }
    }

    pub(crate) fn percent(self, share: f64) -> String {
        self.localised(&percent(share))
    }

    pub(crate) fn plain(self, value: f64) -> String {
        self.localised(&plain(value))
    }

    /// A count or amount with a decimal prefix and three significant digits: `1.23 M`, `4,56 M`.
    pub fn prefixed(self, value: f64, unit: &str) -> String {
        self.localised(&prefixed(value, unit))
    }

    /// `135 M parameters`, with an adapter `135 M parameters (4.9 M trained)`.
    pub(crate) fn parameters(self, model: &ModelSummary) -> String {
        let &ModelSummary { parameters, trained_parameters: trained, .. } = model;
        let (texts, all) = (&self.texts().top, self.prefixed(parameters as f64, ""));
        if [0, parameters].contains(&trained) {
            return (texts.parameters)([&all]);
        }
        (texts.trained_parameters)([&all, &self.prefixed(trained as f64, "")])
    }

    /// A duration: `8.4 s`, `8,4 s`, `3 min 12 s`.
    pub fn duration(self, seconds: f64) -> String {
        self.localised(&duration(seconds))
    }

    /// A number with so many decimals.
    pub(crate) fn fixed(self, value: f64, decimals: usize) -> String {
        self.localised(&format!("{value:.decimals$}"))
    }
}

/// Placeholder for a missing figure.
pub(crate) const NONE: &str = "–";

/// A fraction in per cent, with one decimal only if it is not zero.
fn percent(share: f64) -> String {
    if !share.is_finite() {
        return NONE.to_owned();
    }
    let tenths = (share * 1000.0).round();
    if tenths % 10.0 == 0.0 {
        format!("{}\u{a0}%", tenths / 10.0 + 0.0)
    } else {
        format!("{:.1}\u{a0}%", tenths / 10.0)
    }
}

/// A number with three significant digits, or all of its whole part.
fn plain(value: f64) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let size = value.abs();
    if size == 0.0 {
        "0".to_owned()
    } else if !(1e-3..1e9).contains(&size) {
        let text = format!("{size:.2e}");
        let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
        let digits = digits.trim_end_matches('0').trim_end_matches('.');
        format!("{}{digits}e{power}", if value < 0.0 { "−" } else { "" })
    } else if size >= 100.0 {
        let whole = format!("{size:.0}");
        format!("{}{}", if value < 0.0 { "−" } else { "" }, thousands(&whole))
    } else {
        let decimals = (2 - size.log10().floor() as i32) as usize;
        let text = format!("{value:.decimals$}");
        let text = if text.contains('.') {
            text.trim_end_matches('0').trim_end_matches('.')
        } else {
            &text
        };
        text.replace('-', "−")
    }
}

fn thousands(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A count or amount with a decimal prefix and three significant digits: `1.23 M`, `4.56 TFLOP`.
pub fn prefixed(value: f64, unit: &str) -> String {
    if !value.is_finite() {
        return NONE.to_owned();
    }
    let mut scaled = value;
    let mut prefix = "";
    for next in ["k", "M", "G", "T", "P", "E", "Z", "Y"] {
        // 999.5 would be written as 1000.
        if scaled.abs() < 999.5 {
            break;
        }
        scaled /= 1000.0;
        prefix = next;
    }
    let number = plain(scaled);
    if prefix.is_empty() && unit.is_empty() {
        number
    } else {
        format!("{number}\u{a0}{prefix}{unit}")
    }
}

/// A duration: `8.4 s`, `3 min 12 s`, `2 h 5 min`.
fn duration(seconds: f64) -> String {
    if !seconds.is_finite() {
        return NONE.to_owned();
    }
    let whole = seconds.max(0.0).round() as u64;
    if seconds < 9.95 {
        format!("{:.1}\u{a0}s", seconds.max(0.0))
    } else if whole < 60 {
        format!("{whole}\u{a0}s")
    } else if whole < 3600 {
        format!("{}\u{a0}min {}\u{a0}s", whole / 60, whole % 60)
    } else {
        format!("{}\u{a0}h {}\u{a0}min", whole / 3600, whole % 3600 / 60)
    }
}

/// `part` of `whole` as a fraction; NaN if `whole` is not positive.
pub(crate) fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { f64::NAN }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn per_cent() {
        assert_eq!(percent(0.0), "0\u{a0}%");
        assert_eq!(percent(1.0), "100\u{a0}%");
        assert_eq!(percent(0.9666), "96.7\u{a0}%");
        assert_eq!(percent(-0.0001), "0\u{a0}%");
        assert_eq!(percent(f64::NAN), NONE);
    }

    #[test]
    fn numbers() {
        assert_eq!(plain(0.0), "0");
        assert_eq!(plain(2.0), "2");
        assert_eq!(plain(1.23456), "1.23");
        assert_eq!(plain(-0.05), "−0.05");
        assert_eq!(plain(99.96), "100");
        assert_eq!(plain(1_234_567.0), "1,234,567");
        assert_eq!(plain(3e-4), "3e-4");
        assert_eq!(plain(-1.25e-4), "−1.25e-4");
        assert_eq!(plain(2.5e10), "2.5e10");
        assert_eq!(plain(f64::INFINITY), NONE);
    }

    #[test]
    fn prefixes() {
        assert_eq!(prefixed(999.0, ""), "999");
        assert_eq!(prefixed(999.9, ""), "1\u{a0}k");
        assert_eq!(prefixed(1_123_456.0, ""), "1.12\u{a0}M");
        assert_eq!(prefixed(4.56e13, "FLOP"), "45.6\u{a0}TFLOP");
        assert_eq!(prefixed(1.5e9, "B"), "1.5\u{a0}GB");
    }

    #[test]
    fn numbers_in_spanish() {
        let es = Language::Spanish;
        assert_eq!(es.percent(0.9666), "96,7\u{a0}%");
        assert_eq!(es.plain(-0.05), "−0,05");
        assert_eq!(es.plain(-1.25e-4), "−1,25e-4");
        assert_eq!([es.plain(1_234.0), es.plain(12_345.0)], ["1234", "12\u{a0}345"]);
        assert_eq!(es.plain(1_234_567.0), "1\u{a0}234\u{a0}567");
        assert_eq!(es.prefixed(1_123_456.0, ""), "1,12\u{a0}M");
        assert_eq!([es.duration(8.4), es.duration(192.0)], ["8,4\u{a0}s", "3\u{a0}min 12\u{a0}s"]);
        assert_eq!([es.fixed(2.0, 3), es.fixed(f64::NAN, 3)], ["2,000", "NaN"]);
    }

    #[test]
    fn durations() {
        assert_eq!(duration(0.04), "0.0\u{a0}s");
        assert_eq!(duration(9.97), "10\u{a0}s");
        assert_eq!(duration(59.6), "1\u{a0}min 0\u{a0}s");
        assert_eq!(duration(192.0), "3\u{a0}min 12\u{a0}s");
        assert_eq!(duration(7500.0), "2\u{a0}h 5\u{a0}min");
        assert_eq!(duration(f64::NAN), NONE);
    }
}
