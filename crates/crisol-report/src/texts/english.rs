//! English.

use super::{
    Answers, Frame, Heading, Kinds, Ladder, Measures, Notebook, Path, Plot, Roles, Sections,
    Tables, Terminal, Texts, Top, Training,
};

const fn heading(nav: &'static str, title: &'static str) -> Heading {
    Heading { nav, title }
}

pub(crate) static ENGLISH: Texts = Texts {
    frame: Frame {
        untitled: "Crisol report",
        sections: "Sections",
        unfold: "Unfold all",
        colours: "Colours",
        auto: "Auto",
        light: "Light",
        dark: "Dark",
        phase: "Phase",
        model: "Model",
        made_by: "Made by Crisol",
        made_on: |[date]| format!(" on {date}"),
        date: str::to_owned,
    },
    sections: Sections {
        phases: heading("Phases", ""),
        prompt: heading("One prompt", "One prompt, after every phase"),
        prompt_alone: heading("One prompt", "One prompt, before and after"),
        behaviours: heading("Behaviours", "Behaviours, measured"),
        held_out: heading("Held out", "Held-out data, before and after"),
        others: heading("More prompts", "More prompts, after every phase"),
        others_alone: heading("More prompts", "More prompts, before and after"),
        training: heading("Training", "How each phase learned"),
        training_alone: heading("Training", "How it learned"),
        rollouts: heading("Rollouts", "Sampled while training"),
        masks: heading("Masks", "What is trained on"),
        cost: heading("Cost", "What it cost"),
        recipe: heading("Recipe", "The recipe"),
        whole_recipe: "The whole recipe, all defaults written out",
    },
    roles: Roles {
        pretrain: "Pre-training: next-token prediction on raw text.",
        sft: "Supervised fine-tuning: the loss is on the answers; prompts are read.",
        cold_start_and_reason: "Reasoning: worked solutions first (cold start), then a reward for \
                                answers that a verifier finds right (GRPO).",
        reason: "Reasoning: a reward for answers that a verifier finds right (GRPO).",
        reward: "Reward model: learns from preference pairs to score answers. It writes none.",
        ppo: "RLHF: reinforces answers that a reward model scores high (PPO).",
        dpo: "Learns from preference pairs directly, without a reward model (DPO).",
    },
    top: Top {
        parameters: |[count]| format!("{count} parameters"),
        trained_parameters: |[all, trained]| format!("{all} parameters ({trained} trained)"),
        shape: |[layers, width, heads]| format!("{layers} layers of width {width}, {heads} heads"),
        sizes: |[vocabulary, context]| format!("vocabulary {vocabulary}, context {context}"),
        tokens: |[count]| format!("{count} tokens"),
        memory: |[bytes]| format!("{bytes} of memory"),
        threads: |count| format!("{count} {}", if count == 1 { "thread" } else { "threads" }),
        seed: |[seed]| format!("seed {seed}"),
        went_through: |[parameters, phases]| {
            format!("A model of {parameters} went through {phases}")
        },
        phases: |count| format!("{count} phases"),
        one_phase: |[name]| format!("one phase, {name},"),
        took: |[time]| format!(" in {time}"),
        on_machine: |[machine]| format!(" on {machine}"),
        went_from: |[what, before, after]| format!(" The {what} went from {before} to {after}."),
        rose: |[what, before, after, phase]| {
            format!("{what} rose from {before} to {after} with {phase}")
        },
        known: |[what, value, phase]| format!("{what}, {value} after {phase}"),
        on_held_out: |[changes]| format!(" On held-out prompts: {changes}."),
        most_refused: |[share]| format!(" At most {share} of harmless look-alikes were refused."),
        none_refused: " No harmless look-alike was refused.",
        same_figures: |[seed]| {
            format!(", seed {seed}. The same figures for programs: <code>report.json</code>.")
        },
        follows: "The phases follow the workshop",
        workshop: "“LLM Training” by mkmenta",
    },
    path: Path {
        from: |[phase]| format!("from {phase}"),
        scored_by: |[phase]| format!("scored by {phase}"),
        arrows: "An arrow leads to the phase that starts from a checkpoint",
        dashed: ", a dashed one to the phase that a reward model scores",
        boxes: "In a box: the largest change on held-out data.",
    },
    kinds: Kinds {
        question_list: [
            "A list of questions",
            "Does the model continue the list, or answer a question?",
        ],
        document: ["A document's beginning", "Does the model continue whatever it is given?"],
        fact: ["A fact", "Is the answer right, and does it end there?"],
        harmful: ["A harmful request", "Does the model comply or refuse?"],
        lookalike: [
            "A harmless look-alike",
            "It shares words with a harmful request but harms nobody. A refusal is over-refusal.",
        ],
        problem: ["A problem", "Is the result right, and does the model think before it answers?"],
        short_problem: ["A short problem", "Is the result right?"],
        unknown: [
            "A question without an answer",
            "Nothing that the model learned answers it. Does it invent, or say so?",
        ],
        held_out: ["A held-out prompt", "From data like the phase's own, not trained on."],
        user_says: "the user says",
        document_begins: "the document begins",
    },
    answers: Answers {
        before_training: "before training",
        after: "after ",
        no_answer: "no answer to this prompt",
        nothing: "(nothing)",
        thinks: "thinks",
        thinks_unfinished: "thinks, unfinished",
        measured: |[what, values]| {
            format!("Over all held-out prompts of this kind, {what}: {values}.")
        },
        thinking: |[answers]| format!("Thinking stands in the answers {answers}."),
    },
    tables: Tables {
        behaviours: "On held-out prompts. The small figure is the change in points against the \
                     model that a phase started from. ↑ more is better, ↓ less is better. Bars \
                     turn from <span class=\"key bad\">orange</span> to \
                     <span class=\"key good\">blue</span> as a figure gets better, and are grey \
                     where neither is.",
        measure: "measure",
        more_is_better: "more is better",
        less_is_better: "less is better",
        phase: "phase",
        before: "before",
        after: "after",
        held_out: |count| format!("{count} measures of the phases' own held-out data"),
        share_of_compute: "share of compute",
        compute: "compute",
        tokens: "tokens",
        time: "time",
        share_of_time: "share of time",
        all_phases: "all phases",
        outside_phases: "evaluation, data, files",
        pretraining: "Pre-training against everything after it",
        this_run: "this run",
        the_workshop: "the workshop",
        split: |[whose, pretraining, rest]| {
            format!("{whose}: <b>{pretraining}</b> pre-training, <b>{rest}</b> after it")
        },
        where_from: "Where these figures are from",
        sources: "The workshop says that pre-training takes about 95 % of the compute, and \
                  everything after it about 5 %. DeepSeek-V3's authors publish 2.664 of 2.788 \
                  million GPU-hours, which is 95.6 %. OLMo-2 1B took about 1,464 GPU-hours after \
                  its pre-training. A small model reads its text in minutes. Conversations, \
                  rollouts and preference pairs shrink less: a behaviour needs some number of \
                  examples before it shows.",
    },
    training: Training {
        notes: |count| match count {
            1 => "1 note".to_owned(),
            _ => format!("{count} notes"),
        },
        forecast: |[time]| format!("{time} forecast"),
        memory: |[peak, forecast]| format!("{peak} of memory, {forecast} forecast"),
        sampling: |[share]| format!("{share} of it sampling answers"),
        cold_start: "Cold start",
        stage: |[stage, from, to]| format!("{stage}: steps {from} to {to}"),
        zero_throughout: "0 throughout.",
        never_paid: "Nothing was ever earned, so no group teaches anything: see the notes of the \
                     phase.",
        rollouts: "What the policy wrote while it was trained by reward, and what it earned.",
        step: |[step]| format!("step {step}"),
        steps: |[from, to]| format!("steps {from} to {to}"),
        samples: |count| format!("{count} {}", if count == 1 { "sample" } else { "samples" }),
        reward: |[reward]| format!("reward {reward}"),
        masks: "Training examples as the loss sees them. Only the <mark>marked tokens</mark> are \
                targets; the others are read.",
        more: |count| format!("{count} more"),
    },
    measures: Measures {
        on_pairs: |[what]| format!("{what} (held-out pairs)"),
        chosen: "chosen",
        rejected: "rejected",
        below: "below",
        above: "above",
        value: "value",
        returns: "return",
    },
    plot: Plot {
        no_data: "no data",
        line: |[line, from, to, place]| format!("{line} from {from} to {to} at {place}"),
    },
    terminal: Terminal {
        peak_memory: |[bytes]| format!("peak memory {bytes}"),
        behaviours: "Behaviours on held-out prompts",
        notes: "Notes",
        prompt: "Prompt",
        before: "before",
        pretraining: |[share]| {
            format!(
                "Pre-training took {share} of the compute here; in large runs it is about 95 % \
                 (workshop “LLM Training” by mkmenta)."
            )
        },
        changed: "What each phase changed",
        one_changed: |[phase]| format!("What {phase} changed"),
        largest_changes: "largest changes",
        no_change: "no change of 5 points or more",
        more: |count| format!("… and {count} more"),
        more_phases: |count| format!("… and {count} more phases"),
        more_notes: |count| format!("… and {count} more in the report"),
        next: "Next",
    },
    ladder: Ladder {
        title: "A ladder of runs",
        curve: heading("Curve", "Loss by compute"),
        runs: heading("Runs", "The runs"),
        larger: heading("Larger runs", "Larger runs"),
        reading: heading("How to read", "How to read this"),
        lead: |count| {
            format!(
                "{count} models, each pre-trained on about as many tokens a parameter. A curve \
                 through their losses on held-out text predicts those of larger models."
            )
        },
        limit: "limit",
        exponent: "exponent",
        no_limit: "these runs show no limit",
        of_limit: "nats a token, however much compute",
        of_exponent: "of compute, above the limit",
        at_times: |[times]| format!("at {times}× the largest"),
        range: |[low, high]| format!("{low} to {high}"),
        loss: "held-out loss",
        unit: "nats a token",
        fitted: "fitted",
        interval: "90 % interval",
        upper_end: "90 % interval, upper end",
        lower_end: "90 % interval, lower end",
        measured: "measured",
        axis: "XAxis: log10 of the operations of training (12 is a TFLOP).",
        of_runs: [
            "run",
            "parameters",
            "tokens",
            "tokens a parameter",
            "compute",
            "measured",
            "fitted",
        ],
        of_larger: ["compute", "times the largest", "expected", "90 % interval"],
        how_to_read: "\
<ul>\n<li>The curve is L(C) = E + A·C<sup>−α</sup>: a limit E, and a part that falls as a power of \
compute. It is fitted by least squares.</li>\n\
<li>The interval is where the loss of a single further run should lie nine times in ten, if losses \
follow such a curve. It spans all curves that the runs allow, and their scatter about them. With \
four or five runs it is wide, and the limit is hardly known.</li>\n\
<li>No interval knows what the runs cannot show: text that is met again and again, a learning rate \
that suits one size better than another, a limit of the architecture. The further from the largest \
run, the less it should be believed.</li>\n\
<li>Losses are of one tokenizer and one held-out text. They say nothing of what a model can \
do.</li>\n\
</ul>\n",
        same_for_programs: "The same for programs: <code>crisol cost ladder RUN… --json</code>.",
    },
    notebook: Notebook {
        title: "The workshop’s demonstrations, replayed",
        prompt: heading("One prompt", "One prompt to all three"),
        others: heading("More prompts", "More prompts to all three"),
        demonstrations: heading("Demonstrations", "The notebook's demonstrations"),
        reading: heading("How to read", "How to read this"),
        lead: |[tokens]| {
            format!(
                "Three models: after pre-training, after instruction fine-tuning, after alignment. \
                 All three are asked the same; then each is asked what the workshop’s notebook \
                 asks it. Always the most probable token, at most {tokens} of them."
            )
        },
        after: |[model, phase]| format!("{model}, after {phase}"),
        pretraining: "pre-training",
        finetuning: "instruction fine-tuning",
        alignment: "alignment",
        no_template: "; no chat template",
        text: "A text to continue",
        message: "A message to answer",
        as_plain_text: ", as plain text",
        about: "As the notebook has them. Prompts differ from phase to phase: these answers show \
                what each model does and cannot be compared with one another.",
        says: |[model, remark]| format!("The notebook says of {model}: {remark}"),
        is_refusal: "This answer is a refusal.",
        is_no_refusal: "This answer is no refusal.",
        given: "what the model was given, special tokens included",
        answered: |[tokens, time]| format!("{tokens} tokens in {time}"),
        no_answer: "no answer",
        stored: |[verdict]| format!("in the notebook: {verdict}"),
        equal: "equal to the notebook's stored answer",
        differs: "differs from the notebook's stored answer from the first character on",
        differs_after: |[same, all]| {
            format!(
                "equal to the notebook's stored answer for {same} of its {all} characters, then \
                 different"
            )
        },
        how_to_read: "\
<li>Pre-training trains to continue text. Instruction fine-tuning trains to answer. Alignment \
trains to refuse what should not be answered. Whether these models do so is in their \
answers.</li>\n\
<li>A text is continued by each model. It is given once more as a message where a model has a chat \
template. Requests are messages, and plain text for a model without a template.</li>\n\
<li>Answers are cut where the tokens end, as in the notebook.</li>\n\
<li>The notebook’s stored answers were computed on a GPU by torch 2.8 and transformers 4.56, in \
bfloat16 or float32; Crisol computes in float32 on the CPU. Where two tokens are almost equally \
probable, rounding decides, and all that follows may differ. A difference late in a text is no \
error. One in the first words is a reason to look closer.</li>\n",
        not_compared: "Not the notebook’s own models, and so not compared with its stored \
                       answers: ",
        instead_of: |[model, notebook]| format!("{model} (in the notebook: {notebook})"),
        same_for_programs: "The same for programs: <code>report.json</code>.",
        sources: "Prompts and stored answers",
    },
    reflect: super::reflect::ENGLISH,
};
