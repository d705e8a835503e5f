//! Encodes conversations as examples. Each trained turn starts with the exact ids of its prompt:
//!
//! ```text
//! render(earlier messages, add_generation_prompt) │ rest of the rendered turn, up to its end
//!            prompt ids (not trained)             │ ids of the answer (trained)
//! ```
//!
//! Trained are the spans in a template's `{% generation %}` tags; without tags, the answer up to
//! its end-of-turn token.
//!
//! Usually one sequence contains the prompts of all turns: it becomes one example with several
//! trained spans. Each turn becomes a separate example if tokens merge at the start of an answer,
//! or if the template renders earlier turns differently, as those that drop earlier thoughts.
//!
//! Some templates drop the thought of every answer. Then thought, answer and end of turn are
//! trained after the prompt, as the model must generate them.

use std::borrow::Cow;
use std::ops::Range;

use serde_json::Value;

use crate::dropped_text::{
    THOUGHT_END, THOUGHT_START, common_prefix, first_dropped, mostly_dropped, with_thought,
};
use crate::template::Rendered;
use crate::tokenizer::TokenSpans;
use crate::{ChatTemplate, Example, Message, TextError, Tokenizer};

/// A rendered assistant turn.
struct Turn {
    /// The conversation up to where the assistant answers.
    prompt: String,
    /// The rest of the turn.
    answer: String,
    /// Trained byte ranges of `answer`.
    spans: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// Encodes a conversation; all unmasked assistant turns are trained.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<Vec<Example>, TextError> {
        self.encode_from(tokenizer, messages, 0)
    }

    /// Encodes a conversation; trained are the assistant turns from message `first` on.
    ///
    /// If there are none, returns one example without trained tokens.
    pub(crate) fn encode_from(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        first: usize,
    ) -> Result<Vec<Example>, TextError> {
        let messages = &self.adapt_messages(messages)?;
        let trained =
            messages.iter().enumerate().skip(first).filter(|(_, message)| message.is_trained());
        let turns = trained.map(|(i, _)| self.turn(tokenizer, messages, i));
        let turns = turns.collect::<Result<Vec<_>, _>>()?;
        let Some((last, earlier)) = turns.split_last() else {
            let ids = tokenizer.encode(&self.render(messages, false)?)?;
            return Ok(vec![Example { trained: vec![false; ids.len()], ids }]);
        };
        if !earlier.is_empty() && all_continue_in(earlier, last) {
            let prompt = tokenizer.encode_spans(&last.prompt)?;
            let mut seams = earlier.iter().map(|turn| turn.prompt.len());
            if seams.all(|seam| tokens_split_at(tokenizer, &last.prompt, &prompt, seam)) {
                let mut example = self.example(tokenizer, last, prompt.ids.clone())?;
                for turn in earlier {
                    let seam = turn.prompt.len();
                    let spans: Vec<_> =
                        turn.spans.iter().map(|span| span.start + seam..span.end + seam).collect();
                    self.mark_trained(
                        tokenizer,
                        &prompt,
                        &last.prompt,
                        &spans,
                        &mut example.trained,
                    )?;
                }
                return Ok(vec![example]);
            }
        }
        turns
            .iter()
            .map(|turn| self.example(tokenizer, turn, tokenizer.encode(&turn.prompt)?))
            .collect()
    }

    /// The example of one turn, given the ids of its prompt. It ends with its last trained token.
    fn example(
        &self,
        tokenizer: &Tokenizer,
        turn: &Turn,
        mut ids: Vec<u32>,
    ) -> Result<Example, TextError> {
        let tokens = tokenizer.encode_continuation_of(&turn.prompt, &ids, &turn.answer)?;
        let mut trained = vec![false; tokens.ids.len()];
        self.mark_trained(tokenizer, &tokens, &turn.answer, &turn.spans, &mut trained)?;
        let end = trained.iter().rposition(|&t| t).map_or(0, |last| last + 1);
        let mut mask = vec![false; ids.len()];
        mask.extend(&trained[..end]);
        ids.extend(&tokens.ids[..end]);
        Ok(Example { ids, trained: mask })
    }

    /// The turn of message `i`, given the messages before it.
    fn turn(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        i: usize,
    ) -> Result<Turn, TextError> {
        match self.rendered_turn(messages, i) {
            Err(error @ (TextError::DroppedText { .. } | TextError::PromptNotPrefix { .. }))
                if self.may_drop_thought(&messages[i]) && !self.marks_generation() =>
            {
                self.turn_with_thought(messages, i)?.ok_or(error)
            }
            Ok(turn) => Ok(self.without_end_of_conversation(tokenizer, &messages[..=i], turn)),
            error => error,
        }
    }

    /// The turn without an `eos_token` that the template writes only where a conversation ends,
    /// after the token that ends the turn (Phi-3's). The model stops at the end of its turn.
    fn without_end_of_conversation(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        mut turn: Turn,
    ) -> Turn {
        /// Longest token that may end a turn.
        const MAX_TOKEN_BYTES: usize = 64;
        let ([span], Some(eos), false) =
            (turn.spans.as_slice(), self.tokens().get("eos_token"), self.marks_generation())
        else {
            return turn;
        };
        let answer = turn.answer[span.clone()].trim_end();
        let Some(rest) = answer.strip_suffix(eos.as_str()).map(str::trim_end) else { return turn };
        let tail = rest.floor_char_boundary(rest.len().saturating_sub(MAX_TOKEN_BYTES));
        let last = tokenizer.encode(&rest[tail..]).ok().and_then(|ids| ids.last().copied());
        if !last.is_some_and(|id| self.ends_turn(tokenizer, id)) {
            return turn;
        }
        let continued = self.render(&[messages, &[Message::user("a")]].concat(), false);
        let start = turn.prompt.len() + span.start;
        let ends_before = continued.is_ok_and(|text| {
            text.get(start..)
                .and_then(|text| text.strip_prefix(rest))
                .is_some_and(|text| !text.trim_start().starts_with(eos.as_str()))
        });
        if ends_before {
            let shorter = span.start..span.start + rest.len();
            turn.spans = vec![shorter];
        }
        turn
    }

    /// The first words of a system message, tool result or list of tools that the template leaves
    /// out of the prompt after `messages`, if it does.
    ///
    /// Templates write some of them in another form, so only what is mostly lost counts.
    pub(crate) fn dropped_context(&self, messages: &[Message]) -> Option<String> {
        let context = || messages.iter().filter(|m| !m.is_assistant() && m.role != "user");
        if self.tools().is_empty() && context().next().is_none() {
            return None;
        }
        let prompt = self.render(&self.adapt_messages(messages).ok()?, true).ok()?;
        let lost = context().find_map(|message| mostly_dropped(&prompt, &message.content));
        lost.or_else(|| {
            let names: Vec<&str> = self.tools().iter().filter_map(tool_name).collect();
            let listed = names.iter().any(|name| prompt.contains(name));
            names.first().filter(|_| !listed).map(|&name| name.to_owned())
        })
    }

    /// The first words of a thought that the template drops from an answer, if it does.
    pub(crate) fn dropped_thought(&self, message: &Message) -> Option<String> {
        if !self.may_drop_thought(message) {
            return None;
        }
        let conversation = [Message::user("a"), message.clone()];
        let adapted = self.adapt_messages(&conversation).ok()?;
        first_dropped(&self.render(&adapted, false).ok()?, message)
    }

    /// Whether a message has a thought, in its content or a separate field, and the template
    /// handles thoughts.
    fn may_drop_thought(&self, message: &Message) -> bool {
        message.is_assistant()
            && (message.reasoning().is_some() || message.content.contains(THOUGHT_END))
            && self.mentions(THOUGHT_END)
    }

    /// The turn with its thought, as the model must generate it.
    ///
    /// `None` if the prompt already ends the thought, or the message has tool calls.
    fn turn_with_thought(&self, messages: &[Message], i: usize) -> Result<Option<Turn>, TextError> {
        // A placeholder, to find the end of the turn.
        const ANSWER: &str = "zq";
        let message = &messages[i];
        let prompt = self.turn_prompt(messages, i)?;
        let prompt_end = prompt.trim_end();
        if prompt_end.ends_with(THOUGHT_END) || !message.called_tools().is_empty() {
            return Ok(None);
        }
        let text = match message.reasoning() {
            Some(thought) if !message.content.contains(THOUGHT_END) => {
                with_thought(thought, &message.content)
            }
            _ => message.content.trim().to_owned(),
        };
        // A prompt may already contain the tag that starts the thought.
        let prompt_has_tag = prompt_end.ends_with(THOUGHT_START);
        let text = match text.strip_prefix(THOUGHT_START).filter(|_| prompt_has_tag) {
            Some(rest) if prompt_end.len() < prompt.len() => rest.trim_start(),
            Some(rest) => rest,
            None => &text,
        };
        let answered = [&messages[..i], &[Message::assistant(ANSWER)]].concat();
        let rendered = self.render(&answered, false)?;
        let Some((_, end)) = rendered.rsplit_once(ANSWER) else { return Ok(None) };
        let answer = [text, end.trim_end()].concat();
        let whole = 0..answer.len();
        self.check_turn(Turn { prompt, answer, spans: vec![whole] }, i, message).map(Some)
    }

    /// The turn as the template renders it.
    fn rendered_turn(&self, messages: &[Message], i: usize) -> Result<Turn, TextError> {
        let message = &messages[i];
        let prompt = self.turn_prompt(messages, i)?;
        let Rendered { text, spans } = if self.marks_generation() {
            let mut marked = self.render_spans(&messages[..=i])?;
            // If the turn does not start with the prompt, the tags decide, as in transformers.
            if !marked.text.starts_with(&prompt) {
                let earlier = self.render_spans(&messages[..i])?.spans.len();
                let first = marked.spans.get(earlier).map_or(marked.text.len(), |span| span.start);
                let answer = marked.text.split_off(first);
                let spans = marked.spans.drain(earlier.min(marked.spans.len())..);
                let spans = spans.map(|span| span.start - first..span.end - first).collect();
                return self.check_turn(Turn { prompt: marked.text, answer, spans }, i, message);
            }
            marked
        } else {
            let text = self.render(&messages[..=i], false)?;
            // White space after the turn may change once messages follow.
            let whole = prompt.len()..text.trim_end().len().max(prompt.len());
            Rendered { text, spans: vec![whole] }
        };
        let seam = prompt.len();
        let Some(answer) = text.strip_prefix(prompt.as_str()) else {
            let answer = self
                .answer_without_history(messages, i)
                .filter(|answer| text.trim_end().ends_with(answer.as_str()));
            let answer = answer.ok_or_else(|| prompt_not_prefix(i, message, &prompt, &text))?;
            let whole = 0..answer.len();
            return self.check_turn(Turn { prompt, answer, spans: vec![whole] }, i, message);
        };
        let spans = spans.into_iter().filter(|span| span.end > seam);
        let spans = spans.map(|span| span.start.saturating_sub(seam)..span.end - seam).collect();
        self.check_turn(Turn { answer: answer.to_owned(), prompt, spans }, i, message)
    }

    /// The answer as rendered with only the message before it, or after answers without thoughts.
    ///
    /// Some templates render earlier messages differently once there is an answer, but not the
    /// answer: Mistral's puts the system message into the last user message, gpt-oss's drops the
    /// thoughts before tool calls.
    fn answer_without_history(&self, messages: &[Message], i: usize) -> Option<String> {
        let last = messages.get(i.checked_sub(1)?..i)?;
        self.answer_after(last, &messages[i]).or_else(|| {
            let history: Vec<Message> =
                messages[..i].iter().map(Message::without_reasoning).collect();
            self.answer_after(&history, &messages[i])
        })
    }

    /// What an answer adds to the prompt after `history`.
    fn answer_after(&self, history: &[Message], answer: &Message) -> Option<String> {
        let prompt = self.render(history, true).ok()?;
        let text = self.render(&[history, std::slice::from_ref(answer)].concat(), false).ok()?;
        Some(text.strip_prefix(prompt.as_str())?.trim_end().to_owned())
    }

    /// The turn, if the whole message and an end of turn are trained; otherwise an error.
    fn check_turn(&self, turn: Turn, i: usize, message: &Message) -> Result<Turn, TextError> {
        let trained: Cow<'_, str> = match turn.spans.as_slice() {
            [span] => Cow::Borrowed(&turn.answer[span.clone()]),
            spans => spans.iter().map(|span| &turn.answer[span.clone()]).collect(),
        };
        if let Some(words) = first_dropped(&trained, message) {
            return Err(TextError::DroppedText { message: i, role: message.role.clone(), words });
        }
        // A special token inside the content does not end the turn.
        let content = message.content.trim();
        let tail = match trained.trim_start().strip_prefix(content) {
            Some(tail) => tail,
            None => {
                trained.rfind(content).map_or(&trained[..], |at| &trained[at + content.len()..])
            }
        };
        if !self.marks_generation() && tail.trim().is_empty() {
            return Err(no_end_of_turn(&trained));
        }
        Ok(turn)
    }

    /// The rendered prompt for message `i`.
    fn turn_prompt(&self, messages: &[Message], i: usize) -> Result<String, TextError> {
        if i > 0 {
            return self.render(&messages[..i], true);
        }
        // Many templates fail or render nothing without messages. The generation prompt is the same
        // in every conversation, so it is located in the rendered message.
        let question = [Message::user("a")];
        let (question, with_prompt) =
            (self.render(&question, false)?, self.render(&question, true)?);
        let generation_prompt = with_prompt.strip_prefix(question.as_str()).unwrap_or_default();
        match self.render(&[], true) {
            Ok(text) if text.ends_with(generation_prompt) => Ok(text),
            no_messages => {
                let text = self.render(&messages[..1], false)?;
                let content = messages[0].content.trim();
                let seam = if generation_prompt.is_empty() {
                    text.find(content)
                } else {
                    text.find(generation_prompt).map(|at| at + generation_prompt.len())
                };
                match seam {
                    Some(seam) => Ok(text[..seam].to_owned()),
                    None => no_messages,
                }
            }
        }
    }

    /// Sets `trained` for the tokens of `text` that overlap `spans`.
    fn mark_trained(
        &self,
        tokenizer: &Tokenizer,
        tokens: &TokenSpans,
        text: &str,
        spans: &[Range<usize>],
        trained: &mut [bool],
    ) -> Result<(), TextError> {
        for span in spans {
            let overlaps = |token: &Range<usize>| token.start < span.end && span.start < token.end;
            let first = tokens.spans.partition_point(|token| token.end <= span.start);
            let inside = tokens.spans[first..].iter().take_while(|token| overlaps(token)).count();
            let ends_turn = |t: &usize| self.ends_turn(tokenizer, tokens.ids[*t]);
            let last = (first..first + inside).rev().find(ends_turn);
            let rest = last.map_or("", |t| &text[tokens.spans[t].end.min(span.end)..span.end]);
            let Some(last) = last.filter(|_| rest.trim().is_empty()) else {
                return Err(no_end_of_turn(&text[span.clone()]));
            };
            // A template's own tags decide, as in transformers.
            let end = if self.marks_generation() { first + inside } else { last + 1 };
            trained[first..end].fill(true);
        }
        Ok(())
    }
}

/// Whether the prompt of the last turn starts with each earlier prompt and answer.
fn all_continue_in(earlier: &[Turn], last: &Turn) -> bool {
    earlier.iter().all(|turn| {
        let rest = last.prompt.strip_prefix(turn.prompt.as_str());
        let end = turn.spans.iter().map(|span| span.end).max().unwrap_or(0);
        rest.is_some_and(|rest| rest.starts_with(&turn.answer[..end]))
    })
}

/// Whether the tokens of `text` start with those of `text[..seam]` alone.
///
/// Special tokens are split off before merging, so only the text between the last one and the seam
/// is encoded again.
fn tokens_split_at(tokenizer: &Tokenizer, text: &str, tokens: &TokenSpans, seam: usize) -> bool {
    let end = tokens.spans.partition_point(|span| span.start < seam);
    let special = (0..end).rev().find(|&t| tokenizer.is_special(tokens.ids[t]));
    let (from, start) = special.map_or((0, 0), |t| (t, tokens.spans[t].start));
    tokens.spans[from..end].iter().all(|span| span.end <= seam)
        && text.get(start..seam).is_some_and(|part| {
            tokenizer.encode(part).is_ok_and(|ids| ids == tokens.ids[from..end])
        })
}

/// The name in a tool's schema.
fn tool_name(tool: &Value) -> Option<&str> {
    tool.get("function").unwrap_or(tool).get("name")?.as_str()
}

fn no_end_of_turn(trained: &str) -> TextError {
    let ending: Vec<char> = trained.chars().rev().take(20).collect();
    TextError::NoEndOfTurn { ending: ending.into_iter().rev().collect() }
}

/// The error of a turn that does not start with its prompt: dropped text, if there is any.
fn prompt_not_prefix(i: usize, message: &Message, prompt: &str, answered: &str) -> TextError {
    let common = common_prefix(prompt, answered);
    if let Some(words) = first_dropped(answered, message) {
        return TextError::DroppedText { message: i, role: message.role.clone(), words };
    }
    let excerpt = |text: &str| text[common..].chars().take(30).collect::<String>();
    TextError::PromptNotPrefix { message: i, prompt: excerpt(prompt), answered: excerpt(answered) }
}
