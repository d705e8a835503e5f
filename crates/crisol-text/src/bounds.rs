//! Values that a template builds are bounded where they get a name. Fuel pays for what a template makes, but not for what it
//! looks like: a list that holds another twice that holds another twice, and so on, is made in a few instructions and takes
//! for ever to be compared or printed, and a deep one takes a stack of any size. Within one expression the source bounds
//! both. So the source is rewritten: whatever gets a name (`{% set %}`, the parameters of macros and calls, `{% with %}`, the
//! items of recursive loops) goes through the filter [`FILTER`], which pays for every part and refuses what is too deep.

use std::fmt::Write as _;

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use crate::tags::{Tag, Token, tags};

/// The filter's name in templates.
pub(crate) const FILTER: &str = "crisol_bounded";
/// Most lists and objects within one another; each takes some of the stack.
pub(crate) const DEEPEST: usize = 100;
/// Parts that cost as much as an instruction.
const PARTS_PER_FUEL: usize = 4;
/// Most words and marks of one statement or expression: chains of operators nest as deep. Those in the field have some hundred
/// at most.
const LONGEST_TAG: usize = 2000;

/// The source with [`FILTER`] put in.
pub(crate) fn bounded(source: &str) -> Result<String, String> {
    let mut out = String::with_capacity(source.len() * 2);
    let mut copied = 0;
    let mut raw = false;
    for tag in tags(source) {
        let tokens = tag.tokens.as_slice();
        if tokens.len() > LONGEST_TAG {
            let length = tokens.len();
            return Err(format!(
                "a tag has {length} words and marks, where {LONGEST_TAG} is the most"
            ));
        }
        raw = (raw || *tokens == [Token::Name("raw")]) && *tokens != [Token::Name("endraw")];
        if raw {
            continue;
        }
        if let Some(assignment) = assigned_at(&tag) {
            let value = assignment + 1;
            let _ =
                write!(out, "{} ({})|{FILTER} ", &source[copied..value], &source[value..tag.close]);
            copied = tag.close;
        }
        let names = bound_names(tokens);
        if !names.is_empty() {
            // Whitespace control stays with the last tag.
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

/// Where the `=` of a `{% set NAME = … %}` stands.
fn assigned_at(tag: &Tag<'_>) -> Option<usize> {
    if tag.tokens.first() != Some(&Token::Name("set")) {
        return None;
    }
    let mut depth = 0;
    let at = tag.tokens.iter().position(|token| {
        depth += nesting(*token);
        depth == 0 && *token == Token::Mark('=')
    });
    at.map(|at| tag.places[at])
}

/// The names that a statement gives to values it is handed.
fn bound_names<'a>(tokens: &[Token<'a>]) -> Vec<&'a str> {
    use Token::{Mark, Name};
    match tokens {
        [Name("macro"), Name(_), Mark('('), rest @ ..] | [Name("call"), Mark('('), rest @ ..] => {
            let mut depth = 1;
            let end = rest.iter().position(|token| {
                depth += nesting(*token);
                depth == 0
            });
            // A parameter stands first or after a comma.
            names_where(&rest[..end.unwrap_or(rest.len())], |before, _| {
                matches!(before, None | Some(Mark(',')))
            })
        }
        [Name("with"), rest @ ..] => names_where(rest, |before, after| {
            matches!(before, None | Some(Mark(','))) && after == Some(Mark('='))
        }),
        [Name("for"), rest @ .., Name("recursive")] => {
            let end = rest.iter().position(|token| *token == Name("in")).unwrap_or(0);
            rest[..end]
                .iter()
                .filter_map(|token| match token {
                    Name(name) => Some(*name),
                    Mark(_) => None,
                })
                .collect()
        }
        _ => vec![],
    }
}

/// The names outside of parentheses that stand between such tokens.
fn names_where<'a>(
    tokens: &[Token<'a>],
    holds: impl Fn(Option<Token<'a>>, Option<Token<'a>>) -> bool,
) -> Vec<&'a str> {
    let mut depth = 0;
    let mut names = vec![];
    for (i, token) in tokens.iter().enumerate() {
        depth += nesting(*token);
        let before = i.checked_sub(1).map(|i| tokens[i]);
        match token {
            Token::Name(name) if depth == 0 && holds(before, tokens.get(i + 1).copied()) => {
                names.push(*name)
            }
            _ => {}
        }
    }
    names
}

fn nesting(token: Token<'_>) -> i32 {
    match token {
        Token::Mark('(' | '[' | '{') => 1,
        Token::Mark(')' | ']' | '}') => -1,
        _ => 0,
    }
}

/// The filter: the value itself, paid for.
pub(crate) fn check(state: &State, value: Value) -> Result<Value, Error> {
    let mut parts = 0;
    pay(state, &value, 0, &mut parts)?;
    Ok(value)
}

fn pay(state: &State, value: &Value, depth: usize, parts: &mut usize) -> Result<(), Error> {
    *parts += 1;
    if parts.is_multiple_of(PARTS_PER_FUEL) {
        state.consume_fuel(1)?;
    }
    if depth > DEEPEST {
        let deep = "lists and objects are too deep within one another";
        return Err(Error::new(ErrorKind::InvalidOperation, deep));
    }
    match value.kind() {
        ValueKind::Seq | ValueKind::Iterable => {
            for item in value.try_iter()? {
                pay(state, &item, depth + 1, parts)?;
            }
        }
        ValueKind::Map => {
            for key in value.try_iter()? {
                pay(state, &value.get_item(&key)?, depth + 1, parts)?;
                pay(state, &key, depth + 1, parts)?;
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
    fn what_gets_a_name_goes_through_the_filter() {
        for (source, expected) in [
            ("{% set a = 1 %}", "{% set a = ( 1 )|crisol_bounded %}"),
            ("{%- set ns.a = b == 'x=' -%}\n", "{%- set ns.a = ( b == 'x=' )|crisol_bounded -%}\n"),
            ("{% set a = b, c %}", "{% set a = ( b, c )|crisol_bounded %}"),
            ("{% set a %}x{% endset %}", "{% set a %}x{% endset %}"),
            ("{% set a | f(b=1) %}x{% endset %}", "{% set a | f(b=1) %}x{% endset %}"),
            (
                "{% macro m(a, b=[1, c]) -%} x",
                "{% macro m(a, b=[1, c]) %}{% set a = a|crisol_bounded %}{% set b = b|crisol_bounded -%} x",
            ),
            ("{% macro m() %}", "{% macro m() %}"),
            ("{% call(a) m(b) %}", "{% call(a) m(b) %}{% set a = a|crisol_bounded %}"),
            ("{% call m(b) %}", "{% call m(b) %}"),
            (
                "{% with a = f(x=1), b = 2 +%}",
                "{% with a = f(x=1), b = 2 %}{% set a = a|crisol_bounded %}{% set b = b|crisol_bounded +%}",
            ),
            (
                "{% for a, b in c recursive %}",
                "{% for a, b in c recursive %}{% set a = a|crisol_bounded %}{% set b = b|crisol_bounded %}",
            ),
            ("{% for a in c if a == 1 %}{{ a = 1 }}", "{% for a in c if a == 1 %}{{ a = 1 }}"),
            (
                "{# {% set a = 1 %} #}{% raw %}{% set a = 1 %}{% endraw %}",
                "{# {% set a = 1 %} #}{% raw %}{% set a = 1 %}{% endraw %}",
            ),
        ] {
            assert_eq!(bounded(source).as_deref(), Ok(expected), "{source}");
        }
    }
}
