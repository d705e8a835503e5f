//! Conversations to examples. For each turn of the assistant's that is trained, the example begins with exactly the ids that
//! the model sees when it is to give that answer:
//!
//! ```text
//! render(messages before, add_generation_prompt) │ what the template writes after it, up to the end of the turn
//!                 prompt ids (not trained)        │ ids of the answer (trained)
//! ```
//!
//! What is trained of a turn is what a template's `{% generation %}` marks say, or all of it up to its end-of-turn token.
//! Mostly one sequence begins with the prompt of every turn: then it is one example with several trained spans. Where tokens
//! merge at a seam, or the template writes earlier turns in another way (reasoning models drop earlier thoughts), each turn
//! is an example of its own. Some templates cut the thought out of every answer, as inference cuts it out of those that it
//! goes on from. What is trained then is what the model is to say after the prompt: the thought, the answer, and the end of
//! the turn as the template writes it.

use std::borrow::Cow;
use std::ops::Range;

use crate::template::Rendered;
use crate::tokenizer::Spanned;
use crate::words::{THOUGHT, THOUGHT_END, lost};
use crate::{ChatTemplate, Example, Message, TextError, Tokenizer};

/// A turn of the assistant's as text.
struct Turn {
    /// What the model sees when it is to answer.
    before: String,
    /// What the template writes after it.
    after: String,
    /// What of it is trained.
    spans: Vec<Range<usize>>,
}

impl ChatTemplate {
    /// The examples of a conversation, in which all turns of the assistant's are trained that the data does not mask.
    pub fn encode(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
    ) -> Result<Vec<Example>, TextError> {
        self.encode_from(tokenizer, messages, 0)
    }

    /// The same, of the turns from message `first` on. Without any, one example of which nothing is trained.
    pub(crate) fn encode_from(
        &self,
        tokenizer: &Tokenizer,
        messages: &[Message],
        first: usize,
    ) -> Result<Vec<Example>, TextError> {
        let messages = &self.readable(messages)?;
        let trained =
            messages.iter().enumerate().skip(first).filter(|(_, message)| message.is_trained());
        let turns = trained.map(|(i, _)| self.turn(messages, i)).collect::<Result<Vec<_>, _>>()?;
        let Some((last, earlier)) = turns.split_last() else {
            let ids = tokenizer.encode(&self.render(messages, false)?)?;
            return Ok(vec![Example { trained: vec![false; ids.len()], ids }]);
        };
        if !earlier.is_empty() && goes_on(earlier, last) {
            let prompt = tokenizer.encode_spans(&last.before)?;
            let mut seams = earlier.iter().map(|turn| turn.before.len());
            if seams.all(|seam| splits_at(tokenizer, &last.before, &prompt, seam)) {
                let mut example = self.example(tokenizer, last, prompt.ids.clone())?;
                for turn in earlier {
                    let seam = turn.before.len();
                    let spans: Vec<_> =
                        turn.spans.iter().map(|span| span.start + seam..span.end + seam).collect();
                    self.mark(tokenizer, &prompt, &last.before, &spans, &mut example.trained)?;
                }
                return Ok(vec![example]);
            }
        }
        turns
            .iter()
            .map(|turn| self.example(tokenizer, turn, tokenizer.encode(&turn.before)?))
            .collect()
    }

    /// One turn as an example of its own, given the ids of its prompt. What comes after its last trained token is left out:
    /// nothing is learnt from it.
    fn example(
        &self,
        tokenizer: &Tokenizer,
        turn: &Turn,
        mut ids: Vec<u32>,
    ) -> Result<Example, TextError> {
        let tokens = tokenizer.encode_rest(&turn.before, &ids, &turn.after)?;
        let mut trained = vec![false; tokens.ids.len()];
        self.mark(tokenizer, &tokens, &turn.after, &turn.spans, &mut trained)?;
        let end = trained.iter().rposition(|&t| t).map_or(0, |last| last + 1);
        let mut marks = vec![false; ids.len()];
        marks.extend(&trained[..end]);
        ids.extend(&tokens.ids[..end]);
        Ok(Example { ids, trained: marks })
    }

    /// The turn of message `i`, the last of those before it.
    fn turn(&self, messages: &[Message], i: usize) -> Result<Turn, TextError> {
        match self.written_turn(messages, i) {
            Err(cut @ (TextError::LostWords { .. } | TextError::OtherAnswer { .. }))
                if self.may_cut_thought(&messages[i]) && !self.marks_generation() =>
            {
                self.turn_with_thought(messages, i)?.ok_or(cut)
            }
            turn => turn,
        }
    }

    /// The words of a thought that the template cuts out of an answer, if it does.
    pub(crate) fn cut_thought(&self, message: &Message) -> Option<String> {
        if !self.may_cut_thought(message) {
            return None;
        }
        lost(&self.render(&[Message::user("a"), message.clone()], false).ok()?, message)
    }

    /// Whether a message holds a thought, in its content or beside it, and the template knows such.
    fn may_cut_thought(&self, message: &Message) -> bool {
        message.is_assistant()
            && (message.reasoning().is_some() || message.content.contains(THOUGHT_END))
            && self.mentions(THOUGHT_END)
    }

    /// The turn as the model is to say it; nothing where the prompt has ended the thought already, or the message holds more than
    /// thought and answer.
    fn turn_with_thought(&self, messages: &[Message], i: usize) -> Result<Option<Turn>, TextError> {
        // Stands for the answer.
        const ANSWER: &str = "zq";
        let message = &messages[i];
        let before = self.introduction(messages, i)?;
        let begun = before.trim_end();
        if begun.ends_with(THOUGHT_END) || !message.called().is_empty() {
            return Ok(None);
        }
        let said = match message.reasoning() {
            Some(thought) if !message.content.contains(THOUGHT_END) => {
                let (thought, answer) = (thought.trim(), message.content.trim());
                format!("{THOUGHT}\n{thought}\n{THOUGHT_END}\n\n{answer}")
            }
            _ => message.content.trim().to_owned(),
        };
        // What the prompt has begun is not said again.
        let said = match said.strip_prefix(THOUGHT).filter(|_| begun.ends_with(THOUGHT)) {
            Some(rest) if begun.len() < before.len() => rest.trim_start(),
            Some(rest) => rest,
            None => &said,
        };
        let answered = [&messages[..i], &[Message::assistant(ANSWER)]].concat();
        let text = self.render(&answered, false)?;
        let Some((_, end)) = text.rsplit_once(ANSWER) else { return Ok(None) };
        let after = [said, end.trim_end()].concat();
        let whole = 0..after.len();
        self.checked(Turn { before, after, spans: vec![whole] }, i, message).map(Some)
    }

    /// The turn as the template writes it.
    fn written_turn(&self, messages: &[Message], i: usize) -> Result<Turn, TextError> {
        let message = &messages[i];
        let before = self.introduction(messages, i)?;
        let Rendered { text, spans } = if self.marks_generation() {
            let mut marked = self.render_spans(&messages[..=i])?;
            // A prompt that is not how the turn begins: the marks are taken at their word, as transformers does.
            if !marked.text.starts_with(&before) {
                let said = self.render_spans(&messages[..i])?.spans.len();
                let first = marked.spans.get(said).map_or(marked.text.len(), |span| span.start);
                let after = marked.text.split_off(first);
                let spans = marked.spans.drain(said.min(marked.spans.len())..);
                let spans = spans.map(|span| span.start - first..span.end - first).collect();
                return self.checked(Turn { before: marked.text, after, spans }, i, message);
            }
            marked
        } else {
            let text = self.render(&messages[..=i], false)?;
            // What a template writes behind the turn may be another thing once messages follow.
            let whole = before.len()..text.trim_end().len().max(before.len());
            Rendered { text, spans: vec![whole] }
        };
        let seam = before.len();
        let Some(after) = text.strip_prefix(before.as_str()) else {
            let after = self
                .answer_alone(messages, i)
                .filter(|after| text.trim_end().ends_with(after.as_str()));
            let after = after.ok_or_else(|| other_answer(i, message, &before, &text))?;
            let whole = 0..after.len();
            return self.checked(Turn { before, after, spans: vec![whole] }, i, message);
        };
        let spans = spans.into_iter().filter(|span| span.end > seam);
        let spans = spans.map(|span| span.start.saturating_sub(seam)..span.end - seam).collect();
        self.checked(Turn { after: after.to_owned(), before, spans }, i, message)
    }

    /// What a template writes of an answer where only the message before it is there. Some write that message otherwise once
    /// it is answered (Mistral's puts the system message into it as long as it is not), but not the answer.
    fn answer_alone(&self, messages: &[Message], i: usize) -> Option<String> {
        let before = self.render(messages.get(i.checked_sub(1)?..i)?, true).ok()?;
        let text = self.render(&messages[i - 1..=i], false).ok()?;
        Some(text.strip_prefix(before.as_str())?.trim_end().to_owned())
    }

    /// The turn, where all that its message says is trained, and an end of the turn.
    fn checked(&self, turn: Turn, i: usize, message: &Message) -> Result<Turn, TextError> {
        let said: Cow<'_, str> = match turn.spans.as_slice() {
            [span] => Cow::Borrowed(&turn.after[span.clone()]),
            spans => spans.iter().map(|span| &turn.after[span.clone()]).collect(),
        };
        if let Some(words) = lost(&said, message) {
            return Err(TextError::LostWords { message: i, role: message.role.clone(), words });
        }
        // A special token within the content must not pass for the turn's end.
        let content = message.content.trim();
        let tail = match said.trim_start().strip_prefix(content) {
            Some(tail) => tail,
            None => said.rfind(content).map_or(&said[..], |at| &said[at + content.len()..]),
        };
        if !self.marks_generation() && tail.trim().is_empty() {
            return Err(no_end(&said));
        }
        Ok(turn)
    }

    /// What the model sees when it is to give message `i`.
    fn introduction(&self, messages: &[Message], i: usize) -> Result<String, TextError> {
        if i > 0 {
            return self.render(&messages[..i], true);
        }
        // Many templates read the first message, or write nothing without one. What introduces an answer is the same
        // everywhere, and is found at the beginning of this one.
        let asked = [Message::user("a")];
        let (asked, answering) = (self.render(&asked, false)?, self.render(&asked, true)?);
        let introduction = answering.strip_prefix(asked.as_str()).unwrap_or_default();
        let alone = self.render(&[], true);
        match alone {
            Ok(text) if text.ends_with(introduction) => Ok(text),
            alone => {
                let text = self.render(&messages[..1], false)?;
                let content = messages[0].content.trim();
                let found = if introduction.is_empty() {
                    text.find(content)
                } else {
                    text.find(introduction).map(|at| at + introduction.len())
                };
                match found {
                    Some(seam) => Ok(text[..seam].to_owned()),
                    None => alone,
                }
            }
        }
    }

    /// Messages in a form that the template reads. Content in parts is passed as it is written where the words of every part
    /// arrive, and as one string elsewhere: a template for strings leaves a list out, or prints it.
    pub(crate) fn readable<'m>(
        &self,
        messages: &'m [Message],
    ) -> Result<Cow<'m, [Message]>, TextError> {
        if self.wants_arguments_as_text(messages) {
            let messages: Vec<Message> =
                messages.iter().map(Message::with_arguments_as_text).collect();
            return Ok(Cow::Owned(self.readable_parts(&messages)?.into_owned()));
        }
        self.readable_parts(messages)
    }

    /// Whether the template puts the arguments of tool calls between text, as `DeepSeek`'s do, so that they must be JSON and
    /// not an object.
    fn wants_arguments_as_text(&self, messages: &[Message]) -> bool {
        let arguments: Vec<String> = messages.iter().flat_map(Message::arguments_as_text).collect();
        if arguments.is_empty() {
            return false;
        }
        let objects: Vec<Message> = messages.iter().map(Message::joined).collect();
        let strings: Vec<Message> = objects.iter().map(Message::with_arguments_as_text).collect();
        let writes_all = |text: &String| arguments.iter().all(|json| text.contains(json));
        let as_objects = self.render(&objects, false);
        !as_objects.is_ok_and(|text| writes_all(&text))
            && self.render(&strings, false).is_ok_and(|text| writes_all(&text))
    }

    fn readable_parts<'m>(&self, messages: &'m [Message]) -> Result<Cow<'m, [Message]>, TextError> {
        if !messages.iter().any(Message::has_parts) {
            return Ok(Cow::Borrowed(messages));
        }
        let joined: Vec<Message> = messages.iter().map(Message::joined).collect();
        let (as_parts, as_strings) = (self.render(messages, false), self.render(&joined, false));
        let parts = || messages.iter().enumerate().filter(|(_, message)| message.has_parts());
        // What a list of parts looks like where it is printed.
        let printed =
            |text: &str| text.matches("\"type\"").count() + text.matches("'type'").count();
        if let Ok(text) = &as_parts {
            let arrives = parts().all(|(_, message)| lost(text, message).is_none());
            if arrives
                && as_strings.as_ref().map_or(true, |string| printed(text) <= printed(string))
            {
                return Ok(Cow::Borrowed(messages));
            }
        }
        let text = as_strings?;
        // What the assistant said is looked at where it is trained: its earlier thoughts may be dropped.
        let missing = parts()
            .filter(|(_, message)| !message.is_assistant())
            .find_map(|(i, message)| Some((i, message, lost(&text, message)?)));
        match missing {
            Some((i, message, words)) => {
                Err(TextError::LostWords { message: i, role: message.role.clone(), words })
            }
            None => Ok(Cow::Owned(joined)),
        }
    }

    /// Marks as trained the tokens of `text` that overlap `spans`.
    fn mark(
        &self,
        tokenizer: &Tokenizer,
        tokens: &Spanned,
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
                return Err(no_end(&text[span.clone()]));
            };
            // A template's own marks are taken at their word, as transformers does.
            let end = if self.marks_generation() { first + inside } else { last + 1 };
            trained[first..end].fill(true);
        }
        Ok(())
    }
}

/// Whether each turn's text is where the prompt of the last one begins.
fn goes_on(earlier: &[Turn], last: &Turn) -> bool {
    earlier.iter().all(|turn| {
        let rest = last.before.strip_prefix(turn.before.as_str());
        let said = turn.spans.iter().map(|span| span.end).max().unwrap_or(0);
        rest.is_some_and(|rest| rest.starts_with(&turn.after[..said]))
    })
}

/// Whether the tokens of `text` begin with those of `text[..seam]` alone. A named token is found before anything is merged,
/// so that only what lies between the last one and the seam has to be encoded again.
fn splits_at(tokenizer: &Tokenizer, text: &str, tokens: &Spanned, seam: usize) -> bool {
    let end = tokens.spans.partition_point(|span| span.start < seam);
    let named = (0..end).rev().find(|&t| tokenizer.is_special(tokens.ids[t]));
    let (from, start) = named.map_or((0, 0), |t| (t, tokens.spans[t].start));
    tokens.spans[from..end].iter().all(|span| span.end <= seam)
        && text.get(start..seam).is_some_and(|part| {
            tokenizer.encode(part).is_ok_and(|ids| ids == tokens.ids[from..end])
        })
}

fn no_end(said: &str) -> TextError {
    let ending: Vec<char> = said.chars().rev().take(20).collect();
    TextError::NoEndOfTurn { ending: ending.into_iter().rev().collect() }
}

/// The error of a turn that does not begin with its prompt: words that the template left out are the cause, where there are
/// any.
fn other_answer(i: usize, message: &Message, prompt: &str, answered: &str) -> TextError {
    let same: usize = prompt
        .chars()
        .zip(answered.chars())
        .take_while(|(a, b)| a == b)
        .map(|(c, _)| c.len_utf8())
        .sum();
    if let Some(words) = lost(answered, message) {
        return TextError::LostWords { message: i, role: message.role.clone(), words };
    }
    let excerpt = |text: &str| text[same..].chars().take(30).collect::<String>();
    TextError::OtherAnswer { message: i, prompt: excerpt(prompt), answered: excerpt(answered) }
}
