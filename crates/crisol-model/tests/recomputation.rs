//! Blocks that backward computes again give the gradients of blocks whose activations were kept,
//! bit for bit, in every architecture.

mod common;

use crisol_engine::{Device, Grads, Params, Tape, Workspace};
use crisol_model::{AdapterConfig, Architecture, Checkpoint, Head, Model, PastKeyValues};

use common::{VOCAB, config, text};

/// Bits of all gradients of a sum of log-probabilities.
fn gradients(model: &Model, params: &Params, recompute: bool) -> Vec<u32> {
    let ids: Vec<u32> = (0..23).map(|i| i * 37 % VOCAB as u32).collect();
    let offsets = [0, 9, 10, 23];
    let rows: Vec<u32> = (0..22).collect();
    let mut workspace = Workspace::new(params.device());
    let new_tape = if recompute { Tape::recomputing } else { Tape::training };
    let mut tape = new_tape(params, &mut workspace);
    let hidden = model.hidden(&mut tape, &ids, &offsets, PastKeyValues::None).unwrap();
    let (logp, _) = model.token_scores(&mut tape, hidden, &rows, &ids[1..], 1.0, false).unwrap();
    let mut grads = Grads::zeros_like(params);
    tape.backward(&[(logp, &[-0.1; 22])], &mut grads);
    params.ids().flat_map(|id| grads.read(id)).map(f32::to_bits).collect()
}

#[test]
fn gradients_are_those_of_kept_activations() {
    let head = Head::Language { tied: true };
    for architecture in Architecture::ALL {
        let device = Device::cpu(Some(1));
        let (model, params) = Model::init(config(architecture, head), &device, 5).unwrap();
        let kept = gradients(&model, &params, false);
        assert!(kept.iter().any(|&bits| bits << 1 != 0), "{architecture:?}: no gradient");
        assert!(gradients(&model, &params, true) == kept, "{architecture:?}");
    }
}

#[test]
fn gradients_of_adapters_are_too() {
    let device = Device::cpu(Some(1));
    let config = config(Architecture::DeepseekV3, Head::Language { tied: true });
    let (model, params) = Model::init(config, &device, 5).unwrap();
    let base = Checkpoint { model, params, text: text() };
    let folder = tempfile::tempdir().unwrap();
    let adapter = AdapterConfig { rank: 2, ..AdapterConfig::default() };
    let adapted = base.adapt(folder.path(), adapter, 3).unwrap();
    let kept = gradients(&adapted.model, &adapted.params, false);
    assert!(kept.iter().any(|&bits| bits << 1 != 0), "no gradient");
    assert!(gradients(&adapted.model, &adapted.params, true) == kept);
}
