//! On the embedded data the verifier equals its first rule, "the last number of the answer". So
//! later rules do not change the embedded run.

use crisol_objectives::verifier::verify;

/// The first rule: the last integer of the answer.
fn last_number(text: &str) -> Option<String> {
    let answer = text.rsplit_once("</think>").map_or(text, |(_, answer)| answer);
    let mut words = answer.split(|c: char| !c.is_ascii_digit());
    let last = words.rfind(|word| !word.is_empty())?;
    let last = last.trim_start_matches('0');
    Some(if last.is_empty() { "0" } else { last }.to_owned())
}

fn records(name: &str) -> Vec<serde_json::Value> {
    let file = crisol_world::file(name).expect("a file of the data set");
    file.jsonl.lines().map(|line| serde_json::from_str(line).expect("valid JSON")).collect()
}

#[test]
fn verdicts_on_the_embedded_problems_are_those_of_the_last_number() {
    let solutions: Vec<String> =
        ["cold-start.train.jsonl", "annotated.train.jsonl", "sft.train.jsonl"]
            .iter()
            .flat_map(|name| records(name))
            .filter_map(|record| {
                let messages = record["messages"].as_array()?;
                messages.last()?["content"].as_str().map(str::to_owned)
            })
            .collect();
    assert!(solutions.len() > 1000, "{} solutions in the data", solutions.len());
    let (mut right, mut wrong) = (0, 0);
    let mut check = |reply: &str, reference: &str| {
        let expected = last_number(reply).as_deref() == Some(reference);
        assert_eq!(verify(reply, reference).correct, expected, "{reply:?} for {reference:?}");
        *(if expected { &mut right } else { &mut wrong }) += 1;
    };
    let mut from_data = 0;
    for (i, problem) in records("problems.train.jsonl").iter().enumerate() {
        let reference = problem["answer"].as_str().expect("an answer");
        let n: u32 = reference.parse().expect("answers are whole numbers");
        for said in [n, n + 1, 10 * n, n / 2] {
            for reply in [
                format!("<think>7 + 5 = 12. 12 - 2 = {said}.</think>The answer is {said}."),
                format!("The answer is {said}."),
                format!("<think>2 x 3 = {n}.</think>The answer is {said}. The answer is {n}."),
                format!("{said}"),
                format!("7 + 5 = {said}."),
                format!("<think>7</think>2 x {said} = {n}"),
                format!("<think>7</think>Anna has {said} apples"),
            ] {
                check(&reply, reference);
            }
        }
        // Replies from the data, right or wrong.
        for reply in solutions.iter().skip(i % 997).step_by(997) {
            check(reply, reference);
            from_data += 1;
        }
    }
    assert!(from_data > 1000, "{from_data} replies from the data");
    assert!(right > 10_000 && wrong > 50_000, "{right} right, {wrong} wrong");
}
