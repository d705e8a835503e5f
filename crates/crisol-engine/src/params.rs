//! Parameters of a model and their gradients, each one flat f32 allocation on the device.
//!
//! One allocation makes AdamW, the global norm, reduction over lanes and checkpoints single passes.

use crate::Device;

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All zeros.
    Zeros,
    /// All ones (norm weights).
    Ones,
    /// Normal with mean 0 and this standard deviation.
    Normal(f32),
}

/// Name, shape and treatment of one parameter.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamSpec {
    /// Name in the checkpoint (Hugging Face's).
    pub name: String,
    /// Shape, row-major, `[out, in]` for matrices.
    pub shape: Vec<usize>,
    /// Initial values.
    pub init: Init,
    /// Whether weight decay applies (matrices yes, norm weights no).
    pub decay: bool,
}

/// Index of a parameter within its [`Params`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(pub(crate) u32);

/// All parameters of one model on one device.
#[derive(Debug)]
pub struct Params {}

impl Params {
    /// Zero-filled parameters for `specs`. `ParamId`s are given in the order of `specs`.
    pub fn zeros(_device: &Device, _specs: Vec<ParamSpec>) -> Params {
        todo!()
    }
    /// Parameters initialised as their specs say; the same seed gives the same bits. Each parameter has
    /// its own random stream, so adding a parameter does not change the others.
    pub fn init(_device: &Device, _specs: Vec<ParamSpec>, _seed: u64) -> Params {
        todo!()
    }
    /// The device they are on.
    pub fn device(&self) -> &Device {
        todo!()
    }
    /// The specs, indexed by `ParamId` order.
    pub fn specs(&self) -> &[ParamSpec] {
        todo!()
    }
    /// All ids in order.
    pub fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (0..0).map(ParamId)
    }
    /// The id of the parameter called `name`.
    pub fn id(&self, _name: &str) -> Option<ParamId> {
        todo!()
    }
    /// Spec of one parameter.
    pub fn spec(&self, _id: ParamId) -> &ParamSpec {
        todo!()
    }
    /// Number of scalars over all parameters.
    pub fn count(&self) -> usize {
        todo!()
    }
    /// Copies one parameter to the host.
    pub fn read(&self, _id: ParamId) -> Vec<f32> {
        todo!()
    }
    /// Overwrites one parameter from the host; `values.len()` must be the parameter's size.
    pub fn write(&mut self, _id: ParamId, _values: &[f32]) {
        todo!()
    }
    /// A copy on the same device (e.g. a frozen reference policy).
    #[must_use]
    pub fn duplicate(&self) -> Params {
        todo!()
    }
}

/// Gradients of all parameters of one [`Params`].
#[derive(Debug)]
pub struct Grads {}

impl Grads {
    /// Zero gradients shaped like `params`.
    pub fn zeros_like(_params: &Params) -> Grads {
        todo!()
    }
    /// Sets every gradient to zero.
    pub fn zero(&mut self) {
        todo!()
    }
    /// Copies the gradient of one parameter to the host.
    pub fn read(&self, _id: ParamId) -> Vec<f32> {
        todo!()
    }
    /// Euclidean norm over all gradients, summed in f64 in a fixed order.
    pub fn norm(&self) -> f64 {
        todo!()
    }
    /// Adds `other` to self (gradient accumulation).
    pub fn add(&mut self, _other: &Grads) {
        todo!()
    }
}
