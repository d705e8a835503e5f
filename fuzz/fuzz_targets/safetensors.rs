//! A `.safetensors` file: opened, and every tensor read.

#![no_main]

use crisol_hub::Tensors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let folder = crisol_fuzz::folder(&[("model.safetensors", data)]);
    let Ok(tensors) = Tensors::open(&folder.path().join("model.safetensors")) else { return };
    for name in tensors.names() {
        let shape = tensors.shape(name).expect("a listed tensor has a shape");
        if let Ok(values) = tensors.read(name, shape) {
            assert_eq!(values.len(), shape.iter().product::<usize>());
        }
    }
});
