//! The precision of matrix products.

/// In what precision a device multiplies matrices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Operands are f32.
    #[default]
    F32,
    /// Operands of matrix products are rounded to bf16, to the nearest, ties to even: in linear
    /// layers, experts, heads and attention, going forward and backward. Sums, softmax, norms,
    /// values, gradients, weights and moments stay f32, and so do the optimizer's own products,
    /// attention of a few new tokens over a cache, and quantised weights times a few rows.
    Bf16,
}

impl Precision {
    /// Its name in recipes and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Bf16 => "bf16",
        }
    }
}
