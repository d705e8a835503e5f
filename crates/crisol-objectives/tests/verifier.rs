//! The verifier: form, answers in the spellings models use, and that no text can make it panic.

use crisol_objectives::verifier::{Comparison, Verdict, compares_as, left_open, verify};
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
fn format_and_correctness_are_separate() {
    assert_eq!(verify("<think>2 + 2</think>4", "4"), Verdict { format: true, correct: true });
    assert_eq!(verify("<think>2 + 2</think>5", "4"), Verdict { format: true, correct: false });
    assert_eq!(verify("The answer is 4", "4"), Verdict { format: false, correct: true });
    assert_eq!(verify("I do not know", "4"), Verdict { format: false, correct: false });
}

#[test]
fn a_number_is_told_from_the_words_beside_it() {
    // The letter of a choice, and one that is none.
    assert!(correct("\\boxed{(B) 12}", "12"));
    assert!(!correct("\\boxed{b) 12}", "12"));
    // A new line ends an answer; words after a marked letter do not undo it.
    assert!(correct("The answer is 3\ny = 7", "3"));
    assert!(!correct("The answer is 3\ny = 7", "7"));
    assert!(correct("The answer is B dogs bark", "B"));
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
        (
            "1234",
            &["1,234", "1234", "$1,234.00", "01234.", "3 + 4 is 1,234", "12, 1234", "(1,234)"],
        ),
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
    assert!(correct("port azur", "Port Azur"));
    assert!(correct("The answer is Port Azur.", "Port Azur"));
    assert!(correct("The answer is Port Azur, as everybody knows.", "Port Azur"));
    assert!(correct("7 and 8", "7 and 8"));
    assert!(correct("12:30", "12:30") && correct("The answer is 12:30.", "12:30"));
    assert!(correct("\\boxed{(3,4)}", "(3, 4)") && correct("$x+1$", "x + 1"));
    assert!(correct("\\boxed{2\\sqrt{3}}", "2\\sqrt{3}") && correct("\\boxed{\\text{Yes}}", "yes"));
    assert!(!correct("The answer is not Port Azur", "Port Azur"));
    assert!(!correct("Port Azur or Port Noir", "Port Azur"));
    assert!(!correct("8", "7 and 8"));
    assert!(!correct("12:31", "12:30") && !correct("30", "12:30"));
    assert!(!correct("", ""), "nothing is no answer");
    assert!(!correct(".", "."));
}

/// Spellings of one value, by kind: each answers each, and none answers any of another row.
#[test]
fn spellings_of_one_number_answer_one_another() {
    let values: &[&[&str]] = &[
        &[
            "1/2",
            "\\frac{1}{2}",
            "\\dfrac{1}{2}",
            "$\\frac12$",
            "\\tfrac 1 2",
            "0.5",
            ".50",
            "½",
            "2/4",
            "1 / 2",
            "\\boxed{\\frac{1}{2}}",
        ],
        &["1/3", "\\frac{1}{3}", "\\frac{2}{6}", "⅓"],
        &["-1/2", "-\\frac{1}{2}", "\\frac{-1}{2}", "−0.5", "-½", "- 1/2"],
        &[
            "3/2",
            "1 1/2",
            "1\\frac{1}{2}",
            "1 \\frac12",
            "1½",
            "1.5",
            "\\dfrac{3}{2}",
            "\\left(\\frac{3}{2}\\right)",
        ],
        &[
            "5",
            "+5",
            "5.",
            "05",
            "5.0",
            "$5$",
            "\\(5\\)",
            "\\[5\\]",
            "(5)",
            "x = 5",
            "10/2",
            "\\boxed{5}",
            "**5**",
            "\\text{5}",
        ],
        &["-5", "−5", "-5.0", "x = -5", "\\boxed{-5}", "(-5)", "- 5"],
        &[
            "1000",
            "1e3",
            "1E3",
            "1e+3",
            "10^3",
            "10^{3}",
            "10³",
            "1\\times10^3",
            "1 × 10^{3}",
            "1 \\cdot 10^3",
            "1,000",
            "1 000",
            "1{,}000",
            "1\\,000",
            "1_000",
            "1\u{202f}000",
            "1 thousand",
        ],
        &["0.001", "1e-3", "10^{-3}", "1 \\times 10^{-3}", "10⁻³", "1/1000"],
        &["1200000", "1.2e6", "1.2 \\times 10^6", "1,200,000", "1.2 million", "1 200 000"],
        &["16", "4^2", "4^{2}", "2^4", "4²"],
        &["123456789012345678901234567890", "1.2345678901234567890123456789e29"],
    ];
    for (i, row) in values.iter().enumerate() {
        for (j, other) in values.iter().enumerate() {
            for reference in *row {
                assert_eq!(compares_as(reference), Comparison::Number, "{reference:?}");
                for answer in *other {
                    assert_eq!(correct(answer, reference), i == j, "{answer:?} for {reference:?}");
                    let said = format!("<think>It is 77.</think>\nThe answer is {answer}.");
                    // A sign that stands apart could be a dash.
                    let apart = answer.starts_with("- ");
                    assert!(
                        apart || correct(&said, reference) == (i == j),
                        "{said:?} for {reference:?}"
                    );
                    let boxed = format!("We get 77, so \\boxed{{{answer}}}.");
                    let nested = answer.contains("boxed");
                    assert!(
                        nested || correct(&boxed, reference) == (i == j),
                        "{boxed:?} for {reference:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_percentage_is_what_it_is_worth_and_what_it_is_called() {
    for (answer, reference, expected) in [
        ("50%", "50%", true),
        ("50 percent", "50\\%", true),
        ("The answer is 50%.", "50%", true),
        ("0.5", "50%", true),
        ("1/2", "50%", true),
        ("50%", "0.5", true),
        ("50%", "\\frac{1}{2}", true),
        ("50", "50%", true),
        ("50%", "50", true),
        ("$50\\%$", "50", true),
        ("12.5%", "1/8", true),
        ("0.5%", "50%", false),
        ("5%", "50%", false),
        ("0.5", "0.5%", true),
        ("5000%", "50%", false),
        ("50 dollars", "50%", false),
        ("50%", "50 cm", false),
    ] {
        assert_eq!(correct(answer, reference), expected, "{answer:?} for {reference:?}");
    }
}

#[test]
fn units_may_be_left_out_but_not_changed() {
    for (answer, reference, expected) in [
        ("16 cm^2", "16", true),
        ("16", "16 cm^2", true),
        ("16 \\text{ cm}^2", "16 cm²", true),
        ("16 square centimeters", "16\\text{ cm}^2", true),
        ("16 m^2", "16 cm^2", false),
        ("16 cm", "16 cm^2", false),
        ("17 cm^2", "16 cm^2", false),
        ("$18", "18", true),
        ("18", "$18", true),
        ("18 dollars", "$18", true),
        ("\\$18.00", "18 dollars", true),
        ("18 euros", "$18", false),
        ("€18", "18 dollars", false),
        ("18 cents", "$18", false),
        ("90°", "90", true),
        ("90^\\circ", "90 degrees", true),
        ("90", "90^{\\circ}", true),
        ("42 apples", "42", true),
        ("42", "42 apples", true),
        ("42 red apples", "42 apples", true),
        ("She drives 60 miles per hour.", "60 mph", true),
        ("60 km/h", "60 mph", false),
        ("The answer is 5 minutes.", "5 min", true),
        ("The answer is 5 hours.", "5 min", false),
    ] {
        assert_eq!(correct(answer, reference), expected, "{answer:?} for {reference:?}");
    }
}

#[test]
fn a_choice_is_its_letter() {
    for reference in [
        "C",
        "(C)",
        "C.",
        "C)",
        "(c)",
        "\\boxed{C}",
        "\\text{(C)}",
        "C) Paris",
        "C. Paris",
        "#### C",
    ] {
        assert_eq!(compares_as(reference), Comparison::Choice, "{reference:?}");
        for right in [
            "C",
            "(C)",
            "C.",
            "c",
            "**C**",
            "C) Paris",
            "C. Paris",
            "C: Paris",
            "The answer is C.",
            "The answer is (C).",
            "The answer is: C",
            "Answer: C",
            "**Answer:** C",
            "The correct answer is option C.",
            "\\boxed{C}",
            "\\boxed{\\text{C}}",
            "\\boxed{(C)}",
            "Option C",
            "The correct option is (C).",
            "I choose option C.",
            "#### C",
            "It is (C), because (C) is largest.",
            "The answer is C because A is too small.",
            "C is correct.",
            "Not A or B. The answer is C",
            "<think>A? No.</think>C",
        ] {
            assert!(correct(right, reference), "{right:?} for {reference:?}");
        }
        for wrong in [
            "B",
            "(B)",
            "The answer is B.",
            "The answer is not C.",
            "C or B",
            "The answer is B or C",
            "The answer is C or D.",
            "(B) or (C)",
            "A, B and C",
            "Cats",
            "The answer is Cairo.",
            "",
            "CC",
            "\\boxed{B}",
            "\\boxed{BC}",
            "C, D",
            "The answer is C, D",
            "C's",
            "Can you see C?",
            "C/D",
        ] {
            assert!(!correct(wrong, reference), "{wrong:?} for {reference:?}");
        }
    }
    assert!(!correct("A dog barks.", "A") && !correct("The answer is a dog.", "A"));
    assert!(!correct("I do not know.", "I"));
    assert!(correct("The answer is a.", "A") && correct("A because it barks", "A"));
    assert_eq!(compares_as("a"), Comparison::Text);
    assert_eq!(compares_as("K"), Comparison::Text);
}

#[test]
fn other_answers_than_the_number_are_not_paid() {
    for (answer, reference) in [
        ("1/2", "1/3"),
        ("1/2", "2"),
        ("1/2", "12"),
        ("2/1", "1/2"),
        ("\\frac{1}{2}", "2"),
        ("1 2", "12"),
        ("1,5", "15"),
        ("\\boxed{1,5}", "5"),
        ("\\boxed{3, 5}", "5"),
        ("10^3", "3"),
        ("10^3", "103"),
        ("1e3", "3"),
        ("2x", "2"),
        ("The answer is 5x.", "5"),
        ("\\boxed{5\\pi}", "5"),
        ("\\boxed{2\\sqrt{3}}", "3"),
        ("\\boxed{\\sqrt{2}}", "2"),
        ("The answer is \\sqrt{2}", "2"),
        ("\\boxed{x^2}", "2"),
        ("x_1", "1"),
        ("The answer is 16 cm^2", "2"),
        ("The answer is 3 or 4", "4"),
        ("The answer is 3 or 4", "3"),
        ("\\boxed{3} or 4", "4"),
        ("3 million", "3"),
        ("12/05/2024", "2024"),
        ("\\frac{1}{0}", "1"),
        ("5/0", "0"),
        ("3.14159", "3.14"),
        ("1000", "1"),
        ("The answer is 18, i.e. 9 each for 2 days.", "2"),
        ("<think>5</think>The answer is 6", "5"),
    ] {
        assert!(!correct(answer, reference), "{answer:?} for {reference:?}");
    }
}

#[test]
fn the_answer_is_where_it_is_said() {
    for (answer, reference) in [
        ("The answer is 18, i.e. 9 each for 2 days.", "18"),
        ("The answer is 3 + 4 = 7.", "7"),
        ("The answer is 4^{2}=16.", "16"),
        ("x^2 = 4, so x = 2.", "2"),
        ("She made a profit of $70,000.00", "70000"),
        ("The final answer is: **42**. I checked it 3 times.", "42"),
        ("Answer: 42\n\nLet me know if you need 2 more.", "42"),
        ("\\boxed{42} as in example 3", "42"),
        ("\\boxed{41} no: \\boxed{42}", "42"),
        ("\\boxed{\\text{42 apples}}", "42"),
        ("\\boxed{The total is 42}", "42"),
        ("\\boxed{x = 42}", "42"),
        ("\\boxed{\\textbf{(B)}\\ 42}", "42"),
        ("\\boxed{\\textbf{(B)}\\ 42}", "B"),
        ("#### 42\nThat took 3 steps.", "42"),
        ("The answer is 41. No, the answer is 42.", "42"),
        ("42 is the answer", "42"),
        ("So the answer is:\n\n$42$", "42"),
        ("<think>\n\n</think>\n\n5", "5"),
    ] {
        assert!(correct(answer, reference), "{answer:?} for {reference:?}");
    }
}

/// Sizes that would take for ever to write out are neither paid nor waited for.
#[test]
fn numbers_without_bounds_are_compared_as_text() {
    for huge in ["10^999999999", "1e999999999999999999999", "9^9^9", "10^{-99999}", "2^{100000}"] {
        assert_eq!(compares_as(huge), Comparison::Text, "{huge}");
        assert!(correct(huge, huge), "{huge}");
        assert!(!correct(huge, "1") && !correct(huge, "9"), "{huge}");
    }
    let long = "7".repeat(100_000);
    assert!(correct(&long, &long) && !correct(&long, "7"));
    let nested = "\\frac{".repeat(20_000) + "1";
    assert!(!correct(&nested, "1") && !correct(&"\\boxed{".repeat(20_000), "1"));
}

#[test]
fn a_thought_that_the_prompt_opened_is_left_open() {
    assert_eq!(left_open("<|user|>2 + 2?<|assistant|><think>\n"), "<think>\n");
    assert_eq!(left_open("<|assistant|><think>\n\n</think>\n\n"), "");
    assert_eq!(left_open("<think>a</think>1 <think>So"), "<think>So");
    assert_eq!(left_open("2 + 2?"), "");
    let turn = |prompt: &str, completion: &str| format!("{}{completion}", left_open(prompt));
    assert!(format(&turn("<think>\n", "2 + 2\n</think>\n4")));
    assert!(!format(&turn("", "2 + 2\n</think>\n4")));
    assert!(!format(&turn("<think>\n", "<think>2 + 2\n</think>\n4")), "opened twice");
    assert!(!format(&turn("<think>\n", "4")));
}

/// Texts made of what the verifier looks for, in any order.
fn tricky_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("<think>".to_owned()),
        Just("</think>".to_owned()),
        Just("####".to_owned()),
        "[-−+$,.0-9 a-zé²٣\n]{0,6}",
        "[-\\\\{}()^_/%×½°=0-9A-E ]{0,8}",
        Just("\\frac".to_owned()),
        Just("\\boxed{".to_owned()),
        Just("\\text{".to_owned()),
        Just("answer is".to_owned()),
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(completion in tricky_text(), reference in tricky_text()) {
        let verdict = verify(&completion, &reference);
        let [opened, closed] =
            ["<think>", "</think>"].map(|tag| completion.matches(tag).count());
        prop_assert!(!verdict.format || (opened, closed) == (1, 1));
    }

    #[test]
    fn what_is_built_in_the_form_has_it(
        thought in "[a-z0-9 +=.]{0,20}[a-z]",
        answer in -1_000_000i64..1_000_000,
    ) {
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
