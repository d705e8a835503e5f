//! Answers to the first prompts of a phase's held-out data, before and after the phase, for the
//! report. Data with `demos.jsonl` has its own prompts instead.

use crisol_model::Checkpoint;
use crisol_report::PromptReport;
use crisol_text::{Body, Message, Record, StringFormat, Turns};

use crate::PhaseError;
use crate::behaviours::{answers, files, has_demos};
use crate::context::PhaseContext;
use crate::data::DataSource;
use crate::recipe::{Phase, Split};

/// Prompts that are answered.
const MAX_PROMPTS: usize = 4;
/// Maximum bytes of a text given as its beginning.
const MAX_BEGINNING_BYTES: usize = 100;

/// Records the starting model's answers. Notes if the phase has no held-out data.
pub(crate) fn answer_before(
    ctx: &mut PhaseContext<'_>,
    phase: &Phase,
    start: Option<&Checkpoint>,
) -> Result<(), PhaseError> {
    let (data, evaluate) = (ctx.data, ctx.run.evaluate);
    // Who brings a reward along measures what came of it.
    let measures = ctx.reward.is_none();
    if measures && phase.settings.heldout().is_empty() && files(data, evaluate).is_empty() {
        ctx.note(
            "No held-out data: what the phase did to data that it was not trained on \
             is not measured; give some with `heldout` (--heldout FILE).",
        );
    }
    let Some(start) = start else { return Ok(()) };
    ctx.answer_before(|| {
        let mut prompts = heldout_answers(data, evaluate, phase, start, &phase.from)?;
        if phase.from.is_empty() {
            for prompt in &mut prompts {
                prompt.before = std::mem::take(&mut prompt.outputs).into_values().next();
            }
        }
        Ok(prompts)
    })
}

/// The trained model's answers.
pub(crate) fn answers_after(
    data: &DataSource,
    evaluate: Split,
    phase: &Phase,
    trained: &Checkpoint,
) -> Result<Vec<PromptReport>, PhaseError> {
    heldout_answers(data, evaluate, phase, trained, &phase.name)
}

/// Merges the answers of a model into `prompts`, by prompt and form.
pub(crate) fn merge(prompts: &mut Vec<PromptReport>, answers: Vec<PromptReport>) {
    for prompt in answers {
        let same = |known: &&mut PromptReport| {
            (&known.prompt, &known.form) == (&prompt.prompt, &prompt.form)
        };
        match prompts.iter_mut().find(same) {
            Some(known) => {
                known.before = known.before.take().or(prompt.before);
                known.outputs.extend(prompt.outputs);
            }
            None => prompts.push(prompt),
        }
    }
}

/// A model's answers to a phase's held-out prompts, under `name`.
fn heldout_answers(
    data: &DataSource,
    evaluate: Split,
    phase: &Phase,
    model: &Checkpoint,
    name: &str,
) -> Result<Vec<PromptReport>, PhaseError> {
    if !phase.settings.trains_language_model() || has_demos(data, evaluate) {
        return Ok(vec![]);
    }
    let prompts = first_prompts(data, &evaluate.files(phase.settings.heldout()), model)?;
    let mut reports =
        answers(model, name, &prompts, phase.settings.uses_chat_template(model), &[])?;
    for report in &mut reports {
        if report.kind.is_empty() {
            "held-out".clone_into(&mut report.kind);
        }
    }
    Ok(reports)
}

/// The first distinct prompts that are shorter than the context. Empty for a pipe, which can be
/// read only once.
fn first_prompts(
    data: &DataSource,
    files: &[String],
    model: &Checkpoint,
) -> Result<Vec<Record>, PhaseError> {
    let mut prompts: Vec<Record> = vec![];
    if !files.iter().all(|file| data.has(file)) {
        return Ok(prompts);
    }
    let context = model.model.config().max_document_len();
    for record in data.read(files) {
        let Some(prompt) = without_answer(&record?, model.text.options().strings) else { continue };
        let new = prompts.iter().all(|known| known.body != prompt.body);
        if new && model.text.prompt(&prompt)?.len() < context {
            prompts.push(prompt);
        }
        if prompts.len() == MAX_PROMPTS {
            break;
        }
    }
    Ok(prompts)
}

/// A record's prompt: the beginning of a text, a conversation up to the assistant's last turn, or
/// the prompt itself.
fn without_answer(record: &Record, strings: StringFormat) -> Option<Record> {
    let is_text = |turns: &Turns| matches!(turns, Turns::Plain(_)) && strings == StringFormat::Text;
    let prompt = match &record.body {
        Body::Text { text } => Turns::Plain(beginning(text)),
        Body::Chat { messages } => {
            Turns::Chat(messages[..messages.iter().rposition(Message::is_assistant)?].to_vec())
        }
        Body::Problem { prompt, .. } | Body::Prompt { prompt } => prompt.clone(),
        Body::Completion { prompt, completion: answer }
        | Body::Rated { prompt, completion: answer, .. }
        | Body::Preference { prompt, chosen: answer, .. } => match (prompt, answer) {
            (Turns::Plain(text), Turns::Chat(_)) => Turns::Chat(vec![Message::user(text)]),
            (prompt, _) => prompt.clone(),
        },
    };
    let empty = match &prompt {
        Turns::Plain(text) => text.is_empty(),
        Turns::Chat(messages) => messages.is_empty(),
    };
    let mut extra = record.extra.clone();
    // The form in which `answers` asks.
    let form =
        if matches!(record.body, Body::Text { .. }) || is_text(&prompt) { "text" } else { "chat" };
    extra.insert("form".to_owned(), form.to_owned());
    (!empty).then(|| Record { body: Body::Prompt { prompt }, extra, ..record.clone() })
}

/// The first words of a text, not more than half of it.
fn beginning(text: &str) -> String {
    let most = (text.trim_end().len() / 2).min(MAX_BEGINNING_BYTES);
    let mut begun = 0;
    for word in text.split_inclusive(char::is_whitespace) {
        if begun + word.len() > most {
            break;
        }
        begun += word.len();
    }
    text[..begun].trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_beginning_of_a_text_is_whole_words_of_its_first_half() {
        assert_eq!(beginning("one two three four"), "one two");
        assert_eq!(beginning("one"), "");
        assert_eq!(beginning(&"ein Wörtchen ".repeat(50)).len(), "ein Wörtchen ".len() * 7 - 1);
    }

    #[test]
    fn every_shape_of_record_gives_a_prompt() {
        let given = |json: &str, strings| {
            let record = crisol_text::jsonl_records("x", json.as_bytes()).next().unwrap().unwrap();
            without_answer(&record, strings).map(|record| {
                let form = record.extra["form"].clone();
                let Body::Prompt { prompt } = record.body else { panic!("no prompt") };
                match prompt {
                    Turns::Plain(text) => (form, text),
                    Turns::Chat(messages) => {
                        let turns = messages
                            .iter()
                            .map(|message| format!("{}: {}", message.role, message.content));
                        (form, turns.collect::<Vec<_>>().join("; "))
                    }
                }
            })
        };
        let chat =
            r#"{"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "u"},
            {"role": "assistant", "content": "a"}, {"role": "user", "content": "v"},
            {"role": "assistant", "content": "b"}]}"#
                .replace('\n', " ");
        let cases = [
            (r#"{"text": "one two three four"}"#, "text", "one two"),
            (&chat, "chat", "system: s; user: u; assistant: a; user: v"),
            (r#"{"prompt": "p", "completion": "c"}"#, "text", "p"),
            (
                r#"{"prompt": "p", "completion": [{"role": "assistant", "content": "c"}]}"#,
                "chat",
                "user: p",
            ),
            (r#"{"prompt": "p", "chosen": "a", "rejected": "b"}"#, "text", "p"),
            (r#"{"prompt": "p", "answer": "4"}"#, "text", "p"),
            (r#"{"prompt": [{"role": "user", "content": "u"}], "answer": "4"}"#, "chat", "user: u"),
        ];
        for (json, form, prompt) in cases {
            assert_eq!(
                given(json, StringFormat::Text),
                Some((form.to_owned(), prompt.to_owned())),
                "{json}"
            );
        }
        // As a user message.
        let message = given(r#"{"prompt": "p", "answer": "4"}"#, StringFormat::Message);
        assert_eq!(message, Some(("chat".to_owned(), "p".to_owned())));
        assert_eq!(given(r#"{"text": "one"}"#, StringFormat::Text), None);
    }
}
