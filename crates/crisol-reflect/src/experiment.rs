//! The experiment as a run: its data, its recipe, and its measures at the end.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crisol_engine::Device;
use crisol_hub::HubError;
use crisol_model::Checkpoint;
use crisol_phases::{AnswerReward, PhaseError, Recipe};
use crisol_report::ReflectReport;
use crisol_train::random_stream;
use serde_json::json;

use crate::items::{Claims, SPLITS, Split};
use crate::measure::Examination;
use crate::objectives::{BASE, FeedReward, OBJECTIVES, Objective, SESSION};
use crate::tasks::{AnswerError, MAX_NEW_TOKENS, Task};

/// How large the experiment is.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// Conversations of the base's fine-tuning.
    pub examples: usize,
    /// Steps of GRPO for each objective.
    pub steps: usize,
    /// Different prompts of a step.
    pub prompts: usize,
}

impl Default for Scale {
    fn default() -> Scale {
        Scale { examples: 4000, steps: 30, prompts: 16 }
    }
}

/// Items that are written for each that is picked, while the base learns the form: picking is
/// learned at once.
const FORM_WRITES: usize = 4;
/// Different tasks of GRPO, half of each kind.
const TASKS: usize = 1200;
/// Folder of the data within the run's.
const DATA: &str = "data";
const FORM: &str = "form.train.jsonl";
const FEED: &str = "feed.train.jsonl";

/// An experiment in a folder.
#[derive(Debug)]
pub struct Experiment {
    out: PathBuf,
    reward: FeedReward,
    form: String,
    feed: String,
}

impl Experiment {
    /// Prepares the data. Nothing is written.
    pub fn new(out: &Path, seed: u64, scale: Scale) -> Experiment {
        let claims = Claims::of_the_world();
        let rng = &mut random_stream(seed, "reflect/form", 0);
        let mut form = String::new();
        // Of every subject: what is held out is what earns a reward, not how items are written.
        let tasks = (scale.examples, FORM_WRITES);
        for task in Task::random(&claims, Split::Train, &SPLITS, tasks, rng) {
            let answer = task.answer(&task.random_item(&claims, rng));
            let messages = json!([
                { "role": "user", "content": task.prompt() },
                { "role": "assistant", "content": answer },
            ]);
            let _ = writeln!(form, "{}", json!({ "messages": messages }));
        }
        let rng = &mut random_stream(seed, "reflect/feed", 0);
        let tasks = Task::random(&claims, Split::Train, &[Split::Train], (TASKS, 1), rng);
        let mut feed = String::new();
        for (i, task) in tasks.iter().enumerate() {
            let prompt = json!([{ "role": "user", "content": task.prompt() }]);
            let _ = writeln!(feed, "{}", json!({ "prompt": prompt, "answer": i.to_string() }));
        }
        let reward = FeedReward::new(claims, tasks, seed);
        Experiment { out: out.to_owned(), reward, form, feed }
    }

    /// Writes the data into the run's folder. What is there stays: a resumed run checks it.
    pub fn write_data(&self, resumed: bool) -> Result<(), HubError> {
        let folder = self.out.join(DATA);
        std::fs::create_dir_all(&folder).map_err(|e| HubError::io("create", &folder, e))?;
        for (name, text) in [(FORM, &self.form), (FEED, &self.feed)] {
            let file = folder.join(name);
            if !(resumed && file.exists()) {
                crisol_hub::write_file_atomically(&file, text.as_bytes())?;
            }
        }
        Ok(())
    }

    /// The recipe: the base, then a phase for each objective. `model` and the folder are absolute
    /// paths.
    pub fn recipe(&self, model: &str, folder: &str, scale: Scale) -> Result<Recipe, PhaseError> {
        let quoted = |text: &str| toml::Value::from(text).to_string();
        let data = Path::new(folder).join(DATA);
        let mut text = format!(
            "title = \"The same model, two objectives\"\nseed = {}\nbase = {}\ndata = {}\n\
             evaluate = \"none\"\n\n\
             [[phases]]\nkind = \"sft\"\nname = \"{BASE}\"\ndata = [\"{FORM}\"]\nheldout = []\n\
             epochs = 1.0\nbatch_tokens = 2048\n\
             optimizer = {{ lr = 1e-3, schedule = \"wsd\", warmup = 0.05 }}\n",
            self.reward.seed,
            quoted(model),
            quoted(&data.to_string_lossy()),
        );
        for objective in OBJECTIVES {
            let kl = if objective == Objective::Kl { KL_COEFFICIENT } else { 0.0 };
            let _ = write!(
                text,
                "\n[[phases]]\nkind = \"reason\"\nname = \"{}\"\nfrom = \"{BASE}\"\n\
                 cold_start.data = []\ndata = [\"{FEED}\"]\nheldout = []\nsteps = {}\n\
                 kl_coefficient = {kl:.3}\n\
                 rollout = {{ prompts = {}, group_size = 8, max_new_tokens = {MAX_NEW_TOKENS}, \
                 minibatches = 2 }}\n\
                 optimizer = {{ lr = 5e-4, schedule = \"wsd\" }}\n",
                objective.name(),
                scale.steps,
                scale.prompts,
            );
        }
        Ok(Recipe::parse("the experiment's recipe", &text)?)
    }

    /// The reward of its phases.
    pub fn reward(&self) -> &dyn AnswerReward {
        &self.reward
    }

    /// Measures the finished models on a split. `begin(name)` is called before each.
    pub fn measure(
        &self,
        recipe: &Recipe,
        split: Split,
        device: &Device,
        mut begin: impl FnMut(&str),
    ) -> Result<ReflectReport, AnswerError> {
        let FeedReward { claims, seed, .. } = &self.reward;
        let load = |name: &str| {
            let folder = self.out.join(recipe.folder(name));
            Checkpoint::load_for_inference(&folder, device)
        };
        let examination = Examination::new(claims, split);
        let base = load(BASE)?;
        begin(BASE);
        let (predictor, log) = self.reward.fitted(&base)?;
        let mut report = ReflectReport {
            readers: examination.readers(),
            feed_items: SESSION,
            predictor: examination.predictor(predictor, log),
            prompts: examination.shown(),
            models: Vec::new(),
        };
        let given = (claims, predictor, *seed);
        report.models.push(examination.measure(BASE, &base, given, &mut report.prompts)?);
        for objective in OBJECTIVES {
            let name = objective.name();
            begin(name);
            let model = load(name)?;
            report.models.push(examination.measure(name, &model, given, &mut report.prompts)?);
        }
        Ok(report)
    }
}

/// Weight of the KL penalty of the guard rail.
const KL_COEFFICIENT: f64 = 0.3;
