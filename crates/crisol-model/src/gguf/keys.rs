//! Typed access to the metadata keys `{architecture}.…` of a GGUF file, read and written.

use std::path::Path;

use crisol_hub::{Array, HubError, Metadata, Value};

use crate::ModelError;

pub(crate) fn unusable(file: &Path, cause: String) -> ModelError {
    ModelError::ConfigFile { file: file.to_owned(), cause }
}

/// Reads a key if it exists.
pub(crate) fn optional<T>(
    metadata: &Metadata,
    key: &str,
    read: impl FnOnce(&str) -> Result<T, HubError>,
) -> Result<Option<T>, HubError> {
    metadata.get(key).is_some().then(|| read(key)).transpose()
}

/// The keys of one architecture.
pub(crate) struct Keys<'a> {
    pub(crate) metadata: &'a Metadata,
    pub(crate) file: &'a Path,
    pub(crate) architecture: &'static str,
}

impl Keys<'_> {
    /// The full name of a key.
    pub(crate) fn name(&self, rest: &str) -> String {
        format!("{}.{rest}", self.architecture)
    }

    pub(crate) fn size(&self, rest: &str) -> Result<usize, HubError> {
        self.metadata.u32(&self.name(rest)).map(|size| size as usize)
    }

    pub(crate) fn optional_size(&self, rest: &str) -> Result<Option<usize>, HubError> {
        let size = optional(self.metadata, &self.name(rest), |key| self.metadata.u32(key))?;
        Ok(size.map(|size| size as usize))
    }

    pub(crate) fn number(&self, rest: &str) -> Result<Option<f32>, HubError> {
        optional(self.metadata, &self.name(rest), |key| self.metadata.f32(key))
    }

    pub(crate) fn flag(&self, rest: &str) -> Result<Option<bool>, HubError> {
        optional(self.metadata, &self.name(rest), |key| self.metadata.bool(key))
    }

    /// A list of flags, one a layer.
    pub(crate) fn flags(&self, rest: &str) -> Result<Option<Vec<bool>>, ModelError> {
        match self.metadata.get(&self.name(rest)) {
            None => Ok(None),
            Some(Value::Array(Array::Bool(flags))) => Ok(Some(flags.clone())),
            Some(_) => Err(self.refuse(rest, "not a list of true and false")),
        }
    }

    pub(crate) fn text(&self, rest: &str) -> Result<Option<&str>, HubError> {
        optional(self.metadata, &self.name(rest), |key| self.metadata.string(key))
    }

    /// An error about the value of a key.
    pub(crate) fn refuse(&self, rest: &str, cause: &str) -> ModelError {
        unusable(self.file, format!("{} is {cause}", self.name(rest)))
    }

    /// Checks that a size, if given, is `size`.
    pub(crate) fn expect_size(
        &self,
        rest: &str,
        size: usize,
        what: &str,
    ) -> Result<(), ModelError> {
        match self.optional_size(rest)?.filter(|&given| given != size) {
            Some(given) => Err(self.refuse(rest, &format!("{given}, not {size} ({what})"))),
            None => Ok(()),
        }
    }

    /// Refuses a feature that a non-zero size would switch on.
    pub(crate) fn expect_unset(&self, rest: &str) -> Result<(), ModelError> {
        match self.optional_size(rest)?.filter(|&number| number > 0) {
            Some(number) => Err(self.refuse(rest, &format!("{number}, which is not supported"))),
            None => Ok(()),
        }
    }

    /// Refuses another scale of experts' weights than 1; 0 means none.
    pub(crate) fn expect_plain_expert_weights(&self) -> Result<(), ModelError> {
        let key = "expert_weights_scale";
        match self.number(key)?.filter(|&scale| scale != 0.0 && scale != 1.0) {
            Some(scale) => Err(self.refuse(key, &format!("{scale}, which is not supported"))),
            None => Ok(()),
        }
    }
}

/// The keys of one architecture in a file to be written.
pub(crate) struct NewKeys<'a> {
    pub(crate) metadata: &'a mut Metadata,
    pub(crate) architecture: &'static str,
}

impl NewKeys<'_> {
    pub(crate) fn put(&mut self, rest: &str, value: impl Into<Value>) {
        self.metadata.insert(format!("{}.{rest}", self.architecture), value);
    }

    pub(crate) fn put_sizes(&mut self, sizes: &[(&str, usize)]) {
        for &(rest, size) in sizes {
            self.put(rest, size as u32);
        }
    }
}
