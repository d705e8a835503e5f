//! A model: its shape, the ids of its parameters and its forward pass on a tape.
//!
//! A [`Model`] holds no weights; it works with every [`Params`] made from its specs (the trained ones, a
//! frozen [`Params::duplicate`] as reference policy, …).

use std::ops::Range;

use crisol_engine::{Device, ParamId, ParamSpec, Params, Rope, RopeStyle, Tape, Var};

use crate::block::{Context, Pass, Specs, weight};
use crate::{Architecture, Config, Head, ModelError, llama, olmo2};

/// See the module's text.
#[derive(Debug)]
pub struct Model {
    config: Config,
    rope: Rope,
    embedding: ParamId,
    blocks: Blocks,
    final_norm: ParamId,
    /// `lm_head.weight`, the embedding table (tied) or `score.weight`.
    head: ParamId,
}

#[derive(Debug)]
enum Blocks {
    Llama(Vec<llama::Block>),
    Olmo2(Vec<olmo2::Block>),
}

impl Model {
    /// A model with fresh weights; the same seed gives the same bits.
    pub fn init(config: Config, device: &Device, seed: u64) -> Result<(Model, Params), ModelError> {
        config.validate()?;
        let params = Params::init(device, specs(&config), seed);
        Ok((Model::bind(config, &params), params))
    }

    /// A model whose weights are all zero, to be overwritten.
    pub(crate) fn zeros(config: Config, device: &Device) -> Result<(Model, Params), ModelError> {
        config.validate()?;
        let params = Params::zeros(device, specs(&config));
        Ok((Model::bind(config, &params), params))
    }

    /// A scalar-head model (reward, value) that starts from the trunk of this one. A language model's head
    /// is replaced by a fresh `score.weight`; a scalar model's is copied.
    pub fn scalar_from(&self, params: &Params, seed: u64) -> (Model, Params) {
        let config = Config { head: Head::Scalar, ..self.config.clone() };
        let mut new = Params::init(params.device(), specs(&config), seed);
        for id in new.ids() {
            if let Some(old) = params.id(&new.spec(id).name) {
                new.write(id, &params.read(old));
            }
        }
        (Model::bind(config, &new), new)
    }

    fn bind(config: Config, params: &Params) -> Model {
        let prefixes = (0..config.num_hidden_layers).map(layer_prefix);
        let blocks = match config.architecture {
            Architecture::Llama => Blocks::Llama(prefixes.map(|p| llama::Block::bind(params, &p)).collect()),
            Architecture::Olmo2 => Blocks::Olmo2(prefixes.map(|p| olmo2::Block::bind(params, &p)).collect()),
        };
        let embedding = weight(params, "model.", "embed_tokens");
        let head = match config.head {
            Head::Language { tied: true } => embedding,
            Head::Language { tied: false } => weight(params, "", "lm_head"),
            Head::Scalar => weight(params, "", "score"),
        };
        let frequencies = inverse_frequencies(config.rope_theta, config.head_dim);
        let positions = config.max_position_embeddings;
        let rope = Rope::new(params.device(), &frequencies, positions, RopeStyle::Halves);
        Model { rope, embedding, blocks, final_norm: weight(params, "model.", "norm"), head, config }
    }

    /// The shape.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Final-normed hidden states `[ids.len(), hidden_size]` of the documents
    /// `ids[offsets[i]..offsets[i+1]]`, which do not see one another. Positions count from each document's
    /// start, or on from what its cache slot holds.
    pub fn hidden(
        &self,
        tape: &mut Tape<'_>,
        ids: &[u32],
        offsets: &[u32],
        context: Context<'_>,
    ) -> Result<Var, ModelError> {
        self.check_ids(ids)?;
        let positions = self.positions(offsets, &context)?;
        assert_eq!(positions.len(), ids.len(), "offsets must cover all ids");
        let mut pass =
            Pass { config: &self.config, rope: &self.rope, offsets, positions: &positions, context };
        let mut x = tape.embedding(self.embedding, ids);
        for layer in 0..self.config.num_hidden_layers {
            x = match &self.blocks {
                Blocks::Llama(blocks) => blocks[layer].forward(tape, &mut pass, layer, x),
                Blocks::Olmo2(blocks) => blocks[layer].forward(tape, &mut pass, layer, x),
            };
            tape.keep_only(x);
        }
        Ok(tape.rms_norm(x, self.final_norm, self.config.rms_norm_eps))
    }

    /// Log-probability of `targets[i]` after row `rows[i]` of the hidden states, and (if asked for, else
    /// zeros) the entropy of that distribution, as two values `[rows.len(), 1]`. `logit_scale` is
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
        Ok(tape.token_scores(x, self.head, targets, logit_scale, entropy))
    }

    /// The scalar head's number for each of `rows` of the hidden states: `[rows.len(), 1]`.
    pub fn scalar(&self, tape: &mut Tape<'_>, hidden: Var, rows: &[u32]) -> Result<Var, ModelError> {
        if self.config.head != Head::Scalar {
            return Err(ModelError::WrongHead {
                has: "a language head",
                needs: "a scalar head (reward or value model)",
            });
        }
        let x = tape.select_rows(hidden, rows);
        Ok(tape.linear(x, self.head, None))
    }

    /// Inference only: whole logits `[rows.len(), vocab_size]` for `rows` of the hidden states.
    pub fn logits(&self, tape: &mut Tape<'_>, hidden: Var, rows: &[u32]) -> Result<Var, ModelError> {
        self.needs_language_head()?;
        let x = tape.select_rows(hidden, rows);
        Ok(tape.logits(x, self.head))
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

    fn positions(&self, offsets: &[u32], context: &Context<'_>) -> Result<Vec<u32>, ModelError> {
        let limit = self.config.max_position_embeddings;
        let mut positions = Vec::with_capacity(offsets.last().map_or(0, |&end| end as usize));
        for (document, bounds) in offsets.windows(2).enumerate() {
            let start = match context {
                Context::Full => 0,
                Context::Cached { cache, slots } => cache.len(slots[document]),
            };
            let new: Range<usize> = start..start + (bounds[1] - bounds[0]) as usize;
            if new.end > limit {
                return Err(ModelError::TooLong { length: new.end, limit });
            }
            positions.extend(new.map(|position| position as u32));
        }
        Ok(positions)
    }
}

/// Names, shapes and initial values of a model's parameters, in the order of its forward pass.
pub(crate) fn specs(config: &Config) -> Vec<ParamSpec> {
    let mut all = Specs::new(String::new(), None);
    all.table("model.embed_tokens", config.vocab_size, config.hidden_size);
    for layer in 0..config.num_hidden_layers {
        let prefix = layer_prefix(layer);
        all.list.extend(match config.architecture {
            Architecture::Llama => llama::Block::specs(config, prefix),
            Architecture::Olmo2 => olmo2::Block::specs(config, prefix),
        });
    }
    all.norm("model.norm", config.hidden_size);
    match config.head {
        Head::Language { tied: true } => {}
        Head::Language { tied: false } => all.table("lm_head", config.vocab_size, config.hidden_size),
        Head::Scalar => all.table("score", 1, config.hidden_size),
    }
    all.list
}

fn layer_prefix(layer: usize) -> String {
    format!("model.layers.{layer}.")
}

/// `theta^(-2i/dim)` for every pair (Su et al. 2021, arXiv:2104.09864), in f32 steps as transformers
/// computes them.
fn inverse_frequencies(theta: f64, dim: usize) -> Vec<f32> {
    (0..dim).step_by(2).map(|i| 1.0 / (theta as f32).powf(i as f32 / dim as f32)).collect()
}
