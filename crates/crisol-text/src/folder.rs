//! The text side of a model's folder: `tokenizer.json`, `tokenizer_config.json` (chat template, named tokens),
//! `special_tokens_map.json` and the stop tokens of `generation_config.json`, as transformers reads and writes them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{ChatTemplate, END_OF_TEXT, TextError, Tokenizer};

const TOKENIZER: &str = "tokenizer.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const MODEL_CONFIG: &str = "config.json";
/// Takes precedence over the template in `tokenizer_config.json`, as in transformers.
const TEMPLATE: &str = "chat_template.jinja";

/// The named tokens that transformers hands to templates.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Everything about text that belongs to one model.
#[derive(Debug, Clone)]
pub struct TextSetup {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// How conversations are written; a base model may have none.
    pub template: Option<ChatTemplate>,
    /// The token that ends a document of pre-training text and a plain completion.
    pub eos: u32,
    /// The tokens at which generation stops, ascending: `eos`, the end of an assistant's turn, and what
    /// `generation_config.json` names.
    pub stop_ids: Vec<u32>,
    /// The configuration files as read, so that what this program does not use is saved again.
    tokenizer_config: Map<String, Value>,
    generation_config: Map<String, Value>,
}

impl TextSetup {
    /// The embedded template around a tokenizer trained with [`EMBEDDED_TOKENS`](crate::EMBEDDED_TOKENS).
    pub fn embedded(tokenizer: Tokenizer) -> Result<Self, TextError> {
        let Some(eos) = tokenizer.token_id(END_OF_TEXT) else {
            return Err(folder_error(
                Path::new(TOKENIZER),
                format!("no token {END_OF_TEXT}"),
                "train the tokenizer with the embedded named tokens",
            ));
        };
        let template = ChatTemplate::crisol();
        let end_of_turn = template.end_of_turn(&tokenizer)?;
        let stop_ids = BTreeSet::from([eos, end_of_turn]).into_iter().collect();
        let tokenizer_config = Map::from_iter([("eos_token".to_owned(), json!(END_OF_TEXT))]);
        Ok(Self {
            tokenizer,
            template: Some(template),
            eos,
            stop_ids,
            tokenizer_config,
            generation_config: Map::new(),
        })
    }

    /// Reads a model's folder. Only `tokenizer.json` must be there, and an end-of-text token in one of the others.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self, TextError> {
        let dir = dir.as_ref();
        let tokenizer = Tokenizer::from_file(dir.join(TOKENIZER))?;
        let tokenizer_config = read_object(&dir.join(TOKENIZER_CONFIG))?;
        let generation_config = read_object(&dir.join(GENERATION_CONFIG))?;
        let model_config = read_object(&dir.join(MODEL_CONFIG))?;
        let named = named_tokens(&tokenizer_config, &read_object(&dir.join(SPECIAL_TOKENS))?);

        let ids = |config: &Map<String, Value>, file: &str| eos_ids(config, &dir.join(file), &tokenizer);
        let generation_stops = ids(&generation_config, GENERATION_CONFIG)?;
        let eos = match named.get("eos_token") {
            Some(token) => tokenizer.token_id(token).ok_or_else(|| {
                folder_error(
                    &dir.join(TOKENIZER_CONFIG),
                    format!("its eos_token {token:?} is not in the tokenizer's vocabulary"),
                    "name a token of tokenizer.json",
                )
            })?,
            None => *generation_stops.first().or(ids(&model_config, MODEL_CONFIG)?.first()).ok_or_else(|| {
                folder_error(
                    &dir.join(TOKENIZER_CONFIG),
                    "no end-of-text token in it, special_tokens_map.json, generation_config.json or config.json"
                        .to_owned(),
                    "add `eos_token` to it",
                )
            })?,
        };

        let template = match read(&dir.join(TEMPLATE))? {
            Some(source) => Some((TEMPLATE, source)),
            None => default_template(&tokenizer_config).map(|source| (TOKENIZER_CONFIG, source)),
        };
        let template = template
            .map(|(file, source)| {
                ChatTemplate::new(&source, named).map_err(|e| e.at(&dir.join(file).display().to_string()))
            })
            .transpose()?;
        // A template that never ends a turn is an error when a conversation is trained, not when a model is loaded.
        let end_of_turn = template.as_ref().and_then(|template| template.end_of_turn(&tokenizer).ok());
        let stop_ids: BTreeSet<u32> = generation_stops.into_iter().chain([eos]).chain(end_of_turn).collect();
        Ok(Self {
            tokenizer,
            template,
            eos,
            stop_ids: stop_ids.into_iter().collect(),
            tokenizer_config,
            generation_config,
        })
    }

    /// Writes the files into a folder that exists, so that transformers' `AutoTokenizer` loads it and its `generate`
    /// stops where this program does.
    pub fn save(&self, dir: impl AsRef<Path>) -> Result<(), TextError> {
        let dir = dir.as_ref();
        self.tokenizer.save(dir.join(TOKENIZER))?;
        let mut config = self.tokenizer_config.clone();
        let mut special = Map::new();
        if !config.contains_key("eos_token") {
            config.insert("eos_token".to_owned(), json!(self.tokenizer.token(self.eos)));
        }
        for name in NAMED {
            if let Some(token) = config.get(name).and_then(token_text) {
                special.insert(name.to_owned(), json!(token));
            }
        }
        config.entry("tokenizer_class").or_insert(json!("PreTrainedTokenizerFast"));
        config.entry("clean_up_tokenization_spaces").or_insert(json!(false));
        config.shift_remove("chat_template");
        if let Some(template) = &self.template {
            config.insert("chat_template".to_owned(), json!(template.source()));
            // A file left in the folder would win over the template just written.
            if dir.join(TEMPLATE).exists() {
                write(&dir.join(TEMPLATE), template.source())?;
            }
        }
        let mut generation = self.generation_config.clone();
        generation.insert("eos_token_id".to_owned(), json!(self.stop_ids));
        write_object(&dir.join(TOKENIZER_CONFIG), &config)?;
        write_object(&dir.join(SPECIAL_TOKENS), &special)?;
        write_object(&dir.join(GENERATION_CONFIG), &generation)
    }
}

/// The named tokens as templates see them, by name.
fn named_tokens(config: &Map<String, Value>, special: &Map<String, Value>) -> BTreeMap<String, String> {
    let find = |name: &str| config.get(name).and_then(token_text).or(special.get(name).and_then(token_text));
    NAMED.iter().filter_map(|name| Some(((*name).to_owned(), find(name)?.to_owned()))).collect()
}

/// A token is written as a string or as an object with its `content`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// The template of `tokenizer_config.json`: a string, or a list of named templates of which `default` is meant.
fn default_template(config: &Map<String, Value>) -> Option<String> {
    match config.get("chat_template")? {
        Value::String(source) => Some(source.clone()),
        Value::Array(list) => {
            let default = list.iter().find(|entry| entry["name"] == "default").or(list.first())?;
            default["template"].as_str().map(str::to_owned)
        }
        _ => None,
    }
}

/// `eos_token_id`: one id, a list of ids, or nothing.
fn eos_ids(config: &Map<String, Value>, path: &Path, tokenizer: &Tokenizer) -> Result<Vec<u32>, TextError> {
    let ids = match config.get("eos_token_id") {
        None | Some(Value::Null) => vec![],
        Some(Value::Array(ids)) => ids.clone(),
        Some(id) => vec![id.clone()],
    };
    ids.iter()
        .map(|id| {
            let id = id.as_u64().and_then(|id| u32::try_from(id).ok());
            id.filter(|&id| tokenizer.token(id).is_some()).ok_or_else(|| {
                folder_error(
                    path,
                    "its `eos_token_id` holds what is no token of tokenizer.json".to_owned(),
                    "make it an id, or a list of ids, of the vocabulary",
                )
            })
        })
        .collect()
}

/// A file's text, or nothing where there is no such file.
fn read(path: &Path) -> Result<Option<String>, TextError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TextError::Read { path: path.to_owned(), source }),
    }
}

/// A JSON object, empty where there is no such file.
fn read_object(path: &Path) -> Result<Map<String, Value>, TextError> {
    let Some(text) = read(path)? else { return Ok(Map::new()) };
    serde_json::from_str(&text).map_err(|e| {
        folder_error(path, format!("not a JSON object: {e}"), "correct it, or get the file again")
    })
}

fn write_object(path: &Path, object: &Map<String, Value>) -> Result<(), TextError> {
    let text = serde_json::to_string_pretty(object).expect("a JSON object can be serialised");
    write(path, &(text + "\n"))
}

fn write(path: &Path, text: &str) -> Result<(), TextError> {
    fs::write(path, text).map_err(|source| TextError::Write { path: path.to_owned(), source })
}

fn folder_error(path: &Path, cause: String, remedy: &str) -> TextError {
    TextError::Folder { file: path.display().to_string(), cause, remedy: remedy.to_owned() }
}
