//! Stop strings.

use crisol_text::Tokenizer;

use crate::fixture::{special, train};

fn strings(stops: &[&str]) -> Vec<String> {
    stops.iter().map(|stop| (*stop).to_owned()).collect()
}

/// The texts returned for each token of a text, and whether a stop string was found.
fn pieces(tokenizer: &Tokenizer, text: &str, stops: &[&str]) -> (Vec<String>, bool) {
    let stops = strings(stops);
    let mut stream = tokenizer.stream_until(&stops);
    let ids = tokenizer.encode(text).unwrap();
    let mut pieces: Vec<String> = ids.into_iter().map(|id| stream.push(id)).collect();
    let (rest, stopped) = stream.finish();
    pieces.push(rest);
    (pieces, stopped)
}

#[test]
fn text_is_cut_before_the_first_stop_string() {
    let tokenizer = train(&special(&["<s>", "</s>"]));
    let cut = |text: &str, stops: &[&str]| {
        let (pieces, stopped) = pieces(&tokenizer, text, stops);
        (pieces.concat(), stopped)
    };
    assert_eq!(
        cut("The capital of Peru is Lima.", &["Peru"]),
        ("The capital of ".to_owned(), true)
    );
    assert_eq!(cut("hello world", &["world", "lo"]), ("hel".to_owned(), true));
    assert_eq!(cut("señor 日本 😀!", &["本 😀"]), ("señor 日".to_owned(), true));
    // The start of a stop string that stays incomplete is returned at the end.
    assert_eq!(
        cut("a Peruvian in Per", &["Peru!", "Peru?"]),
        ("a Peruvian in Per".to_owned(), false)
    );
    assert_eq!(cut("ababac", &["abac"]), ("ab".to_owned(), true));
    assert_eq!(cut("hello", &["hello"]), (String::new(), true));
    assert_eq!(cut("hello", &[""]), ("hello".to_owned(), false));
    assert_eq!(cut("hello", &[]), ("hello".to_owned(), false));
}

#[test]
fn no_part_of_a_stop_string_is_returned() {
    let tokenizer = train(&special(&["<s>"]));
    // Most of these stop strings have several tokens.
    for stop in ["capital of Chile", "\n\nhello", "日本語", "12345 times"] {
        let text = format!("The user says {stop} and more {stop}");
        let (pieces, stopped) = pieces(&tokenizer, &text, &[stop]);
        assert!(stopped && pieces.concat() == "The user says ", "{pieces:?}");
    }
    // Text that cannot become a stop string is returned at once.
    let (pieces, _) = pieces(&tokenizer, "hello world", &["Chile"]);
    let ids = tokenizer.encode("hello world").unwrap();
    let alone: Vec<String> = ids.iter().map(|&id| tokenizer.decode(&[id], true)).collect();
    assert_eq!(pieces[..ids.len()], alone);
}

proptest::proptest! {
    #[test]
    fn a_stream_is_cut_where_the_text_is_cut(
        text in "[abñ日\n]{0,30}",
        stops in proptest::collection::vec("[abñ日\n]{1,4}", 0..3),
    ) {
        let tokenizer = train(&[]);
        let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
        let (pieces, stopped) = pieces(&tokenizer, &text, &stops);
        let returned = pieces.concat();
        proptest::prop_assert!(text.starts_with(&returned));
        proptest::prop_assert_eq!(stopped, stops.iter().any(|stop| text.contains(stop)));
        proptest::prop_assert!(!stops.iter().any(|stop| returned.contains(stop)));
        if stopped {
            let rest = &text[returned.len()..];
            proptest::prop_assert!(stops.iter().any(|stop| rest.starts_with(stop)));
        } else {
            proptest::prop_assert_eq!(returned, text);
        }
    }
}
