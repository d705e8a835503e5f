//! The forward pass of a model.
//!
//! A [`Model`] has the shape and the parameter ids, but no weights. It runs with any [`Params`]
//! made from its specs: the trained ones, a frozen [`Params::duplicate`] as reference policy, …

use std::ops::Range;
use std::sync::Arc;

use crisol_engine::{Device, ParamId, ParamSpec, Params, Rope, Tape, Var};

use crate::block::{Block, Norm, Pass, PastKeyValues, Specs, weight};
use crate::rope::RopeScaling;
use crate::{Config, Head, ModelError, adapter};

/// A model without weights: its config, the ids of its parameters and its RoPE tables.
#[derive(Debug)]
pub struct Model {
    config: Arc<Config>,
    rope: Rope,
    local_rope: Option<Rope>,
    embedding: ParamId,
    positions: Option<ParamId>,
    blocks: Vec<Arc<dyn Block>>,
    final_norm: Norm,
    /// `lm_head.weight`, the embedding table (tied) or `score.weight`.
    head: ParamId,
}

impl Model {
    /// A model with newly initialised weights; equal seeds give equal bits.
    pub fn init(config: Config, device: &Device, seed: u64) -> Result<(Model, Params), ModelError> {
        config.validate()?;
        let params = Params::init(device, specs(&config), seed);
        Ok((Model::bind(config, &params), params))
    }

    /// A reward or value model that starts from the trunk of this model. A language head is
    /// replaced by a new `score.weight`; a scalar head is copied.
    /// Over a frozen base, the trunk is the same base, with a copy of the adapters.
    pub fn scalar_from(&self, params: &Params, seed: u64) -> (Model, Params) {
        let config = Config { head: Head::Scalar, ..Config::clone(&self.config) };
        let mut new = match params.base() {
            None => Params::init(params.device(), specs(&config), seed),
            Some(base) => adapter::scalar_over(base, params, &config, seed),
        };
        for id in new.ids() {
            if let Some(old) = params.id(&new.spec(id).name) {
                new.write(id, &params.read(old));
            }
        }
        (Model::bind(config, &new), new)
    }

    /// Binds a model to parameters made from its specs.
    pub(crate) fn bind(config: Config, params: &Params) -> Model {
        let family = config.family();
        let names = family.outer_names();
        let blocks = (0..config.num_hidden_layers)
            .map(|layer| family.bind(&config, params, layer, &names.layer(layer)))
            .collect();
        let embedding = weight(params, "", names.embedding);
        let head = match config.head {
            Head::Language { tied: true } => embedding,
            Head::Language { tied: false } => weight(params, "", "lm_head"),
            Head::Scalar => weight(params, "", "score"),
        };
        // Of documents that are not stretched.
        let frequencies = frequencies(&config, 0);
        let amplitude = config.rope_scaling.amplitude();
        let rope = Rope::new(&frequencies, amplitude, family.rope_style());
        let local_rope = family.local_rope_theta(&config).map(|theta| {
            let (dim, max) = (family.rotated(&config), config.max_position_embeddings);
            let frequencies = RopeScaling::None.inverse_frequencies(theta, dim, max, max);
            Rope::new(&frequencies, 1.0, family.rope_style())
        });
        Model {
            rope,
            local_rope,
            embedding,
            positions: names.positions.map(|name| weight(params, "", name)),
            blocks,
            final_norm: Norm::bind(&config, params, "", names.norm),
            head,
            config: Arc::new(config),
        }
    }

    /// The shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Parameter bytes that a forward pass of one token reads; `None` for mixtures of experts.
    pub fn bytes_per_token(&self, params: &Params) -> Option<usize> {
        let chosen = params.all_ids().any(|id| params.spec(id).name.contains(".experts."));
        // Of tables that are not the head only one row is read.
        let read =
            |id: &ParamId| *id == self.head || *id != self.embedding && Some(*id) != self.positions;
        (!chosen).then(|| params.all_ids().filter(read).map(|id| params.bytes(id)).sum())
    }

    /// Hidden states after the final norm, `[ids.len(), hidden_size]`, of independent documents
    /// `ids[offsets[i]..offsets[i + 1]]`. Positions start at 0 in each document, or continue its
    /// cache slot. Errors: [`ModelError::Stopped`] if the device is interrupted.
    pub fn hidden(
        &self,
        tape: &mut Tape<'_>,
        ids: &[u32],
        offsets: &[u32],
        past: PastKeyValues<'_>,
    ) -> Result<Var, ModelError> {
        self.check_ids(ids)?;
        let documents = self.document_positions(offsets, &past)?;
        let positions: Arc<[u32]> = documents.iter().cloned().flatten().collect();
        assert_eq!(positions.len(), ids.len(), "offsets must cover all ids");
        let own_rope = self.document_rope(&documents);
        let (rope, rope_rows) =
            own_rope.unwrap_or_else(|| (self.rope.clone(), Arc::clone(&positions)));
        let config = Arc::clone(&self.config);
        let mut x = tape.embedding(self.embedding, ids);
        if let Some(factor) = config.family().embedding_scale(&config) {
            x = tape.scale(x, factor);
        }
        if let Some(table) = self.positions {
            let position = tape.embedding(table, &positions);
            x = tape.add(x, position);
        }
        let (local_rope, offsets) = (self.local_rope.clone(), offsets.into());
        let mut pass = Pass { config, rope, local_rope, offsets, positions, rope_rows, past };
        for (layer, block) in self.blocks.iter().enumerate() {
            x = if tape.recomputes() {
                let (block, inputs) = (Arc::clone(block), pass.without_past());
                tape.segment(x, move |tape, x| {
                    block.forward(tape, &mut inputs.without_past(), layer, x)
                })
            } else {
                block.forward(tape, &mut pass, layer, x)
            };
            tape.keep_only(x);
            x = unless_stopped(tape, x)?;
        }
        Ok(self.final_norm.forward(tape, &self.config, x))
    }

    /// Log-probability of `targets[i]` given row `rows[i]` of the hidden states, and the entropy of
    /// that distribution (zeros unless `entropy`). Both are `[rows.len(), 1]`; `logit_scale` is
    /// 1/temperature.
    pub fn token_scores(
        &self,
        tape: &mut Tape<'_>,
        hidden: Var,
        rows: &[u32],
        targets: &[u32],
        logit_scale: f32,
        entropy: bool,
    ) -> Result<(Var, Var), ModelError> {
        self.needs_language_head()?;
        self.check_ids(targets)?;
        let x = tape.select_rows(hidden, rows);
        let family = self.config.family();
        let scale = logit_scale * family.logit_scale().unwrap_or(1.0);
        let cap = family.logit_cap();
        let scores = tape.token_scores(x, self.head, targets, scale, cap, entropy);
        unless_stopped(tape, scores)
    }

    /// The scalar head's output for `rows` of the hidden states, `[rows.len(), 1]`.
    pub fn scalar(
        &self,
        tape: &mut Tape<'_>,
        hidden: Var,
        rows: &[u32],
    ) -> Result<Var, ModelError> {
        if self.config.head != Head::Scalar {
            return Err(ModelError::WrongHead {
                has: "a language head",
                needs: "a scalar head (reward or value model)",
            });
        }
        let x = tape.select_rows(hidden, rows);
        let value = tape.linear(x, self.head, None);
        unless_stopped(tape, value)
    }

    /// Logits `[rows.len(), vocab_size]` for `rows` of the hidden states; inference only.
    pub fn logits(
        &self,
        tape: &mut Tape<'_>,
        hidden: Var,
        rows: &[u32],
    ) -> Result<Var, ModelError> {
        self.needs_language_head()?;
        let x = tape.select_rows(hidden, rows);
        let mut logits = tape.logits(x, self.head);
        let family = self.config.family();
        if let Some(cap) = family.logit_cap() {
            logits = tape.softcap(logits, cap);
        }
        if let Some(factor) = family.logit_scale() {
            logits = tape.scale(logits, factor);
        }
        unless_stopped(tape, logits)
    }

    pub(crate) fn needs_language_head(&self) -> Result<(), ModelError> {
        match self.config.head {
            Head::Language { .. } => Ok(()),
            Head::Scalar => Err(ModelError::WrongHead {
                has: "a scalar head (reward or value model)",
                needs: "a language head",
            }),
        }
    }

    fn check_ids(&self, ids: &[u32]) -> Result<(), ModelError> {
        let vocab = self.config.vocab_size;
        match ids.iter().find(|&&id| id as usize >= vocab) {
            None => Ok(()),
            Some(&id) => Err(ModelError::UnknownToken { id, vocab }),
        }
    }

    /// The range of positions of every document.
    fn document_positions(
        &self,
        offsets: &[u32],
        past: &PastKeyValues<'_>,
    ) -> Result<Vec<Range<u32>>, ModelError> {
        let limit = self.config.max_document_len();
        let positions = |(document, bounds): (usize, &[u32])| {
            let start = match past {
                PastKeyValues::None => 0,
                PastKeyValues::Cached { cache, slots } => cache.len(slots[document]),
            };
            let end = start + (bounds[1] - bounds[0]) as usize;
            if end > limit {
                return Err(ModelError::TooLong { length: end, limit });
            }
            Ok(start as u32..end as u32)
        };
        offsets.windows(2).enumerate().map(positions).collect()
    }

    /// For documents so long that the scaling is another: RoPE tables of these documents alone, and
    /// the table row of every row. The frequencies depend on each document's length.
    fn document_rope(&self, documents: &[Range<u32>]) -> Option<(Rope, Arc<[u32]>)> {
        let limit =
            self.config.rope_scaling.stretches_beyond(self.config.max_position_embeddings)?;
        let stretched = |document: &Range<u32>| document.end as usize > limit;
        if !documents.iter().any(stretched) {
            return None;
        }
        let frequencies: Vec<Vec<f32>> = documents
            .iter()
            .map(|document| frequencies(&self.config, document.end as usize))
            .collect();
        let rows = documents.iter().zip(&frequencies).flat_map(|(document, frequencies)| {
            document.clone().map(move |position| (position, frequencies.as_slice()))
        });
        let (amplitude, style) =
            (self.config.rope_scaling.amplitude(), self.config.family().rope_style());
        let rope = Rope::from_rows(rows, amplitude, style);
        let rows = documents.iter().map(|document| document.len() as u32).sum();
        Some((rope, (0..rows).collect()))
    }
}

/// Errors if the device was interrupted, since interrupted operations leave partial results.
fn unless_stopped<T>(tape: &Tape<'_>, result: T) -> Result<T, ModelError> {
    if tape.params().device().interrupt().requested() {
        Err(ModelError::Stopped)
    } else {
        Ok(result)
    }
}

/// Inverse RoPE frequencies for a document of `length` tokens.
fn frequencies(config: &Config, length: usize) -> Vec<f32> {
    let max = config.max_position_embeddings;
    let dim = config.family().rotated(config);
    config.rope_scaling.inverse_frequencies(config.rope_theta, dim, max, length)
}

/// Names, shapes and initialisers of a model's parameters, in the order of its forward pass.
pub(crate) fn specs(config: &Config) -> Vec<ParamSpec> {
    let (family, mut all) = (config.family(), Specs::new(String::new(), None));
    let names = family.outer_names();
    all.table(names.embedding, config.vocab_size, config.hidden_size);
    if let Some(positions) = names.positions {
        all.table(positions, config.max_position_embeddings, config.hidden_size);
    }
    for layer in 0..config.num_hidden_layers {
        all.list.extend(block_specs(config, layer));
    }
    all.norm_of(family.norm(), names.norm, config.hidden_size);
    match config.head {
        Head::Language { tied: true } => {}
        Head::Language { tied: false } => {
            all.table("lm_head", config.vocab_size, config.hidden_size);
        }
        Head::Scalar => all.table("score", 1, config.hidden_size),
    }
    all.list
}

/// The specs of one block.
pub(crate) fn block_specs(config: &Config, layer: usize) -> Vec<ParamSpec> {
    let family = config.family();
    family.specs(config, layer, family.outer_names().layer(layer))
}
