//! Finds templates whose `namespace` could come to hold itself. Jinja here would follow such a value for ever when it prints or
//! compares it, on a stack that ends.
//!
//! What is held is seen from the source: a namespace whose attributes are set must be made by a statement
//! `{% set NAME = namespace(…) %}` and be spoken of as `NAME.attribute` only, so that nothing ever holds it but its name. That is
//! how templates in the field use them.

use std::collections::BTreeSet;

use crate::tags::{Token, tags};

/// The name of a namespace that is used otherwise, if there is one.
pub(crate) fn held_namespace(source: &str) -> Option<&str> {
    let tags: Vec<Vec<Token<'_>>> = tags(source).map(|tag| tag.tokens).collect();
    let targets: BTreeSet<&str> = tags.iter().flat_map(|tag| targets(tag)).collect();
    tags.iter().find_map(|tag| {
        let body = if makes_namespace(tag) { &tag[2..] } else { &tag[..] };
        (0..body.len()).find_map(|i| match body[i] {
            Token::Name(name) if targets.contains(name) && is_held(body, i) => Some(name),
            _ => None,
        })
    })
}

/// Whether the name at `i` stands for the value itself: neither an attribute of another nor an argument's name, and not before
/// an attribute or `is`.
fn is_held(tag: &[Token<'_>], i: usize) -> bool {
    let next = |n: usize| tag.get(i + n).copied();
    let attribute = i > 0 && tag[i - 1] == Token::Mark('.');
    let argument = next(1) == Some(Token::Mark('=')) && next(2) != Some(Token::Mark('=')) && i > 1;
    let looked_into = matches!(next(1), Some(Token::Mark('.' | '[') | Token::Name("is")));
    !attribute && !argument && !looked_into
}

/// The names of which a statement sets attributes.
fn targets<'a>(tag: &[Token<'a>]) -> Vec<&'a str> {
    let end = match tag.first() {
        Some(Token::Name("set")) => tag.iter().position(|token| *token == Token::Mark('=')),
        Some(Token::Name("for")) => tag.iter().position(|token| *token == Token::Name("in")),
        _ => return vec![],
    };
    let left = &tag[1..end.unwrap_or(tag.len())];
    let dotted = left.windows(2).filter_map(|pair| match pair {
        [Token::Name(name), Token::Mark('.')] => Some(*name),
        _ => None,
    });
    dotted.collect()
}

/// Whether a statement is `set NAME = namespace(…)` and nothing more.
fn makes_namespace(tag: &[Token<'_>]) -> bool {
    use Token::{Mark, Name};
    let [Name("set"), Name(_), Mark('='), Name("namespace"), Mark('('), rest @ ..] = tag else {
        return false;
    };
    let mut depth = 1;
    let end = rest.iter().position(|token| {
        depth += match token {
            Mark('(') => 1,
            Mark(')') => -1,
            _ => 0,
        };
        depth == 0
    });
    end.is_some_and(|end| rest[end + 1..].is_empty())
}

#[cfg(test)]
mod tests {
    use super::held_namespace;

    #[test]
    fn namespaces_that_hold_nothing_of_themselves_are_fine() {
        for source in [
            "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns['a'] }}{% if ns is defined %}{% endif %}",
            "{%- set ns = namespace(a=[], b={'ns': f(ns=1)}) -%}{%- set ns.a = ns.a + [x.ns, 'ns', \"it's \\\" ns\"] -%}",
            "the ns of {# {{ ns }} #} {% set ns.a %}text ns{% endset %}{{ 'a' }}",
            "{% set ns = namespace() %}{{ ns }}",
        ] {
            assert_eq!(held_namespace(source), None, "{source}");
        }
    }

    #[test]
    fn a_namespace_that_something_else_may_hold_is_found() {
        for source in [
            "{% set ns = namespace() %}{% set ns.a = ns %}",
            "{% set ns = namespace() %}{% set ns.a = [ns] %}",
            "{% set a = namespace() %}{% set ns = a %}{% set ns.a = a %}",
            "{% set a = namespace() %}{% set ns = namespace() if false else a %}{% set ns.a = a %}",
            "{% for ns in [namespace()] %}{% set ns.a = ns %}{% endfor %}",
            "{% macro f(ns) %}{% set ns.a = x %}{% endmacro %}",
            "{% set ns.a = 1 %}{{ '\\'' ~ ns }}",
            "{% with ns = b %}{% set ns.a = b %}{% endwith %}",
            "{% set ns = namespace(ns) %}{% set ns.a = 1 %}",
            "{% for ns.a in [ns] %}{% endfor %}",
        ] {
            assert_eq!(held_namespace(source), Some("ns"), "{source}");
        }
    }
}
