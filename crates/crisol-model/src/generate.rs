//! Generation with cached keys and values.
//!
//! The prompts are cut into chunks by a rule that looks at their number only; chunks run in parallel.
//! Inside a chunk batching is continuous: a sequence that ends frees its slot for the next one. Every
//! sequence has a random stream of its own, so neither its neighbours nor the number of threads change what
//! it says.

use std::ops::ControlFlow;

use crisol_engine::{KvCache, Params, Tape, Workspace};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::sample::{Sampler, SamplingOptions};
use crate::{Model, ModelError, PastKeyValues};

/// Sequences decoded together: enough rows to keep matrix products busy.
const SLOTS: usize = 32;

/// Prompt tokens per forward pass, which bounds its memory.
pub const PREFILL_TOKENS: usize = 2048;

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Its last token is one of the stop tokens.
    StopToken,
    /// It has as many new tokens as were asked for.
    Length,
    /// The model's context is full.
    Context,
    /// Its text has a stop string in it, which [`replies`](crate::replies) and
    /// [`stream_reply`](crate::stream_reply) look for.
    StopString,
    /// The receiver of the stream asked to stop.
    Receiver,
}

/// What was generated for one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The new tokens; the last one is the stop token if `stopped_by` says so.
    pub ids: Vec<u32>,
    /// Log-probability of each new token under softmax(logits / temperature), whatever top-k and top-p cut
    /// away (at temperature 1 for greedy generation): what [`Model::token_scores`] gives.
    pub logprobs: Vec<f32>,
    /// Why it ended.
    pub stopped_by: StopReason,
}

impl Generated {
    /// The new tokens without the stop token.
    pub fn content(&self) -> &[u32] {
        let stop = usize::from(self.stopped_by == StopReason::StopToken);
        &self.ids[..self.ids.len() - stop]
    }
}

/// Continues every prompt. Put identical prompts next to one another: each is computed once for all of them.
pub fn generate(
    model: &Model,
    params: &Params,
    prompts: &[Vec<u32>],
    options: &SamplingOptions,
) -> Result<Vec<Generated>, ModelError> {
    generate_watched(model, params, prompts, options, |_| |_, _| ControlFlow::Continue(()))
}

/// As [`generate`]; `watch` gives, for each chunk of so many prompts, what is told the index in the chunk and the id of every
/// token, and may break off that sequence.
pub(crate) fn generate_watched<W: FnMut(usize, u32) -> ControlFlow<()>>(
    model: &Model,
    params: &Params,
    prompts: &[Vec<u32>],
    options: &SamplingOptions,
    watch: impl Fn(usize) -> W + Sync,
) -> Result<Vec<Generated>, ModelError> {
    let size = chunk_size(prompts.len());
    let chunks = params.device().map(prompts.len().div_ceil(size), |chunk, workspace| {
        let first = chunk * size;
        let prompts = &prompts[first..prompts.len().min(first + size)];
        let mut chunk = Chunk::new(model, params, prompts, first, options)?;
        chunk.run(workspace, watch(prompts.len()))
    });
    let chunks: Result<Vec<Vec<Generated>>, ModelError> = chunks.into_iter().collect();
    Ok(chunks?.into_iter().flatten().collect())
}

/// Continues one prompt and hands out each token as it is chosen; the receiver may break off.
pub fn generate_stream(
    model: &Model,
    params: &Params,
    prompt: &[u32],
    options: &SamplingOptions,
    mut receiver: impl FnMut(u32) -> ControlFlow<()> + Send,
) -> Result<Generated, ModelError> {
    let prompts = [prompt.to_vec()];
    let mut chunk = Chunk::new(model, params, &prompts, 0, options)?;
    let generated = params.device().run(|workspace| chunk.run(workspace, |_, id| receiver(id)));
    Ok(generated?.pop().expect("one prompt gives one result"))
}

/// Keys and values of a conversation, kept from turn to turn: of each prompt only what follows the common beginning with
/// what is held is computed. It belongs to one model and its weights.
#[derive(Debug, Default)]
pub struct Conversation {
    /// One slot.
    cache: Option<KvCache>,
    /// The tokens that it holds.
    held: Vec<u32>,
    /// Tokens of the last prompt that were held already.
    reused: usize,
}

impl Conversation {
    /// Tokens of the last prompt that did not have to be computed.
    pub fn reused(&self) -> usize {
        self.reused
    }

    /// As [`generate_stream`].
    pub fn generate(
        &mut self,
        model: &Model,
        params: &Params,
        prompt: &[u32],
        options: &SamplingOptions,
        mut receiver: impl FnMut(u32) -> ControlFlow<()> + Send,
    ) -> Result<Generated, ModelError> {
        let prompts = [prompt.to_vec()];
        // What an error leaves in the cache is not known, so it is put back only afterwards.
        let (cache, held) = (self.cache.take(), std::mem::take(&mut self.held));
        let mut chunk = Chunk::new(model, params, &prompts, 0, options)?;
        self.reused = chunk.keep(cache, &held);
        let generated = params.device().run(|workspace| chunk.run(workspace, |_, id| receiver(id)));
        let generated = generated?.pop().expect("one prompt gives one result");
        // The last token was chosen, but not read.
        let all = prompt.iter().chain(&generated.ids).copied();
        self.held = all.take(chunk.cache.len(0)).collect();
        self.cache = Some(chunk.cache);
        Ok(generated)
    }
}

/// Few sequences are spread over up to 16 chunks, many fill the slots of each chunk twice, so that the
/// slots that free up early are used again.
fn chunk_size(prompts: usize) -> usize {
    prompts.div_ceil(16).clamp(8, 2 * SLOTS)
}

/// What [`generate`] works on at the same time on so many threads: how many chunks of prompts, and how many sequences of each.
pub fn at_once(prompts: usize, threads: usize) -> (usize, usize) {
    let size = chunk_size(prompts);
    (prompts.div_ceil(size).min(threads), prompts.min(size).min(SLOTS))
}

/// A chunk of prompts while it is generated.
struct Chunk<'a> {
    model: &'a Model,
    params: &'a Params,
    prompts: &'a [Vec<u32>],
    /// New tokens that each prompt may get.
    room: Vec<usize>,
    options: &'a SamplingOptions,
    sampler: Sampler<'a>,
    rngs: Vec<ChaCha8Rng>,
    results: Vec<Generated>,
    cache: KvCache,
    free_slots: Vec<usize>,
    active: Vec<Active>,
    /// Tokens of the first prompt that the cache holds already, if it is to keep them.
    kept: Option<usize>,
}

/// A sequence that has a slot.
struct Active {
    /// Index into the chunk's prompts.
    sequence: usize,
    slot: usize,
    /// Chosen last and not yet in the cache.
    last: u32,
}

/// A prompt on its way into the cache, for one or more sequences.
struct Prefill {
    /// Index of the first sequence; the others follow it.
    sequence: usize,
    /// One per sequence.
    slots: Vec<usize>,
    /// Tokens of the prompt that are in the cache.
    done: usize,
}

impl<'a> Chunk<'a> {
    /// `first`: index of the first prompt among all, which selects the random streams.
    fn new(
        model: &'a Model,
        params: &'a Params,
        prompts: &'a [Vec<u32>],
        first: usize,
        options: &'a SamplingOptions,
    ) -> Result<Chunk<'a>, ModelError> {
        options.validate()?;
        model.needs_language_head()?;
        let config = model.config();
        let limit = config.longest_document();
        let mut room = Vec::new();
        for (i, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() {
                return Err(ModelError::EmptySequence { index: first + i });
            }
            let left = limit.checked_sub(prompt.len());
            let left = left.ok_or(ModelError::TooLong { length: prompt.len(), limit })?;
            room.push(left.min(options.max_new_tokens));
        }
        let rngs = (0..prompts.len()).map(|i| {
            let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
            rng.set_stream((first + i) as u64);
            rng
        });
        let stopped_by =
            if options.max_new_tokens == 0 { StopReason::Length } else { StopReason::Context };
        let nothing = Generated { ids: Vec::new(), logprobs: Vec::new(), stopped_by };
        let capacity =
            prompts.iter().zip(&room).map(|(prompt, room)| prompt.len() + room).max().unwrap_or(0);
        let slots = prompts.len().min(SLOTS);
        let (layers, (k_dim, v_dim)) = (config.num_hidden_layers, config.cache_width());
        Ok(Chunk {
            model,
            params,
            prompts,
            room,
            options,
            sampler: Sampler::new(options),
            rngs: rngs.collect(),
            results: vec![nothing; prompts.len()],
            cache: KvCache::new(params.device(), layers, k_dim, v_dim, slots, capacity),
            free_slots: (0..slots).rev().collect(),
            active: Vec::new(),
            kept: None,
        })
    }

    /// Goes on with a cache that holds these tokens, and keeps it for later. How many tokens of the prompt it has.
    fn keep(&mut self, cache: Option<KvCache>, held: &[u32]) -> usize {
        let [prompt] = self.prompts else { unreachable!("a conversation is one sequence") };
        let needed = prompt.len() + self.room[0];
        // The last token is read again: what follows it is chosen from its logits.
        let common =
            prompt[..prompt.len() - 1].iter().zip(held).take_while(|(a, b)| a == b).count();
        let kept = if let Some(cache) = cache.filter(|cache| cache.capacity() >= needed) {
            self.cache = cache;
            self.cache.truncate(0, common);
            common
        } else {
            // Twice as much, so that a growing conversation seldom begins anew.
            let config = self.model.config();
            let (layers, (k_dim, v_dim)) = (config.num_hidden_layers, config.cache_width());
            let capacity = (2 * needed).min(config.longest_document()).max(needed);
            self.cache = KvCache::new(self.params.device(), layers, k_dim, v_dim, 1, capacity);
            0
        };
        self.kept = Some(kept);
        kept
    }

    fn run(
        &mut self,
        workspace: &mut Workspace,
        mut receiver: impl FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>, ModelError> {
        let mut next = 0;
        loop {
            let entering = self.enter(&mut next);
            self.prefill(workspace, entering, &mut receiver)?;
            if self.active.is_empty() {
                if next == self.prompts.len() {
                    return Ok(std::mem::take(&mut self.results));
                }
                continue;
            }
            self.decode(workspace, &mut receiver)?;
        }
    }

    /// Gives free slots to waiting sequences.
    fn enter(&mut self, next: &mut usize) -> Vec<Prefill> {
        let mut entering: Vec<Prefill> = Vec::new();
        while *next < self.prompts.len() {
            let sequence = *next;
            if self.room[sequence] > 0 {
                let Some(slot) = self.free_slots.pop() else { break };
                match entering.last_mut() {
                    Some(group) if self.continues(group, sequence) => group.slots.push(slot),
                    _ => {
                        let done = self.kept.unwrap_or(0);
                        entering.push(Prefill { sequence, slots: vec![slot], done });
                    }
                }
            }
            *next += 1;
        }
        entering
    }

    fn continues(&self, group: &Prefill, sequence: usize) -> bool {
        group.sequence + group.slots.len() == sequence
            && self.prompts[group.sequence] == self.prompts[sequence]
    }

    /// Puts prompts into the cache, [`PREFILL_TOKENS`] at a time, and chooses the first token of each
    /// sequence.
    fn prefill(
        &mut self,
        workspace: &mut Workspace,
        mut waiting: Vec<Prefill>,
        receiver: &mut impl FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<(), ModelError> {
        while !waiting.is_empty() {
            let (mut ids, mut offsets, mut slots) = (Vec::new(), vec![0], Vec::new());
            // Rows that end a prompt; all but the last prompt of a pass are complete.
            let mut last_rows = Vec::new();
            for group in &mut waiting {
                let prompt = &self.prompts[group.sequence];
                let piece = (prompt.len() - group.done).min(PREFILL_TOKENS - ids.len());
                if piece == 0 {
                    break;
                }
                ids.extend(&prompt[group.done..group.done + piece]);
                offsets.push(ids.len() as u32);
                slots.push(group.slots[0]);
                group.done += piece;
                if group.done == prompt.len() {
                    last_rows.push(ids.len() as u32 - 1);
                }
            }
            let logits = self.forward(workspace, &ids, &offsets, &slots, &last_rows)?;
            let complete = waiting.drain(..last_rows.len()).collect::<Vec<_>>();
            for (group, logits) in complete.into_iter().zip(self.rows(&logits)) {
                for (i, &slot) in group.slots.iter().enumerate() {
                    if i > 0 {
                        self.cache.copy_slot(group.slots[0], slot);
                    }
                    self.choose(group.sequence + i, slot, logits, receiver)?;
                }
            }
        }
        Ok(())
    }

    /// One more token for every active sequence.
    fn decode(
        &mut self,
        workspace: &mut Workspace,
        receiver: &mut impl FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<(), ModelError> {
        let active = std::mem::take(&mut self.active);
        let ids: Vec<u32> = active.iter().map(|a| a.last).collect();
        let slots: Vec<usize> = active.iter().map(|a| a.slot).collect();
        let offsets: Vec<u32> = (0..=ids.len() as u32).collect();
        let logits = self.forward(workspace, &ids, &offsets, &slots, &offsets[..ids.len()])?;
        for (sequence, logits) in active.iter().zip(self.rows(&logits)) {
            self.choose(sequence.sequence, sequence.slot, logits, receiver)?;
        }
        Ok(())
    }

    fn rows<'l>(&self, logits: &'l [f32]) -> std::slice::ChunksExact<'l, f32> {
        logits.chunks_exact(self.model.config().vocab_size)
    }

    /// Logits of `rows` after appending new tokens to slots.
    fn forward(
        &mut self,
        workspace: &mut Workspace,
        ids: &[u32],
        offsets: &[u32],
        slots: &[usize],
        rows: &[u32],
    ) -> Result<Vec<f32>, ModelError> {
        let mut tape = Tape::inference(self.params, workspace);
        let context = PastKeyValues::Cached { cache: &mut self.cache, slots };
        let hidden = self.model.hidden(&mut tape, ids, offsets, context)?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let logits = self.model.logits(&mut tape, hidden, rows)?;
        Ok(tape.read(logits).into_owned())
    }

    /// Chooses the next token of a sequence, which then stays active or ends.
    fn choose(
        &mut self,
        sequence: usize,
        slot: usize,
        logits: &[f32],
        receiver: &mut impl FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<(), ModelError> {
        let result = &mut self.results[sequence];
        let before = self.prompts[sequence].iter().chain(&result.ids);
        let (id, logprob) = self.sampler.draw(logits, before, &mut self.rngs[sequence])?;
        result.ids.push(id);
        result.logprobs.push(logprob);
        let broken_off = receiver(sequence, id).is_break();
        let full = result.ids.len() == self.room[sequence];
        result.stopped_by = if self.options.stop_ids.contains(&id) {
            StopReason::StopToken
        } else if full && result.ids.len() == self.options.max_new_tokens {
            StopReason::Length
        } else if full {
            StopReason::Context
        } else if broken_off {
            StopReason::Receiver
        } else {
            self.active.push(Active { sequence, slot, last: id });
            return Ok(());
        };
        if self.kept.is_none() {
            self.cache.clear(slot);
        }
        self.free_slots.push(slot);
        Ok(())
    }
}
