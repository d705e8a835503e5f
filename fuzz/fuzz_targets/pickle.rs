//! A `pytorch_model.bin`: its zip and pickle read, and every tensor. First byte: whether the rest
//! is a whole file, or a pickle that is put into a zip, with a storage of 256 bytes beside it.

#![no_main]

use crisol_hub::Tensors;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((&which, file)) = data.split_first() else { return };
    let zipped;
    let file = if which % 2 == 0 {
        file
    } else {
        let storage: Vec<u8> = (0..=u8::MAX).collect();
        zipped = crisol_fuzz::zip(&[
            ("m/data.pkl", file),
            ("m/data/0", &storage),
            ("m/data/1", &storage),
        ]);
        &zipped
    };
    let folder = crisol_fuzz::folder(&[("pytorch_model.bin", file)]);
    let Ok(tensors) = Tensors::open_folder(folder.path()) else { return };
    for name in tensors.names() {
        let shape = tensors.shape(name).expect("a listed tensor has a shape");
        if let Ok(values) = tensors.read(name, shape) {
            assert_eq!(values.len(), shape.iter().product::<usize>());
        }
        if let Ok(Some(elements)) = tensors.mapped(name, shape) {
            assert_eq!(tensors.dtype_and_bytes(name).map(|(_, bytes)| bytes), Some(elements.bytes.len()));
        }
    }
});
