//! Splits a template's statements and expressions into tokens, without parsing them.

/// A token of a statement or expression. Strings and numbers become placeholder symbols.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    Name(&'a str),
    Symbol(char),
}

/// `{% … %}` or `{{ … }}`.
#[derive(Debug)]
pub(crate) struct Tag<'a> {
    pub(crate) tokens: Vec<Token<'a>>,
    /// Offset of each token in the source.
    pub(crate) offsets: Vec<usize>,
    /// Offset of the closing delimiter, with its whitespace control.
    pub(crate) close: usize,
    /// Offset after the tag.
    pub(crate) end: usize,
}

/// The tags of a source, in order, without comments.
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
            let tag = read_tag(source, at + 1, close);
            at = tag.end;
            return Some(tag);
        }
    })
}

/// The tag whose content starts at `at`, up to the delimiter `close`.
fn read_tag<'a>(source: &'a str, mut at: usize, close: &str) -> Tag<'a> {
    let mut tag = Tag { tokens: vec![], offsets: vec![], close: source.len(), end: source.len() };
    // Skips whitespace control.
    at += source[at..].len() - source[at..].trim_start_matches(['-', '+']).len();
    while let Some(c) = source[at..].chars().next() {
        let rest = &source[at..];
        if rest.starts_with(close) {
            (tag.close, tag.end) = (at, at + close.len());
            break;
        }
        let word =
            rest.len() - rest.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_').len();
        let (token, length) = if word > 0 {
            let is_name = !c.is_ascii_digit();
            (Some(if is_name { Token::Name(&rest[..word]) } else { Token::Symbol('0') }), word)
        } else if c == '"' || c == '\'' {
            let mut escaped = true;
            let end = rest.find(|d| {
                let ends = d == c && !escaped;
                escaped = d == '\\' && !escaped;
                ends
            });
            (Some(Token::Symbol('s')), end.map_or(rest.len(), |end| end + 1))
        } else {
            ((!c.is_whitespace()).then_some(Token::Symbol(c)), c.len_utf8())
        };
        if let Some(token) = token {
            tag.tokens.push(token);
            tag.offsets.push(at);
        }
        at += length;
    }
    while matches!(tag.tokens.last(), Some(Token::Symbol('-' | '+'))) {
        tag.tokens.pop();
        tag.close = tag.offsets.pop().unwrap_or(tag.close);
    }
    tag
}
