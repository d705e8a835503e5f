//! The verifier: form, answers in the spellings models use, and that no text can make it panic.

use crisol_objectives::verifier::{Verdict, verify};
use proptest::prelude::*;

fn format(completion: &str) -> bool {
    verify(completion, "1").format
}

fn correct(completion: &str, reference: &str) -> bool {
    verify(completion, reference).correct
}

#[test]
fn the_form_is_one_closed_thought_and_then_an_answer() {
    assert!(format("<think>2 + 2 = 4</think>4"));
    assert!(format("\n <think>\n2 + 2\n</think>\n\nThe answer is 4.\n"));
    for bad in [
        "",
        "4",
        "<think>",
        "</think>4",
        "<think>2 + 2 = 4",
        "<think></think>4",
        "<think> \n </think>4",
        "<think>2 + 2</think>",
        "<think>2 + 2</think>  \n",
        "So: <think>2 + 2</think>4",
        "<think>a<think>b</think>c</think>4",
        "<think>a<think>b</think>4",
        "<think>a</think>b</think>4",
        "<think>a</think><think>b</think>4",
        "<think>a</think>4<think>b</think>",
        "<think>a</think>4<think>",
        "</think>4<think>",
        "<THINK>a</THINK>4",
        "<think >a</think>4",
    ] {
        assert!(!format(bad), "{bad:?}");
    }
}

#[test]
fn form_and_correctness_are_judged_apart() {
    assert_eq!(verify("<think>2 + 2</think>4", "4"), Verdict { format: true, correct: true });
    assert_eq!(verify("<think>2 + 2</think>5", "4"), Verdict { format: true, correct: false });
    assert_eq!(verify("The answer is 4", "4"), Verdict { format: false, correct: true });
    assert_eq!(verify("I do not know", "4"), Verdict { format: false, correct: false });
}

#[test]
fn a_right_number_inside_the_thought_is_not_an_answer() {
    assert!(!correct("<think>so it is 42</think>I am not sure.", "42"));
    assert!(!correct("<think>so it is 42", "42"));
    assert!(!correct("<think>so it is 42</think>", "42"));
    assert!(!correct("42 <think>or is it", "42"));
    assert!(correct("<think>41? no</think>42", "42"));
}

#[test]
fn numbers_are_equal_however_they_are_written() {
    for (reference, spellings) in [
        (
            "42",
            &[
                "42",
                "42.",
                "042",
                "42.0",
                "+42",
                "$42",
                "It is **42**",
                "\\boxed{42}",
                "42 km",
                "x=42",
                "= 42!",
            ][..],
        ),
        ("1234", &["1,234", "1234", "$1,234.00", "01234.", "3 + 4 is 1,234", "12, 1234", "(1,234)"]),
        ("1,234", &["1234"]),
        ("$18", &["18", "She makes $18 every day."]),
        ("-7", &["-7", "−7", "= -7.0", "-$7", "$-7", "from 3 to -7"]),
        ("0.5", &["0.5", ".5", "0.50", "00.5"]),
        ("0", &["0", "-0", "0.0", "zero is 0"]),
        ("She sold 48/2 = 24.\n#### 72", &["72", "#### 72"]),
        ("#### 1,000", &["1000."]),
        ("123456789012345678901234567890", &["123,456,789,012,345,678,901,234,567,890"]),
        ("42", &["42 m2", "H2O weighs 42"]),
    ] {
        for spelling in spellings {
            assert!(correct(spelling, reference), "{spelling:?} is {reference:?}");
        }
    }
}

#[test]
fn other_numbers_are_not_equal() {
    for (answer, reference) in [
        ("43", "42"),
        ("42 or 43", "42"),
        ("420", "42"),
        ("4.2", "42"),
        ("-42", "42"),
        ("42", "-42"),
        ("50-8", "42"),
        ("12,34", "1234"),
        ("1,2345", "12345"),
        ("forty-two", "42"),
        ("", "42"),
        ("m42", "42"),
        ("123456789012345678901234567891", "123456789012345678901234567890"),
        ("9007199254740993", "9007199254740992"),
    ] {
        assert!(!correct(answer, reference), "{answer:?} is not {reference:?}");
    }
    assert!(correct("1,2345", "2345"), "a comma before other than three digits separates numbers");
    assert!(correct("50-8", "8"), "a minus between operands is no sign");
}

#[test]
fn a_reference_that_is_no_number_is_compared_as_text() {
    assert!(correct("<think>hm</think> Port  Azur.\n", "Port Azur"));
    assert!(correct("3/4", "3/4"));
    assert!(correct("7 and 8", "7 and 8"));
    assert!(!correct("The answer is Port Azur", "Port Azur"));
    assert!(!correct("8", "7 and 8"));
    assert!(!correct("port azur", "Port Azur"));
    assert!(!correct("", ""), "nothing is no answer");
    assert!(!correct(".", "."));
}

/// Texts made of what the verifier looks for, in any order.
fn tricky_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<think>".to_owned()),
        Just("</think>".to_owned()),
        Just("####".to_owned()),
        "[-−+$,.0-9 a-zé²٣\n]{0,6}",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(completion in tricky_text(), reference in tricky_text()) {
        let verdict = verify(&completion, &reference);
        let (opened, closed) = (completion.matches("<think>").count(), completion.matches("</think>").count());
        prop_assert!(!verdict.format || (opened, closed) == (1, 1));
    }

    #[test]
    fn what_is_built_in_the_form_has_it(thought in "[a-z0-9 +=.]{0,20}[a-z]", answer in -1_000_000i64..1_000_000) {
        let completion = format!("<think>{thought}</think>\nThe answer is {answer}.");
        let expected = Verdict { format: true, correct: true };
        prop_assert_eq!(verify(&completion, &answer.to_string()), expected);
        prop_assert!(!verify(&completion, &(answer + 1).to_string()).correct);
    }

    #[test]
    fn thousands_commas_change_nothing(n in 0u64..u64::MAX) {
        let digits = n.to_string();
        let with_commas: String = digits
            .char_indices()
            .flat_map(|(i, c)| {
                let comma = i > 0 && (digits.len() - i).is_multiple_of(3);
                comma.then_some(',').into_iter().chain([c])
            })
            .collect();
        prop_assert!(correct(&with_commas, &digits));
        prop_assert!(correct(&digits, &with_commas));
    }
}
