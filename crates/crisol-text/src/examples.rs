//! Records to examples: the token ids of a record and which of them are trained.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::options::{Strings, Summary, TooLong};
use crate::records::{Body, Record, Turns};
use crate::{ChatTemplate, Message, TextError, TextSetup, words};

/// The tokens of one document and which of them are trained.
#[derive(Debug, Clone, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Example {
    /// The tokens.
    pub ids: Vec<u32>,
    /// Whether each token is a target, as many as `ids`. The first token never is one, whatever `trained[0]` says:
    /// nothing comes before it to predict it from.
    pub trained: Vec<bool>,
}

impl Example {
    /// How many tokens are trained.
    pub fn trained_tokens(&self) -> usize {
        self.trained.iter().skip(1).filter(|trained| **trained).count()
    }

    /// Tokens before the first trained one.
    pub fn prompt_tokens(&self) -> usize {
        self.trained.iter().position(|trained| *trained).unwrap_or(self.ids.len())
    }

    /// The first `context` tokens.
    fn cut(mut self, context: usize) -> Self {
        self.ids.truncate(context);
        self.trained.truncate(context);
        self
    }
}

/// Two answers to one prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreferenceExample {
    /// The prompt's tokens, with which both examples start.
    pub prompt: Vec<u32>,
    /// The prompt and the better answer, of which the answer is trained.
    pub chosen: Example,
    /// The prompt and the worse answer, of which the answer is trained.
    pub rejected: Example,
}

/// A problem as the model sees it, and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProblemExample {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// The right answer.
    pub answer: String,
}

/// What records became.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded<T> {
    /// The examples, in the order of the records.
    pub examples: Vec<T>,
    /// Which record each example comes from.
    pub records: Vec<usize>,
    /// What became of the records.
    pub summary: Summary,
}

impl<T> Encoded<T> {
    /// Of one record.
    fn new(examples: Vec<T>, summary: Summary) -> Self {
        Self {
            records: vec![0; examples.len()],
            examples,
            summary: Summary { records: 1, ..summary },
        }
    }
}

/// What `encode` makes of every record, in order, computed on all cores; an error is that of the first record that has one.
/// Records of which none is left are an error.
pub fn encode_records<T: Send>(
    records: &[Record],
    encode: impl Fn(&Record) -> Result<Encoded<T>, TextError> + Sync,
) -> Result<Encoded<T>, TextError> {
    let all = encode_all(records, &encode)?;
    match records.first() {
        Some(first) if all.examples.is_empty() => {
            Err(TextError::NothingLeft { place: first.place.clone(), records: records.len() })
        }
        _ => Ok(all),
    }
}

/// The same, where nothing may be left.
pub(crate) fn encode_all<T: Send>(
    records: &[Record],
    encode: &(impl Fn(&Record) -> Result<Encoded<T>, TextError> + Sync),
) -> Result<Encoded<T>, TextError> {
    let mut all = Encoded { examples: vec![], records: vec![], summary: Summary::default() };
    for (i, encoded) in records.par_iter().map(encode).collect::<Vec<_>>().into_iter().enumerate() {
        let encoded = encoded?;
        all.records.extend(encoded.records.iter().map(|_| i));
        all.examples.extend(encoded.examples);
        all.summary += encoded.summary;
    }
    Ok(all)
}

/// A prompt or an answer as it is encoded.
enum Form<'r> {
    Text(&'r str),
    Messages(Cow<'r, [Message]>),
}

impl TextSetup {
    /// The tokens of a prompt, the same for training, rollouts, evaluation and generation. A string is raw text, as the model
    /// was pre-trained to read it: with the beginning-of-text token of tokenizers that put one, but never a second one.
    /// Messages are written by the chat template, which writes that token itself.
    pub fn prompt_ids(&self, prompt: &Turns) -> Result<Vec<u32>, TextError> {
        self.prompt_of(self.template.as_ref(), &self.form(prompt, "user"))
    }

    /// A raw text as documents of pre-training: its tokens as of a prompt, and its end, unless the text has one. All are
    /// trained, cut into pieces of at most `context` tokens, in order. A piece starts with the last token of the piece before
    /// it, so that every token but a text's first is a target exactly once.
    ///
    /// # Panics
    /// Where `context` is less than 2.
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
            let ids = self.ended(self.tokenizer.after_beginning(ids));
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

    /// A record to imitate: raw text, all of it trained; `messages`, of which the assistant's turns are trained; or
    /// `prompt`/`completion`. Each example has at most `context` tokens.
    pub fn supervised(
        &self,
        record: &Record,
        context: usize,
    ) -> Result<Encoded<Example>, TextError> {
        if let Body::Text { text } = &record.body {
            let documents =
                self.text_documents(&[text], context).map_err(|e| e.at(&record.place))?;
            return Ok(Encoded::new(documents, Summary::default()));
        }
        let whole = self.whole(record)?;
        if whole.iter().all(|example| example.trained_tokens() == 0) {
            return Err(trains_nothing(record));
        }
        let mut summary = self.first_look(record);
        if whole.len() > 1 {
            summary.turns_apart = whole.len();
        }
        let mut examples = vec![];
        for example in whole {
            let long = example.ids.len() > context;
            self.refuse_long(record, long, example.prompt_tokens(), context)?;
            let example = if self.options().too_long == TooLong::Cut {
                example.cut(context)
            } else {
                example
            };
            if example.ids.len() > context || example.trained_tokens() == 0 {
                summary.dropped += 1;
            } else {
                summary.cut += usize::from(long);
                examples.push(example);
            }
        }
        Ok(Encoded::new(examples, summary))
    }

    /// The examples of messages or `prompt`/`completion` before they are cut to the context or checked.
    pub(crate) fn whole(&self, record: &Record) -> Result<Vec<Example>, TextError> {
        match &record.body {
            Body::Chat { messages } => self
                .template_for(record)
                .and_then(|template| template.encode(&self.tokenizer, messages)),
            Body::Completion { prompt, completion } => self.answer(record, prompt, completion),
            Body::Problem { prompt, solution: Some(solution), .. } => {
                self.answer(record, prompt, solution)
            }
            _ => return Err(wrong_kind(record, "messages or prompt/completion")),
        }
        .map_err(|e| e.at(&record.place))
    }

    /// A preference record, both sides of at most `context` tokens.
    pub fn preference(
        &self,
        record: &Record,
        context: usize,
    ) -> Result<Encoded<PreferenceExample>, TextError> {
        let whole = self.pair(record)?;
        let mut summary = self.first_look(record);
        let sides = [&whole.chosen, &whole.rejected];
        if sides.iter().any(|side| side.trained_tokens() == 0) {
            return Err(trains_nothing(record));
        }
        let long = sides.iter().any(|side| side.ids.len() > context);
        self.refuse_long(record, long, whole.prompt.len(), context)?;
        let PreferenceExample { prompt, chosen, rejected } = whole;
        let pair = PreferenceExample {
            prompt,
            chosen: chosen.cut(context),
            rejected: rejected.cut(context),
        };
        let nothing_left = pair.chosen.trained_tokens() == 0 || pair.rejected.trained_tokens() == 0;
        if nothing_left || long && self.options().too_long == TooLong::Skip {
            summary.dropped = 1;
        } else if pair.chosen.ids == pair.rejected.ids {
            summary.equal = 1;
        } else {
            summary.cut = usize::from(long);
            return Ok(Encoded::new(vec![pair], summary));
        }
        Ok(Encoded::new(vec![], summary))
    }

    /// A preference record before it is cut or checked.
    pub(crate) fn pair(&self, record: &Record) -> Result<PreferenceExample, TextError> {
        let Body::Preference { prompt, chosen: answer, rejected } = &record.body else {
            return Err(wrong_kind(record, "prompt/chosen/rejected"));
        };
        let side = |turns: &Turns| {
            let mut examples = self.answer(record, prompt, turns)?.into_iter();
            match (examples.next(), examples.next()) {
                (Some(example), None) => Ok(example),
                _ => Err(TextError::AnswerOfSeveralTurns),
            }
        };
        let (chosen, rejected) = side(answer)
            .and_then(|chosen| Ok((chosen, side(rejected)?)))
            .map_err(|e| e.at(&record.place))?;
        let template =
            if self.template.is_some() { Some(self.template_for(record)?) } else { None };
        let ids = self.prompt_of(template.as_deref(), &self.forms(prompt, answer).0);
        let prompt = ids.map_err(|e| e.at(&record.place))?;
        if [&chosen, &rejected].iter().any(|side| !side.ids.starts_with(&prompt)) {
            return Err(TextError::AnswerNotToPrompt.at(&record.place));
        }
        Ok(PreferenceExample { prompt, chosen, rejected })
    }

    /// A problem record: its prompt as [`Self::rollout_prompt`] gives it, and the right answer.
    pub fn problem(
        &self,
        record: &Record,
        context: usize,
    ) -> Result<Encoded<ProblemExample>, TextError> {
        let Body::Problem { answer, .. } = &record.body else {
            return Err(wrong_kind(record, "prompt/answer"));
        };
        let Encoded { examples, records, summary } = self.rollout_prompt(record, context)?;
        let problem = |prompt| ProblemExample { prompt, answer: answer.clone() };
        Ok(Encoded { examples: examples.into_iter().map(problem).collect(), records, summary })
    }

    /// The prompt of a record that the model is to answer, where it leaves some of the context free.
    pub fn rollout_prompt(
        &self,
        record: &Record,
        context: usize,
    ) -> Result<Encoded<Vec<u32>>, TextError> {
        let prompt = self.prompt(record)?;
        let long = prompt.len() >= context;
        self.refuse_long(record, long, prompt.len(), context)?;
        let summary = Summary { dropped: usize::from(long), ..self.first_look(record) };
        Ok(Encoded::new(if long { vec![] } else { vec![prompt] }, summary))
    }

    /// The prompt of a record (`prompt` or `prompt`/`answer`) as [`Self::prompt_ids`] gives it.
    pub fn prompt(&self, record: &Record) -> Result<Vec<u32>, TextError> {
        let (Body::Prompt { prompt } | Body::Problem { prompt, .. }) = &record.body else {
            return Err(wrong_kind(record, "prompt or prompt/answer"));
        };
        let template =
            if self.template.is_some() { Some(self.template_for(record)?) } else { None };
        let ids = self.prompt_of(template.as_deref(), &self.form(prompt, "user"));
        ids.map_err(|e| e.at(&record.place))
    }

    /// The examples of a conversation, in which the assistant's turns are trained.
    pub fn chat(&self, messages: &[Message]) -> Result<Vec<Example>, TextError> {
        self.template.as_ref().ok_or(TextError::NoTemplate)?.encode(&self.tokenizer, messages)
    }

    /// The template with the tools and arguments of a record.
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

    fn form<'r>(&self, turns: &'r Turns, role: &str) -> Form<'r> {
        match turns {
            Turns::Plain(text) if self.options().strings == Strings::Text => Form::Text(text),
            Turns::Plain(text) => Form::Messages(vec![Message::new(role, text)].into()),
            Turns::Chat(messages) => Form::Messages(messages.into()),
        }
    }

    fn prompt_of(
        &self,
        template: Option<&ChatTemplate>,
        prompt: &Form,
    ) -> Result<Vec<u32>, TextError> {
        match prompt {
            Form::Text(text) => Ok(self.tokenizer.after_beginning(self.tokenizer.encode(text)?)),
            Form::Messages(messages) => {
                template.ok_or(TextError::NoTemplate)?.prompt(&self.tokenizer, messages)
            }
        }
    }

    /// A prompt and an answer. A string beside messages is one message.
    fn forms<'r>(&self, prompt: &'r Turns, answer: &'r Turns) -> (Form<'r>, Form<'r>) {
        let one = |role: &str, text: &str| Form::Messages(vec![Message::new(role, text)].into());
        match (self.form(prompt, "user"), self.form(answer, "assistant")) {
            (Form::Text(text), answer @ Form::Messages(_)) => (one("user", text), answer),
            (prompt @ Form::Messages(_), Form::Text(text)) => (prompt, one("assistant", text)),
            same => same,
        }
    }

    /// A prompt with an answer, of which only the answer is trained. A plain answer ends with the end-of-text token.
    fn answer(
        &self,
        record: &Record,
        prompt: &Turns,
        answer: &Turns,
    ) -> Result<Vec<Example>, TextError> {
        let (prompt, answer) = self.forms(prompt, answer);
        if let (Form::Text(prompt), Form::Text(answer)) = (&prompt, &answer) {
            let (prompt, answer) = self.tokenizer.encode_after(prompt, answer)?;
            let prompt = self.tokenizer.after_beginning(prompt);
            let mut trained = vec![false; prompt.len()];
            let ids = [prompt, self.ended(answer.ids)].concat();
            trained.resize(ids.len(), true);
            return Ok(vec![Example { ids, trained }]);
        }
        let (Form::Messages(prompt), Form::Messages(answer)) = (prompt, answer) else {
            unreachable!("a text beside messages has become a message");
        };
        if !prompt.is_empty() && answer.starts_with(&prompt) {
            return Err(TextError::PromptInAnswer);
        }
        let all = [prompt.as_ref(), &answer].concat();
        self.template_for(record)?.encode_from(&self.tokenizer, &all, prompt.len())
    }

    /// Ids of a text with its end: the end-of-text token, or the stop token that the text has itself. White space behind that
    /// is left out.
    fn ended(&self, mut ids: Vec<u32>) -> Vec<u32> {
        let blank = |id: &&u32| !self.tokenizer.is_special(**id) && self.tokenizer.is_blank(**id);
        let end = ids.len() - ids.iter().rev().take_while(blank).count();
        if end > 0 && self.stop_ids.contains(&ids[end - 1]) {
            ids.truncate(end);
        } else {
            ids.push(self.eos);
        }
        ids
    }

    /// What a record's author may not have meant.
    fn first_look(&self, record: &Record) -> Summary {
        let answers = record.body.trained_messages();
        let cut = |message: &&&Message| {
            self.template.as_ref().is_some_and(|template| template.cut_thought(message).is_some())
        };
        let mut summary =
            Summary { cut_thoughts: answers.iter().filter(cut).count(), ..Summary::default() };
        let (prompt, answers) = match &record.body {
            Body::Text { .. } => return summary,
            Body::Chat { .. } => {
                summary.empty_answers =
                    answers.iter().filter(|message| words::is_empty(message)).count();
                return summary;
            }
            Body::Completion { prompt, completion } | Body::Rated { prompt, completion, .. } => {
                (prompt, vec![completion])
            }
            Body::Preference { prompt, chosen, rejected } => (prompt, vec![chosen, rejected]),
            Body::Problem { prompt, solution, .. } => (prompt, solution.iter().collect()),
            Body::Prompt { prompt } => (prompt, vec![]),
        };
        summary.empty_answers = answers.iter().filter(|answer| says_nothing(answer)).count();
        let plain = |turns: &Turns| matches!(turns, Turns::Plain(_));
        let raw = plain(prompt) && answers.iter().all(|answer| plain(answer));
        summary.raw_prompts =
            usize::from(raw && self.template.is_some() && self.options().strings == Strings::Text);
        summary
    }

    fn refuse_long(
        &self,
        record: &Record,
        long: bool,
        prompt: usize,
        context: usize,
    ) -> Result<(), TextError> {
        if long && self.options().too_long == TooLong::Error {
            return Err(TextError::TooLong { place: record.place.clone(), prompt, context });
        }
        Ok(())
    }
}

/// Whether a trained answer has no words.
fn says_nothing(answer: &Turns) -> bool {
    match answer {
        Turns::Plain(text) => text.trim().is_empty(),
        Turns::Chat(messages) => {
            messages.iter().any(|message| message.is_trained() && words::is_empty(message))
        }
    }
}

fn trains_nothing(record: &Record) -> TextError {
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
        "all turns of the assistant's are masked (`weight`, `train` or the like)"
    } else {
        "no message of it has the role `assistant`"
    };
    TextError::TrainsNothing { place: record.place.clone(), cause: cause.to_owned() }
}

fn wrong_kind(record: &Record, expected: &'static str) -> TextError {
    if let Body::Rated { .. } = record.body {
        return TextError::Rated { place: record.place.clone() };
    }
    TextError::WrongKind { place: record.place.clone(), found: record.body.shape(), expected }
}
