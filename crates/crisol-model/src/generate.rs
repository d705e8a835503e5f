//! Batched generation with a KV cache.
//!
//! Prompts are split into chunks by their number only; chunks run in parallel. Batching within a
//! chunk is continuous: a finished sequence frees its cache slot for the next one. Every sequence
//! has its own random stream, so its tokens depend neither on the batch nor on the number of
//! threads.

use std::ops::ControlFlow;

use crisol_engine::{Draw, Drawn, KvCache, Params, Sampling, Tape, Workspace};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::SeedableRng;

use crate::sample::{SamplingOptions, uniform};
use crate::{Model, ModelError, PastKeyValues};

/// Sequences decoded together, enough rows for an efficient GEMM.
const SLOTS: usize = 32;

/// Maximum prompt tokens per forward pass; bounds its memory.
pub const PREFILL_TOKENS: usize = 2048;

/// Why a sequence ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// Its last token is a stop token.
    StopToken,
    /// It reached `max_new_tokens`.
    Length,
    /// It filled the model's context.
    Context,
    /// Its text contains a stop string; set by [`replies`](crate::replies) and
    /// [`stream_reply`](crate::stream_reply).
    StopString,
    /// The receiver of the stream ended it.
    Receiver,
}

/// The continuation of one prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct Generated {
    /// The new tokens, including the stop token if `stopped_by` is [`StopReason::StopToken`].
    pub ids: Vec<u32>,
    /// Log-probability of each new token under softmax(logits / temperature), before top-k, top-p
    /// and min-p; temperature 1 for greedy decoding. Equals [`Model::token_scores`].
    pub logprobs: Vec<f32>,
    /// Why the sequence ended.
    pub stopped_by: StopReason,
}

impl Generated {
    /// The new tokens, without the stop token.
    pub fn content(&self) -> &[u32] {
        let stop = usize::from(self.stopped_by == StopReason::StopToken);
        &self.ids[..self.ids.len() - stop]
    }
}

/// Continues every prompt. Adjacent identical prompts share one prefill.
pub fn generate(
    model: &Model,
    params: &Params,
    prompts: &[Vec<u32>],
    options: &SamplingOptions,
) -> Result<Vec<Generated>, ModelError> {
    generate_with_callback(model, params, prompts, options, |_| |_, _| ControlFlow::Continue(()))
}

/// Like [`generate`]. `callback(n)` returns the callback of a chunk of `n` prompts, which gets each
/// token as (index in the chunk, id) and can end that sequence.
pub(crate) fn generate_with_callback<W: FnMut(usize, u32) -> ControlFlow<()>>(
    model: &Model,
    params: &Params,
    prompts: &[Vec<u32>],
    options: &SamplingOptions,
    callback: impl Fn(usize) -> W + Sync,
) -> Result<Vec<Generated>, ModelError> {
    let size = chunk_size(prompts.len());
    let chunks = params.device().map(prompts.len().div_ceil(size), |chunk, workspace| {
        let first = chunk * size;
        let prompts = &prompts[first..prompts.len().min(first + size)];
        let mut chunk = Chunk::new(model, params, prompts, first, options)?;
        chunk.run(workspace, callback(prompts.len()))
    });
    let chunks: Result<Vec<Vec<Generated>>, ModelError> = chunks.into_iter().collect();
    Ok(chunks?.into_iter().flatten().collect())
}

/// Continues one prompt and passes each token to `receiver`, which can end the generation.
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

/// The KV cache of a conversation, reused between turns. Only the part of a prompt after the cached
/// prefix is computed. Belongs to one model and its weights.
#[derive(Debug, Default)]
pub struct Conversation {
    /// A cache with one slot.
    cache: Option<KvCache>,
    /// The tokens in the cache.
    cached_ids: Vec<u32>,
    /// Cached tokens that the last prompt reused.
    reused: usize,
}

impl Conversation {
    /// Tokens of the last prompt that came from the cache.
    pub fn reused(&self) -> usize {
        self.reused
    }

    /// Like [`generate_stream`].
    pub fn generate(
        &mut self,
        model: &Model,
        params: &Params,
        prompt: &[u32],
        options: &SamplingOptions,
        mut receiver: impl FnMut(u32) -> ControlFlow<()> + Send,
    ) -> Result<Generated, ModelError> {
        let prompts = [prompt.to_vec()];
        // An error leaves the cache undefined, so it is only put back on success.
        let (cache, cached_ids) = (self.cache.take(), std::mem::take(&mut self.cached_ids));
        let mut chunk = Chunk::new(model, params, &prompts, 0, options)?;
        self.reused = chunk.resume(cache, &cached_ids);
        let generated = params.device().run(|workspace| chunk.run(workspace, |_, id| receiver(id)));
        let generated = generated?.pop().expect("one prompt gives one result");
        // The last token was sampled but not fed back, so it is not in the cache.
        let all = prompt.iter().chain(&generated.ids).copied();
        self.cached_ids = all.take(chunk.cache.len(0)).collect();
        self.cache = Some(chunk.cache);
        Ok(generated)
    }
}

/// Few prompts are spread over up to 16 chunks. Many prompts fill each chunk's slots twice, so that
/// freed slots are reused.
fn chunk_size(prompts: usize) -> usize {
    prompts.div_ceil(16).clamp(8, 2 * SLOTS)
}

/// The parallelism of [`generate`] on `threads` threads: concurrent chunks, and concurrent
/// sequences per chunk.
pub fn generation_concurrency(prompts: usize, threads: usize) -> (usize, usize) {
    let size = chunk_size(prompts);
    (prompts.div_ceil(size).min(threads), prompts.min(size).min(SLOTS))
}

/// The state of a chunk of prompts during generation.
struct Chunk<'a> {
    model: &'a Model,
    params: &'a Params,
    prompts: &'a [Vec<u32>],
    /// Maximum new tokens of each prompt.
    max_new: Vec<usize>,
    options: &'a SamplingOptions,
    sampling: Sampling,
    rngs: Vec<ChaCha8Rng>,
    results: Vec<Generated>,
    cache: KvCache,
    free_slots: Vec<usize>,
    active: Vec<Active>,
    /// In a conversation: prompt tokens that are already in the cache.
    cached_prefix: Option<usize>,
}

/// A sequence that occupies a slot.
struct Active {
    /// Index into the chunk's prompts.
    sequence: usize,
    slot: usize,
    /// Sampled last, not yet in the cache.
    last: u32,
}

/// A prompt during prefill, for one sequence or several with identical prompts.
struct Prefill {
    /// Index of the first sequence; the others are adjacent.
    sequence: usize,
    /// One per sequence.
    slots: Vec<usize>,
    /// Prompt tokens already in the cache.
    done: usize,
}

/// A sequence whose next token is drawn.
struct Next {
    /// Index into the chunk's prompts.
    sequence: usize,
    slot: usize,
    /// Of the logits.
    row: usize,
}

impl<'a> Chunk<'a> {
    /// `first`: index of the first prompt among all prompts; selects the random streams.
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
        let limit = config.max_document_len();
        let mut max_new = Vec::new();
        for (i, prompt) in prompts.iter().enumerate() {
            if prompt.is_empty() {
                return Err(ModelError::EmptySequence { index: first + i });
            }
            let remaining = limit.checked_sub(prompt.len());
            let remaining = remaining.ok_or(ModelError::TooLong { length: prompt.len(), limit })?;
            max_new.push(remaining.min(options.max_new_tokens));
        }
        let rngs = (0..prompts.len()).map(|i| {
            let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
            rng.set_stream((first + i) as u64);
            rng
        });
        let stopped_by =
            if options.max_new_tokens == 0 { StopReason::Length } else { StopReason::Context };
        let empty = Generated { ids: Vec::new(), logprobs: Vec::new(), stopped_by };
        let capacity =
            prompts.iter().zip(&max_new).map(|(prompt, new)| prompt.len() + new).max().unwrap_or(0);
        let slots = prompts.len().min(SLOTS);
        let (layers, (k_dim, v_dim)) = (config.num_hidden_layers, config.cache_width());
        Ok(Chunk {
            model,
            params,
            prompts,
            max_new,
            options,
            sampling: options.sampling(),
            rngs: rngs.collect(),
            results: vec![empty; prompts.len()],
            cache: KvCache::new(params.device(), layers, k_dim, v_dim, slots, capacity),
            free_slots: (0..slots).rev().collect(),
            active: Vec::new(),
            cached_prefix: None,
        })
    }

    /// Continues with a conversation's cache, which holds `cached_ids`. Returns the length of the
    /// reused prefix.
    fn resume(&mut self, cache: Option<KvCache>, cached_ids: &[u32]) -> usize {
        let [prompt] = self.prompts else { unreachable!("a conversation is one sequence") };
        let needed = prompt.len() + self.max_new[0];
        // The last prompt token is always recomputed: its logits give the first new token.
        let mut common =
            prompt[..prompt.len() - 1].iter().zip(cached_ids).take_while(|(a, b)| a == b).count();
        // Keys of a text so long that it rotates otherwise do not fit a short one, nor the reverse.
        let limit = self.model.config().rope_scaling.recomputes_beyond();
        if limit.is_some_and(|limit| (cached_ids.len() > limit) != (prompt.len() > limit)) {
            common = 0;
        }
        let reused = if let Some(cache) = cache.filter(|cache| cache.capacity() >= needed) {
            self.cache = cache;
            self.cache.truncate(0, common);
            common
        } else {
            // Twice the needed capacity, so that a growing conversation is rarely recomputed.
            let config = self.model.config();
            let (layers, (k_dim, v_dim)) = (config.num_hidden_layers, config.cache_width());
            let capacity = (2 * needed).min(config.max_document_len()).max(needed);
            self.cache = KvCache::new(self.params.device(), layers, k_dim, v_dim, 1, capacity);
            0
        };
        self.cached_prefix = Some(reused);
        reused
    }

    fn run(
        &mut self,
        workspace: &mut Workspace,
        mut receiver: impl FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<Vec<Generated>, ModelError> {
        let mut next = 0;
        loop {
            let admitted = self.admit(&mut next);
            self.prefill(workspace, admitted, &mut receiver)?;
            if self.active.is_empty() {
                if next == self.prompts.len() {
                    return Ok(std::mem::take(&mut self.results));
                }
                continue;
            }
            self.decode(workspace, &mut receiver)?;
        }
    }

    /// Assigns free slots to waiting sequences.
    fn admit(&mut self, next: &mut usize) -> Vec<Prefill> {
        let mut admitted: Vec<Prefill> = Vec::new();
        while *next < self.prompts.len() {
            let sequence = *next;
            if self.max_new[sequence] > 0 {
                let Some(slot) = self.free_slots.pop() else { break };
                match admitted.last_mut() {
                    Some(group) if self.continues(group, sequence) => group.slots.push(slot),
                    _ => {
                        let done = self.cached_prefix.unwrap_or(0);
                        admitted.push(Prefill { sequence, slots: vec![slot], done });
                    }
                }
            }
            *next += 1;
        }
        admitted
    }

    fn continues(&self, group: &Prefill, sequence: usize) -> bool {
        group.sequence + group.slots.len() == sequence
            && self.prompts[group.sequence] == self.prompts[sequence]
    }

    /// Runs prompts through the model, [`PREFILL_TOKENS`] per pass, and draws each sequence's first
    /// token.
    fn prefill(
        &mut self,
        workspace: &mut Workspace,
        mut waiting: Vec<Prefill>,
        receiver: &mut impl FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<(), ModelError> {
        let limit = self.model.config().rope_scaling.recomputes_beyond();
        while !waiting.is_empty() {
            let (mut ids, mut offsets, mut slots) = (Vec::new(), vec![0], Vec::new());
            // Last rows of the prompts that this pass completes; only the last prompt can be
            // incomplete.
            let mut last_rows = Vec::new();
            for group in &mut waiting {
                let prompt = &self.prompts[group.sequence];
                let mut room = PREFILL_TOKENS.saturating_sub(ids.len());
                if room == 0 {
                    break;
                }
                // The first pass shows to which side of the limit the text belongs.
                if let Some(limit) = limit.filter(|&limit| prompt.len() > limit) {
                    room = room.max((limit + 1).saturating_sub(group.done));
                }
                let take = (prompt.len() - group.done).min(room);
                ids.extend(&prompt[group.done..group.done + take]);
                offsets.push(ids.len() as u32);
                slots.push(group.slots[0]);
                group.done += take;
                if group.done == prompt.len() {
                    last_rows.push(ids.len() as u32 - 1);
                }
            }
            let complete: Vec<Prefill> = waiting.drain(..last_rows.len()).collect();
            let mut next = Vec::new();
            for (row, group) in complete.iter().enumerate() {
                for (i, &slot) in group.slots.iter().enumerate() {
                    next.push(Next { sequence: group.sequence + i, slot, row });
                }
            }
            let drawn = self.forward(workspace, &ids, &offsets, &slots, &last_rows, &next)?;
            // All copies come first: a sequence that its first token ends frees its slot.
            for group in &complete {
                for &slot in &group.slots[1..] {
                    self.cache.copy_slot(group.slots[0], slot);
                }
            }
            self.append(&next, &drawn, receiver);
        }
        Ok(())
    }

    /// One decoding step for all active sequences. A text that becomes so long that it rotates
    /// otherwise is computed again.
    fn decode(
        &mut self,
        workspace: &mut Workspace,
        receiver: &mut impl FnMut(usize, u32) -> ControlFlow<()>,
    ) -> Result<(), ModelError> {
        let active = std::mem::take(&mut self.active);
        let slots: Vec<usize> = active.iter().map(|a| a.slot).collect();
        let limit = self.model.config().rope_scaling.recomputes_beyond();
        let (mut ids, mut offsets) = (Vec::new(), vec![0]);
        for &Active { sequence, slot, last } in &active {
            if limit == Some(self.cache.len(slot)) {
                self.cache.clear(slot);
                ids.extend(self.prompts[sequence].iter().chain(&self.results[sequence].ids));
            } else {
                ids.push(last);
            }
            offsets.push(ids.len() as u32);
        }
        let last_rows: Vec<u32> = offsets[1..].iter().map(|end| end - 1).collect();
        let rows = active.iter().enumerate();
        let next = rows.map(|(row, &Active { sequence, slot, .. })| Next { sequence, slot, row });
        let next: Vec<Next> = next.collect();
        let drawn = self.forward(workspace, &ids, &offsets, &slots, &last_rows, &next)?;
        self.append(&next, &drawn, receiver);
        Ok(())
    }

    /// Appends tokens to slots and draws the next tokens from the logits of `rows`.
    fn forward(
        &mut self,
        workspace: &mut Workspace,
        ids: &[u32],
        offsets: &[u32],
        slots: &[usize],
        rows: &[u32],
        next: &[Next],
    ) -> Result<Vec<Drawn>, ModelError> {
        let mut tape = Tape::inference(self.params, workspace);
        let past = PastKeyValues::Cached { cache: &mut self.cache, slots };
        let hidden = self.model.hidden(&mut tape, ids, offsets, past)?;
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let logits = self.model.logits(&mut tape, hidden, rows)?;
        let draws = next.iter().map(|&Next { sequence, row, .. }| {
            let rng = &mut self.rngs[sequence];
            let uniform = if self.sampling.is_greedy() { 0.0 } else { uniform(rng) };
            Draw { row, uniform, seen: [&self.prompts[sequence], &self.results[sequence].ids] }
        });
        let draws: Vec<Draw<'_>> = draws.collect();
        tape.draw_tokens(logits, &self.sampling, &draws).ok_or(ModelError::NotFinite)
    }

    /// Appends the token that was drawn to each sequence, then keeps the sequence active or ends
    /// it.
    fn append(
        &mut self,
        next: &[Next],
        drawn: &[Drawn],
        receiver: &mut impl FnMut(usize, u32) -> ControlFlow<()>,
    ) {
        for (&Next { sequence, slot, .. }, &Drawn { id, logprob }) in next.iter().zip(drawn) {
            let result = &mut self.results[sequence];
            result.ids.push(id);
            result.logprobs.push(logprob);
            let ended_by_receiver = receiver(sequence, id).is_break();
            let full = result.ids.len() == self.max_new[sequence];
            result.stopped_by = if self.options.stop_ids.contains(&id) {
                StopReason::StopToken
            } else if full && result.ids.len() == self.options.max_new_tokens {
                StopReason::Length
            } else if full {
                StopReason::Context
            } else if ended_by_receiver {
                StopReason::Receiver
            } else {
                self.active.push(Active { sequence, slot, last: id });
                continue;
            };
            if self.cached_prefix.is_none() {
                self.cache.clear(slot);
            }
            self.free_slots.push(slot);
        }
    }
}
