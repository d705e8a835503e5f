//! What the report says, in every language: one struct, one file a language. The compiler finds
//! what a language lacks. Labels of measures stand with their ids in [`crate::measures`], and
//! sentences of `report.json` in [`crate::sentences`].
//!
//! Texts of the page are HTML: what comes from users and models is escaped before it is put in.

use std::fmt::Display;

mod english;
mod reflect;
mod spanish;

pub(crate) use english::ENGLISH;
pub(crate) use reflect::Reflect;
pub(crate) use spanish::SPANISH;

/// A text with places to fill.
type Fill<const N: usize> = for<'a> fn([&'a dyn Display; N]) -> String;
/// A text with a number of things.
type Count = fn(usize) -> String;

pub(crate) struct Texts {
    pub(crate) frame: Frame,
    pub(crate) sections: Sections,
    pub(crate) roles: Roles,
    pub(crate) top: Top,
    pub(crate) path: Path,
    pub(crate) kinds: Kinds,
    pub(crate) answers: Answers,
    pub(crate) tables: Tables,
    pub(crate) training: Training,
    pub(crate) measures: Measures,
    pub(crate) plot: Plot,
    pub(crate) terminal: Terminal,
    pub(crate) ladder: Ladder,
    pub(crate) notebook: Notebook,
    pub(crate) reflect: Reflect,
}

/// What is around the sections of every page.
pub(crate) struct Frame {
    /// Title of a report without one.
    pub(crate) untitled: &'static str,
    pub(crate) sections: &'static str,
    pub(crate) unfold: &'static str,
    pub(crate) colours: &'static str,
    pub(crate) auto: &'static str,
    pub(crate) light: &'static str,
    pub(crate) dark: &'static str,
    /// Legend of the buttons that pick a phase, or a model.
    pub(crate) phase: &'static str,
    pub(crate) model: &'static str,
    pub(crate) made_by: &'static str,
    /// Date.
    pub(crate) made_on: Fill<1>,
    /// A date as `report.json` has it.
    pub(crate) date: fn(&str) -> String,
}

/// A section's name in the bar on top, and its heading.
#[derive(Clone, Copy)]
pub(crate) struct Heading {
    pub(crate) nav: &'static str,
    pub(crate) title: &'static str,
}

/// The sections of a run's page. `…_alone`: in the report of a single phase.
pub(crate) struct Sections {
    pub(crate) phases: Heading,
    pub(crate) prompt: Heading,
    pub(crate) prompt_alone: Heading,
    pub(crate) behaviours: Heading,
    pub(crate) held_out: Heading,
    pub(crate) others: Heading,
    pub(crate) others_alone: Heading,
    pub(crate) training: Heading,
    pub(crate) training_alone: Heading,
    pub(crate) rollouts: Heading,
    pub(crate) masks: Heading,
    pub(crate) cost: Heading,
    pub(crate) recipe: Heading,
    /// What the recipe's fold says.
    pub(crate) whole_recipe: &'static str,
}

/// What a kind of phase trains for.
pub(crate) struct Roles {
    pub(crate) pretrain: &'static str,
    pub(crate) sft: &'static str,
    pub(crate) cold_start_and_reason: &'static str,
    pub(crate) reason: &'static str,
    pub(crate) reward: &'static str,
    pub(crate) ppo: &'static str,
    pub(crate) dpo: &'static str,
}

/// The top of a run's page, and its footer.
pub(crate) struct Top {
    pub(crate) parameters: Fill<1>,
    /// Of the model, of its adapter.
    pub(crate) trained_parameters: Fill<2>,
    /// Layers, width, heads.
    pub(crate) shape: Fill<3>,
    /// Vocabulary, context.
    pub(crate) sizes: Fill<2>,
    pub(crate) tokens: Fill<1>,
    pub(crate) memory: Fill<1>,
    pub(crate) threads: Count,
    pub(crate) seed: Fill<1>,
    /// The first sentence: `parameters` or `trained_parameters`, phases. Time and machine follow.
    pub(crate) went_through: Fill<2>,
    pub(crate) phases: Count,
    /// Name of the only phase.
    pub(crate) one_phase: Fill<1>,
    pub(crate) took: Fill<1>,
    pub(crate) on_machine: Fill<1>,
    /// Measure, before, after.
    pub(crate) went_from: Fill<3>,
    /// Measure, before, after, phase.
    pub(crate) rose: Fill<4>,
    /// Measure, value, phase.
    pub(crate) known: Fill<3>,
    /// All of these.
    pub(crate) on_held_out: Fill<1>,
    pub(crate) most_refused: Fill<1>,
    pub(crate) none_refused: &'static str,
    /// After who made it and when: the seed.
    pub(crate) same_figures: Fill<1>,
    /// Before the link to the workshop, and the link's text.
    pub(crate) follows: &'static str,
    pub(crate) workshop: &'static str,
}

/// The picture of the phases.
pub(crate) struct Path {
    pub(crate) from: Fill<1>,
    pub(crate) scored_by: Fill<1>,
    /// What the arrows mean; what dashed ones mean; what is in a box.
    pub(crate) arrows: &'static str,
    pub(crate) dashed: &'static str,
    pub(crate) boxes: &'static str,
}

/// What a kind of prompt is, and what to compare in its answers.
pub(crate) struct Kinds {
    pub(crate) question_list: [&'static str; 2],
    pub(crate) document: [&'static str; 2],
    pub(crate) fact: [&'static str; 2],
    pub(crate) harmful: [&'static str; 2],
    pub(crate) lookalike: [&'static str; 2],
    pub(crate) problem: [&'static str; 2],
    pub(crate) short_problem: [&'static str; 2],
    pub(crate) unknown: [&'static str; 2],
    pub(crate) held_out: [&'static str; 2],
    /// What precedes a message, and a text.
    pub(crate) user_says: &'static str,
    pub(crate) document_begins: &'static str,
}

/// The same prompts, answered after every phase.
pub(crate) struct Answers {
    pub(crate) before_training: &'static str,
    /// Before a phase's name.
    pub(crate) after: &'static str,
    pub(crate) no_answer: &'static str,
    pub(crate) nothing: &'static str,
    pub(crate) thinks: &'static str,
    pub(crate) thinks_unfinished: &'static str,
    /// Measure, and the phases with their values.
    pub(crate) measured: Fill<2>,
    /// The answers that hold thinking.
    pub(crate) thinking: Fill<1>,
}

pub(crate) struct Tables {
    pub(crate) behaviours: &'static str,
    pub(crate) measure: &'static str,
    pub(crate) more_is_better: &'static str,
    pub(crate) less_is_better: &'static str,
    pub(crate) phase: &'static str,
    pub(crate) before: &'static str,
    pub(crate) after: &'static str,
    pub(crate) held_out: Count,
    pub(crate) share_of_compute: &'static str,
    pub(crate) compute: &'static str,
    pub(crate) tokens: &'static str,
    pub(crate) time: &'static str,
    pub(crate) share_of_time: &'static str,
    pub(crate) all_phases: &'static str,
    pub(crate) outside_phases: &'static str,
    pub(crate) pretraining: &'static str,
    pub(crate) this_run: &'static str,
    pub(crate) the_workshop: &'static str,
    /// Whose, the share of pre-training, the rest.
    pub(crate) split: Fill<3>,
    pub(crate) where_from: &'static str,
    pub(crate) sources: &'static str,
}

/// How the phases learned.
pub(crate) struct Training {
    pub(crate) notes: Count,
    pub(crate) forecast: Fill<1>,
    /// Peak, forecast.
    pub(crate) memory: Fill<2>,
    pub(crate) sampling: Fill<1>,
    pub(crate) cold_start: &'static str,
    /// Stage, first and last step.
    pub(crate) stage: Fill<3>,
    pub(crate) zero_throughout: &'static str,
    pub(crate) never_paid: &'static str,
    pub(crate) rollouts: &'static str,
    pub(crate) step: Fill<1>,
    pub(crate) steps: Fill<2>,
    pub(crate) samples: Count,
    pub(crate) reward: Fill<1>,
    pub(crate) masks: &'static str,
    pub(crate) more: Count,
}

/// Names that are made of a measure's label.
pub(crate) struct Measures {
    pub(crate) on_pairs: Fill<1>,
    pub(crate) chosen: &'static str,
    pub(crate) rejected: &'static str,
    pub(crate) below: &'static str,
    pub(crate) above: &'static str,
    pub(crate) value: &'static str,
    pub(crate) returns: &'static str,
}

pub(crate) struct Plot {
    pub(crate) no_data: &'static str,
    /// Line, from, to, where.
    pub(crate) line: Fill<4>,
}

/// The report for a terminal. Its tables share words with the page's.
pub(crate) struct Terminal {
    pub(crate) peak_memory: Fill<1>,
    pub(crate) behaviours: &'static str,
    pub(crate) notes: &'static str,
    pub(crate) prompt: &'static str,
    /// Name of the starting model's answers.
    pub(crate) before: &'static str,
    /// The share of pre-training.
    pub(crate) pretraining: Fill<1>,
    pub(crate) changed: &'static str,
    pub(crate) one_changed: Fill<1>,
    pub(crate) largest_changes: &'static str,
    pub(crate) no_change: &'static str,
    pub(crate) more: Count,
    pub(crate) more_phases: Count,
    pub(crate) more_notes: Count,
    pub(crate) next: &'static str,
}

/// The page of a ladder of runs.
pub(crate) struct Ladder {
    pub(crate) title: &'static str,
    pub(crate) curve: Heading,
    pub(crate) runs: Heading,
    pub(crate) larger: Heading,
    pub(crate) reading: Heading,
    pub(crate) lead: Count,
    pub(crate) limit: &'static str,
    pub(crate) exponent: &'static str,
    pub(crate) no_limit: &'static str,
    pub(crate) of_limit: &'static str,
    pub(crate) of_exponent: &'static str,
    pub(crate) at_times: Fill<1>,
    pub(crate) range: Fill<2>,
    pub(crate) loss: &'static str,
    pub(crate) unit: &'static str,
    pub(crate) fitted: &'static str,
    pub(crate) interval: &'static str,
    pub(crate) upper_end: &'static str,
    pub(crate) lower_end: &'static str,
    pub(crate) measured: &'static str,
    pub(crate) axis: &'static str,
    /// Heads of the table of runs, and of larger ones.
    pub(crate) of_runs: [&'static str; 7],
    pub(crate) of_larger: [&'static str; 4],
    pub(crate) how_to_read: &'static str,
    pub(crate) same_for_programs: &'static str,
}

/// The page of a replay of the workshop's notebook.
pub(crate) struct Notebook {
    pub(crate) title: &'static str,
    pub(crate) prompt: Heading,
    pub(crate) others: Heading,
    pub(crate) demonstrations: Heading,
    pub(crate) reading: Heading,
    /// Maximum tokens of an answer.
    pub(crate) lead: Fill<1>,
    /// A model's badge and phase.
    pub(crate) after: Fill<2>,
    pub(crate) pretraining: &'static str,
    pub(crate) finetuning: &'static str,
    pub(crate) alignment: &'static str,
    pub(crate) no_template: &'static str,
    pub(crate) text: &'static str,
    pub(crate) message: &'static str,
    pub(crate) as_plain_text: &'static str,
    pub(crate) about: &'static str,
    /// The notebook's model, and its remark.
    pub(crate) says: Fill<2>,
    pub(crate) is_refusal: &'static str,
    pub(crate) is_no_refusal: &'static str,
    pub(crate) given: &'static str,
    /// Tokens, time.
    pub(crate) answered: Fill<2>,
    pub(crate) no_answer: &'static str,
    pub(crate) stored: Fill<1>,
    pub(crate) equal: &'static str,
    pub(crate) differs: &'static str,
    /// Equal characters, all characters.
    pub(crate) differs_after: Fill<2>,
    /// What the answers show, how prompts are put, how they are compared: items of a list.
    pub(crate) how_to_read: &'static str,
    pub(crate) not_compared: &'static str,
    /// A model, and the notebook's in its role.
    pub(crate) instead_of: Fill<2>,
    pub(crate) same_for_programs: &'static str,
    pub(crate) sources: &'static str,
}
