//! Encodes records as examples: token ids with a loss mask.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::options::{EncodingSummary, OverlongPolicy, StringFormat};
use crate::records::{Body, Record, Turns};
use crate::{ChatTemplate, Message, TextError, TextSetup, dropped_text};

/// The token ids of one document, with a loss mask.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Example {
    /// Token ids.
    pub ids: Vec<u32>,
    /// The loss mask, one flag per token: whether the token is a target. The first token never is,
    /// whatever `trained[0]` says: there is nothing to predict it from.
    pub trained: Vec<bool>,
}

impl Example {
    /// Number of trained tokens.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().skip(1).filter(|trained| **trained).count()
    }

    /// Number of tokens before the first trained one.
    pub fn prompt_tokens(&self) -> usize {
        self.trained.iter().position(|trained| *trained).unwrap_or(self.ids.len())
    }

    /// The first `context` tokens.
    fn truncate(mut self, context: usize) -> Self {
        self.ids.truncate(context);
        self.trained.truncate(context);
        self
    }
}

/// A preference pair: two answers to one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreferenceExample {
    /// Token ids of the prompt, the prefix of both examples.
    pub prompt: Vec<u32>,
    /// Prompt and better answer; the answer is trained.
    pub chosen: Example,
    /// Prompt and worse answer; the answer is trained.
    pub rejected: Example,
}

/// A problem with a verifiable answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProblemExample {
    /// Token ids of the prompt.
    pub prompt: Vec<u32>,
    /// The right answer.
    pub answer: String,
}

/// Encoded records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded<T> {
    /// The examples, in the order of the records.
    pub examples: Vec<T>,
    /// Index of the record of each example.
    pub records: Vec<usize>,
    /// What happened to the records.
    pub summary: EncodingSummary,
}

impl<T> Encoded<T> {
    /// The examples of one record.
    fn of_record(examples: Vec<T>, summary: EncodingSummary) -> Self {
        Self {
            records: vec![0; examples.len()],
            examples,
            summary: EncodingSummary { records: 1, ..summary },
        }
    }
}

/// Encodes the records on all cores, in order. The error is that of the first failing record.
///
/// It is an error if no example is left.
pub fn encode_records<T: Send>(
    records: &[Record],
    encode: impl Fn(&Record) -> Result<Encoded<T>, TextError> + Sync,
) -> Result<Encoded<T>, TextError> {
    let all = encode_all(records, &encode)?;
    match records.first() {
        Some(first) if all.examples.is_empty() => Err(TextError::NoExamplesLeft {
            location: first.location.clone(),
            records: records.len(),
        }),
        _ => Ok(all),
    }
}

/// As [`encode_records`], but the result may be empty.
pub(crate) fn encode_all<T: Send>(
    records: &[Record],
    encode: &(impl Fn(&Record) -> Result<Encoded<T>, TextError> + Sync),
) -> Result<Encoded<T>, TextError> {
    let mut all =
        Encoded { examples: vec![], records: vec![], summary: EncodingSummary::default() };
    for (i, encoded) in records.par_iter().map(encode).collect::<Vec<_>>().into_iter().enumerate() {
        let encoded = encoded?;
        all.records.extend(encoded.records.iter().map(|_| i));
        all.examples.extend(encoded.examples);
        all.summary += encoded.summary;
    }
    Ok(all)
}

/// A prompt or answer in the form in which it is encoded.
enum Content<'r> {
    Text(&'r str),
    Messages(Cow<'r, [Message]>),
}

impl TextSetup {
    /// Token ids of a prompt, for training, rollouts, evaluation and generation alike.
    ///
    /// Raw text gets the tokenizer's beginning-of-text token, if it has one and the text does not.
    /// Messages are rendered by the chat template, which adds that token itself.
    pub fn prompt_ids(&self, prompt: &Turns) -> Result<Vec<u32>, TextError> {
        self.encode_prompt(self.template.as_ref(), &self.content(prompt, "user"))
    }

    /// Encodes raw texts as pre-training documents of at most `context` tokens, all trained.
    ///
    /// Each text starts with the tokenizer's beginning-of-text token, if it has one, and ends with
    /// the end-of-text token. A long text becomes several documents; each starts with the last
    /// token of the previous, so every token but the first is a target exactly once.
    ///
    /// # Panics
    /// If `context` is less than 2.
    pub fn text_documents(
        &self,
        texts: &[&str],
        context: usize,
    ) -> Result<Vec<Example>, TextError> {
        assert!(context >= 2, "a context of {context} tokens cannot hold a token and its target");
        let mut documents = vec![];
        for ids in self.tokenizer.encode_batch(texts)? {
            if ids.is_empty() {
                continue;
            }
            let ids = self.with_end_of_text(self.tokenizer.with_bos(ids));
            let mut start = 0;
            while start + 1 < ids.len() {
                let end = ids.len().min(start + context);
                documents.push(Example {
                    ids: ids[start..end].to_vec(),
                    trained: vec![true; end - start],
                });
                start = end - 1;
            }
        }
        Ok(documents)
    }

    /// Encodes a record for supervised training: raw text, `messages` or `prompt`/`completion`.
    ///
    /// Trained are all tokens of raw text, the assistant's turns, or the completion. Examples have
    /// at most `context` tokens.
    pub fn supervised(
        &self,
        record: &Record,
        context: usize,
    ) -> Result<Encoded<Example>, TextError> {
        if let Body::Text { text } = &record.body {
            let documents =
                self.text_documents(&[text], context).map_err(|e| e.in_record(&record.location))?;
            return Ok(Encoded::of_record(documents, EncodingSummary::default()));
        }
        let untruncated = self.supervised_untruncated(record)?;
        if untruncated.iter().all(|example| example.trained_tokens() == 0) {
            return Err(no_trained_tokens(record));
        }
        let mut summary = self.summarise(record);
        if untruncated.len() > 1 {
            summary.split_turns = untruncated.len();
        }
        let mut examples = vec![];
        for example in untruncated {
            let long = example.ids.len() > context;
            self.refuse_long(record, long, example.prompt_tokens(), context)?;
            let example = if self.options().too_long == OverlongPolicy::Cut {
                example.truncate(context)
            } else {
                example
            };
            if example.ids.len() > context || example.trained_tokens() == 0 {
                summary.dropped += 1;
            } else {
                summary.truncated += usize::from(long);
                examples.push(example);
            }
        }
        Ok(Encoded::of_record(examples, summary))
    }

    /// The examples of `messages` or `prompt`/`completion`, neither truncated nor checked.
    pub(crate) fn supervised_untruncated(
        &self,
        record: &Record,
    ) -> Result<Vec<Example>, TextError> {
        match &record.body {
            Body::Chat { messages } => self
                .template_for(record)
                .and_then(|template| template.encode(&self.tokenizer, messages)),
            Body::Completion { prompt, completion } => {
                self.encode_answer(record, prompt, completion)
            }
            Body::Problem { prompt, solution: Some(solution), .. } => {
                self.encode_answer(record, prompt, solution)
            }
            _ => return Err(wrong_shape(record, "messages or prompt/completion")),
        }
        .map_err(|e| e.in_record(&record.location))
    }

    /// Encodes a preference record. Both examples have at most `context` tokens.
    pub fn preference(
        &self,
        record: &Record,
        context: usize,
    ) -> Result<Encoded<PreferenceExample>, TextError> {
        let untruncated = self.preference_untruncated(record)?;
        let mut summary = self.summarise(record);
        let sides = [&untruncated.chosen, &untruncated.rejected];
        if sides.iter().any(|side| side.trained_tokens() == 0) {
            return Err(no_trained_tokens(record));
        }
        let long = sides.iter().any(|side| side.ids.len() > context);
        self.refuse_long(record, long, untruncated.prompt.len(), context)?;
        let PreferenceExample { prompt, chosen, rejected } = untruncated;
        let pair = PreferenceExample {
            prompt,
            chosen: chosen.truncate(context),
            rejected: rejected.truncate(context),
        };
        let nothing_left = pair.chosen.trained_tokens() == 0 || pair.rejected.trained_tokens() == 0;
        if nothing_left || long && self.options().too_long == OverlongPolicy::Skip {
            summary.dropped = 1;
        } else if pair.chosen.ids == pair.rejected.ids {
            summary.equal_pairs = 1;
        } else {
            summary.truncated = usize::from(long);
            return Ok(Encoded::of_record(vec![pair], summary));
        }
        Ok(Encoded::of_record(vec![], summary))
    }

    /// A preference pair, neither truncated nor checked.
    pub(crate) fn preference_untruncated(
        &self,
        record: &Record,
    ) -> Result<PreferenceExample, TextError> {
        let Body::Preference { prompt, chosen: answer, rejected } = &record.body else {
            return Err(wrong_shape(record, "prompt/chosen/rejected"));
        };
        let side = |turns: &Turns| {
            let mut examples = self.encode_answer(record, prompt, turns)?.into_iter();
            match (examples.next(), examples.next()) {
                (Some(example), None) => Ok(example),
                _ => Err(TextError::MultiTurnAnswer),
            }
        };
        let (chosen, rejected) = side(answer)
            .and_then(|chosen| Ok((chosen, side(rejected)?)))
            .map_err(|e| e.in_record(&record.location))?;
        let template =
            if self.template.is_some() { Some(self.template_for(record)?) } else { None };
        let ids = self.encode_prompt(template.as_deref(), &self.contents(prompt, answer).0);
        let prompt = ids.map_err(|e| e.in_record(&record.location))?;
        if [&chosen, &rejected].iter().any(|side| !side.ids.starts_with(&prompt)) {
            return Err(TextError::PromptMismatch.in_record(&record.location));
        }
        Ok(PreferenceExample { prompt, chosen, rejected })
    }

    /// Encodes a problem: its prompt as [`Self::rollout_prompt`] does, and the right answer.
    pub fn problem(
        &self,
        record: &Record,
        context: usize,
    ) -> Result<Encoded<ProblemExample>, TextError> {
        let Body::Problem { answer, .. } = &record.body else {
            return Err(wrong_shape(record, "prompt/answer"));
        };
        let Encoded { examples, records, summary } = self.rollout_prompt(record, context)?;
        let problem = |prompt| ProblemExample { prompt, answer: answer.clone() };
        Ok(Encoded { examples: examples.into_iter().map(problem).collect(), records, summary })
    }

    /// Encodes the prompt of a rollout. Dropped if it leaves no room for an answer in the context.
    pub fn rollout_prompt(
        &self,
        record: &Record,
        context: usize,
    ) -> Result<Encoded<Vec<u32>>, TextError> {
        let prompt = self.prompt(record)?;
        let long = prompt.len() >= context;
        self.refuse_long(record, long, prompt.len(), context)?;
        let summary = EncodingSummary { dropped: usize::from(long), ..self.summarise(record) };
        Ok(Encoded::of_record(if long { vec![] } else { vec![prompt] }, summary))
    }

    /// Token ids of the prompt of a `prompt` or `prompt`/`answer` record, of any length.
    pub fn prompt(&self, record: &Record) -> Result<Vec<u32>, TextError> {
        let (Body::Prompt { prompt } | Body::Problem { prompt, .. }) = &record.body else {
            return Err(wrong_shape(record, "prompt or prompt/answer"));
        };
        let template =
            if self.template.is_some() { Some(self.template_for(record)?) } else { None };
        let ids = self.encode_prompt(template.as_deref(), &self.content(prompt, "user"));
        ids.map_err(|e| e.in_record(&record.location))
    }

    /// Encodes a conversation; the assistant's turns are trained.
    pub fn chat(&self, messages: &[Message]) -> Result<Vec<Example>, TextError> {
        self.template.as_ref().ok_or(TextError::NoTemplate)?.encode(&self.tokenizer, messages)
    }

    /// The chat template with the tools and variables of a record.
    fn template_for(&self, record: &Record) -> Result<Cow<'_, ChatTemplate>, TextError> {
        let template = self.template.as_ref().ok_or(TextError::NoTemplate)?;
        if record.tools.is_empty() && record.arguments.is_empty() {
            return Ok(Cow::Borrowed(template));
        }
        let mut template = template.with_arguments(record.arguments.clone());
        if !record.tools.is_empty() {
            template = template.with_tools(record.tools.clone());
        }
        Ok(Cow::Owned(template))
    }

    /// A string as raw text or one message of `role`, as the options say; or messages.
    fn content<'r>(&self, turns: &'r Turns, role: &str) -> Content<'r> {
        match turns {
            Turns::Plain(text) if self.options().strings == StringFormat::Text => {
                Content::Text(text)
            }
            Turns::Plain(text) => Content::Messages(vec![Message::new(role, text)].into()),
            Turns::Chat(messages) => Content::Messages(messages.into()),
        }
    }

    fn encode_prompt(
        &self,
        template: Option<&ChatTemplate>,
        prompt: &Content,
    ) -> Result<Vec<u32>, TextError> {
        match prompt {
            Content::Text(text) => Ok(self.tokenizer.with_bos(self.tokenizer.encode(text)?)),
            Content::Messages(messages) => {
                template.ok_or(TextError::NoTemplate)?.prompt(&self.tokenizer, messages)
            }
        }
    }

    /// A prompt and an answer in one form: if only one is messages, the other becomes a message.
    fn contents<'r>(&self, prompt: &'r Turns, answer: &'r Turns) -> (Content<'r>, Content<'r>) {
        let message =
            |role: &str, text: &str| Content::Messages(vec![Message::new(role, text)].into());
        match (self.content(prompt, "user"), self.content(answer, "assistant")) {
            (Content::Text(text), answer @ Content::Messages(_)) => (message("user", text), answer),
            (prompt @ Content::Messages(_), Content::Text(text)) => {
                (prompt, message("assistant", text))
            }
            same_form => same_form,
        }
    }

    /// Encodes a prompt with an answer; only the answer is trained.
    ///
    /// A raw-text answer ends with the end-of-text token.
    fn encode_answer(
        &self,
        record: &Record,
        prompt: &Turns,
        answer: &Turns,
    ) -> Result<Vec<Example>, TextError> {
        let (prompt, answer) = self.contents(prompt, answer);
        if let (Content::Text(prompt), Content::Text(answer)) = (&prompt, &answer) {
            let (prompt, answer) = self.tokenizer.encode_pair(prompt, answer)?;
            let prompt = self.tokenizer.with_bos(prompt);
            let mut trained = vec![false; prompt.len()];
            let ids = [prompt, self.with_end_of_text(answer.ids)].concat();
            trained.resize(ids.len(), true);
            return Ok(vec![Example { ids, trained }]);
        }
        let (Content::Messages(prompt), Content::Messages(answer)) = (prompt, answer) else {
            unreachable!("contents gives both the same form");
        };
        if !prompt.is_empty() && answer.starts_with(&prompt) {
            return Err(TextError::PromptRepeatedInAnswer);
        }
        let conversation = [prompt.as_ref(), &answer].concat();
        self.template_for(record)?.encode_from(&self.tokenizer, &conversation, prompt.len())
    }

    /// Appends the end-of-text token, unless the text itself ends with a stop token. White space
    /// after such a token is removed.
    fn with_end_of_text(&self, mut ids: Vec<u32>) -> Vec<u32> {
        let blank = |id: &&u32| !self.tokenizer.is_special(**id) && self.tokenizer.is_blank(**id);
        let end = ids.len() - ids.iter().rev().take_while(blank).count();
        if end > 0 && self.stop_ids.contains(&ids[end - 1]) {
            ids.truncate(end);
        } else {
            ids.push(self.eos);
        }
        ids
    }

    /// Counts what the author of a record may not have intended.
    fn summarise(&self, record: &Record) -> EncodingSummary {
        let answers = record.body.trained_messages();
        let drops_thought = |message: &&&Message| {
            let template = self.template.as_ref();
            template.is_some_and(|template| template.dropped_thought(message).is_some())
        };
        let mut summary = EncodingSummary {
            dropped_thoughts: answers.iter().filter(drops_thought).count(),
            dropped_context: usize::from(self.dropped_context(record).is_some()),
            ..EncodingSummary::default()
        };
        let (prompt, answers) = match &record.body {
            Body::Text { .. } => return summary,
            Body::Chat { .. } => {
                summary.empty_answers =
                    answers.iter().filter(|message| dropped_text::is_empty(message)).count();
                return summary;
            }
            Body::Completion { prompt, completion } | Body::Rated { prompt, completion, .. } => {
                (prompt, vec![completion])
            }
            Body::Preference { prompt, chosen, rejected } => (prompt, vec![chosen, rejected]),
            Body::Problem { prompt, solution, .. } => (prompt, solution.iter().collect()),
            Body::Prompt { prompt } => (prompt, vec![]),
        };
        summary.empty_answers = answers.iter().filter(|answer| has_empty_answer(answer)).count();
        let plain = |turns: &Turns| matches!(turns, Turns::Plain(_));
        let raw = plain(prompt) && answers.iter().all(|answer| plain(answer));
        summary.raw_prompts = usize::from(
            raw && self.template.is_some() && self.options().strings == StringFormat::Text,
        );
        summary
    }

    /// The first words of what the template leaves out of the prompt of a record.
    pub(crate) fn dropped_context(&self, record: &Record) -> Option<String> {
        self.template_for(record).ok()?.dropped_context(record.body.context())
    }

    /// An error for a record longer than the context, if the options ask for one.
    fn refuse_long(
        &self,
        record: &Record,
        long: bool,
        prompt: usize,
        context: usize,
    ) -> Result<(), TextError> {
        if long && self.options().too_long == OverlongPolicy::Error {
            return Err(TextError::TooLong { location: record.location.clone(), prompt, context });
        }
        Ok(())
    }
}

/// Whether a trained message or a text is empty.
fn has_empty_answer(answer: &Turns) -> bool {
    match answer {
        Turns::Plain(text) => text.trim().is_empty(),
        Turns::Chat(messages) => {
            messages.iter().any(|message| message.is_trained() && dropped_text::is_empty(message))
        }
    }
}

fn no_trained_tokens(record: &Record) -> TextError {
    let messages: Vec<&Message> = match &record.body {
        Body::Chat { messages } | Body::Completion { completion: Turns::Chat(messages), .. } => {
            messages.iter().collect()
        }
        Body::Preference { chosen: Turns::Chat(a), rejected: Turns::Chat(b), .. } => {
            a.iter().chain(b).collect()
        }
        _ => vec![],
    };
    let cause = if messages.iter().any(|message| message.is_assistant()) {
        "all assistant turns are masked (`weight`, `train` or the like)"
    } else {
        "it has no message with the role `assistant`"
    };
    TextError::NoTrainedTokens { location: record.location.clone(), cause: cause.to_owned() }
}

fn wrong_shape(record: &Record, expected: &'static str) -> TextError {
    if let Body::Rated { .. } = record.body {
        return TextError::Rated { location: record.location.clone() };
    }
    TextError::WrongShape {
        location: record.location.clone(),
        found: record.body.shape(),
        expected,
    }
}
