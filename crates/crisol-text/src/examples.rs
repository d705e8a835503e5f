//! Records to examples: the token ids of a record and which of them are trained.

use std::borrow::Cow;

use rayon::prelude::*;

use crate::records::{Body, Record, Turns};
use crate::{ChatTemplate, Message, TextError, TextSetup};

/// The tokens of one document and which of them are trained.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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

    /// An untrained prompt followed by an answer.
    pub(crate) fn after_prompt(prompt: Vec<u32>, answer: Self) -> Self {
        let mut trained = vec![false; prompt.len()];
        trained.extend(answer.trained);
        let mut ids = prompt;
        ids.extend(answer.ids);
        Self { ids, trained }
    }

    /// Cut to `context` tokens.
    fn fit(mut self, place: &str, context: usize) -> Result<Self, TextError> {
        if self.trained_tokens() == 0 {
            let cause = "no token of it is the assistant's".to_owned();
            return Err(TextError::TrainsNothing { place: place.to_owned(), cause });
        }
        let prompt = self.prompt_tokens();
        self.ids.truncate(context);
        self.trained.truncate(context);
        if self.trained_tokens() == 0 {
            return Err(TextError::PromptFillsContext { place: place.to_owned(), prompt, context });
        }
        Ok(self)
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

/// What `encode` makes of every record, in order, computed on all cores; an error is that of the first record that has one.
pub fn encode_records<T: Send>(
    records: &[Record],
    encode: impl Fn(&Record) -> Result<T, TextError> + Sync,
) -> Result<Vec<T>, TextError> {
    records.par_iter().map(&encode).collect::<Vec<_>>().into_iter().collect()
}

impl TextSetup {
    /// Raw texts as documents: each text and its end-of-text token, all trained, cut into pieces of at most
    /// `context` tokens, in order. A piece starts with the last token of the piece before it, so that every token but a
    /// text's first is a target exactly once.
    ///
    /// # Panics
    /// Where `context` is less than 2.
    pub fn text_documents(&self, texts: &[&str], context: usize) -> Result<Vec<Example>, TextError> {
        assert!(context >= 2, "a context of {context} tokens cannot hold a token and its target");
        let mut documents = vec![];
        for mut ids in self.tokenizer.encode_batch(texts)? {
            ids.push(self.eos);
            let mut start = 0;
            while start + 1 < ids.len() {
                let end = ids.len().min(start + context);
                documents.push(Example { ids: ids[start..end].to_vec(), trained: vec![true; end - start] });
                start = end - 1;
            }
        }
        Ok(documents)
    }

    /// A record to imitate, as one example of at most `context` tokens (the end is cut off where it is longer):
    /// `messages` (every turn of the assistant's is trained) or `prompt`/`completion`.
    pub fn supervised(&self, record: &Record, context: usize) -> Result<Example, TextError> {
        self.whole(record)?.fit(&record.place, context)
    }

    /// The example of [`Self::supervised`] before it is cut to the context or checked.
    pub(crate) fn whole(&self, record: &Record) -> Result<Example, TextError> {
        match &record.body {
            Body::Chat { messages } => {
                self.template_for(record).and_then(|template| template.encode(&self.tokenizer, messages))
            }
            Body::Completion { prompt, completion } => {
                self.answer(record, prompt, completion).map(|(_, e)| e)
            }
            Body::Problem { prompt, solution: Some(solution), .. } => {
                self.answer(record, prompt, solution).map(|(_, e)| e)
            }
            _ => return Err(wrong_kind(record, "messages or prompt/completion")),
        }
        .map_err(|e| e.at(&record.place))
    }

    /// A preference record, both sides cut to at most `context` tokens.
    pub fn preference(&self, record: &Record, context: usize) -> Result<PreferenceExample, TextError> {
        let Body::Preference { prompt, chosen, rejected } = &record.body else {
            return Err(wrong_kind(record, "prompt/chosen/rejected"));
        };
        let side = |turns: &Turns| self.answer(record, prompt, turns).map_err(|e| e.at(&record.place));
        let ((prompt, chosen), (_, rejected)) = (side(chosen)?, side(rejected)?);
        Ok(PreferenceExample {
            prompt,
            chosen: chosen.fit(&record.place, context)?,
            rejected: rejected.fit(&record.place, context)?,
        })
    }

    /// A problem record: its prompt as [`Self::prompt`] gives it, and the right answer.
    pub fn problem(&self, record: &Record, context: usize) -> Result<ProblemExample, TextError> {
        let Body::Problem { answer, .. } = &record.body else {
            return Err(wrong_kind(record, "prompt/answer"));
        };
        Ok(ProblemExample { prompt: self.prompt(record, context)?, answer: answer.clone() })
    }

    /// The prompt of a record (`prompt` or `prompt`/`answer`) as the model sees it when it is to answer, of less than
    /// `context` tokens. A plain prompt is the user's message where there is a chat template, and raw text where
    /// there is none.
    pub fn prompt(&self, record: &Record, context: usize) -> Result<Vec<u32>, TextError> {
        let (Body::Prompt { prompt } | Body::Problem { prompt, .. }) = &record.body else {
            return Err(wrong_kind(record, "prompt or prompt/answer"));
        };
        let ask = |messages: &[Message]| self.template_for(record)?.prompt(&self.tokenizer, messages);
        let ids = match (prompt, &self.template) {
            (Turns::Plain(text), None) => self.tokenizer.encode(text),
            (Turns::Plain(text), Some(_)) => ask(&[Message::user(text)]),
            (Turns::Chat(messages), _) => ask(messages),
        };
        let prompt = ids.map_err(|e| e.at(&record.place))?;
        if prompt.len() >= context {
            return Err(TextError::PromptFillsContext {
                place: record.place.clone(),
                prompt: prompt.len(),
                context,
            });
        }
        Ok(prompt)
    }

    /// A conversation with every turn of the assistant's trained.
    pub fn chat(&self, messages: &[Message]) -> Result<Example, TextError> {
        self.template.as_ref().ok_or(TextError::NoTemplate)?.encode(&self.tokenizer, messages)
    }

    /// A conversation as the model sees it when it is to answer.
    pub fn chat_prompt(&self, messages: &[Message]) -> Result<Vec<u32>, TextError> {
        self.template.as_ref().ok_or(TextError::NoTemplate)?.prompt(&self.tokenizer, messages)
    }

    /// The template with the tools of a record.
    fn template_for(&self, record: &Record) -> Result<Cow<'_, ChatTemplate>, TextError> {
        let template = self.template.as_ref().ok_or(TextError::NoTemplate)?;
        Ok(if record.tools.is_empty() {
            Cow::Borrowed(template)
        } else {
            Cow::Owned(template.with_tools(record.tools.clone()))
        })
    }

    /// A prompt's ids, and the prompt with an answer of which only the answer is trained. A plain answer ends with
    /// the end-of-text token.
    fn answer(
        &self,
        record: &Record,
        prompt: &Turns,
        answer: &Turns,
    ) -> Result<(Vec<u32>, Example), TextError> {
        let one = |text: &str, role: &str| vec![Message::new(role, text)];
        let (prompt, answer) = match (prompt, answer) {
            (Turns::Plain(prompt), Turns::Plain(answer)) => {
                let (prompt, answer) = self.tokenizer.encode_after(prompt, answer)?;
                let ids = [answer.ids, vec![self.eos]].concat();
                let answer = Example { trained: vec![true; ids.len()], ids };
                return Ok((prompt.clone(), Example::after_prompt(prompt, answer)));
            }
            (Turns::Chat(prompt), Turns::Chat(answer)) => (prompt.clone(), answer.clone()),
            (Turns::Chat(prompt), Turns::Plain(answer)) => (prompt.clone(), one(answer, "assistant")),
            (Turns::Plain(prompt), Turns::Chat(answer)) => (one(prompt, "user"), answer.clone()),
        };
        self.template_for(record)?.encode_answer(&self.tokenizer, &prompt, &answer)
    }
}

fn wrong_kind(record: &Record, expected: &'static str) -> TextError {
    if let Body::Rated { .. } = record.body {
        return TextError::Rated { place: record.place.clone() };
    }
    TextError::WrongKind { place: record.place.clone(), found: record.body.shape(), expected }
}
