//! Data-parallel training on one device: a step's batch is cut into shards, shards are dealt to a fixed
//! number of lanes, and every lane adds its shards' gradients into its own copy, in order.
//!
//! The number of lanes depends on the size of the parameters only (bounded memory), never on the number
//! of threads; the reduction over lanes has a fixed order. So 1 thread and 16 give the same bits.

use crate::{Grads, Params, Workspace};

/// Workspaces and gradient copies for data-parallel steps.
#[derive(Debug)]
pub struct Lanes {}

impl Lanes {
    /// Lanes for models of the size of `params`.
    pub fn new(_params: &Params) -> Lanes {
        todo!()
    }

    /// Zeroes all lanes, runs `f(shard, workspace, grads)` for every shard in `0..shards` (in parallel over lanes,
    /// in order within a lane) and returns the summed gradients and the results in shard order.
    /// The first error in shard order is returned if any shard fails.
    pub fn run<T: Send, E: Send>(
        &mut self,
        _shards: usize,
        _f: impl Fn(usize, &mut Workspace, &mut Grads) -> Result<T, E> + Sync,
    ) -> Result<(&mut Grads, Vec<T>), E> {
        todo!()
    }
}
