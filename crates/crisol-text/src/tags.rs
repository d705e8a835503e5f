//! The statements and expressions of a template's source as words and marks: enough to see what it assigns, without parsing
//! it.

/// A word or mark of a statement or expression; strings and numbers are of no interest and are marks too.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    Name(&'a str),
    Mark(char),
}

/// `{% … %}` or `{{ … }}`.
#[derive(Debug)]
pub(crate) struct Tag<'a> {
    pub(crate) tokens: Vec<Token<'a>>,
    /// Where each token begins in the source.
    pub(crate) places: Vec<usize>,
    /// Where the closing mark begins, with its whitespace control.
    pub(crate) close: usize,
    /// Where the tag ends.
    pub(crate) end: usize,
}

/// The tags of a source in order; comments are none.
pub(crate) fn tags(source: &str) -> impl Iterator<Item = Tag<'_>> {
    let mut at = 0;
    std::iter::from_fn(move || {
        loop {
            at += source[at..].find('{')? + 1;
            let close = match source[at..].chars().next() {
                Some('#') => {
                    at = source[at..].find("#}").map_or(source.len(), |end| at + end + 2);
                    continue;
                }
                Some('%') => "%}",
                Some('{') => "}}",
                _ => continue,
            };
            let tag = tag(source, at + 1, close);
            at = tag.end;
            return Some(tag);
        }
    })
}

/// The tag whose content begins at `at`, up to `mark`.
fn tag<'a>(source: &'a str, mut at: usize, mark: &str) -> Tag<'a> {
    let mut tag = Tag { tokens: vec![], places: vec![], close: source.len(), end: source.len() };
    // Whitespace control is no part of the statement.
    at += source[at..].len() - source[at..].trim_start_matches(['-', '+']).len();
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        if rest.starts_with(mark) {
            (tag.close, tag.end) = (at, at + mark.len());
            break;
        }
        let word =
            rest.len() - rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_').len();
        let (token, length) = if word > 0 {
            let starts = !c.is_ascii_digit();
            (Some(if starts { Token::Name(&rest[..word]) } else { Token::Mark('0') }), word)
        } else if c == '"' || c == '\'' {
            let mut escaped = true;
            let end = rest.find(|d| {
                let ends = d == c && !escaped;
                escaped = d == '\\' && !escaped;
                ends
            });
            (Some(Token::Mark('s')), end.map_or(rest.len(), |end| end + 1))
        } else {
            ((!c.is_whitespace()).then_some(Token::Mark(c)), c.len_utf8())
        };
        if let Some(token) = token {
            tag.tokens.push(token);
            tag.places.push(at);
        }
        at += length;
    }
    while matches!(tag.tokens.last(), Some(Token::Mark('-' | '+'))) {
        tag.tokens.pop();
        tag.close = tag.places.pop().unwrap_or(tag.close);
    }
    tag
}
