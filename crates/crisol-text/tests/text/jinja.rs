//! The Jinja environment of chat templates: compared with Python's, and safe with hostile
//! templates.

use std::collections::BTreeMap;
use std::time::Instant;

use crisol_text::{ChatTemplate, Message, TextError};

use crate::fixture::template;

/// What stops a template other than the timeout of its thread.
fn is_stopped_by_a_bound(error: &TextError) -> bool {
    let message = error.to_string();
    ["fuel", "nested too deeply", "recursion"].iter().any(|bound| message.contains(bound))
}

/// Each is an error, within a second or so if the template loops, repeats or nests.
#[test]
fn hostile_templates_are_stopped() {
    let x = "{% set s = 'x' * 1000000 %}";
    let deep = format!("{{% set ns.l = {}ns.l{} %}}", "[".repeat(40), "]".repeat(40));
    let deep = |more: &str| {
        format!(
            "{{% set ns = namespace(l=[1]) %}}\
             {{% for i in range(9999) %}}{deep}{{% endfor %}}{more}"
        )
    };
    let errors = [
        // Endless loops and recursion.
        "{% for a in range(9999) %}{% for b in range(9999) %}{% for c in range(9999) %}\
         {% endfor %}{% endfor %}{% endfor %}"
            .to_owned(),
        "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}".to_owned(),
        "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".to_owned(),
        format!("{x}{{% for i in range(99999) %}}{{% set y = s.find('b') %}}{{% endfor %}}"),
        "{% set l = range(9999)|list %}{% for i in range(99999) %}{% set y = l.count(5) %}\
         {% endfor %}"
            .to_owned(),
        // Long values from a short source.
        "{% set ns = namespace(s='ab') %}{% for i in range(99) %}{% set ns.s = ns.s ~ ns.s %}\
         {% endfor %}{{ ns.s }}"
            .to_owned(),
        "{{ 'ab' * 99999999999 }}".to_owned(),
        "{{ range(1000000000)|list }}".to_owned(),
        format!("{x}{{{{ s.replace('x', s) }}}}"),
        format!("{x}{{{{ s.join(range(99999)|list) }}}}"),
        format!("{x}{{{{ ''.join([s] * 10000) }}}}"),
        format!("{x}{{{{ ([s] * 10000)|tojson }}}}"),
        format!("{x}{{{{ (range(99999)|list)|tojson(indent=s) }}}}"),
        "{{ '{:>1000000000}'.format('a') }}".to_owned(),
        "{{ '%1000000000d'|format(3) }}".to_owned(),
        "{% set s = '\n' * 1000000 %}{{ s|indent(1000000, true, true) }}".to_owned(),
        "{{ strftime_now('%999999999Y') }}".to_owned(),
        // Deep values, which would overflow the stack; and one that prints as 2^99 lists.
        deep("{{ ns.l }}"),
        deep("{{ ns.l == [ns.l] }}"),
        deep("{{ ns.l|tojson }}"),
        "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = [ns.l, ns.l] %}\
         {% endfor %}{{ ns.l|tojson }}"
            .to_owned(),
    ];
    for source in errors {
        let start = Instant::now();
        let error = template(&source, "", "").render(&[], false).unwrap_err();
        assert!(matches!(error, TextError::Template(_)), "{error}");
        // Several times the usual time, for a busy machine.
        assert!(start.elapsed().as_secs_f64() < 2.0, "{:?} {source:.200}", start.elapsed());
    }
    // Values of 2^99 lists or endless depth, by every kind of assignment; some are only compared.
    let set = "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}\
               {% set ns.l = [ns.l, ns.l] %}{% endfor %}";
    let repeated = |tag: &dyn Fn(usize) -> String| (0..99).map(tag).collect::<Vec<_>>().concat();
    let chain = repeated(&|i| format!("{{% set a{} = [a{i}, a{i}] %}}", i + 1));
    let with = repeated(&|i| format!("{{% with a{} = {{'k': a{i}, 'l': a{i}}} %}}", i + 1));
    for tree in [
        format!("{set}{{{{ ns.l == [ns.l] }}}}"),
        format!("{set}{{{{ ns.l }}}}"),
        format!("{set}{{{{ [ns.l]|sort }}}}"),
        format!("{{% set a0 = [1] %}}{chain}{{{{ a99 == [a99] }}}}"),
        format!("{{% set a0 = 1 %}}{with}{{{{ a99 == [a99] }}}}{}", "{% endwith %}".repeat(99)),
        "{% macro f(l, n) %}{% if n %}{{ f([l, l], n - 1) }}{% else %}{{ l == [l] }}{% endif %}\
         {% endmacro %}{{ f([1], 99) }}"
            .to_owned(),
        "{% macro f(l) %}{{ f([[[[[[[[[[l]]]]]]]]]]) }}{% endmacro %}{{ f(1) }}".to_owned(),
        "{% macro m(l, n) %}{{ caller((l, l), n) }}{% endmacro %}{% macro f(l, n) %}\
         {% call(k, m) m(l, n) %}{% if m %}{{ f(k, m - 1) }}{% else %}{{ k == [k] }}{% endif %}\
         {% endcall %}{% endmacro %}{{ f([1], 60) }}"
            .to_owned(),
        "{% for x in [[1]] recursive %}{% if loop.depth < 90 %}{{ loop([[x, x]]) }}{% else %}\
         {{ x == [x] }}{% endif %}{% endfor %}"
            .to_owned(),
        "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = (ns.l, ns.l) %}\
         {% endfor %}{{ ns.l }}"
            .to_owned(),
        "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}{% set ns.l = ns.l, ns.l %}\
         {% endfor %}{{ ns.l }}"
            .to_owned(),
        "{% set ns = namespace(l={}) %}{% for i in range(99) %}\
         {% set ns.l = dict(a=ns.l, b=ns.l) %}{% endfor %}{{ ns.l }}"
            .to_owned(),
        "{% set ns = namespace(l=[1]) %}{% for i in range(99) %}\
         {% set ns.l = (ns.l + ns.l)|batch(2)|list %}{% endfor %}{{ ns.l }}"
            .to_owned(),
    ] {
        let start = Instant::now();
        let error = template(&tree, "", "").render(&[], false).unwrap_err();
        assert!(matches!(error, TextError::Template(_)), "{error}");
        assert!(is_stopped_by_a_bound(&error), "{error} {tree}");
        assert!(start.elapsed().as_secs_f64() < 4.0, "{:?} {tree:.200}", start.elapsed());
    }

    let nested = |part: &str, count: usize| format!("{{{{ {}1 }}}}", part.repeat(count));
    for source in [
        "{% if %}",
        "{% generation %}",
        "{% endgeneration %}",
        "{%",
        "{{ '",
        "{% for x in",
        "{% include 'file' %}",
        "{% set ns = namespace() %}{% set ns.a = [ns] %}{{ ns }}",
        "{% import 'file' as f %}",
        "{% from 'file' import f %}",
        "{% extends 'file' %}",
        &nested("(", 30_000),
        &nested("[", 30_000),
        &nested("-", 70_000),
        &nested("-", 60_000),
        &nested("not ", 15_000),
        &nested("1 + ", 15_000),
        &"{% if a %}".repeat(6000),
    ] {
        let error = ChatTemplate::new(source, BTreeMap::new());
        assert!(matches!(error, Err(TextError::Template(_))), "{source:.50}");
    }
    for source in
        [nested("-", 1990), nested("not ", 1990), nested("1 + ", 990), nested("1 ~ ", 990)]
    {
        template(&source, "", "").render(&[], false).unwrap();
    }
    // Recursive macros, up to the limit.
    let macros = "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(N) }}";
    template(&macros.replace('N', "50"), "", "").render(&[], false).unwrap();
    assert!(template(&macros.replace('N', "100000"), "", "").render(&[], false).is_err());
}

/// Expected values are Jinja2's; nesting is bounded.
#[test]
fn filters_that_nest_lists_work_and_are_bounded() {
    let render = |source: &str| template(source, "", "").render(&[], false);
    for (source, expected) in [
        ("{{ [1, 2, 3]|batch(2)|list|tojson }}", "[[1, 2], [3]]"),
        ("{{ [1, 2, 3]|batch(2, 0)|list|tojson }}", "[[1, 2], [3, 0]]"),
        ("{{ [1, 2, 3]|slice(2)|list|tojson }}", "[[1, 2], [3]]"),
        ("{{ [1, 2, 3]|slice(2, 0)|list|tojson }}", "[[1, 2], [3, 0]]"),
        (
            "{% for role, all in [{'r': 'b', 'n': 1}, {'r': 'a', 'n': 2}, {'r': 'b', 'n': \
             3}]|groupby('r') %}{{ role }}{% for m in all %}{{ m.n }}{% endfor %} {% endfor %}",
            "a2 b13 ",
        ),
        (
            "{% for g in [{'r': 'a'}]|groupby(attribute='r') %}\
             {{ g.grouper }}{{ g.list|length }}{% endfor %}",
            "a1",
        ),
    ] {
        assert_eq!(render(source).unwrap(), expected, "{source}");
    }
    for filter in ["|batch(1)", "|slice(1)", "|batch(2, 0)"] {
        let error = render(&format!("{{{{ [1]{} }}}}", filter.repeat(200))).unwrap_err();
        assert!(is_stopped_by_a_bound(&error), "{filter}: {error}");
    }
    for source in [
        "{{ [1]|batch(1000000000, 0) }}",
        "{{ [1]|slice(1000000000) }}",
        "{% set l = range(9999)|list %}{{ [1]|batch(9999, l)|batch(9999, l) }}",
        "{% for i in range(9999) %}{% set g = range(9999)|groupby('x') %}{% endfor %}",
    ] {
        let start = Instant::now();
        render(source).unwrap_err();
        assert!(start.elapsed().as_secs_f64() < 4.0, "{:?} {source}", start.elapsed());
    }
}

#[test]
fn the_current_time_is_fixed_unless_it_is_set() {
    let source = "{{ strftime_now('%d %b %Y, %-d %B, %A, %H:%M') }}{% if strftime_now is defined \
                  %}!{% endif %}";
    let fixed = template(source, "", "");
    assert_eq!(fixed.render(&[], false).unwrap(), "26 Jul 2024, 26 July, Friday, 00:00!");
    let set = fixed.with_now(jiff::civil::date(2026, 3, 5).at(14, 7, 0, 0));
    assert_eq!(set.render(&[], false).unwrap(), "05 Mar 2026, 5 March, Thursday, 14:07!");
    assert_eq!(fixed.render(&[], false).unwrap(), "26 Jul 2024, 26 July, Friday, 00:00!");
    let error = template("{{ strftime_now('%Q!') }}", "", "").render(&[], false).unwrap_err();
    assert!(error.to_string().contains("strftime_now"), "{error}");
}

/// Expected values are from Python's `json.dumps`.
#[test]
fn tojson_equals_python() {
    let render = |source: &str| template(source, "", "").render(&[], false).unwrap();
    assert_eq!(
        render("{{ {'b': 1, 'a': [true, none, 'é']}|tojson }}"),
        r#"{"b": 1, "a": [true, null, "é"]}"#
    );
    assert_eq!(
        render("{{ {'b': 1, 'a': [2]}|tojson(sort_keys=true, separators=(',', ':')) }}"),
        r#"{"a":[2],"b":1}"#
    );
    assert_eq!(
        render("{{ 'é😀\u{2028}\x7f'|tojson(ensure_ascii=true) }}"),
        r#""\u00e9\ud83d\ude00\u2028"#.to_owned() + "\x7f\""
    );
    assert_eq!(render(r#"{{ '"\\/<>\n\t\u0001'|tojson }}"#), r#""\"\\/<>\n\t\u0001""#);
    assert_eq!(
        render("{{ {'a': [1, {}], 'b': []}|tojson(indent=2) }}"),
        "{\n  \"a\": [\n    1,\n    {}\n  ],\n  \"b\": []\n}"
    );
    assert_eq!(
        render("{{ [1]|tojson(indent='\t') }}{{ [1]|tojson(indent=none) }}"),
        "[\n\t1\n][1]"
    );
    assert_eq!(
        render(
            "{{ [0.1, 1.0, 1e20, 1e16, 123456789012345.0, 1e-7, 0.0001, -0.0, \
             12345678901234567890]|tojson }}"
        ),
        "[0.1, 1.0, 1e+20, 1e+16, 123456789012345.0, 1e-07, 0.0001, -0.0, 12345678901234567890]"
    );
    assert_eq!(render("{{ {1: 2, none: 3}|tojson }}"), r#"{"1": 2, "null": 3}"#);
}

#[test]
fn python_methods_and_filters_work() {
    let render = |source: &str| {
        template(source, "", "").render(&[Message::user(" a<b 'é' ")], false).unwrap()
    };
    assert_eq!(render("[{{ messages[0].content.strip() }}]"), "[a<b 'é']");
    assert_eq!(render("{{ messages[0]['content'].startswith(' a') }}"), render("{{ true }}"));
    assert_eq!(render("{{ 'x</think>y'.split('</think>')[-1].lstrip('\\n') }}"), "y");
    assert_eq!(
        render("{% for k, v in messages[0].items() %}{{ k }}={{ v }};{% endfor %}"),
        "role=user;content= a<b 'é' ;"
    );
    assert_eq!(render("{{ messages[0].get('name', 'nobody') }}"), "nobody");
    assert_eq!(render("{{ messages[0]|tojson }}"), r#"{"role": "user", "content": " a<b 'é' "}"#);
    assert_eq!(
        render("{{ 'k=v=w'.partition('=')|join('|') }}{{ 'ab'.partition('=')|join('|') }}"),
        "k|=|v=wab||"
    );
    assert_eq!(
        render(
            "{{ 'a.b.c'.rsplit('.', 1)|join('|') }} {{ 'abc'.removeprefix('a').removesuffix('c') }}"
        ),
        "a.b|c b"
    );
    assert_eq!(
        render(
            "{{ 'a' is sequence }} {{ [] is sequence }} {{ 1 is sequence }} {{ dict(a=1)|tojson }}"
        ),
        "True True False {\"a\": 1}"
    );
    assert_eq!(
        render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}"),
        "01"
    );
    assert_eq!(render("{% if tools is defined and tools %}x{% endif %}{{ nothing }}y"), "y");
}

/// Expected values are from Python's Jinja.
#[test]
fn values_are_written_and_read_as_in_python() {
    for (source, expected) in [
        (
            r#"{{ [1, true, none, 0.5, 1e16, 'a\'b', {'k': ["é\n\u200b\""]}] }}"#,
            r#"[1, True, None, 0.5, 1e+16, "a'b", {'k': ['é\n\u200b"']}]"#,
        ),
        (
            "{{ {'a': 1.0}|string + (1.5|string) + (2|string) }} {{ [] }} {{ {} }}",
            "{'a': 1.0}1.52 [] {}",
        ),
        (
            "{{ '12'|int }} {{ ' 12 '|int }} {{ '1.9'|int }} {{ 'x'|int }} {{ 'x'|int(7) }} \
             {{ none|int(default=3) }} {{ 'ff'|int(0, 16) }} {{ [1]|int }}",
            "12 12 1 0 7 3 255 0",
        ),
        (
            "{{ '1.5'|float }} {{ ' 2 '|float }} {{ 'x'|float }} {{ 'x'|float(7) }} \
             {{ none|float }} {{ {}|float(default=3) }}",
            "1.5 2.0 0.0 7 0.0 3",
        ),
        (
            "{{ none is iterable }} {{ nothing is iterable }} {{ 'a' is iterable }} \
             {{ [] is iterable }} {{ {} is iterable }} {{ 1 is iterable }}",
            "False True True True True False",
        ),
    ] {
        let rendered = template(source, "", "").render(&[], false).unwrap();
        assert_eq!(rendered, expected, "{source}");
    }
}

#[test]
fn errors_name_the_line() {
    let error = template("a\nb {{ raise_exception('no ' + messages[0].role) }}", "", "")
        .render(&[Message::user("a")], false)
        .unwrap_err();
    assert!(error.to_string().contains("no user") && error.to_string().contains(":2"), "{error}");
}
