//! Model files: validated reading of weights, and atomic writing.
//!
//! - [`Tensors`]: weights in safetensors or PyTorch files, memory-mapped, one file or sharded.
//! - [`Gguf`]: the same for llama.cpp's files, including quantised tensors.
//! - [`write_weights`], [`write_tensors`], [`write_gguf`]: safetensors and GGUF files.
//! - [`write_folder_atomically`], [`write_file_atomically`]: replace a folder or file in one step.
//!
//! Input files are untrusted. Reading returns the data or a [`HubError`] that names file, place,
//! cause and remedy.

mod atomic;
mod decode;
mod encode;
mod error;
mod gguf;
mod json_error;
mod map;
mod pickle;
mod strides;
mod tensors;
mod torch_zip;
mod write;

pub use atomic::{
    check_replaceable, recover_folder, resolve_folder, write_file_atomically,
    write_file_atomically_with, write_folder_atomically,
};
pub use decode::Scales;
pub use error::HubError;
pub use gguf::{Array, GgmlType, Gguf, GgufTensor, Metadata, Value, dequantise, write_gguf};
pub use json_error::json_error;
pub use map::Mapped;
pub use safetensors::Dtype;
pub use tensors::{Elements, Tensors};
pub use write::{
    FloatType, PORTION, Take, Tensor, Values, by_rows, whole, write_tensors, write_weights,
};
