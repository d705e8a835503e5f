//! Weights and optimizer moments on disk, bit for bit, as safetensors. The caller replaces the
//! folder atomically.

use std::borrow::Cow;
use std::path::Path;

use crisol_engine::{MomentFormat, Params};
use crisol_hub::{FloatType, HubError, Tensor, Tensors, by_rows, whole, write_tensors};
use crisol_model::read_by_rows;

use crate::{TrainError, Trainer};

/// Writes weights as `folder/name.safetensors`.
pub fn save_params(folder: &Path, name: &str, params: &Params) -> Result<(), TrainError> {
    let tensors: Vec<Tensor<'_>> = params
        .ids()
        .map(|id| Tensor {
            name: params.spec(id).name.clone(),
            shape: params.spec(id).shape.clone(),
            dtype: FloatType::F32,
            values: read_by_rows(params, id),
        })
        .collect();
    Ok(write_tensors(&file(folder, name), &tensors)?)
}

/// Restores the weights of [`save_params`].
pub fn load_params(folder: &Path, name: &str, params: &mut Params) -> Result<(), TrainError> {
    let tensors = Tensors::open(&file(folder, name))?;
    for id in params.ids() {
        let spec = params.spec(id).clone();
        params.write(id, &tensors.read(&spec.name, &spec.shape)?);
    }
    Ok(())
}

/// One of a parameter's two moments.
type MomentOf = fn((Vec<f32>, Vec<f32>)) -> Vec<f32>;

/// Writes a trainer's weights, moments and number of steps.
pub fn save_trainer(folder: &Path, name: &str, trainer: &Trainer) -> Result<(), TrainError> {
    save_params(folder, name, &trainer.params)?;
    let (params, optimizer) = (&trainer.params, &trainer.optimizer);
    let dtype = match optimizer.format() {
        MomentFormat::F32 => FloatType::F32,
        MomentFormat::Bf16 => FloatType::BF16,
    };
    let mut tensors: Vec<Tensor<'_>> = Vec::new();
    for id in params.ids() {
        let spec = params.spec(id);
        let mut moment = |name: &str, read: MomentOf| {
            let values = by_rows(spec.rows(), spec.row_len(), move |rows| {
                read(optimizer.read_rows(id, rows))
            });
            let name = format!("{}{name}", spec.name);
            tensors.push(Tensor { name, shape: spec.shape.clone(), dtype, values });
        };
        moment(FIRST, |(first, _)| first);
        moment(SECOND, |(_, second)| second);
    }
    // Two 24-bit halves are exact in f32.
    let steps = optimizer.steps();
    tensors.push(Tensor {
        name: STEPS.into(),
        shape: vec![2],
        dtype: FloatType::F32,
        values: whole(move || {
            Ok(Cow::Owned(vec![(steps >> 24) as f32, (steps & 0xff_ffff) as f32]))
        }),
    });
    Ok(write_tensors(&file(folder, &moments(name)), &tensors)?)
}

/// Restores the state of [`save_trainer`].
pub fn load_trainer(folder: &Path, name: &str, trainer: &mut Trainer) -> Result<(), TrainError> {
    load_params(folder, name, &mut trainer.params)?;
    let tensors = Tensors::open(&file(folder, &moments(name)))?;
    for id in trainer.params.ids() {
        let spec = trainer.params.spec(id);
        let first = tensors.read(&format!("{}{FIRST}", spec.name), &spec.shape)?;
        let second = tensors.read(&format!("{}{SECOND}", spec.name), &spec.shape)?;
        trainer.optimizer.write(id, &first, &second);
    }
    let mut steps = 0;
    for half in tensors.read(STEPS, &[2])? {
        if !(0.0..HALF).contains(&half) || half.fract() != 0.0 {
            let cause =
                format!("its `{STEPS}` holds {half}, which is no part of a number of steps");
            return Err(HubError::Damaged { file: file(folder, &moments(name)), cause }.into());
        }
        steps = steps << 24 | half as u64;
    }
    trainer.optimizer.set_steps(steps);
    Ok(())
}

const FIRST: &str = ".first_moment";
const SECOND: &str = ".second_moment";
const STEPS: &str = "optimizer.steps";
/// Integers below 2^24 are exact in f32.
const HALF: f32 = 16_777_216.0;

fn file(folder: &Path, name: &str) -> std::path::PathBuf {
    folder.join(format!("{name}.safetensors"))
}

fn moments(name: &str) -> String {
    format!("{name}.optimizer")
}
