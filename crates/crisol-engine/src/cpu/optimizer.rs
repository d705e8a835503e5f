//! One AdamW update over a slice of parameters.

use super::math::vectorised;

/// Factors of an update that all parameters share.
#[derive(Clone, Copy)]
pub(crate) struct AdamWStep {
    /// Factor on the gradient.
    pub(crate) clip: f32,
    pub(crate) beta1: f32,
    pub(crate) beta2: f32,
    pub(crate) eps: f32,
    /// Learning rate over the first moment's bias correction.
    pub(crate) step_size: f32,
    /// Square root of the second moment's bias correction.
    pub(crate) second_correction: f32,
}

vectorised! {
    /// Updates parameters and moments; `keep` is `1 - lr · weight_decay`.
    pub(crate) fn adamw<'a, S>(
        p: &'a mut [f32],
        m: &'a mut [f32],
        v: &'a mut [f32],
        g: &'a [f32],
        keep: f32,
        step: AdamWStep,
    ) {
        let AdamWStep { clip, beta1, beta2, eps, step_size, second_correction } = step;
        for (((p, m), v), g) in p.iter_mut().zip(m).zip(v).zip(g) {
            let g = g * clip;
            *m += (1.0 - beta1) * (g - *m);
            *v = *v * beta2 + (1.0 - beta2) * g * g;
            let denominator = v.sqrt() / second_correction + eps;
            *p = *p * keep - step_size * (*m / denominator);
        }
    }
}
