//! Rejects templates whose `namespace` could contain itself.
//!
//! minijinja recurses without end when it prints or compares such a value. The source shows when it
//! cannot happen: a namespace whose attributes are set is created by `{% set NAME = namespace(…)
//! %}` and used as `NAME.attribute` only. Published templates do so.

use std::collections::BTreeSet;

use crate::tags::{Token, tags};

/// The name of a namespace that is used as a value, if there is one.
pub(crate) fn namespace_used_as_value(source: &str) -> Option<&str> {
    let tags: Vec<Vec<Token<'_>>> = tags(source).map(|tag| tag.tokens).collect();
    let targets: BTreeSet<&str> = tags.iter().flat_map(|tag| targets(tag)).collect();
    tags.iter().find_map(|tag| {
        let body = if creates_namespace(tag) { &tag[2..] } else { &tag[..] };
        (0..body.len()).find_map(|i| match body[i] {
            Token::Name(name) if targets.contains(name) && is_value(body, i) => Some(name),
            _ => None,
        })
    })
}

/// Whether the name at `i` is a value: not an attribute, an argument's name, or followed by an
/// attribute or `is`.
fn is_value(tag: &[Token<'_>], i: usize) -> bool {
    let next = |n: usize| tag.get(i + n).copied();
    let attribute = i > 0 && tag[i - 1] == Token::Symbol('.');
    let argument =
        next(1) == Some(Token::Symbol('=')) && next(2) != Some(Token::Symbol('=')) && i > 1;
    let is_accessed = matches!(next(1), Some(Token::Symbol('.' | '[') | Token::Name("is")));
    !attribute && !argument && !is_accessed
}

/// The names whose attributes a statement sets.
fn targets<'a>(tag: &[Token<'a>]) -> Vec<&'a str> {
    let end = match tag.first() {
        Some(Token::Name("set")) => tag.iter().position(|token| *token == Token::Symbol('=')),
        Some(Token::Name("for")) => tag.iter().position(|token| *token == Token::Name("in")),
        _ => return vec![],
    };
    let left = &tag[1..end.unwrap_or(tag.len())];
    let dotted = left.windows(2).filter_map(|pair| match pair {
        [Token::Name(name), Token::Symbol('.')] => Some(*name),
        _ => None,
    });
    dotted.collect()
}

/// Whether a statement is exactly `set NAME = namespace(…)`.
fn creates_namespace(tag: &[Token<'_>]) -> bool {
    use Token::{Name, Symbol};
    let [Name("set"), Name(_), Symbol('='), Name("namespace"), Symbol('('), rest @ ..] = tag else {
        return false;
    };
    let mut depth = 1;
    let end = rest.iter().position(|token| {
        depth += match token {
            Symbol('(') => 1,
            Symbol(')') => -1,
            _ => 0,
        };
        depth == 0
    });
    end.is_some_and(|end| rest[end + 1..].is_empty())
}

#[cfg(test)]
mod tests {
    use super::namespace_used_as_value;

    #[test]
    fn namespaces_used_by_attribute_are_accepted() {
        for source in [
            "{% set ns = namespace() %}{% set ns.a = 1 %}{{ ns.a }}{{ ns['a'] }}\
             {% if ns is defined %}{% endif %}",
            "{%- set ns = namespace(a=[], b={'ns': f(ns=1)}) -%}\
             {%- set ns.a = ns.a + [x.ns, 'ns', \"it's \\\" ns\"] -%}",
            "the ns of {# {{ ns }} #} {% set ns.a %}text ns{% endset %}{{ 'a' }}",
            "{% set ns = namespace() %}{{ ns }}",
        ] {
            assert_eq!(namespace_used_as_value(source), None, "{source}");
        }
    }

    #[test]
    fn a_namespace_used_as_a_value_is_found() {
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
            assert_eq!(namespace_used_as_value(source), Some("ns"), "{source}");
        }
    }
}
