//! What `--resume` reads of a model in training: its weights, or (even first byte) the optimizer's
//! moments and step. The byte's second bit chooses the format of the moments.

#![no_main]

use crisol_engine::{Device, MomentFormat};
use crisol_model::{Architecture, Config, Model};
use crisol_train::{Trainer, TrainerOptions, load_trainer, save_trainer};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&which, file)) = data.split_first() else { return };
    let config = Config::new(Architecture::Llama, 8, 4, 1, 2, 4);
    let (model, params) = Model::init(config, &Device::cpu(Some(1)), 1).expect("a possible shape");
    let moments = if which & 2 == 0 { MomentFormat::F32 } else { MomentFormat::Bf16 };
    let options = TrainerOptions { moments, ..TrainerOptions::default() };
    let mut trainer = Trainer::new(model, params, options);
    let folder = crisol_fuzz::folder(&[]);
    save_trainer(folder.path(), "policy", &trainer).expect("the folder can be written");
    let name = if which % 2 == 0 { "policy.optimizer.safetensors" } else { "policy.safetensors" };
    std::fs::write(folder.path().join(name), file).expect("a file in the temporary folder");
    if load_trainer(folder.path(), "policy", &mut trainer).is_ok() {
        let steps = trainer.optimizer.steps();
        save_trainer(folder.path(), "policy", &trainer).expect("the folder can be written");
        load_trainer(folder.path(), "policy", &mut trainer).expect("what is saved is loaded");
        assert_eq!(trainer.optimizer.steps(), steps);
    }
});
