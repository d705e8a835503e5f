//! The language of what a student reads: reports, summaries, chats. It is chosen once for the
//! process, by `--lang` or by the environment. Errors, help and JSON are English.

use std::sync::OnceLock;

use crisol_report::Language;

static CHOSEN: OnceLock<Language> = OnceLock::new();

/// Chooses the language: the given one, else that of the environment.
pub(crate) fn choose(given: Option<Language>) {
    let chosen = given.unwrap_or_else(|| of_environment(|name| std::env::var(name).ok()));
    CHOSEN.set(chosen).expect("the command line is read once");
}

/// The language of this process.
pub(crate) fn language() -> Language {
    CHOSEN.get().copied().unwrap_or_default()
}

/// The language of the first variable that is set, as every program's messages have it.
fn of_environment(variable: impl Fn(&str) -> Option<String>) -> Language {
    let mut set = ["LC_ALL", "LC_MESSAGES", "LANG"].into_iter().filter_map(variable);
    set.find(|locale| !locale.is_empty())
        .map_or(Language::default(), |locale| Language::of_locale(&locale))
}

/// The value of `--lang`.
pub(crate) fn parse(code: &str) -> Result<Language, String> {
    let known = Language::ALL.into_iter().find(|language| language.code() == code);
    known.ok_or_else(|| format!("{} is needed", Language::ALL.map(Language::code).join(" or ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_variable_that_is_set_decides() {
        let of = |variables: &[(&str, &str)]| {
            of_environment(|name| {
                let found = variables.iter().find(|(set, _)| *set == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        assert_eq!(of(&[]), Language::English);
        assert_eq!(of(&[("LANG", "es_ES.UTF-8")]), Language::Spanish);
        assert_eq!(of(&[("LC_ALL", "C"), ("LANG", "es_ES.UTF-8")]), Language::English);
        assert_eq!(of(&[("LC_ALL", ""), ("LC_MESSAGES", "es_MX")]), Language::Spanish);
        assert_eq!(of(&[("LC_MESSAGES", "en_US"), ("LANG", "es_ES")]), Language::English);
        assert_eq!(of(&[("LC_CTYPE", "es_ES.UTF-8")]), Language::English);
    }

    #[test]
    fn codes_are_read() {
        assert_eq!([parse("en"), parse("es")], [Ok(Language::English), Ok(Language::Spanish)]);
        assert_eq!(parse("ES"), Err("en or es is needed".to_owned()));
    }
}
