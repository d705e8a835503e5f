//! Behaviours of a model on held-out prompts (facts, refusals, problems), after every phase, and
//! its answers to the report's prompts.
//!
//! A measure is taken if its held-out file exists, in the embedded world or in the user's folder. A
//! model before its first conversation (after pre-training) gets every prompt as raw text.

use std::collections::BTreeMap;

use crisol_model::{Checkpoint, Generated, Reply, SamplingOptions, StopReason};
use crisol_objectives::verifier::{Verdict, left_open, verify};
use crisol_report::PromptReport;
use crisol_text::{Body, Message, Record, TextSetup, Turns};

use crate::PhaseError;
use crate::classifiers;
use crate::context::PhaseContext;
use crate::data::DataSource;
use crate::recipe::Split;
use crate::verdicts;

/// Maximum new tokens of a measured answer.
pub(crate) const ANSWER_TOKENS: usize = 96;
/// Maximum new tokens if only the first line counts.
const LINE_TOKENS: usize = 32;

/// Names of the held-out files, without the split.
const CLOZE: &str = "cloze";
const QUESTION_LISTS: &str = "question-lists";
const FACTS: &str = "facts";
const HARMFUL: &str = "harmful";
const LOOKALIKE: &str = "lookalike";
const PROBLEMS: &str = "problems";
const SHORT_PROBLEMS: &str = "short-problems";
const UNKNOWN: &str = "unknown";
const LATER_QUESTIONS: &str = "later-questions";
const MEASURES: [&str; 9] = [
    CLOZE,
    QUESTION_LISTS,
    FACTS,
    HARMFUL,
    LOOKALIKE,
    PROBLEMS,
    SHORT_PROBLEMS,
    UNKNOWN,
    LATER_QUESTIONS,
];
/// The report's prompts.
const DEMOS: &str = "demos.jsonl";

/// Behaviours of one model.
#[derive(Debug, Default)]
pub(crate) struct Behaviours {
    pub(crate) metrics: BTreeMap<String, f64>,
    /// The report's prompts with this model's answer under the phase's name.
    pub(crate) prompts: Vec<PromptReport>,
    /// A line for the user, if prompts were too long.
    pub(crate) note: Option<String>,
}

/// Measures every behaviour that has a held-out file. `chat`: whether prompts go through the chat
/// template.
pub(crate) fn measure(
    data: &DataSource,
    split: Split,
    phase: &str,
    checkpoint: &Checkpoint,
    chat: bool,
) -> Result<Behaviours, PhaseError> {
    let mut measured = Behaviours::default();
    let metrics = &mut measured.metrics;
    let mut put = |name: &str, value: f64| metrics.insert(name.to_owned(), value);
    let mut asked = Asked::default();

    if let Some(records) = held_out(data, split, CLOZE)? {
        let replies = asked.ask(checkpoint, &records, false, LINE_TOKENS)?;
        put(
            "cloze_accuracy",
            share(&records, &replies, |r, reply| {
                classifiers::begins_with_answer(&reply.text, reference_answer(r))
            }),
        );
    }
    if let Some(records) = held_out(data, split, QUESTION_LISTS)? {
        let replies = asked.ask(checkpoint, &records, false, LINE_TOKENS)?;
        put(
            "list_continued",
            share(&records, &replies, |r, reply| {
                classifiers::continues_list(&prompt_text(r), &reply.text)
            }),
        );
    }
    let (mut ended, mut requests) = (0, 0);
    let mut count_ends = |replies: &[Reply]| {
        ended += replies.iter().filter(|reply| ended_by_itself(reply)).count();
        requests += replies.len();
    };
    if let Some(records) = held_out(data, split, HARMFUL)? {
        let replies = asked.ask(checkpoint, &records, chat, ANSWER_TOKENS)?;
        count_ends(&replies);
        put(
            "harmful_refused",
            share(&records, &replies, |_, reply| classifiers::is_refusal(&reply.text)),
        );
        if chat {
            let complied = |r: &Record, reply: &Reply| {
                classifiers::complies(&reply.text, ended_by_itself(reply), extra(r, "opening"))
            };
            put("harmful_complied", share(&records, &replies, complied));
        }
    }
    if let Some(records) = held_out(data, split, LOOKALIKE)? {
        let replies = asked.ask(checkpoint, &records, chat, ANSWER_TOKENS)?;
        count_ends(&replies);
        put(
            "lookalike_refused",
            share(&records, &replies, |_, reply| classifiers::is_refusal(&reply.text)),
        );
    }
    if chat {
        if let Some(records) = held_out(data, split, FACTS)? {
            let replies = asked.ask(checkpoint, &records, chat, ANSWER_TOKENS)?;
            count_ends(&replies);
            put(
                "facts_accuracy",
                share(&records, &replies, |r, reply| {
                    classifiers::names_answer(&reply.text, reference_answer(r))
                }),
            );
            put(
                "ordinary_refused",
                share(&records, &replies, |_, reply| classifiers::is_refusal(&reply.text)),
            );
            put(
                "facts_unanswered",
                share(&records, &replies, |_, reply| classifiers::admits_ignorance(&reply.text)),
            );
        }
        if let Some(records) = held_out(data, split, UNKNOWN)? {
            let replies = asked.ask(checkpoint, &records, chat, ANSWER_TOKENS)?;
            count_ends(&replies);
            put(
                "unknown_admitted",
                share(&records, &replies, |_, reply| classifiers::admits_ignorance(&reply.text)),
            );
        }
        if let Some(records) = held_out(data, split, PROBLEMS)? {
            let replies = asked.ask(checkpoint, &records, chat, ANSWER_TOKENS)?;
            count_ends(&replies);
            let verdicts = verdicts(checkpoint, &records, &replies)?;
            put("problems_accuracy", verdicts::share(&verdicts, |verdict| verdict.correct));
            put("format_accuracy", verdicts::share(&verdicts, |verdict| verdict.format));
        }
        if let Some(records) = held_out(data, split, SHORT_PROBLEMS)? {
            let replies = asked.ask(checkpoint, &records, chat, ANSWER_TOKENS)?;
            count_ends(&replies);
            let verdicts = verdicts(checkpoint, &records, &replies)?;
            put("short_problems_accuracy", verdicts::share(&verdicts, |verdict| verdict.correct));
        }
        if let Some(records) = held_out(data, split, LATER_QUESTIONS)? {
            let replies = asked.ask(checkpoint, &records, chat, ANSWER_TOKENS)?;
            let verdicts = verdicts(checkpoint, &records, &replies)?;
            let texts: Vec<&str> = replies.iter().map(|reply| reply.text.as_str()).collect();
            for (name, value) in later_questions(&records, &texts, &verdicts) {
                put(name, value);
            }
        }
        if requests > 0 {
            put("ended_by_itself", f64::from(ended as u32) / f64::from(requests as u32));
        }
    }
    if has_demos(data, split) {
        for record in data.records(DEMOS)? {
            match answer(checkpoint, phase, &record, chat, &[]) {
                Err(PhaseError::PromptTooLong { location, .. }) => asked.note_too_long(&location),
                report => measured.prompts.push(report?),
            }
        }
    }
    measured.note = asked.note(checkpoint);
    Ok(measured)
}

/// What answers to later questions of conversations show, kind by kind: the same as of questions
/// asked first. A kind without records has no measure.
fn later_questions(
    records: &[Record],
    replies: &[&str],
    verdicts: &[Verdict],
) -> Vec<(&'static str, f64)> {
    let share_of = |kind: &str, holds: &dyn Fn(usize) -> bool| {
        let of_kind: Vec<usize> =
            (0..records.len()).filter(|&at| records[at].kind() == Some(kind)).collect();
        (!of_kind.is_empty()).then(|| verdicts::share(&of_kind, |&at| holds(at)))
    };
    let names_answer =
        |at: usize| classifiers::names_answer(replies[at], reference_answer(&records[at]));
    let admits = |at: usize| classifiers::admits_ignorance(replies[at]);
    let refuses = |at: usize| classifiers::is_refusal(replies[at]);
    let measures = [
        ("facts_accuracy/later", share_of("fact", &names_answer)),
        ("short_problems_accuracy/later", share_of("problem", &|at| verdicts[at].correct)),
        ("unknown_admitted/later", share_of("unknown", &admits)),
        ("harmful_refused/later", share_of("harmful", &refuses)),
    ];
    measures.into_iter().filter_map(|(name, share)| Some((name, share?))).collect()
}

/// A model's answers to prompts, under `name`. A record's `form` is `text` (to continue) or a
/// message (to answer); without `chat`, all are text. An answer ends before the first of the stop
/// strings.
pub fn answers(
    checkpoint: &Checkpoint,
    name: &str,
    records: &[Record],
    chat: bool,
    stops: &[String],
) -> Result<Vec<PromptReport>, PhaseError> {
    records.iter().map(|record| answer(checkpoint, name, record, chat, stops)).collect()
}

/// One of the [`answers`].
fn answer(
    checkpoint: &Checkpoint,
    name: &str,
    record: &Record,
    chat: bool,
    stops: &[String],
) -> Result<PromptReport, PhaseError> {
    let is_text = extra(record, "form") == "text";
    let (ids, max_new_tokens) = if chat && !is_text {
        (prompt_ids(checkpoint, &as_message(record), true)?, ANSWER_TOKENS)
    } else {
        (prompt_ids(checkpoint, record, false)?, 2 * LINE_TOKENS)
    };
    let context = checkpoint.model.config().max_document_len();
    if ids.len() > context {
        let location = record.location.clone();
        return Err(PhaseError::PromptTooLong { location, tokens: ids.len(), context });
    }
    let replies = replies(checkpoint, &[ids], max_new_tokens, stops)?;
    Ok(PromptReport {
        prompt: prompt_text(record),
        kind: record.kind().unwrap_or_default().to_owned(),
        form: if is_text { "text" } else { "chat" }.to_owned(),
        before: None,
        outputs: replies.into_iter().map(|reply| (name.to_owned(), reply.text)).collect(),
    })
}

/// Held-out prompts put to a model. One that is longer than the context gets an empty answer.
#[derive(Debug, Default)]
struct Asked {
    too_long: usize,
    /// Location of the first that was too long.
    first: String,
}

impl Asked {
    /// The model's answers; as a chat, or as the continuations of texts.
    fn ask(
        &mut self,
        checkpoint: &Checkpoint,
        records: &[Record],
        chat: bool,
        max_new_tokens: usize,
    ) -> Result<Vec<Reply>, PhaseError> {
        let context = checkpoint.model.config().max_document_len();
        let mut prompts = vec![];
        let mut fits = vec![];
        for record in records {
            let ids = prompt_ids(checkpoint, record, chat)?;
            fits.push(ids.len() <= context);
            if ids.len() <= context {
                prompts.push(ids);
            } else {
                self.note_too_long(&record.location);
            }
        }
        let mut answered = replies(checkpoint, &prompts, max_new_tokens, &[])?.into_iter();
        let mut reply = |fits| if fits { answered.next() } else { None };
        Ok(fits.into_iter().map(|fits| reply(fits).unwrap_or_else(no_answer)).collect())
    }

    fn note_too_long(&mut self, location: &str) {
        if self.too_long == 0 {
            location.clone_into(&mut self.first);
        }
        self.too_long += 1;
    }

    fn note(&self, checkpoint: &Checkpoint) -> Option<String> {
        let context = checkpoint.model.config().max_document_len();
        let what = match self.too_long {
            0 => return None,
            1 => "1 held-out prompt is".to_owned(),
            many => format!("{many} held-out prompts are"),
        };
        Some(format!(
            "{what} longer than the model's context of {context} tokens, the first at {}; \
             such a prompt gets an empty answer.",
            self.first
        ))
    }
}

fn no_answer() -> Reply {
    let generated = Generated { ids: vec![], logprobs: vec![], stopped_by: StopReason::Context };
    Reply { text: String::new(), generated }
}

/// The record with a prompt that is a message, also if it was a string.
fn as_message(record: &Record) -> Record {
    match &record.body {
        Body::Prompt { prompt: Turns::Plain(text) }
        | Body::Problem { prompt: Turns::Plain(text), .. } => {
            let prompt = Turns::Chat(vec![Message::user(text)]);
            Record { body: Body::Prompt { prompt }, ..record.clone() }
        }
        _ => record.clone(),
    }
}

/// Measures the accuracy at the start of GRPO, for the report.
pub(crate) fn measure_cold_start(
    ctx: &mut PhaseContext<'_>,
    checkpoint: &Checkpoint,
) -> Result<(), PhaseError> {
    if let Some(records) = held_out(ctx.data, ctx.run.evaluate, PROBLEMS)? {
        let replies = Asked::default().ask(checkpoint, &records, true, ANSWER_TOKENS)?;
        let verdicts = verdicts(checkpoint, &records, &replies)?;
        ctx.measure("cold_start_accuracy", verdicts::share(&verdicts, |verdict| verdict.correct));
    }
    Ok(())
}

/// The held-out files that exist.
pub(crate) fn held_out_files(data: &DataSource, split: Split) -> impl Iterator<Item = String> {
    MEASURES
        .into_iter()
        .filter_map(move |measure| split.file(measure).filter(|file| data.has(file)))
}

/// Every file that [`measure`] reads.
pub(crate) fn files(data: &DataSource, split: Split) -> Vec<String> {
    let demos = has_demos(data, split).then(|| DEMOS.to_owned());
    held_out_files(data, split).chain(demos).collect()
}

/// Whether the data has prompts for the report.
pub(crate) fn has_demos(data: &DataSource, split: Split) -> bool {
    split != Split::None && data.has(DEMOS)
}

fn held_out(
    data: &DataSource,
    split: Split,
    measure: &str,
) -> Result<Option<Vec<Record>>, PhaseError> {
    let file = split.file(measure).filter(|file| data.has(file));
    file.map(|file| data.records(&file)).transpose()
}

/// The prompt of any record, as plain text.
pub(crate) fn prompt_text(record: &Record) -> String {
    match &record.body {
        Body::Text { text } => text.clone(),
        Body::Chat { messages } => {
            messages.iter().rfind(|m| m.role == "user").map_or(String::new(), |m| m.content.clone())
        }
        Body::Prompt { prompt }
        | Body::Completion { prompt, .. }
        | Body::Rated { prompt, .. }
        | Body::Preference { prompt, .. }
        | Body::Problem { prompt, .. } => match prompt {
            Turns::Plain(text) => text.clone(),
            Turns::Chat(messages) => messages.last().map_or(String::new(), |m| m.content.clone()),
        },
    }
}

fn reference_answer(record: &Record) -> &str {
    match &record.body {
        Body::Problem { answer, .. } => answer,
        _ => "",
    }
}

fn extra<'r>(record: &'r Record, key: &str) -> &'r str {
    record.extra.get(key).map_or("", String::as_str)
}

fn share(records: &[Record], replies: &[Reply], holds: impl Fn(&Record, &Reply) -> bool) -> f64 {
    let count = records.iter().zip(replies).filter(|(record, reply)| holds(record, reply)).count();
    count as f64 / records.len() as f64
}

/// Verifies answers to problems, with the beginning that the template wrote.
fn verdicts(
    checkpoint: &Checkpoint,
    records: &[Record],
    replies: &[Reply],
) -> Result<Vec<Verdict>, PhaseError> {
    let Checkpoint { text, .. } = checkpoint;
    let prompts =
        records.iter().map(|record| text.prompt(record)).collect::<Result<Vec<_>, _>>()?;
    let verdicts = records.iter().zip(&prompts).zip(replies).map(|((record, prompt), reply)| {
        verify(&(opening(text, prompt, record) + &reply.text), reference_answer(record))
    });
    Ok(verdicts.collect())
}

/// The beginning of the answer in a prompt: a thought that the template's generation prompt opens.
pub(crate) fn opening(text: &TextSetup, prompt: &[u32], record: &Record) -> String {
    let prompt = text.tokenizer.decode(prompt, false);
    // Tags in the user's message open nothing. Without text after it, the prompt is raw text.
    let message = prompt_text(record);
    let after = prompt
        .rsplit_once(message.trim())
        .map(|(_, after)| after)
        .filter(|after| !after.trim().is_empty());
    left_open(after.unwrap_or(&prompt)).to_owned()
}

/// Token ids of a record's prompt: as a chat, or as text.
fn prompt_ids(
    checkpoint: &Checkpoint,
    record: &Record,
    chat: bool,
) -> Result<Vec<u32>, PhaseError> {
    Ok(if chat {
        checkpoint.text.prompt(record)?
    } else {
        checkpoint.text.prompt_ids(&Turns::Plain(prompt_text(record)))?
    })
}

fn replies(
    checkpoint: &Checkpoint,
    prompts: &[Vec<u32>],
    max_new_tokens: usize,
    stops: &[String],
) -> Result<Vec<Reply>, PhaseError> {
    let Checkpoint { model, params, text } = checkpoint;
    let options = SamplingOptions::greedy(max_new_tokens, text.stop_ids.clone());
    Ok(crisol_model::replies(model, params, text, prompts, &options, stops)?)
}

pub(crate) fn ended_by_itself(reply: &Reply) -> bool {
    reply.generated.stopped_by == StopReason::StopToken
}

/// The text of sampled ids, without special tokens.
pub(crate) fn reply_text(text: &TextSetup, ids: &[u32]) -> String {
    text.tokenizer.decode(ids, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crisol_text::parse_jsonl;

    #[test]
    fn later_questions_are_judged_by_their_kind() {
        let question = |kind: &str, answer: &str| {
            format!(
                r#"{{"prompt": [{{"role": "user", "content": "?"}}], "kind": "{kind}"{answer}}}"#
            )
        };
        let lines = [
            question("fact", r#", "answer": "Lima""#),
            question("fact", r#", "answer": "Quito""#),
            question("problem", r#", "answer": "19""#),
            question("unknown", ""),
            question("unknown", ""),
            question("other", ""),
        ];
        let records = parse_jsonl("later", &lines.join("\n")).unwrap();
        let replies = [
            "The capital of Peru is Lima.",
            "The capital is Lima.",
            "<think>12 + 7 = 19</think>The answer is 19.",
            "I do not know that.",
            "I am sorry, but I cannot help with that.",
            "I do not know that.",
        ];
        let verdicts: Vec<Verdict> = records
            .iter()
            .zip(replies)
            .map(|(record, reply)| verify(reply, reference_answer(record)))
            .collect();
        let measured = later_questions(&records, &replies, &verdicts);
        assert_eq!(
            measured,
            [
                ("facts_accuracy/later", 0.5),
                ("short_problems_accuracy/later", 1.0),
                ("unknown_admitted/later", 0.5),
            ]
        );
    }
}
