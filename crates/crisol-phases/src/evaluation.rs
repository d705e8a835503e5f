//! Evaluation on held-out data of any shape: loss of text and answers, ranking of pairs, accuracy
//! on problems.
//!
//! Every measure is a ratio of sums over records, as nats over tokens or right answers over
//! answers. Its standard error is that of a ratio of means over records (Cochran, Sampling
//! Techniques, 1977, section 6.4), with ratio r of numerators a and denominators b over n records:
//!
//! ```text
//! SE² = Σ(a − r·b)² · n/(n − 1) / (Σ b)²
//! ```

use std::collections::BTreeMap;

use crisol_model::{Checkpoint, Generated, Head, SamplingOptions, generate, replies};
use crisol_objectives::verifier::verify;
use crisol_text::{
    Body, Encoded, EncodingSummary, Example, PreferenceExample, Record, TextError, TextSetup,
    encode_chunks,
};

use crate::PhaseError;
use crate::behaviours::{ended_by_itself, opening};
use crate::context::PhaseContext;
use crate::data::DataSource;
use crate::passes::{logprobs, scores, values};
use crate::settings::RolloutSettings;

/// Prompts that are answered in one batch.
const PROMPT_BATCH: usize = 16;

/// Options of an evaluation.
#[derive(Clone, Copy, Debug)]
pub struct EvaluationOptions {
    /// Maximum records, from the first; `None`: all.
    pub limit: Option<usize>,
    /// Maximum new tokens of an answer to a problem.
    pub max_new_tokens: usize,
    /// Tokens per shard.
    pub shard_tokens: usize,
}

/// Result of an evaluation.
#[derive(Clone, Debug)]
pub struct Evaluation {
    /// The measures, sorted by the shape of the records.
    pub measures: Vec<Measure>,
    /// Notes on the data: what was cut, dropped or not measured.
    pub notes: Vec<String>,
}

/// One measure.
#[derive(Clone, Debug, PartialEq)]
pub struct Measure {
    /// The records' shape (`text`, `messages`, `prompt/completion`, …).
    pub shape: &'static str,
    /// The measure's id, as in reports.
    pub id: &'static str,
    /// Its value.
    pub value: f64,
    /// Its standard error; `None` for a single record.
    pub standard_error: Option<f64>,
    /// Number of records.
    pub records: usize,
    /// The denominator: trained tokens, answers, pairs or bytes.
    pub count: u64,
}

/// Sums of a ratio over records.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ratio {
    records: usize,
    numerator: f64,
    denominator: f64,
    numerator_squared: f64,
    denominator_squared: f64,
    cross: f64,
}

impl Ratio {
    /// Adds a record.
    pub(crate) fn add(&mut self, numerator: f64, denominator: f64) {
        self.records += 1;
        self.numerator += numerator;
        self.denominator += denominator;
        self.numerator_squared += numerator * numerator;
        self.denominator_squared += denominator * denominator;
        self.cross += numerator * denominator;
    }

    pub(crate) fn value(&self) -> f64 {
        self.numerator / self.denominator
    }

    pub(crate) fn standard_error(&self) -> Option<f64> {
        let n = self.records as f64;
        let r = self.value();
        let squares =
            self.numerator_squared - 2.0 * r * self.cross + r * r * self.denominator_squared;
        (self.records > 1).then(|| (squares.max(0.0) * n / (n - 1.0)).sqrt() / self.denominator)
    }
}

/// A part of a record that is measured.
enum EvalItem {
    /// Trained tokens; of raw text, its bytes too.
    Tokens(Example, Option<usize>),
    Pair(PreferenceExample),
    /// A problem: its prompt, the beginning of the answer in the prompt, and the reference answer.
    Problem {
        prompt: Vec<u32>,
        opening: String,
        answer: String,
    },
    /// Nothing that this model is measured on.
    Unmeasured,
}

/// Measures a model on the records of data files, as they are read.
pub fn evaluate(
    model: &Checkpoint,
    data: &DataSource,
    files: &[String],
    options: &EvaluationOptions,
    mut progress: impl FnMut(usize),
) -> Result<Evaluation, PhaseError> {
    let context = model.model.config().max_document_len();
    let scalar = model.model.config().head == Head::Scalar;
    let mut sums: BTreeMap<(&'static str, &'static str), Ratio> = BTreeMap::new();
    let mut unmeasured: BTreeMap<&'static str, (usize, String)> = BTreeMap::new();
    let records = data.read(files).take(options.limit.unwrap_or(usize::MAX));
    let encode = |record: &Record| items(&model.text, record, context, scalar);
    let mut done = 0;
    let summary = encode_chunks(records, encode, |records, encoded| {
        let mut add =
            |shape, id, over, under| sums.entry((shape, id)).or_default().add(over, under);
        measure(model, options, records, &encoded, &mut add)?;
        for (item, &record) in encoded.examples.iter().zip(&encoded.records) {
            if matches!(item, EvalItem::Unmeasured) {
                let record = &records[record];
                let (count, _) = unmeasured
                    .entry(record.body.shape())
                    .or_insert_with(|| (0, record.location.clone()));
                *count += 1;
            }
        }
        done += records.len();
        progress(done);
        Ok::<_, PhaseError>(())
    })?;
    if sums.is_empty()
        && let Some((shape, (_, place))) = unmeasured.pop_first()
    {
        let wanted = if scalar {
            "a reward model ranks pairs: {\"prompt\": …, \"chosen\": …, \"rejected\": …}"
        } else {
            "an evaluation needs something to compare with: \
             raw text, conversations or completions (loss), pairs (chosen/rejected), \
             or problems with an answer"
        };
        return Err(PhaseError::NothingToMeasure { place, shape, wanted });
    }
    Ok(Evaluation {
        measures: measures(&sums),
        notes: notes(data, files, &summary, context, &unmeasured),
    })
}

/// Accuracy on held-out problems; `None` without files.
pub(crate) fn solved(
    ctx: &PhaseContext<'_>,
    model: &Checkpoint,
    files: &[String],
    max_new_tokens: usize,
) -> Result<Option<f64>, PhaseError> {
    if files.is_empty() {
        return Ok(None);
    }
    let options =
        EvaluationOptions { limit: None, max_new_tokens, shard_tokens: ctx.run.shard_tokens };
    let evaluation = evaluate(model, ctx.data, files, &options, |_| ())?;
    let solved = evaluation.measures.into_iter().find(|measured| measured.id == ACCURACY);
    solved.map(|measured| Some(measured.value)).ok_or_else(|| PhaseError::NothingToMeasure {
        place: files.join(", "),
        shape: "no problems",
        wanted: "held-out data of `reason` is problems with an answer",
    })
}

/// The mean score of the policy's greedy answers to held-out prompts.
pub(crate) fn mean_reward(
    ctx: &mut PhaseContext<'_>,
    files: &[String],
    policy: &Checkpoint,
    reward: &Checkpoint,
    settings: &RolloutSettings,
) -> Result<f64, PhaseError> {
    let Checkpoint { model, params, text } = policy;
    let context = model.config().max_document_len();
    let encode = |record: &_| text.rollout_prompt(record, context);
    let (prompts, _) = ctx.encode("Held out: ", files, context, encode)?;
    let greedy = SamplingOptions::greedy(settings.max_new_tokens, text.stop_ids.clone());
    let mut sum = 0.0;
    for chunk in prompts.chunks(settings.prompts) {
        let answers = generate(model, params, chunk, &greedy)?;
        let answered = |(prompt, answer): (&Vec<u32>, &Generated)| {
            let ids = [prompt.as_slice(), &answer.ids].concat();
            Example { trained: vec![true; ids.len()], ids }
        };
        let examples: Vec<Example> = chunk.iter().zip(&answers).map(answered).collect();
        let scores = scores(&reward.model, &reward.params, &examples, ctx.run.shard_tokens)?;
        sum += scores.into_iter().map(f64::from).sum::<f64>();
    }
    Ok(sum / prompts.len() as f64)
}

fn notes(
    data: &DataSource,
    files: &[String],
    summary: &EncodingSummary,
    context: usize,
    unmeasured: &BTreeMap<&'static str, (usize, String)>,
) -> Vec<String> {
    let mut notes = data.notes(files);
    notes.extend(summary.notes(context));
    for (shape, (count, first)) in unmeasured {
        notes.push(format!(
            "Nothing is measured of {count} records that hold {shape} (the first: {first})."
        ));
    }
    notes
}

/// The parts of a record that are measured.
fn items(
    text: &TextSetup,
    record: &Record,
    context: usize,
    scalar: bool,
) -> Result<Encoded<EvalItem>, TextError> {
    let nothing = || Encoded {
        examples: vec![EvalItem::Unmeasured],
        records: vec![0],
        summary: EncodingSummary { records: 1, ..EncodingSummary::default() },
    };
    Ok(match &record.body {
        Body::Preference { .. } => map(text.preference(record, context)?, EvalItem::Pair),
        _ if scalar => nothing(),
        Body::Text { text: written } => {
            let mut bytes = Some(written.len());
            // A text may become several documents; its bytes count once.
            map(text.supervised(record, context)?, |example| {
                EvalItem::Tokens(example, bytes.take())
            })
        }
        Body::Problem { solution, .. } => {
            let problem = text.problem(record, context)?;
            let mut items = map(problem, |problem| EvalItem::Problem {
                opening: opening(text, &problem.prompt, record),
                prompt: problem.prompt,
                answer: problem.answer,
            });
            if solution.is_some() {
                let worked = text.supervised(record, context)?;
                items.records.extend(worked.examples.iter().map(|_| 0));
                items.examples.extend(
                    worked.examples.into_iter().map(|example| EvalItem::Tokens(example, None)),
                );
            }
            items
        }
        Body::Prompt { .. } => nothing(),
        Body::Chat { .. } | Body::Completion { .. } | Body::Rated { .. } => {
            map(text.supervised(record, context)?, |example| EvalItem::Tokens(example, None))
        }
    })
}

fn map<T>(encoded: Encoded<T>, f: impl FnMut(T) -> EvalItem) -> Encoded<EvalItem> {
    let Encoded { examples, records, summary } = encoded;
    Encoded { examples: examples.into_iter().map(f).collect(), records, summary }
}

/// Measures a chunk of records. Calls `add(shape, id, numerator, denominator)` for each record.
fn measure(
    model: &Checkpoint,
    options: &EvaluationOptions,
    records: &[Record],
    encoded: &Encoded<EvalItem>,
    add: &mut impl FnMut(&'static str, &'static str, f64, f64),
) -> Result<(), PhaseError> {
    let shape = |record: usize| records[record].body.shape();
    let items = || encoded.examples.iter().zip(encoded.records.iter().copied());
    let trained_tokens = |example: &Example| example.trained_tokens() as f64;

    let documents: Vec<&Example> = items()
        .filter_map(
            |(item, _)| if let EvalItem::Tokens(example, _) = item { Some(example) } else { None },
        )
        .collect();
    let scored = logprobs(&model.model, &model.params, documents, 1.0, options.shard_tokens)?;
    let mut scored =
        scored.iter().map(|logps| -logps.iter().map(|&logp| f64::from(logp)).sum::<f64>());
    // Sums over the documents of each record.
    let mut by_record: BTreeMap<usize, (f64, f64, Option<usize>)> = BTreeMap::new();
    for (item, record) in items() {
        if let EvalItem::Tokens(example, bytes) = item {
            let (nats, tokens, all_bytes) = by_record.entry(record).or_default();
            *nats += scored.next().unwrap_or(f64::NAN);
            *tokens += trained_tokens(example);
            *all_bytes = all_bytes.or(*bytes);
        }
    }
    for (record, (nats, tokens, bytes)) in by_record {
        add(shape(record), LOSS, nats, tokens);
        if let Some(bytes) = bytes {
            add(shape(record), BITS_PER_BYTE, nats / std::f64::consts::LN_2, bytes as f64);
        }
    }

    let pairs: Vec<(&PreferenceExample, usize)> = items()
        .filter_map(
            |(item, record)| {
                if let EvalItem::Pair(pair) = item { Some((pair, record)) } else { None }
            },
        )
        .collect();
    let sides = pairs.iter().flat_map(|(pair, _)| [&pair.chosen, &pair.rejected]);
    let Checkpoint { model: network, params, text } = model;
    let (id, scores): (_, Vec<f64>) = if network.config().head == Head::Scalar {
        let last = |values: Vec<f32>| values.last().map_or(f64::NAN, |&value| f64::from(value));
        let values = values(network, params, sides, options.shard_tokens)?;
        (REWARD_ACCURACY, values.into_iter().map(last).collect())
    } else {
        let sum = |logps: Vec<f32>| logps.iter().map(|&logp| f64::from(logp)).sum();
        let logps = logprobs(network, params, sides, 1.0, options.shard_tokens)?;
        (PREFERENCE_ACCURACY, logps.into_iter().map(sum).collect())
    };
    for ((_, record), both) in pairs.iter().zip(scores.chunks(2)) {
        add(shape(*record), id, f64::from(u8::from(both[0] > both[1])), 1.0);
    }

    let problems: Vec<_> = items()
        .filter_map(|(item, record)| match item {
            EvalItem::Problem { prompt, opening, answer } => {
                Some((prompt, opening, answer, record))
            }
            _ => None,
        })
        .collect();
    let greedy = SamplingOptions::greedy(options.max_new_tokens, text.stop_ids.clone());
    for problems in problems.chunks(PROMPT_BATCH) {
        let prompts: Vec<Vec<u32>> =
            problems.iter().map(|(prompt, ..)| (*prompt).clone()).collect();
        let replies = replies(network, params, text, &prompts, &greedy, &[])?;
        for ((_, opening, answer, record), reply) in problems.iter().zip(replies) {
            let verdict = verify(&format!("{opening}{}", reply.text), answer);
            // An answer that was cut off is neither: its last number may be incomplete.
            let ended = ended_by_itself(&reply);
            for (id, holds) in
                [(ACCURACY, verdict.correct && ended), (FORMAT, verdict.format && ended)]
            {
                add(shape(*record), id, f64::from(u8::from(holds)), 1.0);
            }
        }
    }
    Ok(())
}

const LOSS: &str = crate::context::HELD_OUT_LOSS;
const PERPLEXITY: &str = "perplexity";
const BITS_PER_BYTE: &str = "bits_per_byte";
/// Measures of `reason` and `ppo` on their held-out data.
pub(crate) const HELD_OUT_ACCURACY: &str = "heldout_accuracy";
pub(crate) const HELD_OUT_REWARD: &str = "heldout_reward";
pub(crate) const PREFERENCE_ACCURACY: &str = "preference_accuracy";
const REWARD_ACCURACY: &str = "reward_accuracy";
const ACCURACY: &str = "problems_accuracy";
const FORMAT: &str = "format_accuracy";

fn measures(sums: &BTreeMap<(&'static str, &'static str), Ratio>) -> Vec<Measure> {
    let mut all = vec![];
    for (&(shape, id), ratio) in sums {
        let measured = Measure {
            shape,
            id,
            value: ratio.value(),
            standard_error: ratio.standard_error(),
            records: ratio.records,
            count: ratio.denominator as u64,
        };
        if id == LOSS {
            // By the delta method.
            let value = measured.value.exp();
            let standard_error = measured.standard_error.map(|error| error * value);
            all.push(Measure { id: PERPLEXITY, value, standard_error, ..measured.clone() });
        }
        all.push(measured);
    }
    let rank = |measured: &Measure| match measured.id {
        LOSS => 0,
        PERPLEXITY => 1,
        _ => 2,
    };
    all.sort_by_key(|measured| (measured.shape, rank(measured)));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(of: &[(f64, f64)]) -> Ratio {
        let mut ratio = Ratio::default();
        for &(over, under) in of {
            ratio.add(over, under);
        }
        ratio
    }

    #[test]
    fn a_share_has_the_binomial_standard_error() {
        let shares: Vec<_> = (0..40).map(|i| (f64::from(u8::from(i % 4 == 0)), 1.0)).collect();
        let ratio = ratio(&shares);
        assert!((ratio.value() - 0.25).abs() < 1e-12);
        let expected = (0.25_f64 * 0.75 / 39.0).sqrt();
        assert!((ratio.standard_error().unwrap() - expected).abs() < 1e-12);
        assert_eq!(self::ratio(&shares[..1]).standard_error(), None);
    }

    /// The linearised standard error against the bootstrap over records.
    #[test]
    fn a_ratio_of_sums_has_the_standard_error_of_the_bootstrap() {
        let mut state = 7_u64;
        let mut uniform = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1_u64 << 53) as f64
        };
        let records: Vec<(f64, f64)> = (0..300)
            .map(|_| {
                let tokens = (1.0 + 50.0 * uniform()).floor();
                (tokens * (1.0 + uniform()) + 20.0 * uniform(), tokens)
            })
            .collect();
        let measured = ratio(&records).standard_error().unwrap();
        let drawn: Vec<f64> = (0..2000)
            .map(|_| {
                let sample: Vec<_> = (0..records.len())
                    .map(|_| records[(uniform() * records.len() as f64) as usize])
                    .collect();
                ratio(&sample).value()
            })
            .collect();
        let mean = drawn.iter().sum::<f64>() / drawn.len() as f64;
        let spread =
            drawn.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / drawn.len() as f64;
        assert!((measured / spread.sqrt() - 1.0).abs() < 0.1, "{measured} {}", spread.sqrt());
    }
}
