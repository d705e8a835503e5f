//! Model files: reading tensors without trusting them, and writing folders that are whole or absent.
//!
//! - [`Tensors`] opens the weights of a model (safetensors or PyTorch's, memory-mapped, one file or many) and hands
//!   them out as f32; [`write_weights`] and [`write_tensors`] write them as safetensors.
//! - [`Gguf`] does the same for the files of llama.cpp, quantised tensors included; [`write_gguf`] writes them.
//! - [`write_folder_atomically`] and [`write_file_atomically`] replace what is on disk in one step.
//!
//! Whatever a file contains, the answer is the data or a [`HubError`] that names the file, the place, the
//! cause and the remedy.

mod atomic;
mod decode;
mod encode;
mod error;
mod gguf;
mod map;
mod pickle;
mod strides;
mod tensors;
mod torch_zip;
mod write;

pub use atomic::{
    fill_file_atomically, refuse_foreign, settle_folder, whole_folder, write_file_atomically,
    write_folder_atomically,
};
pub use decode::Scales;
pub use error::HubError;
pub use gguf::{Array, GgmlType, Gguf, GgufTensor, Metadata, Value, write_gguf};
pub use map::Mapped;
pub use safetensors::Dtype;
pub use tensors::{Elements, Tensors};
pub use write::{FloatType, Tensor, Values, write_tensors, write_weights};
