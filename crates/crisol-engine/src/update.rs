//! What an optimizer's step is told.

/// Update rule of the hidden matrices; everything else uses AdamW.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpdateRule {
    /// AdamW.
    AdamW,
    /// Orthogonalised momentum. Takes AdamW's learning rates; costs a few GEMMs per matrix and
    /// step.
    Muon,
}

/// Hyper-parameters of one step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OptimizerConfig {
    /// Update rule of hidden matrices.
    pub rule: UpdateRule,
    /// Learning rate of this step.
    pub lr: f32,
    /// Factor on the learning rate of embeddings and heads, not on their weight decay.
    pub table_factor: f32,
    /// Decay of AdamW's first moment.
    pub beta1: f32,
    /// Decay of AdamW's second moment.
    pub beta2: f32,
    /// Added to AdamW's denominator.
    pub eps: f32,
    /// Decoupled weight decay, on matrices.
    pub weight_decay: f32,
    /// Gradients are first clipped to this global norm.
    pub max_grad_norm: Option<f32>,
}

/// Number format of an optimizer's moments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MomentFormat {
    /// Four bytes each.
    #[default]
    F32,
    /// Two bytes each.
    Bf16,
}
