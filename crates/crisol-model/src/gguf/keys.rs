//! Typed access to the metadata keys `{architecture}.…` of a GGUF file.

use std::path::Path;

use crisol_hub::{HubError, Metadata};

use crate::ModelError;

pub(super) fn unusable(file: &Path, cause: String) -> ModelError {
    ModelError::ConfigFile { file: file.to_owned(), cause }
}

/// Reads a key if it exists.
pub(super) fn optional<T>(
    metadata: &Metadata,
    key: &str,
    read: impl FnOnce(&str) -> Result<T, HubError>,
) -> Result<Option<T>, HubError> {
    metadata.get(key).is_some().then(|| read(key)).transpose()
}

/// The keys of one architecture.
pub(super) struct Keys<'a> {
    pub(super) metadata: &'a Metadata,
    pub(super) file: &'a Path,
    pub(super) architecture: &'static str,
}

impl Keys<'_> {
    /// The full name of a key.
    pub(super) fn name(&self, rest: &str) -> String {
        format!("{}.{rest}", self.architecture)
    }

    pub(super) fn size(&self, rest: &str) -> Result<usize, HubError> {
        self.metadata.u32(&self.name(rest)).map(|size| size as usize)
    }

    pub(super) fn optional_size(&self, rest: &str) -> Result<Option<usize>, HubError> {
        let size = optional(self.metadata, &self.name(rest), |key| self.metadata.u32(key))?;
        Ok(size.map(|size| size as usize))
    }

    pub(super) fn number(&self, rest: &str) -> Result<Option<f32>, HubError> {
        optional(self.metadata, &self.name(rest), |key| self.metadata.f32(key))
    }

    pub(super) fn flag(&self, rest: &str) -> Result<Option<bool>, HubError> {
        optional(self.metadata, &self.name(rest), |key| self.metadata.bool(key))
    }

    pub(super) fn text(&self, rest: &str) -> Result<Option<&str>, HubError> {
        optional(self.metadata, &self.name(rest), |key| self.metadata.string(key))
    }

    /// An error about the value of a key.
    pub(super) fn refuse(&self, rest: &str, cause: &str) -> ModelError {
        unusable(self.file, format!("{} is {cause}", self.name(rest)))
    }

    /// Checks that a size, if given, is `size`.
    pub(super) fn expect_size(
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
    pub(super) fn expect_unset(&self, rest: &str) -> Result<(), ModelError> {
        match self.optional_size(rest)?.filter(|&number| number > 0) {
            Some(number) => Err(self.refuse(rest, &format!("{number}, which is not supported"))),
            None => Ok(()),
        }
    }
}
