//! The text files of a model folder, as transformers reads and writes them.
//!
//! | file | content |
//! |---|---|
//! | `tokenizer.json`, `tokenizer.model` or `tekken.json` | vocabulary |
//! | `tokenizer_config.json` | named tokens, chat template |
//! | `special_tokens_map.json` | named tokens |
//! | `chat_template.jinja` | chat template; takes precedence |
//! | `generation_config.json` | stop tokens, sampling settings |

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::message::json_type;
use crate::sentencepiece::{Piece, PieceKind, Vocabulary};
use crate::tekken;
use crate::template::DEFAULT;
use crate::{ChatTemplate, END_OF_TEXT, TextError, TextOptions, Tokenizer};

const TOKENIZER: &str = "tokenizer.json";
/// Read if there is no `tokenizer.json`.
const SENTENCEPIECE: &str = "tokenizer.model";
/// Mistral's; read if there is neither.
const TEKKEN: &str = "tekken.json";
/// The files that may hold a vocabulary, the first first.
pub const TOKENIZER_FILES: [&str; 3] = [TOKENIZER, SENTENCEPIECE, TEKKEN];
/// Tokens added to those of `tokenizer.model`, as saved by older versions of transformers.
const ADDED_TOKENS: &str = "added_tokens.json";
const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const SPECIAL_TOKENS: &str = "special_tokens_map.json";
const GENERATION_CONFIG: &str = "generation_config.json";
const MODEL_CONFIG: &str = "config.json";
/// Takes precedence over the templates in `tokenizer_config.json`, as in transformers.
const TEMPLATE: &str = "chat_template.jinja";
/// Folder of further templates, each in a file `NAME.jinja`.
const NAMED_TEMPLATES: &str = "additional_chat_templates";
/// The template of a multimodal model, as saved with its processor by older versions of
/// transformers.
const PROCESSOR_TEMPLATE: &str = "chat_template.json";
/// Remedy for a `tokenizer.model` that cannot be used.
const CONVERT: &str = "put the model's tokenizer.json beside it, or convert it with transformers";

/// The named tokens that transformers passes to templates.
const NAMED: [&str; 7] =
    ["bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token"];

/// Tokenizer, chat template and stop tokens of one model.
#[derive(Debug, Clone)]
pub struct TextSetup {
    /// The tokenizer.
    pub tokenizer: Tokenizer,
    /// The chat template; a base model may have none.
    pub template: Option<ChatTemplate>,
    /// The token that ends a document of pre-training text and a plain completion.
    pub eos: u32,
    /// The tokens at which generation stops, ascending: `eos`, the end of an assistant turn, and
    /// those of `generation_config.json`, or else of `config.json`.
    pub stop_ids: Vec<u32>,
    /// Options for encoding records.
    options: TextOptions,
    /// The configuration files as read, to save fields that this program does not use.
    tokenizer_config: Map<String, Value>,
    generation_config: Map<String, Value>,
}

impl TextSetup {
    /// The embedded template, for a tokenizer trained with
    /// [`EMBEDDED_TOKENS`](crate::EMBEDDED_TOKENS).
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
            options: TextOptions::default(),
            tokenizer_config,
            generation_config: Map::new(),
        })
    }

    /// Reads a model folder.
    ///
    /// Required are one of [`TOKENIZER_FILES`], and an end-of-text token in one of the
    /// configuration files (Mistral's `tekken.json` has one).
    pub fn load(dir: impl AsRef<Path>) -> Result<Self, TextError> {
        let dir = dir.as_ref();
        let mut tokenizer_config = read_object(&dir.join(TOKENIZER_CONFIG))?;
        let special_tokens = read_object(&dir.join(SPECIAL_TOKENS))?;
        let file = TOKENIZER_FILES.into_iter().find(|file| dir.join(file).exists());
        let tokenizer = match file {
            Some(SENTENCEPIECE) => sentencepiece(dir, &mut tokenizer_config, &special_tokens)?,
            Some(TEKKEN) => tekken(dir, &mut tokenizer_config, &special_tokens)?,
            _ => Tokenizer::from_file(dir.join(TOKENIZER))?,
        };
        let generation_config = read_object(&dir.join(GENERATION_CONFIG))?;
        let model_config = read_object(&dir.join(MODEL_CONFIG))?;

        let ids =
            |config: &Map<String, Value>, file: &str| eos_ids(config, &dir.join(file), &tokenizer);
        // As in transformers, config.json counts only if generation_config.json has no stop tokens:
        // that of some models names only one of several.
        let mut generation_stops = ids(&generation_config, GENERATION_CONFIG)?;
        if generation_stops.is_empty() {
            generation_stops = ids(&model_config, MODEL_CONFIG)?;
        }
        let eos = match named_tokens(&tokenizer_config, &special_tokens).get("eos_token") {
            Some(token) => tokenizer.token_id(token).ok_or_else(|| {
                folder_error(
                    &dir.join(TOKENIZER_CONFIG),
                    format!("its eos_token {token:?} is not in the tokenizer's vocabulary"),
                    "name a token of tokenizer.json",
                )
            })?,
            None => *generation_stops.first().ok_or_else(|| {
                folder_error(
                    &dir.join(TOKENIZER_CONFIG),
                    "no end-of-text token in it, special_tokens_map.json, generation_config.json \
                     or config.json"
                        .to_owned(),
                    "add `eos_token` to it",
                )
            })?,
        };

        let templates = templates(dir, &tokenizer_config)?;
        Self::assemble(SetupParts {
            tokenizer,
            tokenizer_config,
            generation_config,
            special_tokens,
            templates,
            eos,
            generation_stops,
        })
    }

    /// Compiles the template and collects the stop tokens.
    pub(crate) fn assemble(parts: SetupParts) -> Result<Self, TextError> {
        let SetupParts {
            tokenizer,
            mut tokenizer_config,
            generation_config,
            special_tokens,
            templates,
            eos,
            generation_stops,
        } = parts;
        let named = named_tokens(&tokenizer_config, &special_tokens);
        // Saving writes the named tokens from the configuration.
        for (name, token) in &named {
            if tokenizer_config.get(name).and_then(token_text).is_none() {
                tokenizer_config.insert(name.clone(), json!(token));
            }
        }
        let template = templates
            .map(|(location, sources)| {
                ChatTemplate::from_sources(sources, named).map_err(|e| e.in_record(&location))
            })
            .transpose()?;
        // A template that never ends a turn is an error only when a conversation is trained.
        let end_of_turn =
            template.as_ref().and_then(|template| template.end_of_turn(&tokenizer).ok());
        let stop_ids: BTreeSet<u32> =
            generation_stops.into_iter().chain([eos]).chain(end_of_turn).collect();
        Ok(Self {
            tokenizer,
            template,
            eos,
            stop_ids: stop_ids.into_iter().collect(),
            options: TextOptions::default(),
            tokenizer_config,
            generation_config,
        })
    }

    /// Checks the tokenizer against a model's embedding of `rows` rows.
    ///
    /// Added tokens without a row are accepted, but texts with them are an error on encoding.
    pub fn check_embedding_rows(&mut self, rows: usize) -> Result<(), TextError> {
        if self.tokenizer.limit_rows(rows) && (self.eos as usize) < rows {
            return Ok(());
        }
        let tokens = self.tokenizer.vocab_size();
        Err(TextError::TokenizerMismatch { tokens, rows })
    }

    /// With these special tokens added to the tokenizer.
    pub fn with_special_tokens(self, tokens: &[String]) -> Result<TextSetup, TextError> {
        if tokens.is_empty() {
            return Ok(self);
        }
        Ok(TextSetup { tokenizer: self.tokenizer.with_special_tokens(tokens)?, ..self })
    }

    /// Options for encoding records.
    pub fn options(&self) -> &TextOptions {
        &self.options
    }

    /// Sets the options for encoding records, and the template's variables.
    pub fn set_options(&mut self, options: TextOptions) {
        self.template =
            self.template.take().map(|template| template.with_arguments(options.arguments.clone()));
        self.options = options;
    }

    /// Takes the chat template of a file in place of the model's own: Jinja, or JSON with a field
    /// `chat_template` (`tokenizer_config.json`).
    pub fn set_template(&mut self, file: &Path) -> Result<(), TextError> {
        let (location, bytes) = read_bytes(file)?;
        let wrong = |cause: &str| {
            let remedy = "give a Jinja file, or a tokenizer_config.json that has `chat_template`";
            folder_error(file, cause.to_owned(), remedy)
        };
        let sources = if file.extension().is_some_and(|extension| extension == "json") {
            config_templates(file, &read_object(file)?)?
                .ok_or_else(|| wrong("no `chat_template` in it"))?
        } else {
            let text = String::from_utf8(bytes).map_err(|_| wrong("not text in UTF-8"))?;
            BTreeMap::from([(DEFAULT.to_owned(), text)])
        };
        let named = named_tokens(&self.tokenizer_config, &Map::new());
        let template = ChatTemplate::from_sources(sources, named)
            .map_err(|error| error.in_record(&location))?
            .with_arguments(self.options.arguments.clone());
        // As in `assemble`.
        let stops = self.stop_ids.iter().copied().chain(template.end_of_turn(&self.tokenizer).ok());
        self.stop_ids = stops.collect::<BTreeSet<u32>>().into_iter().collect();
        self.template = Some(template);
        Ok(())
    }

    /// The id of the named token `name` (`bos_token`, `pad_token`, …).
    pub fn named_token(&self, name: &str) -> Option<u32> {
        self.tokenizer.token_id(token_text(self.tokenizer_config.get(name)?)?)
    }

    /// The sampling settings of `generation_config.json`, by the names of this program's options.
    ///
    /// Empty for greedy decoding. They are suggestions: this program does not apply them by itself.
    pub fn suggested_sampling(&self) -> Vec<(&'static str, f64)> {
        // The field, this program's option and its neutral value.
        const SETTINGS: [(&str, &str, f64); 5] = [
            ("temperature", "temperature", 1.0),
            ("top_k", "top-k", 0.0),
            ("top_p", "top-p", 1.0),
            ("min_p", "min-p", 0.0),
            ("repetition_penalty", "repetition-penalty", 1.0),
        ];
        let setting = |key: &str| self.generation_config.get(key).and_then(Value::as_f64);
        let samples =
            self.generation_config.get("do_sample").and_then(Value::as_bool) == Some(true);
        SETTINGS
            .into_iter()
            .filter(|(key, ..)| samples || *key == "repetition_penalty")
            .filter_map(|(key, name, neutral)| {
                // Temperature 1 is always listed, because this program's default is 0.
                let value = setting(key).or((key == "temperature").then_some(neutral))?;
                (value != neutral || key == "temperature").then_some((name, value))
            })
            .collect()
    }

    /// Writes the files into an existing folder.
    ///
    /// transformers' `AutoTokenizer` loads them, and its `generate` stops where this program does.
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
            let sources = template.sources();
            let named = |(name, source)| json!({"name": name, "template": source});
            let one = sources.len() == 1;
            config.insert(
                "chat_template".to_owned(),
                if one { json!(template.source()) } else { sources.iter().map(named).collect() },
            );
            // Older files in the folder would take precedence over these templates.
            for file in [TEMPLATE, PROCESSOR_TEMPLATE] {
                remove(&dir.join(file))?;
            }
            for name in sources.keys() {
                remove(&dir.join(NAMED_TEMPLATES).join(format!("{name}.jinja")))?;
            }
        }
        let mut generation = self.generation_config.clone();
        generation.insert("eos_token_id".to_owned(), json!(self.stop_ids));
        write_object(&dir.join(TOKENIZER_CONFIG), &config)?;
        write_object(&dir.join(SPECIAL_TOKENS), &special)?;
        write_object(&dir.join(GENERATION_CONFIG), &generation)
    }
}

/// The parts of a [`TextSetup`].
pub(crate) struct SetupParts {
    pub(crate) tokenizer: Tokenizer,
    pub(crate) tokenizer_config: Map<String, Value>,
    pub(crate) generation_config: Map<String, Value>,
    pub(crate) special_tokens: Map<String, Value>,
    /// The chat templates, if there are any.
    pub(crate) templates: Option<Templates>,
    pub(crate) eos: u32,
    pub(crate) generation_stops: Vec<u32>,
}

/// The file or folder of chat templates, and the templates by name.
pub(crate) type Templates = (String, BTreeMap<String, String>);

/// The tokenizer of a folder with a `tokenizer.model`, with the settings of
/// `tokenizer_config.json`.
///
/// Adds missing named tokens to the configuration, because saving writes only `tokenizer.json` and
/// the configuration.
fn sentencepiece(
    dir: &Path,
    config: &mut Map<String, Value>,
    special_tokens: &Map<String, Value>,
) -> Result<Tokenizer, TextError> {
    let (file, bytes) = read_bytes(&dir.join(SENTENCEPIECE))?;
    let mut vocabulary = Vocabulary::parse(&bytes, &file)?;
    add_tokens(dir, &mut vocabulary, config, special_tokens)?;
    let flag = |name: &str| config.get(name).and_then(Value::as_bool);
    vocabulary.prefix_first_only = flag("legacy") == Some(false);
    vocabulary.dummy_prefix = flag("add_prefix_space").unwrap_or(vocabulary.dummy_prefix);
    vocabulary.add_bos = flag("add_bos_token").unwrap_or(vocabulary.add_bos);
    vocabulary.add_eos = flag("add_eos_token").unwrap_or(vocabulary.add_eos);
    let named = named_tokens(config, special_tokens);
    for (name, id) in [
        ("bos_token", &mut vocabulary.bos),
        ("eos_token", &mut vocabulary.eos),
        ("unk_token", &mut vocabulary.unk),
    ] {
        if let Some(token) = named.get(name) {
            // A token that the vocabulary lacks is an error where it is needed.
            let found = vocabulary.pieces.iter().position(|piece| piece.text == *token);
            *id = found.and_then(|found| u32::try_from(found).ok());
        } else if let Some(piece) = id.and_then(|id| vocabulary.pieces.get(id as usize)) {
            config.insert(name.to_owned(), json!(piece.text));
        }
    }
    // transformers' LlamaTokenizer would rebuild the tokenizer from the vocabulary instead of
    // loading the saved one.
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    vocabulary.tokenizer(&file)
}

/// The tokenizer of a folder with a `tekken.json`. Adds its named tokens to the configuration,
/// which Mistral's own folders lack.
fn tekken(
    dir: &Path,
    config: &mut Map<String, Value>,
    special_tokens: &Map<String, Value>,
) -> Result<Tokenizer, TextError> {
    let (file, bytes) = read_bytes(&dir.join(TEKKEN))?;
    let tokenizer = Tokenizer::from_tekken(&bytes, &file)?;
    let named = named_tokens(config, special_tokens);
    for (name, token) in tekken::NAMED {
        if !named.contains_key(name) && tokenizer.token_id(token).is_some() {
            config.insert(name.to_owned(), json!(token));
        }
    }
    config.insert("tokenizer_class".to_owned(), json!("PreTrainedTokenizerFast"));
    Ok(tokenizer)
}

/// Adds the folder's tokens that are not in its `tokenizer.model`.
fn add_tokens(
    dir: &Path,
    vocabulary: &mut Vocabulary,
    config: &Map<String, Value>,
    special_tokens: &Map<String, Value>,
) -> Result<(), TextError> {
    let named = named_tokens(config, special_tokens);
    // By id: the text, whether it is special, and the file.
    let mut tokens: BTreeMap<usize, (String, bool, &str)> = BTreeMap::new();
    for (text, id) in read_object(&dir.join(ADDED_TOKENS))? {
        let id = id.as_u64().and_then(|id| usize::try_from(id).ok());
        let special = named.values().any(|token| *token == text);
        let id = id.ok_or_else(|| {
            let cause = format!("the id of {text:?} is not a number");
            folder_error(&dir.join(ADDED_TOKENS), cause, "correct it, or get the file again")
        })?;
        tokens.insert(id, (text, special, ADDED_TOKENS));
    }
    for (id, token) in
        config.get("added_tokens_decoder").and_then(Value::as_object).into_iter().flatten()
    {
        let trims = ["lstrip", "rstrip", "single_word"].iter().any(|key| token[*key] == true);
        let special = token["special"] == true;
        match (id.parse(), token_text(token)) {
            (Ok(id), Some(text)) if !trims || id < vocabulary.pieces.len() => {
                tokens.insert(id, (text.to_owned(), special, TOKENIZER_CONFIG));
            }
            _ => {
                return Err(folder_error(
                    &dir.join(TOKENIZER_CONFIG),
                    format!(
                        "its added token {id} has no content, or strips neighbouring spaces \
                         (lstrip, rstrip)"
                    ),
                    CONVERT,
                ));
            }
        }
    }
    for (id, (text, special, file)) in tokens {
        let next = vocabulary.pieces.len();
        let kind = if special { PieceKind::Control } else { PieceKind::UserDefined };
        match vocabulary.pieces.get_mut(id) {
            Some(piece) if piece.text == text => {
                if piece.kind != PieceKind::Unknown {
                    piece.kind = kind;
                }
            }
            None if id == next => vocabulary.pieces.push(Piece { text, score: 0.0, kind }),
            found => {
                let has = found.map_or("nothing".to_owned(), |piece| format!("{:?}", piece.text));
                return Err(folder_error(
                    &dir.join(file),
                    format!(
                        "its token {id} is {text:?}, but the {next} tokens before it have {has}"
                    ),
                    CONVERT,
                ));
            }
        }
    }
    Ok(())
}

/// The named tokens that templates see, by name.
fn named_tokens(
    config: &Map<String, Value>,
    special: &Map<String, Value>,
) -> BTreeMap<String, String> {
    let find = |name: &str| {
        config.get(name).and_then(token_text).or(special.get(name).and_then(token_text))
    };
    NAMED.iter().filter_map(|name| Some(((*name).to_owned(), find(name)?.to_owned()))).collect()
}

/// The text of a token: a string, or an object with `content`.
fn token_text(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str())
}

/// The chat templates of a folder, from the first of transformers' locations that has any.
fn templates(dir: &Path, config: &Map<String, Value>) -> Result<Option<Templates>, TextError> {
    let mut files = BTreeMap::new();
    if let Some(source) = read_text(&dir.join(TEMPLATE))? {
        files.insert(DEFAULT.to_owned(), source);
    }
    let named = dir.join(NAMED_TEMPLATES);
    for entry in fs::read_dir(&named).into_iter().flatten().flatten() {
        let path = entry.path();
        let name = path.file_stem().and_then(|name| name.to_str());
        if let (Some(name), true) = (name, path.extension().is_some_and(|ending| ending == "jinja"))
        {
            files.extend(read_text(&path)?.map(|source| (name.to_owned(), source)));
        }
    }
    if !files.is_empty() {
        let location = if files.contains_key(DEFAULT) { dir.join(TEMPLATE) } else { named };
        return Ok(Some((location.display().to_string(), files)));
    }
    let processor = read_object(&dir.join(PROCESSOR_TEMPLATE))?;
    for (file, config) in [(TOKENIZER_CONFIG, config), (PROCESSOR_TEMPLATE, &processor)] {
        let path = dir.join(file);
        if let Some(sources) = config_templates(&path, config)? {
            return Ok(Some((path.display().to_string(), sources)));
        }
    }
    Ok(None)
}

/// The templates in the field `chat_template` of a configuration file, if it has any.
fn config_templates(
    path: &Path,
    config: &Map<String, Value>,
) -> Result<Option<BTreeMap<String, String>>, TextError> {
    match config.get("chat_template") {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(source)) => {
            Ok(Some(BTreeMap::from([(DEFAULT.to_owned(), source.clone())])))
        }
        Some(list) => named_templates(list).map(Some).ok_or_else(|| {
            folder_error(
                path,
                "its `chat_template` is neither a string nor a list of named strings".to_owned(),
                "make it a string, or a list of {\"name\": …, \"template\": …}",
            )
        }),
    }
}

/// Templates by name, from a list of `{"name": …, "template": …}` or an object.
fn named_templates(list: &Value) -> Option<BTreeMap<String, String>> {
    let owned = |text: &Value| text.as_str().map(str::to_owned);
    match list {
        Value::Array(list) => list
            .iter()
            .map(|entry| Some((owned(&entry["name"])?, owned(&entry["template"])?)))
            .collect(),
        Value::Object(object) => {
            object.iter().map(|(name, source)| Some((name.clone(), owned(source)?))).collect()
        }
        _ => None,
    }
}

/// The ids of `eos_token_id`: one id, a list, or none.
fn eos_ids(
    config: &Map<String, Value>,
    path: &Path,
    tokenizer: &Tokenizer,
) -> Result<Vec<u32>, TextError> {
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
                    "its `eos_token_id` has an id that is no token of tokenizer.json".to_owned(),
                    "make it an id, or a list of ids, of the vocabulary",
                )
            })
        })
        .collect()
}

/// A file's text, or `None` if there is no such file.
fn read_text(path: &Path) -> Result<Option<String>, TextError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TextError::Read { path: path.to_owned(), source }),
    }
}

/// A file's path, as errors name it, and its bytes.
fn read_bytes(path: &Path) -> Result<(String, Vec<u8>), TextError> {
    let bytes =
        fs::read(path).map_err(|source| TextError::Read { path: path.to_owned(), source })?;
    Ok((path.display().to_string(), bytes))
}

/// A JSON object; empty if there is no such file.
fn read_object(path: &Path) -> Result<Map<String, Value>, TextError> {
    let Some(text) = read_text(path)? else { return Ok(Map::new()) };
    let cause = match serde_json::from_str(&text) {
        Ok(Value::Object(object)) => return Ok(object),
        Ok(other) => format!("not a JSON object but {}", json_type(Some(&other))),
        Err(e) => format!("not a JSON object: {e}"),
    };
    Err(folder_error(path, cause, "correct it, or get the file again"))
}

fn write_object(path: &Path, object: &Map<String, Value>) -> Result<(), TextError> {
    let text = serde_json::to_string_pretty(object).expect("a JSON object can be serialised");
    write(path, &(text + "\n"))
}

fn write(path: &Path, text: &str) -> Result<(), TextError> {
    fs::write(path, text).map_err(|source| TextError::Write { path: path.to_owned(), source })
}

fn remove(path: &Path) -> Result<(), TextError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            Err(TextError::Write { path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn folder_error(path: &Path, cause: String, remedy: &str) -> TextError {
    TextError::ModelFile { file: path.display().to_string(), cause, remedy: remedy.to_owned() }
}
