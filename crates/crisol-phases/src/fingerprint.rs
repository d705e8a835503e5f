//! The fingerprint of a phase: its settings and hashes of its inputs (data and starting model).
//!
//! It is saved with a phase's state and with its result. A resumed run must have the same one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crisol_engine::Precision;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::PhaseError;
use crate::behaviours;
use crate::data::{DataFiles, DataSource};
use crate::recipe::{Phase, Recipe, Split, table_of};
use crate::run_folder::{phase_or_path, starting_folder};
use crate::settings::PhaseSettings;

/// Inputs and settings that decide a phase's result.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Fingerprint {
    /// Files, by their role.
    inputs: BTreeMap<String, Input>,
    /// Settings that decide the result, by their names.
    settings: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Input {
    /// Path, for messages; it may change.
    place: String,
    content: Content,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Content {
    Blake3(String),
    /// A pipe, whose content cannot be read again.
    Pipe,
    Missing,
}

/// Progress of a phase in a resumed run.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum PhaseStatus {
    /// It reads its inputs again, and settings of its optimizer may be edited.
    Unfinished,
    /// Its inputs may be gone.
    Finished,
}

/// Role of the files that the trained model is evaluated on.
const EVALUATION: &str = "evaluation";

impl Fingerprint {
    /// The current fingerprint of a phase. `reward` is the caller's, by name.
    pub(crate) fn compute(
        recipe: &Recipe,
        phase: &Phase,
        out: &Path,
        data: &DataSource,
        reward: Option<&str>,
        hashes: &mut Hashes,
    ) -> Result<Fingerprint, PhaseError> {
        let run = &recipe.run;
        let mut this = Fingerprint::default();
        let mut settings = BTreeMap::new();
        flatten("", &table_of(&phase.settings), &mut settings);
        for (key, value) in settings {
            match key.rsplit('.').next().unwrap_or_default() {
                "data" | "heldout" => {
                    let names = value.as_array().into_iter().flatten().filter_map(Value::as_str);
                    let names: Vec<String> = names.map(str::to_owned).collect();
                    this.add_data(&key, &run.evaluate.files(&names), data, hashes)?;
                }
                "reward_model" => {
                    let name = value.as_str().unwrap_or_default();
                    this.add_model("reward model", &phase_or_path(recipe, name, out), hashes)?;
                }
                _ => {
                    this.settings.insert(key, value.to_string());
                }
            }
        }
        let mut settings = BTreeMap::new();
        flatten("", &table_of(run), &mut settings);
        let base = starting_folder(recipe, phase, out);
        for (key, value) in settings {
            if key == "text.chat_template" {
                let file = Path::new(&run.text.chat_template);
                if !run.text.chat_template.is_empty() {
                    let (place, content) = (file.display().to_string(), hashes.hash(file)?);
                    this.inputs.insert("chat template".into(), Input { place, content });
                }
                continue;
            }
            let counts = ["seed", "shard_tokens", "evaluate"].contains(&key.as_str())
                // It is left out where it changes nothing: runs of before it existed have none.
                || (key == "precision" && run.precision != Precision::F32)
                || key.starts_with("text.")
                || (key.starts_with("model.") && base.is_none())
                || (key.starts_with("adapter.") && run.adapter.rank > 0);
            if counts {
                this.settings.insert(key, value.to_string());
            }
        }
        // Unlike other strings, it has no quotes: saved states have it so.
        this.settings.insert("kind".into(), phase.settings.kind().into());
        if let (Some(reward), PhaseSettings::Reason(_)) = (reward, &phase.settings) {
            this.settings.insert("reward".into(), reward.into());
        }
        match base {
            Some(folder) if phase.from.is_empty() => {
                this.add_model("base model", &folder, hashes)?;
            }
            Some(folder) => {
                this.add_model(&format!("model of phase {}", phase.from), &folder, hashes)?;
            }
            None => {}
        }
        if run.evaluate != Split::None && !matches!(phase.settings, PhaseSettings::Reward(_)) {
            this.add_data(EVALUATION, &behaviours::files(data, run.evaluate), data, hashes)?;
        }
        Ok(this)
    }

    /// Names and hashes of the files of a role; `None` if one cannot be hashed (a pipe).
    pub(crate) fn contents(&self, role: &str) -> Option<Vec<(&str, &str)>> {
        let files = self.inputs.iter().filter(|(name, _)| {
            name.strip_prefix(role).is_some_and(|which| which.starts_with(' '))
        });
        files
            .map(|(name, input)| match &input.content {
                Content::Blake3(hash) => Some((name.as_str(), hash.as_str())),
                Content::Pipe | Content::Missing => None,
            })
            .collect()
    }

    fn add_data(
        &mut self,
        role: &str,
        files: &[String],
        data: &DataSource,
        hashes: &mut Hashes,
    ) -> Result<(), PhaseError> {
        for (i, file) in files.iter().enumerate() {
            // Files of the evaluation are identified by name: their number may change.
            let which = if role == EVALUATION { file.clone() } else { (i + 1).to_string() };
            if let Some(rows) = data.rows(file) {
                let end = rows.end.map(|end| end.to_string()).unwrap_or_default();
                self.settings
                    .insert(format!("rows of {role} {which}"), format!("{}..{end}", rows.start));
            }
            let paths = match data.locate(file) {
                DataFiles::Paths(paths) => paths,
                DataFiles::Embedded(text) => {
                    let hash =
                        |text: &str| Content::Blake3(blake3::hash(text.as_bytes()).to_string());
                    let place = format!(
                        "{file} of the embedded data, which belongs to a version of Crisol"
                    );
                    let content = text.map_or(Content::Missing, hash);
                    self.inputs.insert(format!("{role} {which}"), Input { place, content });
                    continue;
                }
            };
            for (part, path) in paths.iter().enumerate() {
                // A folder or pattern stands for several files.
                let part =
                    if paths.len() == 1 { String::new() } else { format!(", file {}", part + 1) };
                // Standard input has no name, and can be read only once.
                let content =
                    if path.as_os_str() == "-" { Content::Pipe } else { hashes.hash(path)? };
                let place = path.display().to_string();
                self.inputs.insert(format!("{role} {which}{part}"), Input { place, content });
            }
        }
        Ok(())
    }

    /// The files that a model is loaded from: a GGUF file, or those of a folder.
    fn add_model(
        &mut self,
        role: &str,
        path: &Path,
        hashes: &mut Hashes,
    ) -> Result<(), PhaseError> {
        let path = crisol_hub::resolve_folder(path)?;
        let mut files = vec![path.clone()];
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).map_err(|e| PhaseError::io(&path, e))?;
            files = entries
                .map(|entry| Ok(entry.map_err(|e| PhaseError::io(&path, e))?.path()))
                .collect::<Result<_, PhaseError>>()?;
            files.retain(|file| is_model_file(file));
        }
        files.retain(|file| file.is_file());
        for file in files {
            let name = file.file_name().unwrap_or_default().to_string_lossy();
            // A single file is identified by its role: it may be renamed.
            let key = if file == path { role.to_owned() } else { format!("{role}, {name}") };
            let content = hashes.hash(&file)?;
            self.inputs.insert(key, Input { place: file.display().to_string(), content });
        }
        Ok(())
    }

    /// Compares with the recorded fingerprint. Returns the edits that are allowed, in words; the
    /// error names one that is not.
    pub(crate) fn check(
        &self,
        recorded: &Fingerprint,
        phase: &str,
        status: PhaseStatus,
    ) -> Result<Vec<String>, PhaseError> {
        let changed = |what: String| PhaseError::Changed { phase: phase.to_owned(), what };
        for (role, was) in &recorded.inputs {
            let gone = Input { place: was.place.clone(), content: Content::Missing };
            let is = self.inputs.get(role).unwrap_or(&gone);
            let what = match (&was.content, &is.content) {
                (was, is) if was == is && *is != Content::Pipe => continue,
                (_, Content::Missing | Content::Pipe) | (Content::Pipe, _)
                    if status == PhaseStatus::Finished =>
                {
                    continue;
                }
                (Content::Pipe, _) | (_, Content::Pipe) => {
                    format!(
                        "its input {} ({role}) is a pipe, which cannot be read again",
                        was.place
                    )
                }
                (_, Content::Missing) => format!("its input {} ({role}) is gone", was.place),
                _ => format!(
                    "its input {} ({role}) is not what it was when the phase began",
                    is.place
                ),
            };
            return Err(changed(what));
        }
        if let Some((role, new)) =
            self.inputs.iter().find(|(role, _)| !recorded.inputs.contains_key(*role))
        {
            return Err(changed(format!("it has a new input {} ({role})", new.place)));
        }
        let mut edited = Vec::new();
        let names = recorded.settings.keys().chain(self.settings.keys());
        let names: std::collections::BTreeSet<&String> = names.collect();
        for name in names {
            let value = |fingerprint: &Fingerprint| {
                let known = fingerprint.settings.get(name).map(String::as_str);
                known.or_else(|| before_it_existed(name)).unwrap_or("not set").to_owned()
            };
            let (was, is) = (value(recorded), value(self));
            if was == is {
                continue;
            }
            if status == PhaseStatus::Finished || !may_be_edited(name) {
                return Err(changed(format!("its setting `{name}` was {was} and is now {is}")));
            }
            edited.push(format!("`{name}` was {was} and is now {is}"));
        }
        Ok(edited)
    }
}

/// The value that states of older versions, which lack a setting, were made with.
fn before_it_existed(name: &str) -> Option<&'static str> {
    name.ends_with("optimizer.moments").then_some("\"f32\"")
}

/// Settings of an unfinished phase's optimizer may be edited, except the rule: its moments depend
/// on it.
fn may_be_edited(name: &str) -> bool {
    let mut parts = name.rsplit('.');
    parts.next() != Some("rule") && parts.next().is_some_and(|part| part.ends_with("optimizer"))
}

/// Whether a model is loaded from a file of this name. Phases write other files too, some with
/// times.
fn is_model_file(file: &Path) -> bool {
    let named = |name: &str| file.file_name().is_some_and(|n| n == name);
    let extensions = ["safetensors", "bin", "json", "model", "jinja", "txt"];
    !named("phase.json")
        && file.extension().is_some_and(|e| extensions.iter().any(|known| e == *known))
}

fn flatten(prefix: &str, table: &Table, into: &mut BTreeMap<String, Value>) {
    for (key, value) in table {
        let key = format!("{prefix}{key}");
        match value {
            Value::Table(table) => flatten(&format!("{key}."), table, into),
            value => {
                into.insert(key, value.clone());
            }
        }
    }
}

/// Cached hashes of files; one is invalidated when the size or time of its file changes.
#[derive(Debug, Default)]
pub(crate) struct Hashes(BTreeMap<PathBuf, (u64, Option<SystemTime>, String)>);

impl Hashes {
    fn hash(&mut self, path: &Path) -> Result<Content, PhaseError> {
        let failed = |e| PhaseError::io(path, e);
        let metadata = match std::fs::metadata(path) {
            Ok(metadata) => metadata,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Content::Missing),
            Err(e) => return Err(failed(e)),
        };
        if !metadata.is_file() {
            return Ok(Content::Pipe);
        }
        let (size, time) = (metadata.len(), metadata.modified().ok());
        if let Some((known_size, known_time, hash)) = self.0.get(path)
            && (*known_size, *known_time) == (size, time)
        {
            return Ok(Content::Blake3(hash.clone()));
        }
        let hash = crisol_train::Checksum::of_file(path)?.blake3;
        self.0.insert(path.to_path_buf(), (size, time, hash.clone()));
        Ok(Content::Blake3(hash))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(folder: &Path, recipe: &str) -> Fingerprint {
        let recipe = Recipe::parse("test.toml", recipe).unwrap();
        let data = DataSource::open(folder.to_str().unwrap());
        Fingerprint::compute(
            &recipe,
            &recipe.phases[0],
            folder,
            &data,
            None,
            &mut Hashes::default(),
        )
        .unwrap()
    }

    const RECIPE: &str = "data = \".\"\nbase = \"BASE\"\nevaluate = \"none\"\n[[phases]]\nkind = \"sft\"\ndata = [\"a\", \"b\"]\n";

    /// Every kind of change to input files.
    #[test]
    fn changed_inputs_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        let base = dir.path().join("base");
        std::fs::create_dir(&base).unwrap();
        for name in [
            "a",
            "b",
            "sft.test.jsonl",
            "base/config.json",
            "base/model.safetensors",
            "base/README.md",
        ] {
            write(name, name);
        }
        let recipe = RECIPE.replace("BASE", base.to_str().unwrap());
        let before = fingerprint(dir.path(), &recipe);
        let found = |status| fingerprint(dir.path(), &recipe).check(&before, "sft", status);
        write("base/README.md", "nothing that is loaded");
        assert_eq!(found(PhaseStatus::Unfinished).unwrap(), Vec::<String>::new());
        for name in ["a", "b", "sft.test.jsonl", "base/config.json", "base/model.safetensors"] {
            write(name, "changed");
            for status in [PhaseStatus::Unfinished, PhaseStatus::Finished] {
                let error = found(status).unwrap_err().to_string();
                assert!(error.contains(name) && error.contains("sft"), "{error}");
            }
            std::fs::remove_file(dir.path().join(name)).unwrap();
            let error = found(PhaseStatus::Unfinished).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains("is gone"), "{error}");
            found(PhaseStatus::Finished).unwrap();
            write(name, name);
            found(PhaseStatus::Unfinished).unwrap();
        }
        write("base/tokenizer.json", "new");
        assert!(found(PhaseStatus::Unfinished).unwrap_err().to_string().contains("tokenizer.json"));
    }

    #[test]
    fn settings_of_the_optimizer_may_change_and_no_others() {
        let dir = tempfile::tempdir().unwrap();
        let recipe = RECIPE.replace("BASE", "none");
        let before = fingerprint(dir.path(), &recipe);
        let with = |text: &str| {
            fingerprint(dir.path(), &format!("{recipe}{text}")).check(
                &before,
                "sft",
                PhaseStatus::Unfinished,
            )
        };
        let edited = with("optimizer.lr = 1e-5\n").unwrap();
        assert!(edited.len() == 1 && edited[0].contains("optimizer.lr"), "{edited:?}");
        // A setting of the run, so it stands before the phases.
        let rounded = fingerprint(dir.path(), &format!("precision = \"bf16\"\n{recipe}"));
        for (one, other) in [(&rounded, &before), (&before, &rounded)] {
            let error = one.check(other, "sft", PhaseStatus::Unfinished).unwrap_err().to_string();
            assert!(error.contains("precision"), "{error}");
        }
        for (line, name) in [
            ("optimizer.rule = \"muon\"", "optimizer.rule"),
            ("batch_tokens = 7", "batch_tokens"),
            ("epochs = 9", "epochs"),
        ] {
            let error = with(line).unwrap_err().to_string();
            assert!(error.contains(name), "{error}");
        }
        let now = fingerprint(dir.path(), &format!("{recipe}optimizer.lr = 1e-5\n"));
        assert!(now.check(&before, "sft", PhaseStatus::Finished).is_err());
        let seeded = fingerprint(dir.path(), &format!("seed = 2\n{recipe}"));
        assert!(
            seeded
                .check(&before, "sft", PhaseStatus::Unfinished)
                .unwrap_err()
                .to_string()
                .contains("seed")
        );
    }
}
