//! LaTeX and typographic spellings, rewritten as plain text for the verifier.

/// Commands that stand for a character or for nothing. A longer name precedes its prefixes.
const COMMANDS: &[(&str, &str)] = &[
    ("\\dfrac", "\\frac"),
    ("\\tfrac", "\\frac"),
    ("\\cfrac", "\\frac"),
    ("\\displaystyle", " "),
    ("\\leftarrow", "←"),
    ("\\left", ""),
    ("\\rightarrow", "→"),
    ("\\right", ""),
    ("^{\\circ}", "°"),
    ("^\\circ", "°"),
    ("\\circ", "°"),
    ("\\degree", "°"),
    ("\\times", "×"),
    ("\\cdot", "·"),
    ("\\div", "÷"),
    ("\\pi", "π"),
    ("\\sqrt", "√"),
    ("\\approx", "≈"),
    ("\\quad", " "),
    ("\\qquad", " "),
    ("\\(", " "),
    ("\\)", " "),
    ("\\[", " "),
    ("\\]", " "),
    ("\\$", "$"),
    ("\\%", "%"),
    ("\\#", "#"),
    ("\\!", ""),
    ("\\,", " "),
    ("\\;", " "),
    ("\\:", " "),
    ("\\ ", " "),
    ("{,}", ","),
];
/// Commands whose argument is text, or the same in another font.
const FONTS: &[&str] =
    &["text", "textbf", "textit", "textrm", "mathrm", "mathbf", "mathit", "mbox", "operatorname"];
/// Maximum characters between braces, which bounds the search in a hostile text.
pub(super) const LONGEST_ARGUMENT: usize = 4096;

/// The text without LaTeX markup that only changes its appearance.
pub(super) fn plain(text: &str) -> String {
    let text = without_fonts(&without_math_marks(text));
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(c) = rest.chars().next() {
        let command = matches!(c, '\\' | '^' | '{')
            .then(|| COMMANDS.iter().find(|(command, _)| rest.starts_with(command)))
            .flatten();
        if let Some((command, plain)) = command {
            out.push_str(plain);
            rest = &rest[command.len()..];
            continue;
        }
        out.push(match c {
            '−' | '－' => '-',
            '\u{a0}' | '\u{2009}' | '\u{200a}' | '\u{202f}' | '~' => ' ',
            '⁄' => '/',
            'º' => '°',
            c => c,
        });
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// Removes the dollars around formulas. As in Pandoc, a closing one has no space before it and no
/// digit after it, so "$5 or $6" are amounts.
fn without_math_marks(text: &str) -> String {
    let chars: Vec<char> = text.replace("$$", " ").chars().collect();
    let is_mark = |i: usize| chars[i] == '$' && (i == 0 || chars[i - 1] != '\\');
    let marks: Vec<usize> = (0..chars.len()).filter(|i| is_mark(*i)).collect();
    let mut removed = vec![false; chars.len()];
    let mut i = 0;
    while i + 1 < marks.len() {
        let (open, close) = (marks[i], marks[i + 1]);
        let digit_after = chars.get(close + 1).is_some_and(char::is_ascii_digit);
        let formula =
            !chars[open + 1].is_whitespace() && !chars[close - 1].is_whitespace() && !digit_after;
        if formula && close > open + 1 {
            (removed[open], removed[close]) = (true, true);
            i += 1;
        }
        i += 1;
    }
    chars.into_iter().zip(removed).filter(|(_, removed)| !removed).map(|(c, _)| c).collect()
}

/// `\text{ m}` is ` m `.
fn without_fonts(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        let name = &rest[at + 1..];
        let font = FONTS.iter().find_map(|font| braced(name.strip_prefix(font)?));
        out.push_str(&rest[..at]);
        if let Some((inner, after)) = font {
            out.extend([" ", inner, if after.starts_with('^') { "" } else { " " }]);
            rest = after;
        } else {
            out.push('\\');
            rest = name;
        }
    }
    out.push_str(rest);
    out
}

/// The text between the opening brace it starts with and its closing one, and the rest.
pub(super) fn braced(text: &str) -> Option<(&str, &str)> {
    let inner = text.trim_start().strip_prefix('{')?;
    let mut open = 1_i32;
    let close = inner.char_indices().take(LONGEST_ARGUMENT).find(|(_, c)| {
        open += i32::from(*c == '{') - i32::from(*c == '}');
        open == 0
    });
    close.map(|(at, _)| (&inner[..at], &inner[at + 1..]))
}

/// The content of the last closed `\boxed{}`.
pub(super) fn last_boxed(text: &str) -> Option<&str> {
    let last = |name: &str| {
        let starts = text.rmatch_indices(name);
        starts.map(|(at, _)| at).find_map(|at| Some((at, braced(&text[at + name.len()..])?.0)))
    };
    let boxes = [last("\\boxed"), last("\\fbox")];
    boxes.into_iter().flatten().max_by_key(|(at, _)| *at).map(|(_, inner)| inner)
}

/// Normalises a text for comparison: lower case, single spaces, none next to punctuation, trimmed.
pub(super) fn normal(text: &str) -> String {
    let text = plain(text).replace(['$', '"', '“', '”', '`'], "").replace("**", "");
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase();
    let text = text.trim_end_matches(['.', ',', ';', ':', '!', '?', ' ']).trim_start();
    let mut out = String::with_capacity(text.len());
    let touches = |c: char| "()[]{},;:=+-*/×·^<>≤≥|".contains(c);
    for (at, c) in text.char_indices() {
        let beside = out.chars().next_back().is_some_and(touches)
            || text[at + c.len_utf8()..].chars().next().is_some_and(touches);
        if c != ' ' || !beside {
            out.push(c);
        }
    }
    out
}
