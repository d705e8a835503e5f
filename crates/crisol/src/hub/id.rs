//! How a model on a hub is named on the command line: `ORG/NAME`, `ORG/NAME@REVISION`, `ORG/NAME:FILE.gguf`.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

/// What a hub shows where no revision is named.
const DEFAULT_REVISION: &str = "main";

/// Letters in a repository's name, as the hub limits them.
const LONGEST_NAME: usize = 96;

const LONGEST_REVISION: usize = 250;

/// A model on a hub. Its parts are safe as parts of paths and addresses: [`plain_path`] holds for each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ModelId {
    /// `ORG/NAME`.
    pub(crate) repository: String,
    /// A branch, a tag or a commit.
    pub(crate) revision: String,
    /// The GGUF file, for repositories that hold several.
    pub(crate) file: Option<String>,
}

impl FromStr for ModelId {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<ModelId, Self::Err> {
        const SHAPE: &str = "a model on a hub is named ORG/NAME, ORG/NAME@REVISION or ORG/NAME:FILE.gguf";
        let (rest, file) = match text.split_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (text, None),
        };
        let (repository, revision) = rest.split_once('@').unwrap_or((rest, DEFAULT_REVISION));
        let (owner, name) = repository.split_once('/').ok_or(SHAPE)?;
        if repository.len() > LONGEST_NAME || !word(owner) || !word(name) {
            return Err(SHAPE);
        }
        if revision.len() > LONGEST_REVISION || !plain_path(revision) {
            return Err("after @ comes a branch, a tag or a commit");
        }
        if file.is_some_and(|file| !is_gguf(file) || !plain_path(file)) {
            return Err("after : comes the name of a GGUF file of the repository, such as model-Q8_0.gguf");
        }
        Ok(ModelId {
            repository: repository.to_owned(),
            revision: revision.to_owned(),
            file: file.map(str::to_owned),
        })
    }
}

impl fmt::Display for ModelId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository)?;
        if self.revision != DEFAULT_REVISION {
            write!(f, "@{}", self.revision)?;
        }
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
        assert_eq!(whole.repository, "bartowski/Some-Model_1.5-GGUF");
        assert_eq!((whole.revision.as_str(), whole.file.as_deref()), ("refs/pr/3", Some("Some-Q8_0.gguf")));
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
