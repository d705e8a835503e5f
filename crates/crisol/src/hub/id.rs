//! How a model on a hub is named on the command line: `ORG/NAME`, `ORG/NAME@REVISION`, `ORG/NAME:FILE.gguf`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// What a hub shows where no revision is named.
const DEFAULT_REVISION: &str = "main";

/// Letters in a repository's name, as the hub limits them.
const LONGEST_NAME: usize = 96;

const LONGEST_REVISION: usize = 250;

/// What a repository holds, which hubs keep apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Model,
    Dataset,
}

/// A repository at a revision. Its parts are safe as parts of paths and addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Repo {
    pub(crate) kind: Kind,
    /// `ORG/NAME`.
    pub(crate) name: String,
    /// A branch, a tag or a commit.
    pub(crate) revision: String,
}

impl Repo {
    /// `ORG/NAME` and `REVISION`, if a hub could have them.
    pub(super) fn new(
        kind: Kind,
        name: &str,
        revision: Option<&str>,
    ) -> Result<Repo, &'static str> {
        const SHAPE: &str = "a repository on a hub is named ORG/NAME";
        let revision = revision.unwrap_or(DEFAULT_REVISION);
        let (owner, own_name) = name.split_once('/').ok_or(SHAPE)?;
        if name.len() > LONGEST_NAME || !word(owner) || !word(own_name) {
            return Err(SHAPE);
        }
        if revision.len() > LONGEST_REVISION || !plain_path(revision) {
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
        let place = if self.kind == Kind::Dataset { "hf://datasets/" } else { "" };
        write!(f, "{place}{}", self.name)?;
        if self.has_default_revision() { Ok(()) } else { write!(f, "@{}", self.revision) }
    }
}

/// A model on a hub. Its parts are safe as parts of paths and addresses: [`plain_path`] holds for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelId {
    pub(crate) repo: Repo,
    /// The GGUF file, for repositories that hold several.
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
        let repo = Repo::new(Kind::Model, name, revision)
            .map_err(|problem| if problem.starts_with("after") { problem } else { SHAPE })?;
        if file.is_some_and(|file| !is_gguf(file) || !plain_path(file)) {
            return Err(
                "after : comes the name of a GGUF file of the repository, such as model-Q8_0.gguf",
            );
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

/// The hub's rules for the name of an owner or a repository. A name that ends as a file of weights does is a path
/// with a typing error.
fn word(name: &str) -> bool {
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

/// Whether a file is llama.cpp's, by its name.
pub(super) fn is_gguf(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|end| end == "gguf")
}

/// Whether a name is a relative path that stays below the folder it is put into, on every system.
pub(crate) fn plain_path(name: &str) -> bool {
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
