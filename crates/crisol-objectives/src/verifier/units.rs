//! Units after numbers. Two different units of this table make two answers differ; a unit that is
//! missing or not in it ("42 apples") is ignored.

/// Names of units; the first of a row is canonical.
const UNITS: &[&[&str]] = &[
    &["mm", "millimeter", "millimetre"],
    &["cm", "centimeter", "centimetre"],
    &["m", "meter", "metre"],
    &["km", "kilometer", "kilometre"],
    &["inch", "inches"],
    &["ft", "foot", "feet"],
    &["yd", "yard"],
    &["mi", "mile"],
    &["mg", "milligram"],
    &["g", "gram"],
    &["kg", "kilogram"],
    &["ton", "tonne"],
    &["oz", "ounce"],
    &["lb", "lbs", "pound"],
    &["ms", "millisecond"],
    &["s", "sec", "second"],
    &["min", "minute"],
    &["h", "hr", "hour"],
    &["day"],
    &["week"],
    &["month"],
    &["year"],
    &["ml", "milliliter", "millilitre"],
    &["l", "liter", "litre"],
    &["gal", "gallon"],
    &["°", "deg", "degree"],
    &["°c", "celsius"],
    &["°f", "fahrenheit"],
    &["rad", "radian"],
    &["$", "usd", "dollar"],
    &["€", "eur", "euro"],
    &["£", "gbp"],
    &["¥", "yen"],
    &["¢", "cent"],
];
/// Compound units under other names.
const COMPOUND: &[(&str, &str)] =
    &[("mph", "mi/h"), ("kph", "km/h"), ("kmh", "km/h"), ("degrees celsius", "°c")];
/// Words that continue a number or a sentence, not units.
const NOT_UNITS: &[&str] = &[
    "and",
    "but",
    "cos",
    "cot",
    "exp",
    "ln",
    "log",
    "less",
    "minus",
    "mod",
    "more",
    "not",
    "over",
    "pi",
    "plus",
    "point",
    "root",
    "roots",
    "sin",
    "sqrt",
    "tan",
    "than",
    "times",
    "to",
    "or",
    "if",
    "is",
    "in",
    "at",
    "by",
    "for",
    "from",
    "with",
    "the",
    "are",
    "was",
    "divided",
    "factorial",
];
/// Maximum words of a name: "meters per second squared".
const MAX_WORDS: usize = 4;

/// The canonical unit that a text begins with, if it is in the table.
pub(super) fn leading_unit(text: &str) -> Option<String> {
    let text: String = text.chars().take(60).collect();
    let end = text.find([',', ';', ':', '!', '?', '\n', '(', '=']).unwrap_or(text.len());
    let words: Vec<&str> = text[..end].split_whitespace().take(MAX_WORDS).collect();
    (1..=words.len()).rev().find_map(|n| canonical(&words[..n].join(" ")))
}

/// Whether a text after a number is its unit: one of the table, or what is counted ("red apples").
pub(super) fn is_unit(text: &str) -> bool {
    if canonical(text).is_some() {
        return true;
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    let names_thing = |word: &&str| {
        let letters =
            |part: &str| part.chars().count() >= 3 && part.chars().all(char::is_alphabetic);
        word.split('-').all(letters) && !NOT_UNITS.contains(&word.to_lowercase().as_str())
    };
    text.starts_with(char::is_whitespace)
        && (1..=3).contains(&words.len())
        && words.iter().all(names_thing)
}

/// The canonical name of a unit: "square centimetres", "cm^2" and "cm²" are "cm2".
fn canonical(text: &str) -> Option<String> {
    let text = text.trim().trim_end_matches('.').to_lowercase();
    let text: String = text.chars().filter(|c| !"^{}*".contains(*c)).collect();
    let text = text.replace('²', "2").replace('³', "3");
    let compound =
        |name: &str| COMPOUND.iter().find(|(known, _)| *known == name).map(|(_, unit)| *unit);
    if let Some(unit) = compound(&text) {
        return Some(unit.to_owned());
    }
    let parts: Option<Vec<String>> = text.replace(" per ", "/").split('/').map(simple).collect();
    parts.map(|parts| parts.join("/"))
}

/// The canonical name of a unit without "per".
fn simple(text: &str) -> Option<String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let (word, power) = match words.as_slice() {
        ["square" | "sq" | "sq.", word] | [word, "squared"] => (*word, "2"),
        ["cubic" | "cu" | "cu.", word] | [word, "cubed"] => (*word, "3"),
        [word] => match word.strip_suffix(['2', '3']) {
            Some(base) => (base, &word[base.len()..]),
            None => (*word, ""),
        },
        _ => return None,
    };
    let named = |name: &str| UNITS.iter().find(|names| names.contains(&name)).map(|names| names[0]);
    // "s" alone is a unit, and so is "ms".
    let unit =
        named(word).or_else(|| named(word.strip_suffix('s').filter(|w| w.chars().count() > 2)?))?;
    Some(format!("{unit}{power}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_unit_has_one_name() {
        for (name, spellings) in [
            (
                "cm2",
                &[
                    "cm^2",
                    "cm^{2}",
                    "cm²",
                    "cm2",
                    "square centimeters",
                    "centimetres squared",
                    "sq cm",
                ][..],
            ),
            ("km/h", &["km/h", "kph", "kilometers per hour"]),
            ("mi/h", &["mph", "miles per hour."]),
            ("$", &["dollars", "USD"]),
            ("°", &["°", "degrees"]),
        ] {
            for spelling in spellings {
                assert_eq!(canonical(spelling).as_deref(), Some(name), "{spelling}");
                let text = format!("{spelling} of something");
                assert_eq!(leading_unit(&text).as_deref(), Some(name), "{text}");
            }
        }
        assert_eq!(canonical("apples"), None);
        assert!(is_unit(" apples") && is_unit(" red apples") && is_unit("cm") && is_unit("°"));
        for no_unit in ["", "x", "apples", " or more", " pi", " and 8", " x y", "2"] {
            assert!(!is_unit(no_unit), "{no_unit:?}");
        }
    }
}
