//! Parses names of models on a hub: `ORG/NAME`, `ORG/NAME@REVISION`, `ORG/NAME:FILE.gguf`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// The revision that hubs use by default.
const DEFAULT_REVISION: &str = "main";

/// Maximum length of a repository's name, as on the hub.
const MAX_NAME_LEN: usize = 96;

const MAX_REVISION_LEN: usize = 250;

/// The kind of a repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RepoKind {
    Model,
    Dataset,
}

/// A repository at a revision. All parts are safe in paths and URLs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repo {
    pub(crate) kind: RepoKind,
    /// `ORG/NAME`.
    pub(crate) name: String,
    /// A branch, a tag or a commit.
    pub(crate) revision: String,
}

impl Repo {
    /// Checks `ORG/NAME` and `REVISION` against the hub's rules.
    pub(super) fn new(
        kind: RepoKind,
        name: &str,
        revision: Option<&str>,
    ) -> Result<Repo, &'static str> {
        const SHAPE: &str = "a repository on a hub is named ORG/NAME";
        let revision = revision.unwrap_or(DEFAULT_REVISION);
        let (owner, own_name) = name.split_once('/').ok_or(SHAPE)?;
        if name.len() > MAX_NAME_LEN || !is_name(owner) || !is_name(own_name) {
            return Err(SHAPE);
        }
        if revision.len() > MAX_REVISION_LEN || !is_safe_path(revision) {
            return Err("after @ comes a branch, a tag or a commit");
        }
        Ok(Repo { kind, name: name.to_owned(), revision: revision.to_owned() })
    }

    pub(super) fn has_default_revision(&self) -> bool {
        self.revision == DEFAULT_REVISION
    }
}

impl fmt::Display for Repo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let prefix = if self.kind == RepoKind::Dataset { "hf://datasets/" } else { "" };
        write!(f, "{prefix}{}", self.name)?;
        if self.has_default_revision() { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// A model on a hub. All parts are safe in paths and URLs: [`is_safe_path`] holds for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelId {
    pub(crate) repo: Repo,
    /// The GGUF file, for repositories with several.
    pub(crate) file: Option<String>,
}

impl FromStr for ModelId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ModelId, Self::Err> {
        const SHAPE: &str =
            "a model on a hub is named ORG/NAME, ORG/NAME@REVISION or ORG/NAME:FILE.gguf";
        let (rest, file) = match text.split_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (text, None),
        };
        let (name, revision) = match rest.split_once('@') {
            Some((name, revision)) => (name, Some(revision)),
            None => (rest, None),
        };
        let repo = Repo::new(RepoKind::Model, name, revision)
            .map_err(|problem| if problem.starts_with("after") { problem } else { SHAPE })?;
        if file.is_some_and(|file| !is_gguf(file) || !is_safe_path(file)) {
            return Err("after : comes a GGUF file of the repository, such as model-Q8_0.gguf");
        }
        Ok(ModelId { repo, file: file.map(str::to_owned) })
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repo.fmt(f)?;
        self.file.iter().try_for_each(|file| write!(f, ":{file}"))
    }
}

/// The hub's rules for owner and repository names. The ending of a weight file indicates a mistyped
/// path instead.
fn is_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let edge = |c: char| c == '-' || c == '.';
    !name.is_empty()
        && name.chars().all(allowed)
        && !name.starts_with(edge)
        && !name.ends_with(edge)
        && !name.contains("--")
        && !name.contains("..")
        && ![".git", ".gguf", ".safetensors"].iter().any(|end| name.ends_with(end))
}

/// Whether a file name is that of a GGUF file.
pub(super) fn is_gguf(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "gguf")
}

/// Whether a name is a relative path that stays within its folder, on every system.
pub(crate) fn is_safe_path(name: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && part.len() <= 200
            && part != "."
            && part != ".."
            && !part.chars().any(|c| c.is_control() || "\\:*?\"<>|".contains(c))
    };
    name.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_what_is_none() {
        let id = |text: &str| text.parse::<ModelId>();
        let whole = id("bartowski/Some-Model_1.5-GGUF@refs/pr/3:Some-Q8_0.gguf").unwrap();
        assert_eq!(whole.repo.name, "bartowski/Some-Model_1.5-GGUF");
        assert_eq!(
            (whole.repo.revision.as_str(), whole.file.as_deref()),
            ("refs/pr/3", Some("Some-Q8_0.gguf"))
        );
        for text in ["allenai/OLMo-2-0425-1B", "a/b@v1.0", "a/b:sub/c.gguf"] {
            assert_eq!(id(text).unwrap().to_string(), text);
        }
        assert_eq!(id("a/b@main").unwrap().to_string(), "a/b");
        let none = [
            "",
            "gpt2",
            "a/",
            "/b",
            "a/b/c",
            "./b",
            "../b",
            "a/..",
            "-a/b",
            "a/b.",
            "a/b--c",
            "a b/c",
            "a/b@",
            "a/b@../c",
            "a/b@/c",
            "a/b:",
            "a/b:c.bin",
            "a/b:../c.gguf",
            "a/b:/c.gguf",
            "models/x.gguf",
            "a/b@x:y",
            "C:/x",
            "a/b@x\n",
        ];
        for text in none {
            assert!(id(text).is_err(), "{text:?}");
        }
    }
}
