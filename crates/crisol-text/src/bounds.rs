//! Bounds the size and depth of the values that a template assigns to names.
//!
//! Fuel limits instructions, not values. A few instructions can nest a list twice in the next, and
//! so on; to print it takes exponential time. A deep list overflows the stack. A single expression
//! is bounded by its source. So the source is rewritten: every assigned value passes through
//! [`FILTER`], which charges fuel per element and rejects deep nesting.
//!
//! Assigned are values of `{% set %}` and `{% with %}`, parameters of macros and calls, and the
//! items of recursive loops.

use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use crate::tags::{Tag, Token, tags};

/// The filter's name in templates.
pub(crate) const FILTER: &str = "crisol_bounded";
/// Deepest nesting of lists and objects; each level uses stack.
pub(crate) const MAX_DEPTH: usize = 100;
/// Elements that cost one unit of fuel.
const ELEMENTS_PER_FUEL: usize = 4;
/// Most tokens of a statement or expression, because chains of operators nest as deep. Published
/// templates have at most some hundred.
const MAX_TAG_TOKENS: usize = 2000;

/// The source with [`FILTER`] applied to every assigned value.
pub(crate) fn insert_filters(source: &str) -> Result<String, String> {
    let mut out = String::with_capacity(source.len() * 2);
    let mut copied = 0;
    let mut raw = false;
    for tag in tags(source) {
        let tokens = tag.tokens.as_slice();
        if tokens.len() > MAX_TAG_TOKENS {
            let length = tokens.len();
            return Err(format!(
                "a tag has {length} tokens, more than the limit of {MAX_TAG_TOKENS}"
            ));
        }
        raw = (raw || *tokens == [Token::Name("raw")]) && *tokens != [Token::Name("endraw")];
        if raw {
            continue;
        }
        if let Some(assignment) = assignment_offset(&tag) {
            let value = assignment + 1;
            let _ =
                write!(out, "{} ({})|{FILTER} ", &source[copied..value], &source[value..tag.close]);
            copied = tag.close;
        }
        let names = bound_names(tokens);
        if !names.is_empty() {
            // Whitespace control moves to the last tag.
            let control = source[tag.close..tag.end].trim_end_matches("%}");
            let _ = write!(out, "{}%}}", &source[copied..tag.close]);
            for (i, name) in names.iter().enumerate() {
                let control = if i + 1 == names.len() { control } else { "" };
                let _ = write!(out, "{{% set {name} = {name}|{FILTER} {control}%}}");
            }
            copied = tag.end;
        }
    }
    out.push_str(&source[copied..]);
    Ok(out)
}

/// Offset of the `=` in `{% set NAME = … %}`.
fn assignment_offset(tag: &Tag<'_>) -> Option<usize> {
    if tag.tokens.first() != Some(&Token::Name("set")) {
        return None;
    }
    let mut depth = 0;
    let index = tag.tokens.iter().position(|token| {
        depth += nesting(*token);
        depth == 0 && *token == Token::Symbol('=')
    });
    index.map(|index| tag.offsets[index])
}

/// The names that a statement binds other than by `set`.
fn bound_names<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    use Token::{Name, Symbol};
    match tokens {
        [Name("macro"), Name(_), Symbol('('), rest @ ..]
        | [Name("call"), Symbol('('), rest @ ..] => {
            let mut depth = 1;
            let end = rest.iter().position(|token| {
                depth += nesting(*token);
                depth == 0
            });
            // A parameter is first or follows a comma.
            names_where(&rest[..end.unwrap_or(rest.len())], |before, _| {
                matches!(before, None | Some(Symbol(',')))
            })
        }
        [Name("with"), rest @ ..] => names_where(rest, |before, after| {
            matches!(before, None | Some(Symbol(','))) && after == Some(Symbol('='))
        }),
        [Name("for"), rest @ .., Name("recursive")] => {
            let end = rest.iter().position(|token| *token == Name("in")).unwrap_or(0);
            rest[..end]
                .iter()
                .filter_map(|token| match token {
                    Name(name) => Some(*name),
                    Symbol(_) => None,
                })
                .collect()
        }
        _ => vec![],
    }
}

/// The names outside parentheses whose neighbouring tokens satisfy `accepts`.
fn names_where<'a>(
    tokens: &[Token<'a>],
    accepts: impl Fn(Option<Token<'a>>, Option<Token<'a>>) -> bool,
) -> Vec<&'a str> {
    let mut depth = 0;
    let mut names = vec![];
    for (i, token) in tokens.iter().enumerate() {
        depth += nesting(*token);
        let before = i.checked_sub(1).map(|i| tokens[i]);
        match token {
            Token::Name(name) if depth == 0 && accepts(before, tokens.get(i + 1).copied()) => {
                names.push(*name)
            }
            _ => {}
        }
    }
    names
}

/// The change of nesting depth at a token.
fn nesting(token: Token<'_>) -> i32 {
    match token {
        Token::Symbol('(' | '[' | '{') => 1,
        Token::Symbol(')' | ']' | '}') => -1,
        _ => 0,
    }
}

/// The filter: returns the value, after charging fuel for its elements.
pub(crate) fn check_value(state: &State, value: Value) -> Result<Value, Error> {
    let mut elements = 0;
    charge(state, &value, 0, &mut elements)?;
    Ok(value)
}

fn charge(state: &State, value: &Value, depth: usize, elements: &mut usize) -> Result<(), Error> {
    *elements += 1;
    if elements.is_multiple_of(ELEMENTS_PER_FUEL) {
        state.consume_fuel(1)?;
    }
    if depth > MAX_DEPTH {
        let cause = "lists and objects are nested too deeply";
        return Err(Error::new(ErrorKind::InvalidOperation, cause));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            for item in value.try_iter()? {
                charge(state, &item, depth + 1, elements)?;
            }
        }
        ValueKind::Map => {
            for key in value.try_iter()? {
                charge(state, &value.get_item(&key)?, depth + 1, elements)?;
                charge(state, &key, depth + 1, elements)?;
            }
        }
        _ => {}
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_assigned_value_passes_through_the_filter() {
        for (source, expected) in [
            ("{% set a = 1 %}", "{% set a = ( 1 )|crisol_bounded %}"),
            ("{%- set ns.a = b == 'x=' -%}\n", "{%- set ns.a = ( b == 'x=' )|crisol_bounded -%}\n"),
            ("{% set a = b, c %}", "{% set a = ( b, c )|crisol_bounded %}"),
            ("{% set a %}x{% endset %}", "{% set a %}x{% endset %}"),
            ("{% set a | f(b=1) %}x{% endset %}", "{% set a | f(b=1) %}x{% endset %}"),
            (
                "{% macro m(a, b=[1, c]) -%} x",
                "{% macro m(a, b=[1, c]) %}\
                 {% set a = a|crisol_bounded %}{% set b = b|crisol_bounded -%} x",
            ),
            ("{% macro m() %}", "{% macro m() %}"),
            ("{% call(a) m(b) %}", "{% call(a) m(b) %}{% set a = a|crisol_bounded %}"),
            ("{% call m(b) %}", "{% call m(b) %}"),
            (
                "{% with a = f(x=1), b = 2 +%}",
                "{% with a = f(x=1), b = 2 %}\
                 {% set a = a|crisol_bounded %}{% set b = b|crisol_bounded +%}",
            ),
            (
                "{% for a, b in c recursive %}",
                "{% for a, b in c recursive %}\
                 {% set a = a|crisol_bounded %}{% set b = b|crisol_bounded %}",
            ),
            ("{% for a in c if a == 1 %}{{ a = 1 }}", "{% for a in c if a == 1 %}{{ a = 1 }}"),
            (
                "{# {% set a = 1 %} #}{% raw %}{% set a = 1 %}{% endraw %}",
                "{# {% set a = 1 %} #}{% raw %}{% set a = 1 %}{% endraw %}",
            ),
        ] {
            assert_eq!(insert_filters(source).as_deref(), Ok(expected), "{source}");
        }
    }
}
