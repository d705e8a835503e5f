//! One optimizer step over a batch of packed documents, for any objective.

use crisol_engine::{MomentFormat, Optimizer, OptimizerConfig, Params, Replicas, Tape, Var};
use crisol_model::{Model, PastKeyValues};
use crisol_objectives::{LossAndGrad, TokenScores};
use crisol_text::Packed;

use crate::TrainError;

/// Model output that the objective reads.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Output {
    /// Log-probabilities of the targets.
    TokenScores {
        /// 1 / temperature.
        logit_scale: f32,
        /// Whether to compute entropies.
        entropy: bool,
    },
    /// The scalar head's value at every trained row.
    Scalar,
}

/// Result of a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Step<S> {
    /// Loss of the whole batch.
    pub loss: f64,
    /// Norm of the gradient before clipping.
    pub grad_norm: f64,
    /// The objective's statistics, summed over shards.
    pub stats: S,
}

/// What a trainer keeps in memory. The default keeps everything, in f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrainerOptions {
    /// Keep the inputs of blocks only; backward computes the blocks again, to the same bits.
    pub recompute_blocks: bool,
    /// Number format of the optimizer's moments.
    pub moments: MomentFormat,
}

/// A model, its weights and its optimizer.
#[derive(Debug)]
pub struct Trainer {
    /// The architecture.
    pub model: Model,
    /// The weights.
    pub params: Params,
    /// The optimizer's moments.
    pub optimizer: Optimizer,
    replicas: Replicas,
    recompute_blocks: bool,
}

impl Trainer {
    /// A trainer of these weights with a fresh optimizer.
    pub fn new(model: Model, params: Params, options: TrainerOptions) -> Trainer {
        let TrainerOptions { recompute_blocks, moments } = options;
        let optimizer = Optimizer::new(&params, moments);
        let replicas = Replicas::new(&params);
        Trainer { model, params, optimizer, replicas, recompute_blocks }
    }

    /// One step over a batch that is split into `shards`. `objective(shard index, scores)` returns
    /// the shard's loss and gradient. Losses and statistics add up over shards, so it must divide
    /// by the normaliser of the whole batch.
    ///
    /// A stop request aborts the step with [`TrainError::Stopped`]; nothing has changed then.
    ///
    pub fn step<S: Default + std::ops::AddAssign + Send>(
        &mut self,
        shards: &[Packed],
        output: Output,
        config: &OptimizerConfig,
        objective: impl Fn(usize, &TokenScores<'_>) -> LossAndGrad<S> + Sync,
    ) -> Result<Step<S>, TrainError> {
        self.step_with(shards, |_| output, config, objective)
    }

    /// As [`Self::step`], with an output chosen by shard index.
    pub fn step_with<S: Default + std::ops::AddAssign + Send>(
        &mut self,
        shards: &[Packed],
        output: impl Fn(usize) -> Output + Sync,
        config: &OptimizerConfig,
        objective: impl Fn(usize, &TokenScores<'_>) -> LossAndGrad<S> + Sync,
    ) -> Result<Step<S>, TrainError> {
        let step = self.optimizer.steps() + 1;
        if shards.iter().all(|shard| shard.rows.is_empty()) {
            return Err(TrainError::NothingToTrain { step });
        }
        let Trainer { model, params, optimizer, replicas, recompute_blocks } = self;
        let weights = &*params;
        let (grads, parts) =
            replicas.run(shards.len(), |i, workspace, grads| -> Result<_, TrainError> {
                let shard = &shards[i];
                check_stop(weights)?;
                let new_tape = if *recompute_blocks { Tape::recomputing } else { Tape::training };
                let mut tape = new_tape(weights, workspace);
                tape.set_dropout_key(step << 32 | i as u64);
                let outputs = forward(model, &mut tape, shard, output(i))?;
                let result = with_scores(&tape, outputs, shard, |scores| objective(i, scores));
                match outputs {
                    Outputs::Tokens(logp, _) if result.dentropy.is_empty() => {
                        tape.backward(&[(logp, &result.dlogp)], grads);
                    }
                    Outputs::Tokens(logp, entropy) => {
                        tape.backward(&[(logp, &result.dlogp), (entropy, &result.dentropy)], grads);
                    }
                    Outputs::Scalar(value) => tape.backward(&[(value, &result.dvalue)], grads),
                }
                // A backward pass that returned early left half a gradient.
                check_stop(weights)?;
                Ok((result.loss, result.stats))
            })?;
        let mut loss = 0.0;
        let mut stats = S::default();
        let mut broken = None;
        for (i, (part, part_stats)) in parts.into_iter().enumerate() {
            if !part.is_finite() {
                broken.get_or_insert(i);
            }
            loss += part;
            stats += part_stats;
        }
        let diverged = |grad_norm, diagnosis| TrainError::Diverged {
            step,
            loss,
            grad_norm,
            lr: f64::from(config.lr),
            diagnosis,
        };
        if let Some(i) = broken {
            let diagnosis = format!(
                "The first of the batch's {} shards with such a loss is number {} \
                 ({} documents, {} tokens).",
                shards.len(),
                i + 1,
                shards[i].offsets.len() - 1,
                shards[i].ids.len()
            );
            return Err(diverged(grads.norm(), diagnosis));
        }
        let grad_norm = optimizer.step(params, grads, config);
        if !grad_norm.is_finite() {
            return Err(diverged(
                grad_norm,
                "The loss itself is finite; the gradient overflowed.".into(),
            ));
        }
        Ok(Step { loss, grad_norm, stats })
    }
}

/// Fails if a stop was requested.
fn check_stop(params: &Params) -> Result<(), TrainError> {
    if params.device().interrupt().requested() { Err(TrainError::Stopped) } else { Ok(()) }
}

/// Evaluates a batch without training: `read(shard, scores)` for every shard, in order.
pub fn evaluate<T: Send>(
    model: &Model,
    params: &Params,
    shards: &[Packed],
    output: Output,
    read: impl Fn(usize, &TokenScores<'_>) -> T + Sync,
) -> Result<Vec<T>, TrainError> {
    let parts = params.device().map(shards.len(), |i, workspace| -> Result<T, TrainError> {
        let mut tape = Tape::inference(params, workspace);
        let outputs = forward(model, &mut tape, &shards[i], output)?;
        Ok(with_scores(&tape, outputs, &shards[i], |scores| read(i, scores)))
    });
    // After a stop the scores are incomplete.
    check_stop(params)?;
    parts.into_iter().collect()
}

#[derive(Clone, Copy)]
enum Outputs {
    /// Log-probs and entropies.
    Tokens(Var, Var),
    Scalar(Var),
}

fn forward(
    model: &Model,
    tape: &mut Tape<'_>,
    shard: &Packed,
    output: Output,
) -> Result<Outputs, TrainError> {
    let hidden = model.hidden(tape, &shard.ids, &shard.offsets, PastKeyValues::None)?;
    Ok(match output {
        Output::TokenScores { logit_scale, entropy } => {
            let (logp, entropy) = model.token_scores(
                tape,
                hidden,
                &shard.rows,
                &shard.targets,
                logit_scale,
                entropy,
            )?;
            Outputs::Tokens(logp, entropy)
        }
        Output::Scalar => Outputs::Scalar(model.scalar(tape, hidden, &shard.rows)?),
    })
}

fn with_scores<T>(
    tape: &Tape<'_>,
    outputs: Outputs,
    shard: &Packed,
    f: impl FnOnce(&TokenScores<'_>) -> T,
) -> T {
    let offsets = &shard.row_offsets;
    match outputs {
        Outputs::Tokens(logp, entropy) => f(&TokenScores {
            logp: &tape.read(logp),
            entropy: &tape.read(entropy),
            value: &[],
            offsets,
        }),
        Outputs::Scalar(value) => {
            f(&TokenScores { logp: &[], entropy: &[], value: &tape.read(value), offsets })
        }
    }
}
