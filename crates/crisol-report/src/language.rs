//! The languages that a reader is addressed in. Data, names and what models write stay as they are.

use crate::texts::{ENGLISH, SPANISH, Texts};

/// A language of reports, summaries and chats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Language {
    /// English.
    #[default]
    English,
    /// Spanish.
    Spanish,
}

impl Language {
    /// Every language.
    pub const ALL: [Language; 2] = [Language::English, Language::Spanish];

    /// Its code in ISO 639-1, as `--lang` and HTML have it.
    pub const fn code(self) -> &'static str {
        match self {
            Language::English => "en",
            Language::Spanish => "es",
        }
    }

    /// The language of a locale's name (`es_ES.UTF-8`, `es`, `C`). English where there is no other.
    pub fn of_locale(name: &str) -> Language {
        let code = name.split(['_', '.', '@', '-']).next().unwrap_or_default();
        let known = Language::ALL.into_iter().find(|known| known.code().eq_ignore_ascii_case(code));
        known.unwrap_or_default()
    }

    /// One of a thing that exists in every language. The array's length makes the compiler find
    /// what lacks one.
    pub const fn of<T: Copy>(self, each: [T; Language::ALL.len()]) -> T {
        each[self as usize]
    }

    /// What the report says in this language.
    pub(crate) const fn texts(self) -> &'static Texts {
        match self {
            Language::English => &ENGLISH,
            Language::Spanish => &SPANISH,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locales_name_their_language() {
        for name in ["es", "es_ES.UTF-8", "es_MX", "es-AR", "es.UTF-8", "es@euro", "ES_es"] {
            assert_eq!(Language::of_locale(name), Language::Spanish, "{name}");
        }
        // Estonian begins with the same letters in ISO 639-2.
        for name in ["", "C", "C.UTF-8", "POSIX", "en_GB.UTF-8", "de_DE", "est"] {
            assert_eq!(Language::of_locale(name), Language::English, "{name}");
        }
    }

    #[test]
    fn the_order_is_that_of_every_array() {
        assert_eq!(Language::ALL.map(|language| language.of(["en", "es"])), ["en", "es"]);
        assert_eq!(Language::ALL.map(Language::code), ["en", "es"]);
    }
}
