//! What `crisol chat` says first: the model, what it was trained for, and questions to try.

use std::path::Path;

use crisol_model::Checkpoint;
use crisol_report::{PhaseReport, PromptReport, Report};

use crate::console::{named_rows, say, shell_word};
use crate::language::language;
use crate::texts::texts;

/// Questions that are shown, and the longest of them in characters.
const QUESTIONS: usize = 4;
const LONGEST: usize = 200;

/// Says it on standard error. `model` is what the user named, `folder` where it was found.
pub(super) fn show(model: &Path, folder: &Path, checkpoint: &Checkpoint) {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    let run = Run::of(&whole);
    let name = model.to_string_lossy();
    let texts = &texts().header;
    let parameters = language().prefixed(checkpoint.parameters() as f64, "");
    let class = checkpoint.model.config().class();
    let mut rows = vec![(texts.model, (texts.shape)([&name, &class, &parameters]))];
    if let Some(run) = &run {
        rows.push((texts.phases, run.path()));
    }
    let kind = run.as_ref().map_or("", |run| run.phase().kind.as_str());
    rows.push((texts.trained, trained(kind).to_owned()));
    if kind == "pretrain" {
        let command = format!("crisol generate {} --prompt \"The sky is\"", shell_word(&name));
        rows.push((texts.for_text, command));
    }
    let own = run.map_or(Vec::new(), |run| questions(&run.report.prompts));
    let questions = if own.is_empty() { texts.questions.map(String::from).to_vec() } else { own };
    let names = std::iter::once(texts.to_try).chain(std::iter::repeat(""));
    rows.extend(names.zip(questions));
    rows.push((texts.help, texts.how_to_get_help.to_owned()));
    say(named_rows(&rows));
}

/// A run and the phase whose checkpoint is asked.
struct Run {
    report: Report,
    phase: usize,
}

impl Run {
    /// The run that a checkpoint's folder belongs to.
    fn of(checkpoint: &Path) -> Option<Run> {
        let report = Report::load(&checkpoint.parent()?.join("report.json")).ok()?;
        let name = checkpoint.file_name()?.to_str()?;
        let phase = report.phases.iter().position(|phase| phase.checkpoint == name)?;
        Some(Run { report, phase })
    }

    fn phase(&self) -> &PhaseReport {
        &self.report.phases[self.phase]
    }

    /// The phases that the model went through.
    fn path(&self) -> String {
        let mut names = vec![self.phase().name.as_str()];
        let mut parent = self.phase().parent.as_deref();
        // Only earlier phases can be parents, which rules out cycles.
        for phase in self.report.phases[..self.phase].iter().rev() {
            if Some(phase.name.as_str()) == parent {
                names.push(&phase.name);
                parent = phase.parent.as_deref();
            }
        }
        names.reverse();
        names.join(" → ")
    }
}

/// What a phase trains for.
fn trained(kind: &str) -> &'static str {
    let texts = &texts().header;
    match kind {
        "pretrain" => texts.pretrain,
        "sft" => texts.sft,
        "reason" => texts.reason,
        "ppo" => texts.ppo,
        "dpo" => texts.dpo,
        _ => texts.elsewhere,
    }
}

/// Prompts of the run's report, one of each kind first: what it knows and solves, what it does not
/// know, what it should refuse.
fn questions(prompts: &[PromptReport]) -> Vec<String> {
    let rank = |kind: &str| {
        ["fact", "short-problem", "unknown", "harmful", "problem"]
            .iter()
            .position(|known| *known == kind)
    };
    let mut asked: Vec<&PromptReport> = prompts
        .iter()
        .filter(|prompt| prompt.form == "chat")
        .filter(|prompt| prompt.prompt.chars().count() <= LONGEST && !prompt.prompt.contains('\n'))
        .collect();
    asked.sort_by_key(|prompt| rank(&prompt.kind).unwrap_or(usize::MAX));
    let (mut first, mut others) = (Vec::new(), Vec::new());
    let mut kinds = Vec::new();
    for prompt in asked {
        if kinds.contains(&&prompt.kind) {
            others.push(prompt.prompt.clone());
        } else {
            kinds.push(&prompt.kind);
            first.push(prompt.prompt.clone());
        }
    }
    first.extend(others);
    first.truncate(QUESTIONS);
    first
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompt(kind: &str, form: &str, text: &str) -> PromptReport {
        PromptReport {
            prompt: text.into(),
            kind: kind.into(),
            form: form.into(),
            ..PromptReport::default()
        }
    }

    #[test]
    fn questions_are_of_different_kinds() {
        let prompts = [
            prompt("document", "text", "Dear"),
            prompt("harmful", "chat", "Steal?"),
            prompt("harmful", "chat", "Lie?"),
            prompt("problem", "chat", &"9 ".repeat(200)),
            prompt("fact", "chat", "Where?"),
            prompt("fact", "chat", "Two\nlines"),
        ];
        assert_eq!(questions(&prompts), ["Where?", "Steal?", "Lie?"]);
        assert!(questions(&prompts[..1]).is_empty());
    }

    #[test]
    fn the_path_follows_the_parents() {
        let phase = |name: &str, parent: Option<&str>| PhaseReport {
            name: name.into(),
            parent: parent.map(Into::into),
            ..PhaseReport::default()
        };
        let phases = vec![
            phase("pretrain", None),
            phase("sft", Some("pretrain")),
            phase("reward", Some("sft")),
            phase("ppo", Some("sft")),
        ];
        let report = Report { phases, ..Report::default() };
        assert_eq!(Run { report, phase: 3 }.path(), "pretrain → sft → ppo");
    }
}
