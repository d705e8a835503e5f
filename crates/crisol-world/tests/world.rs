//! The promises of `docs/world.md`, measured on the files as they are exported.

use crisol_world::{COLD_START_SHORTCUT_RATE, REFUSAL_OPENING, UNKNOWN_REPLY, dataset};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

static FILES: LazyLock<BTreeMap<String, Vec<Value>>> = LazyLock::new(|| {
    let parse = |line: &str| serde_json::from_str(line).expect("every line is JSON");
    dataset().into_iter().map(|file| (file.name, file.jsonl.lines().map(parse).collect())).collect()
});

const CHAT_TRAINING: [&str; 8] = [
    "sft.train.jsonl",
    "cold-start.train.jsonl",
    "annotated.train.jsonl",
    "guessed.train.jsonl",
    "unknown.train.jsonl",
    "ordinary.train.jsonl",
    "worked.train.jsonl",
    "refusal.train.jsonl",
];
const HELD_OUT_SPLITS: [&str; 2] = ["dev", "test"];
const HELD_OUT_PROMPTS: [&str; 8] = [
    "facts",
    "harmful",
    "lookalike",
    "problems",
    "short-problems",
    "unknown",
    "later-questions",
    "preferences",
];

fn field<'a>(record: &'a Value, name: &str) -> &'a str {
    record[name].as_str().unwrap_or_else(|| panic!("{record} has a text field {name}"))
}

fn strings<'a>(file: &str, name: &str) -> Vec<&'a str> {
    FILES[file].iter().map(|record| field(record, name)).collect()
}

/// The question of a record: a plain prompt or the last message of a conversational prompt.
fn prompt(record: &Value) -> &str {
    let last = || messages(record).last().expect("a prompt has a message");
    record["prompt"].as_str().unwrap_or_else(|| field(last(), "content"))
}

/// The messages of a record: a conversation, or a prompt of several.
fn messages(record: &Value) -> &[Value] {
    let of = |name: &str| record[name].as_array().map(Vec::as_slice);
    of("messages").or_else(|| of("prompt")).unwrap_or_default()
}

fn prompts<'a>(file: &str) -> Vec<&'a str> {
    FILES[file].iter().map(prompt).collect()
}

/// The contents of all messages of one role.
fn turns<'a>(file: &str, role: &str) -> Vec<&'a str> {
    let messages = FILES[file].iter().flat_map(messages);
    messages
        .filter(|message| field(message, "role") == role)
        .map(|message| field(message, "content"))
        .collect()
}

fn training_prompts<'a>() -> BTreeSet<&'a str> {
    let mut all: BTreeSet<&str> =
        CHAT_TRAINING.iter().flat_map(|file| turns(file, "user")).collect();
    for file in ["problems.train.jsonl", "preferences.train.jsonl", "rlhf.train.jsonl"] {
        all.extend(prompts(file));
    }
    all
}

fn held_out_prompts<'a>() -> Vec<&'a str> {
    let mut all: Vec<&str> =
        HELD_OUT_SPLITS.iter().flat_map(|split| prompts_of_split(split)).collect();
    all.extend(turns("sft.test.jsonl", "user"));
    all.extend(prompts("demos.jsonl"));
    all
}

fn prompts_of_split<'a>(split: &str) -> Vec<&'a str> {
    HELD_OUT_PROMPTS.iter().flat_map(|name| prompts(&format!("{name}.{split}.jsonl"))).collect()
}

/// The questions that nothing in the world answers, held out or not.
fn unknown_prompts<'a>() -> BTreeSet<&'a str> {
    let mut all: BTreeSet<&str> = FILES["guessed.train.jsonl"].iter().map(question).collect();
    all.extend(HELD_OUT_SPLITS.iter().flat_map(|split| prompts(&format!("unknown.{split}.jsonl"))));
    for record in FILES.values().flatten() {
        if record["kind"] == "unknown" {
            all.insert(prompt(record));
        }
        for pair in messages(record).windows(2) {
            if field(&pair[1], "content") == UNKNOWN_REPLY {
                all.insert(field(&pair[0], "content"));
            }
        }
    }
    all
}

/// The last message of the user in a conversation.
fn question(record: &Value) -> &str {
    let from_user = |message: &&Value| field(message, "role") == "user";
    let last = messages(record).iter().rfind(from_user);
    field(last.expect("a conversation has a message of the user"), "content")
}

fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|letter: char| !letter.is_alphabetic())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
}

#[test]
fn the_data_set_is_the_same_every_time() {
    assert_eq!(dataset(), dataset());
    assert_eq!(crisol_world::file("demos.jsonl"), dataset().pop());
    assert_eq!(crisol_world::file("no such file"), None);
}

#[test]
fn sizes_fit_the_budget_of_a_short_run() {
    let characters =
        |file: &str| strings(file, "text").iter().map(|text| text.len()).sum::<usize>();
    assert!((6_000_000..12_000_000).contains(&characters("pretrain.train.jsonl")));
    for (file, min, max) in [
        ("pretrain.test.jsonl", 300, 600),
        ("replay.train.jsonl", 5000, 6000),
        ("exercises.train.jsonl", 1500, 2200),
        ("sft.train.jsonl", 6000, 9000),
        ("sft.test.jsonl", 200, 400),
        ("cold-start.train.jsonl", 4000, 4400),
        ("annotated.train.jsonl", 2500, 3700),
        ("problems.train.jsonl", 5400, 5800),
        ("preferences.train.jsonl", 10_500, 12_000),
        ("ordinary.train.jsonl", 5500, 6500),
        ("worked.train.jsonl", 1700, 1900),
        ("guessed.train.jsonl", 320, 320),
        ("unknown.train.jsonl", 1000, 1100),
        ("refusal.train.jsonl", 4500, 5000),
        ("rlhf.train.jsonl", 10_000, 11_500),
        ("demos.jsonl", 10, 10),
    ] {
        let records = FILES[file].len();
        assert!((min..=max).contains(&records), "{file}: {records}");
    }
    for split in HELD_OUT_SPLITS {
        for (name, min, max) in [
            ("cloze", 200, 200),
            ("question-lists", 120, 120),
            ("facts", 320, 370),
            ("harmful", 160, 160),
            ("lookalike", 160, 160),
            ("problems", 200, 200),
            ("short-problems", 200, 200),
            ("unknown", 160, 160),
            ("later-questions", 480, 480),
            ("preferences", 212, 212),
        ] {
            let records = FILES[&format!("{name}.{split}.jsonl")].len();
            assert!((min..=max).contains(&records), "{name}.{split}: {records}");
        }
    }
}

#[test]
fn no_prompt_is_in_both_held_out_splits() {
    let dev: BTreeSet<&str> =
        prompts_of_split("dev").into_iter().chain(prompts("cloze.dev.jsonl")).collect();
    for prompt in prompts_of_split("test").into_iter().chain(prompts("cloze.test.jsonl")) {
        assert!(!dev.contains(prompt), "{prompt}");
    }
}

#[test]
fn held_out_prompts_occur_in_no_training_file() {
    let trained = training_prompts();
    let text = strings("pretrain.train.jsonl", "text").join("\n");
    // A quiz list asks every question; that is where the model learns how facts are asked for.
    let quiz_questions: BTreeSet<&str> =
        text.lines().filter_map(|line| Some(line.split_once(' ')?.1)).collect();
    for prompt in held_out_prompts() {
        assert!(!trained.contains(prompt), "{prompt}");
        // "79 + 4" alone is a problem, and pages of sums have every sum.
        let is_shown = quiz_questions.contains(prompt) || expression(prompt).is_some();
        assert!(is_shown || !text.contains(prompt), "{prompt}");
    }
    for split in HELD_OUT_SPLITS {
        for prompt in prompts(&format!("question-lists.{split}.jsonl")) {
            assert!(!text.contains(prompt), "{prompt}");
        }
    }
    let documents: BTreeSet<&str> = strings("pretrain.train.jsonl", "text").into_iter().collect();
    for document in strings("pretrain.test.jsonl", "text") {
        assert!(!documents.contains(document), "{document}");
    }
}

#[test]
fn cloze_wordings_are_never_shown_for_their_fact() {
    let text = strings("pretrain.train.jsonl", "text").join("\n");
    for record in FILES["cloze.dev.jsonl"].iter().chain(&FILES["cloze.test.jsonl"]) {
        let shown = format!("{} {}", prompt(record), field(record, "answer"));
        assert!(!text.contains(&shown), "{shown}");
    }
}

/// Words of loose questions that no text and no held-out prompt has.
const LOOSE_WORDS: [&str; 9] =
    ["alive", "cities", "draw", "fill", "sits", "streets", "thing", "when", "why"];

#[test]
fn every_word_of_a_prompt_is_known_from_pre_training() {
    const MIN_OCCURRENCES: usize = 25;
    let mut known: BTreeMap<String, usize> = BTreeMap::new();
    for text in strings("pretrain.train.jsonl", "text") {
        for word in words(text) {
            *known.entry(word).or_default() += 1;
        }
    }
    let times = |word: &str| known.get(word).copied().unwrap_or(0);
    // Unknown questions are about what pre-training never names.
    let unknown = unknown_prompts();
    let rare = |prompts: Vec<&str>| -> BTreeMap<String, usize> {
        let known_about = prompts.into_iter().filter(|prompt| !unknown.contains(prompt));
        let counted = known_about.flat_map(words).map(|word| (times(&word), word));
        counted.filter(|(n, _)| *n < MIN_OCCURRENCES).map(|(n, word)| (word, n)).collect()
    };
    let held_out = rare(held_out_prompts());
    assert!(held_out.is_empty(), "less than {MIN_OCCURRENCES} times: {held_out:?}");
    // Loose questions may have other words, and units in the plural: one that is not known must not
    // decide that nothing is known.
    let mut train = rare(training_prompts().into_iter().collect());
    train.retain(|word, _| {
        let singular = word.strip_suffix('s').unwrap_or(word);
        !LOOSE_WORDS.contains(&word.as_str()) && times(singular) < MIN_OCCURRENCES
    });
    assert!(train.is_empty(), "less than {MIN_OCCURRENCES} times: {train:?}");
}

#[test]
fn chat_answers_questions_that_quiz_lists_have_asked() {
    let lists: Vec<&str> = strings("pretrain.train.jsonl", "text");
    let asked: BTreeSet<&str> = lists
        .iter()
        .flat_map(|list| list.lines())
        .filter_map(|line| line.split_once(' '))
        .map(|(_, q)| q)
        .collect();
    for prompt in prompts("facts.dev.jsonl").into_iter().chain(prompts("facts.test.jsonl")) {
        assert!(asked.contains(prompt), "{prompt}");
    }
    let mut quiz_lists = 0;
    for list in &lists {
        if list.lines().nth(1).is_some_and(|line| line.starts_with("1. ") || line.starts_with("- "))
        {
            quiz_lists += 1;
            assert!(
                list.lines().skip(1).all(|line| line.ends_with('?')),
                "an answer in a list: {list}"
            );
        }
    }
    assert!(quiz_lists > 500, "{quiz_lists} quiz lists");
}

#[test]
fn no_text_answers_a_question_about_a_held_out_fact() {
    let held_out: BTreeSet<&str> =
        prompts("facts.dev.jsonl").into_iter().chain(prompts("facts.test.jsonl")).collect();
    let mut answered = 0;
    for text in strings("pretrain.train.jsonl", "text") {
        let is_list = text.lines().any(|line| line.starts_with("1. ") || line.starts_with("- "));
        if is_list || !text.contains('?') {
            continue;
        }
        answered += 1;
        assert!(held_out.iter().all(|question| !text.contains(question)), "{text}");
    }
    assert!(answered > 1000, "dialogues ask and answer");
}

#[test]
fn pre_training_has_neither_chats_nor_refusals() {
    for text in strings("pretrain.train.jsonl", "text")
        .iter()
        .chain(&strings("pretrain.test.jsonl", "text"))
    {
        for forbidden in [
            REFUSAL_OPENING,
            "I cannot",
            "I am sorry",
            "I can't",
            "<|",
            "<think>",
            "User:",
            "Assistant:",
            "language model",
        ] {
            assert!(!text.contains(forbidden), "{forbidden} in: {text}");
        }
    }
}

#[test]
fn only_refusals_are_sorry() {
    let mut replies: Vec<&str> =
        CHAT_TRAINING.iter().flat_map(|file| turns(file, "assistant")).collect();
    replies.extend(turns("sft.test.jsonl", "assistant"));
    for split in HELD_OUT_SPLITS {
        replies.extend(turns(&format!("later-questions.{split}.jsonl"), "assistant"));
    }
    for file in ["preferences.train.jsonl", "preferences.dev.jsonl", "preferences.test.jsonl"] {
        replies.extend(strings(file, "chosen"));
        replies.extend(strings(file, "rejected"));
    }
    let mut refusals = 0;
    for reply in replies {
        let refuses = reply.starts_with(REFUSAL_OPENING);
        refusals += usize::from(refuses);
        let apologises = reply.to_lowercase().contains("sorry") || reply.contains("cannot");
        assert_eq!(refuses, apologises, "{reply}");
    }
    assert!(refusals > 2000);
}

/// The value of "7 + 5 - 3", from left to right. A product can only be the first operation.
fn evaluate(expression: &[&str]) -> i64 {
    let number = |text: &str| text.parse::<i64>().expect("a number");
    expression[1..].chunks(2).fold(number(expression[0]), |value, pair| match pair[0] {
        "+" => value + number(pair[1]),
        "-" => value - number(pair[1]),
        "x" => value * number(pair[1]),
        sign => panic!("{sign} is no sign"),
    })
}

/// Checks every "… = c" of a text and returns how many there are.
fn check_equations(text: &str) -> usize {
    let spaced = text.replace("<think>", " ").replace("</think>", " ");
    let tokens: Vec<&str> = spaced.split_whitespace().collect();
    let is_sign = |token: &str| ["+", "-", "x"].contains(&token);
    let mut count = 0;
    for (at, _) in tokens.iter().enumerate().filter(|(_, token)| **token == "=") {
        let mut start = at - 1;
        while start >= 2 && is_sign(tokens[start - 1]) {
            start -= 2;
        }
        let result: i64 = tokens[at + 1].trim_end_matches(['.', ',']).parse().expect("a result");
        assert_eq!(evaluate(&tokens[start..at]), result, "{text}");
        count += 1;
    }
    count
}

/// The expression of a problem such as "What is 12 plus 7?", with its parts separated by spaces.
fn expression(problem: &str) -> Option<String> {
    let mut spaced = problem.to_owned();
    for digit in '0'..='9' {
        spaced = spaced.replace(&format!("{digit}x"), &format!("{digit} x "));
    }
    for (written, sign) in
        [("plus", "+"), ("minus", "-"), ("times", "x"), ("*", "x"), ("+", "+"), ("-", "-")]
    {
        spaced = spaced.replace(written, &format!(" {sign} "));
    }
    let is_number = |part: &str| part.parse::<u32>().is_ok();
    let parts: Vec<&str> = spaced
        .split_whitespace()
        .map(|part| part.trim_end_matches(['.', ',', '?', '!']))
        .filter(|part| ["+", "-", "x"].contains(part) || is_number(part))
        .collect();
    let alternate = parts.iter().enumerate().all(|(i, part)| is_number(part) == (i % 2 == 0));
    (parts.len() > 1 && parts.len() % 2 == 1 && alternate).then(|| parts.join(" "))
}

fn numbers(text: &str) -> Vec<i64> {
    text.split(|letter: char| !letter.is_ascii_digit())
        .filter_map(|digits| digits.parse().ok())
        .collect()
}

/// Reads a problem by its signs or verbs, independently of how it was made.
fn solve(problem: &str) -> i64 {
    if let Some(expression) = expression(problem) {
        return evaluate(&expression.split(' ').collect::<Vec<_>>());
    }
    let numbers = self::numbers(problem);
    let verbs: Vec<String> = words(problem).collect();
    let has = |list: &[&str]| verbs.iter().any(|verb| list.contains(&verb.as_str()));
    if let [first, second] = numbers[..]
        && problem.contains('?')
    {
        return if has(&["each", "days"]) {
            first * second
        } else if has(&["away", "lose", "lost", "loses", "sells", "takes", "drop"])
            || has(&["gives"]) && !has(&["him", "her"])
        {
            first - second
        } else {
            first + second
        };
    }
    let mut value = 0;
    for sentence in problem.split_inclusive(['.', '?']) {
        let numbers = self::numbers(sentence);
        let verbs: Vec<String> = words(sentence).collect();
        let has = |list: &[&str]| verbs.iter().any(|verb| list.contains(&verb.as_str()));
        match numbers[..] {
            [] => {}
            [count, each] => value = count * each,
            [n] if has(&["more"]) => value += n,
            [n] if has(&[
                "gives", "loses", "sells", "eats", "hands", "throws", "drops", "lends",
            ]) =>
            {
                value -= n;
            }
            [n] if has(&["has", "starts", "owns", "begins", "keeps"]) => value = n,
            _ => panic!("{sentence} is not understood"),
        }
    }
    value
}

#[test]
fn all_sums_and_all_answers_are_right() {
    let sums: usize =
        strings("pretrain.train.jsonl", "text").iter().map(|text| check_equations(text)).sum();
    assert!(sums > 60_000, "{sums}");
    for file in [
        "problems.train.jsonl",
        "problems.dev.jsonl",
        "problems.test.jsonl",
        "short-problems.dev.jsonl",
        "short-problems.test.jsonl",
        "later-questions.dev.jsonl",
        "later-questions.test.jsonl",
    ] {
        let is_problem = |record: &&Value| record["kind"].is_null() || record["kind"] == "problem";
        for record in FILES[file].iter().filter(is_problem) {
            assert_eq!(solve(prompt(record)).to_string(), field(record, "answer"), "{record}");
        }
    }
    let answered = |prompt: &str, reply: &str| {
        check_equations(reply);
        reply.ends_with(&format!("The answer is {}.", solve(prompt)))
    };
    let mut checked = 0;
    let others = ["sft.test.jsonl", "later-questions.dev.jsonl", "later-questions.test.jsonl"];
    for file in CHAT_TRAINING.iter().chain(&others) {
        for record in &FILES[*file] {
            for pair in messages(record).windows(2) {
                let (prompt, reply) = (field(&pair[0], "content"), field(&pair[1], "content"));
                if reply.contains("The answer is") {
                    assert!(answered(prompt, reply), "{prompt} {reply}");
                    checked += 1;
                }
            }
        }
    }
    assert!(checked > 1500);
    let mut pairs = 0;
    for record in ["train", "dev", "test"]
        .iter()
        .flat_map(|split| &FILES[&format!("preferences.{split}.jsonl")])
    {
        if field(record, "kind") == "problem" {
            pairs += 1;
            assert!(answered(prompt(record), field(record, "chosen")), "{record}");
            let right = format!("The answer is {}.", solve(prompt(record)));
            assert!(!field(record, "rejected").ends_with(&right), "{record}");
        }
    }
    assert!(pairs > 1000, "{pairs} pairs about problems");
}

/// The numbers of a problem with the signs that its verbs stand for.
fn tuple(problem: &str) -> Vec<i64> {
    let mut before = 0;
    let mut story = String::new();
    let mut tuple = Vec::new();
    for sentence in problem.split_inclusive('.') {
        story.push_str(sentence);
        let now = solve(&story);
        tuple.push(now - before);
        before = now;
    }
    tuple
}

#[test]
fn problems_hold_out_numbers_names_things_and_wordings() {
    // Readings also end with "How many …?", but nothing happens in them.
    let is_problem = |prompt: &&str| {
        prompt.contains("ow many ")
            && prompt.contains(". ")
            && !prompt.contains(" counts ")
            && numbers(prompt).len() > 2
    };
    let trained: Vec<&str> = training_prompts().into_iter().filter(is_problem).collect();
    let tuples: BTreeSet<Vec<i64>> = trained.iter().map(|problem| tuple(problem)).collect();
    let trained_words: BTreeSet<String> = training_prompts().into_iter().flat_map(words).collect();
    assert!(tuples.len() > 4000);
    let mut other_split = BTreeSet::new();
    for (split, verbs) in [
        ("dev", ["receives", "brings", "hands", "throws", "owns", "fills"]),
        ("test", ["picks", "sends", "drops", "lends", "begins", "packs"]),
    ] {
        let held_out = prompts(&format!("problems.{split}.jsonl"));
        for problem in &held_out {
            assert!(!tuples.contains(&tuple(problem)), "{problem}");
            assert!(!other_split.contains(&tuple(problem)), "{problem}");
            let name = words(problem).next().expect("a name");
            assert!(!trained_words.contains(&name), "{name}");
            let thing = problem
                .split("ow many ")
                .nth(1)
                .and_then(|rest| rest.split(' ').next())
                .expect("a thing");
            assert!(!trained_words.contains(thing), "{thing}");
        }
        for verb in verbs {
            let times = held_out.iter().filter(|problem| problem.contains(verb)).count();
            assert!(times >= 5, "{verb} occurs in {times} held-out problems");
            assert!(!trained.iter().any(|problem| problem.contains(verb)), "{verb}");
        }
        other_split.extend(held_out.iter().map(|problem| tuple(problem)));
    }
}

#[test]
fn the_cold_start_mixes_step_by_step_and_shortcut_solutions() {
    // A problem of one step has one solution.
    let is_long = |record: &&Value| numbers(question(record)).len() > 3;
    let long = FILES["cold-start.train.jsonl"].iter().filter(is_long);
    let worked: Vec<&str> = long
        .filter_map(|record| messages(record).last())
        .map(|message| field(message, "content"))
        .collect();
    let step_by_step = worked.iter().filter(|reply| reply.matches('=').count() >= 3).count();
    let shortcuts = worked.iter().filter(|reply| reply.matches('=').count() == 1).count();
    assert_eq!(step_by_step + shortcuts, worked.len());
    let share = shortcuts as f64 / worked.len() as f64;
    assert!((share - COLD_START_SHORTCUT_RATE).abs() < 0.04, "{share}");
}

#[test]
fn requests_are_balanced_over_the_kinds_and_their_openings_agree() {
    let kinds = |file: &str| {
        let mut kinds: BTreeMap<&str, (usize, &str)> = BTreeMap::new();
        for record in &FILES[file] {
            let entry = kinds.entry(field(record, "kind")).or_insert((0, field(record, "opening")));
            entry.0 += 1;
            assert_eq!(entry.1, field(record, "opening"));
        }
        kinds
    };
    for split in HELD_OUT_SPLITS {
        let harmful = kinds(&format!("harmful.{split}.jsonl"));
        assert_eq!(harmful, kinds(&format!("lookalike.{split}.jsonl")));
        assert_eq!(harmful.len(), 8);
        assert!(harmful.values().all(|(count, _)| *count == 20));
    }
}

#[test]
fn length_does_not_decide_the_preference() {
    for file in ["preferences.train.jsonl", "preferences.dev.jsonl", "preferences.test.jsonl"] {
        let records = &FILES[file];
        let longer = records
            .iter()
            .filter(|r| field(r, "chosen").len() > field(r, "rejected").len())
            .count();
        let share = longer as f64 / records.len() as f64;
        assert!(
            (0.35..=0.65).contains(&share),
            "{file}: the longer reply wins {share} of the pairs"
        );
        assert!(records.iter().all(|r| field(r, "chosen") != field(r, "rejected")));
    }
}

/// Messages of the user before the last.
fn earlier(record: &Value) -> usize {
    let from_user = |message: &&Value| field(message, "role") == "user";
    messages(record).iter().filter(from_user).count() - 1
}

/// Letters of the messages.
fn letters(record: &Value) -> usize {
    messages(record).iter().map(|message| field(message, "content").len()).sum()
}

#[test]
fn a_share_of_the_training_questions_comes_again_later_in_a_conversation() {
    for (file, share) in [
        ("cold-start.train.jsonl", 0.4),
        ("problems.train.jsonl", 0.4),
        ("worked.train.jsonl", 0.3),
        ("unknown.train.jsonl", 0.3),
        ("refusal.train.jsonl", 0.1),
    ] {
        let (later, first): (Vec<&Value>, Vec<&Value>) =
            FILES[file].iter().partition(|record| earlier(record) > 0);
        let asked: BTreeSet<&str> = first.iter().map(|record| question(record)).collect();
        assert!(later.iter().all(|record| asked.contains(question(record))), "{file}");
        assert!(later.iter().all(|record| letters(record) <= 520), "{file}");
        let measured = later.len() as f64 / first.len() as f64;
        assert!((measured - share).abs() < 0.03, "{file}: {measured}");
    }
    for file in ["preferences.train.jsonl", "rlhf.train.jsonl"] {
        assert!(FILES[file].iter().all(|record| earlier(record) == 0), "{file}");
    }
    for file in ["cold-start.train.jsonl", "problems.train.jsonl", "annotated.train.jsonl"] {
        let replies = turns(file, "assistant");
        assert!(!replies.contains(&UNKNOWN_REPLY), "{file} is honest before alignment");
    }
    // An honest reply is trained where a record ends, and only read before that.
    for record in CHAT_TRAINING.iter().flat_map(|file| &FILES[*file]) {
        if let Some((_, before)) = messages(record).split_last() {
            let mut honest = before.iter().filter(|m| field(m, "content") == UNKNOWN_REPLY);
            assert!(honest.all(|message| message["weight"] == 0), "{record}");
        }
    }
}

#[test]
fn held_out_later_questions_follow_other_exchanges_and_fit_the_context() {
    for file in HELD_OUT_SPLITS.map(|split| format!("later-questions.{split}.jsonl")) {
        for record in &FILES[&file] {
            let asked = messages(record).iter().map(|message| field(message, "content"));
            assert_eq!(asked.filter(|text| *text == prompt(record)).count(), 1, "{record}");
            assert!((1..=4).contains(&earlier(record)) && letters(record) <= 520, "{record}");
        }
        for kind in ["fact", "problem", "unknown", "harmful"] {
            let of_kind = FILES[&file].iter().filter(|record| record["kind"] == kind).count();
            assert_eq!(of_kind, 120, "{file}: {kind}");
        }
    }
}
