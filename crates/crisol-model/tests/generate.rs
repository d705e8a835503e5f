//! Generation and scoring: training, prefill and decode agree on log-probabilities, and tokens
//! depend neither on the batch nor on threads.

use std::ops::ControlFlow;

use crisol_engine::{Device, KvCache, Params, Role, Tape, Workspace};
use crisol_model::{
    Architecture, Config, Conversation, Generated, Head, Model, ModelError, PREFILL_TOKENS,
    PastKeyValues, RopeScaling, SamplingOptions, StopReason, generate, generate_stream, scalars,
    score,
};

const VOCAB: usize = 61;

fn config(architecture: Architecture) -> Config {
    Config {
        num_key_value_heads: 2,
        max_position_embeddings: 64,
        ..Config::new(architecture, VOCAB, 32, 2, 4, 48)
    }
}

/// A model whose next-token distributions are far from uniform and from one another.
fn model(architecture: Architecture, threads: usize) -> (Model, Params) {
    larger(config(architecture), threads)
}

/// A model with larger weights than at the start of training.
fn larger(config: Config, threads: usize) -> (Model, Params) {
    let device = Device::cpu(Some(threads));
    let (model, mut params) = Model::init(config, &device, 7).expect("a valid shape");
    for id in params.ids() {
        if params.spec(id).role != Role::Vector {
            let larger: Vec<f32> = params.read(id).iter().map(|w| w * 12.0).collect();
            params.write(id, &larger);
        }
    }
    (model, params)
}

/// Distinct token sequences of these lengths.
fn sequences(lengths: &[usize]) -> Vec<Vec<u32>> {
    let token = |s: usize, t: usize| ((s * 31 + t * t * 7 + t * 13) % VOCAB) as u32;
    lengths
        .iter()
        .enumerate()
        .map(|(s, &length)| (0..length).map(|t| token(s, t)).collect())
        .collect()
}

fn assert_close(a: &[f32], b: &[f32], tolerance: f32) {
    assert_eq!(a.len(), b.len());
    for (x, y) in a.iter().zip(b) {
        assert!((x - y).abs() < tolerance, "{x} and {y}");
    }
}

#[test]
fn training_prefill_and_decode_give_the_same_log_probs() -> Result<(), ModelError> {
    for architecture in [Architecture::Llama, Architecture::Olmo2] {
        let (model, params) = model(architecture, 1);
        let mut workspace = Workspace::new(params.device());
        let ids = sequences(&[40]).remove(0);
        let n = ids.len();
        let rows: Vec<u32> = (0..n as u32 - 1).collect();

        let mut tape = Tape::training(&params, &mut workspace);
        let hidden = model.hidden(&mut tape, &ids, &[0, n as u32], PastKeyValues::None)?;
        let (logp, _) = model.token_scores(&mut tape, hidden, &rows, &ids[1..], 1.0, false)?;
        let training = tape.read(logp).into_owned();
        drop(tape);

        // One pass, uneven passes, one token per pass.
        for pieces in [vec![n], vec![1, 17, 2, n - 20], vec![1; n]] {
            let kv = model.config().num_key_value_heads * model.config().head_dim;
            let mut cache = KvCache::new(params.device(), 2, kv, kv, 3, n);
            let mut cached = Vec::new();
            let mut start = 0;
            for piece in pieces {
                let end = start + piece;
                let mut tape = Tape::inference(&params, &mut workspace);
                let past = PastKeyValues::Cached { cache: &mut cache, slots: &[1] };
                let hidden = model.hidden(&mut tape, &ids[start..end], &[0, piece as u32], past)?;
                let targets = &ids[start + 1..n.min(end + 1)];
                if !targets.is_empty() {
                    let rows: Vec<u32> = (0..targets.len() as u32).collect();
                    let (logp, _) =
                        model.token_scores(&mut tape, hidden, &rows, targets, 1.0, false)?;
                    cached.extend_from_slice(&tape.read(logp));
                }
                start = end;
            }
            assert_close(&cached, &training, 1e-4);
        }
        assert_close(&score(&model, &params, &[&ids], 1.0)?[0], &training, 1e-4);
    }
    Ok(())
}

#[test]
fn generated_log_probs_equal_training() -> Result<(), ModelError> {
    let (model, params) = model(Architecture::Llama, 2);
    let prompts = sequences(&[5, 9, 1, 14]);
    for (temperature, top_k, top_p) in
        [(1.0, None, None), (0.7, Some(8), Some(0.9)), (0.0, None, None)]
    {
        let options = SamplingOptions {
            max_new_tokens: 20,
            temperature,
            top_k,
            top_p,
            seed: 3,
            ..SamplingOptions::default()
        };
        let generated = generate(&model, &params, &prompts, &options)?;
        assert_eq!(generated.len(), prompts.len());
        assert!(generated.iter().all(|new| new.ids.len() == 20));
        let whole: Vec<Vec<u32>> = prompts
            .iter()
            .zip(&generated)
            .map(|(prompt, new)| [prompt.as_slice(), &new.ids].concat())
            .collect();
        let scale = if temperature == 0.0 { 1.0 } else { 1.0 / temperature };
        for ((scores, prompt), new) in
            score(&model, &params, &whole, scale)?.iter().zip(&prompts).zip(&generated)
        {
            assert_close(&scores[prompt.len() - 1..], &new.logprobs, 1e-4);
        }
    }
    Ok(())
}

#[test]
fn greedy_takes_the_most_probable_token_at_every_step() -> Result<(), ModelError> {
    let (model, params) = model(Architecture::Olmo2, 1);
    let prompt = sequences(&[6]).remove(0);
    let generated = generate(
        &model,
        &params,
        std::slice::from_ref(&prompt),
        &SamplingOptions::greedy(10, vec![]),
    )?
    .remove(0);
    assert_eq!((generated.ids.len(), generated.logprobs.len()), (10, 10));
    let mut so_far = prompt;
    for (&id, &logprob) in generated.ids.iter().zip(&generated.logprobs) {
        let continued: Vec<Vec<u32>> =
            (0..VOCAB as u32).map(|next| [so_far.as_slice(), &[next]].concat()).collect();
        let scores = score(&model, &params, &continued, 1.0)?;
        let best = scores.iter().map(|s| s[s.len() - 1]).fold(f32::NEG_INFINITY, f32::max);
        assert!((scores[id as usize][so_far.len() - 1] - best).abs() < 1e-5);
        assert!((logprob - best).abs() < 1e-4);
        so_far.push(id);
    }
    Ok(())
}

fn options(seed: u64) -> SamplingOptions {
    SamplingOptions {
        max_new_tokens: 25,
        seed,
        stop_ids: vec![3, 4, 5, 6],
        ..SamplingOptions::default()
    }
}

/// More prompts than slots, of many lengths, some in groups of identical prompts.
fn crowd() -> Vec<Vec<u32>> {
    let lengths: Vec<usize> = (0..100).map(|i| 1 + i * 7 % 30).collect();
    let mut prompts = sequences(&lengths);
    for start in [3, 20, 61] {
        let prompt = prompts[start].clone();
        prompts[start..start + 8].fill(prompt);
    }
    prompts
}

/// Turns that extend, rewrite or restart the conversation, and one that outgrows the cache.
#[test]
fn a_reused_cache_gives_the_tokens_of_a_fresh_one() -> Result<(), ModelError> {
    for architecture in [Architecture::Llama, Architecture::Olmo2, Architecture::Qwen3] {
        let (model, params) = model(architecture, 2);
        let mut conversation = Conversation::default();
        let all = |_| ControlFlow::Continue(());
        let greedy = SamplingOptions::greedy(5, vec![]);
        let mut prompt = sequences(&[6]).remove(0);
        let mut reused = Vec::new();
        for turn in 0..7 {
            let options = if turn % 2 == 0 {
                greedy.clone()
            } else {
                SamplingOptions { max_new_tokens: 5, ..options(3) }
            };
            let continued = conversation.generate(&model, &params, &prompt, &options, all)?;
            let alone = generate_stream(&model, &params, &prompt, &options, all)?;
            assert_eq!(continued.ids, alone.ids, "{architecture:?} turn {turn}");
            assert_close(&continued.logprobs, &alone.logprobs, 1e-3);
            reused.push((conversation.reused(), prompt.len()));
            match turn {
                // A template that removes a part of the last answer.
                2 => prompt.truncate(prompt.len() - 3),
                // Another conversation with the same first two tokens.
                4 => prompt = [&prompt[..2], &sequences(&[3, 9])[1]].concat(),
                // The same prompt again.
                5 => {}
                _ => prompt.extend(&continued.ids),
            }
            if ![2, 5].contains(&turn) {
                prompt.extend([7, 8, (turn + 9) as u32]);
            }
        }
        // The last token of an answer was never fed back.
        assert_eq!(reused[0], (0, 6), "{reused:?}");
        assert_eq!(reused[1].0, 10, "{reused:?}");
        assert_eq!(reused[3].0, reused[3].1 - 1, "cut {reused:?}");
        assert_eq!(reused[5].0, 2, "another conversation {reused:?}");
        assert_eq!(reused[6].0, reused[6].1 - 1, "again {reused:?}");
        let long = sequences(&[50]).remove(0);
        let continued = conversation.generate(&model, &params, &long, &greedy, all)?;
        assert_eq!(continued.ids, generate_stream(&model, &params, &long, &greedy, all)?.ids);
    }
    Ok(())
}

#[test]
fn tokens_depend_neither_on_threads_nor_on_the_batch() -> Result<(), ModelError> {
    let prompts = crowd();
    let (model_1, params_1) = model(Architecture::Llama, 1);
    let all = generate(&model_1, &params_1, &prompts, &options(1))?;
    let (model_3, params_3) = model(Architecture::Llama, 3);
    assert_eq!(
        generate(&model_3, &params_3, &prompts, &options(1))?,
        all,
        "bits depend on threads"
    );

    // Alone, through the stream. The first sequence of a call always has the same random stream;
    // shifting the prompts makes each of the compared sequences the first.
    for shift in [0, 3, 40] {
        let shifted = generate(&model_1, &params_1, &prompts[shift..], &options(9))?;
        let mut streamed = Vec::new();
        let alone = generate_stream(&model_1, &params_1, &prompts[shift], &options(9), |id| {
            streamed.push(id);
            ControlFlow::Continue(())
        })?;
        assert_eq!(alone.ids, shifted[0].ids);
        assert_eq!(alone.ids, streamed);
        assert_close(&alone.logprobs, &shifted[0].logprobs, 1e-4);
    }

    // Members of a group share the prompt but not the random stream.
    let mut group: Vec<&Generated> = all[20..28].iter().collect();
    group.dedup_by(|a, b| a.ids == b.ids);
    assert!(group.len() > 4, "members of a group are equal");
    Ok(())
}

#[test]
fn greedy_tokens_are_equal_in_a_batch_and_alone() -> Result<(), ModelError> {
    let (model, params) = model(Architecture::Olmo2, 2);
    let prompts = crowd();
    let greedy = SamplingOptions::greedy(12, vec![2]);
    let together = generate(&model, &params, &prompts, &greedy)?;
    for i in [0, 5, 20, 27, 50, 99] {
        let alone = generate(&model, &params, &prompts[i..=i], &greedy)?.remove(0);
        assert_eq!(alone.ids, together[i].ids);
        assert_eq!(alone.stopped_by, together[i].stopped_by);
    }
    Ok(())
}

/// A stop token that one member of a group draws first does not change what the others say.
#[test]
fn a_member_that_ends_at_once_leaves_the_prompt_to_its_group() -> Result<(), ModelError> {
    let (model, params) = model(Architecture::Llama, 2);
    let group = vec![sequences(&[9]).remove(0); 8];
    let endless = SamplingOptions { stop_ids: vec![], ..options(1) };
    let whole = generate(&model, &params, &group, &endless)?;
    let stop = whole[0].ids[0];
    assert!(whole.iter().any(|member| member.ids[0] != stop), "{whole:?}");
    let options = SamplingOptions { stop_ids: vec![stop], ..options(1) };
    for (ended, whole) in generate(&model, &params, &group, &options)?.iter().zip(&whole) {
        let end = whole.ids.iter().position(|&id| id == stop).map_or(whole.ids.len(), |i| i + 1);
        assert_eq!(ended.ids, whole.ids[..end]);
    }
    Ok(())
}

#[test]
fn seeds_select_the_tokens() -> Result<(), ModelError> {
    let (model, params) = model(Architecture::Llama, 2);
    let prompts = crowd();
    let one = generate(&model, &params, &prompts, &options(1))?;
    assert_eq!(generate(&model, &params, &prompts, &options(1))?, one);
    let other = generate(&model, &params, &prompts, &options(2))?;
    let same = one.iter().zip(&other).filter(|(a, b)| a.ids == b.ids).count();
    assert!(
        same < prompts.len() / 2,
        "{same} of {} are the same under another seed",
        prompts.len()
    );
    Ok(())
}

#[test]
fn stop_reasons_are_correct() -> Result<(), ModelError> {
    let (model, params) = model(Architecture::Llama, 2);
    let context = model.config().max_position_embeddings;
    let mut prompts = crowd();
    prompts.extend(sequences(&[context - 3, context]));
    let options = options(5);
    let mut reasons = Vec::new();
    for (prompt, new) in prompts.iter().zip(generate(&model, &params, &prompts, &options)?) {
        assert_eq!(new.ids.len(), new.logprobs.len());
        assert!(new.content().iter().all(|id| !options.stop_ids.contains(id)));
        match new.stopped_by {
            StopReason::StopToken => {
                assert!(new.ids.last().is_some_and(|id| options.stop_ids.contains(id)));
                assert_eq!(new.content().len() + 1, new.ids.len());
            }
            StopReason::Length => assert_eq!(new.ids.len(), options.max_new_tokens),
            StopReason::Context => assert_eq!(prompt.len() + new.ids.len(), context),
            StopReason::StopString | StopReason::Receiver => {
                panic!("no stop string and no receiver")
            }
        }
        reasons.push(new.stopped_by);
    }
    assert!(reasons.contains(&StopReason::StopToken) && reasons.contains(&StopReason::Length));
    assert_eq!(reasons[101], StopReason::Context);

    let broken_off =
        generate_stream(&model, &params, &[1], &SamplingOptions::greedy(9, vec![]), |_| {
            ControlFlow::Break(())
        })?;
    assert_eq!((broken_off.ids.len(), broken_off.stopped_by), (1, StopReason::Receiver));
    let empty = generate(&model, &params, &prompts[..2], &SamplingOptions::greedy(0, vec![]))?;
    assert!(empty.iter().all(|new| new.ids.is_empty() && new.stopped_by == StopReason::Length));
    assert!(generate(&model, &params, &[], &options)?.is_empty());
    Ok(())
}

/// `LongRoPE` takes other factors for texts longer than the original context: in generation all
/// keys are then computed again, also where a prompt has several passes or a conversation grows.
#[test]
fn a_text_that_becomes_long_is_computed_again() -> Result<(), ModelError> {
    let config = |original, max| Config {
        max_position_embeddings: max,
        rope_scaling: RopeScaling::LongRope {
            short_factor: vec![1.0; 4],
            long_factor: vec![4.0; 4],
            original_max_position_embeddings: original,
            factor: 2.0,
            attention_factor: None,
        },
        ..config(Architecture::Phi3)
    };
    let all = |_| ControlFlow::Continue(());
    let options = SamplingOptions::greedy(9, vec![]);
    let (model, params) = larger(config(20, 64), 1);
    let prompts = sequences(&[15, 19, 20, 21, 30, 5]);
    for (prompt, new) in prompts.iter().zip(&generate(&model, &params, &prompts, &options)?) {
        assert_as_in_one_pass(&model, &params, prompt, new)?;
    }
    let mut conversation = Conversation::default();
    let turns = sequences(&[40]).remove(0);
    for length in [8, 15, 18, 26, 33, 12] {
        let new = conversation.generate(&model, &params, &turns[..length], &options, all)?;
        assert_as_in_one_pass(&model, &params, &turns[..length], &new)?;
    }

    let original = PREFILL_TOKENS + 30;
    let (model, params) = larger(config(original, 2 * original), 1);
    let prompts = sequences(&[original - 1, original + 40, 3]);
    let options = SamplingOptions::greedy(3, vec![]);
    for (prompt, new) in prompts.iter().zip(&generate(&model, &params, &prompts, &options)?) {
        assert_as_in_one_pass(&model, &params, prompt, new)?;
    }
    Ok(())
}

/// Checks greedily generated log-probabilities against passes of the whole text before each token.
fn assert_as_in_one_pass(
    model: &Model,
    params: &Params,
    prompt: &[u32],
    new: &Generated,
) -> Result<(), ModelError> {
    let mut workspace = Workspace::new(params.device());
    let whole = [prompt, &new.ids].concat();
    for (logprob, end) in new.logprobs.iter().zip(prompt.len()..) {
        let mut tape = Tape::inference(params, &mut workspace);
        let hidden =
            model.hidden(&mut tape, &whole[..end], &[0, end as u32], PastKeyValues::None)?;
        let logits = model.logits(&mut tape, hidden, &[end as u32 - 1])?;
        let logits = tape.read(logits);
        let total: f32 = logits.iter().map(|x| x.exp()).sum();
        let expected = logits[whole[end] as usize] - total.ln();
        assert!((logprob - expected).abs() < 1e-3, "after {end} tokens: {logprob}, not {expected}");
    }
    Ok(())
}

#[test]
fn long_prompts_are_prefilled_in_pieces() -> Result<(), ModelError> {
    let device = Device::cpu(Some(1));
    let config = Config { max_position_embeddings: 5000, ..config(Architecture::Llama) };
    let (model, params) = Model::init(config, &device, 1)?;
    let prompts = sequences(&[100, 4500, 700]);
    let options = SamplingOptions { max_new_tokens: 3, ..SamplingOptions::default() };
    let generated = generate(&model, &params, &prompts, &options)?;
    assert_eq!(generated.len(), prompts.len());
    for (prompt, new) in prompts.iter().zip(generated) {
        assert_eq!(new.ids.len(), 3);
        let whole = [prompt.as_slice(), &new.ids].concat();
        assert_close(
            &score(&model, &params, &[&whole], 1.0)?[0][prompt.len() - 1..],
            &new.logprobs,
            1e-4,
        );
    }
    Ok(())
}

#[test]
fn impossible_requests_are_errors() {
    let (model, params) = model(Architecture::Llama, 1);
    let greedy = SamplingOptions::greedy(5, vec![]);
    let generated = |prompt: Vec<u32>| generate(&model, &params, &[vec![1], prompt], &greedy);
    assert!(matches!(generated(vec![]), Err(ModelError::EmptySequence { index: 1 })));
    assert!(matches!(generated(vec![1; 65]), Err(ModelError::TooLong { length: 65, limit: 64 })));
    assert!(matches!(generated(vec![61]), Err(ModelError::UnknownToken { id: 61, vocab: 61 })));
    assert!(matches!(score(&model, &params, &[vec![1; 65]], 1.0), Err(ModelError::TooLong { .. })));
    assert!(matches!(
        score(&model, &params, &[[0, u32::MAX]], 1.0),
        Err(ModelError::UnknownToken { .. })
    ));
    assert!(matches!(scalars(&model, &params, &[[1]]), Err(ModelError::WrongHead { .. })));
    let (reward, weights) = model.scalar_from(&params, 1);
    assert!(matches!(score(&reward, &weights, &[[1]], 1.0), Err(ModelError::WrongHead { .. })));
    assert!(matches!(
        generate(&reward, &weights, &[vec![1]], &greedy),
        Err(ModelError::WrongHead { .. })
    ));
}

#[test]
fn batched_scores_equal_single_scores() -> Result<(), ModelError> {
    let (model, params) = model(Architecture::Llama, 2);
    let sequences = sequences(&[7, 1, 0, 64, 30]);
    let together = score(&model, &params, &sequences, 1.0)?;
    assert_eq!(together.iter().map(Vec::len).collect::<Vec<_>>(), [6, 0, 0, 63, 29]);
    for (sequence, scores) in sequences.iter().zip(&together) {
        assert_close(&score(&model, &params, &[sequence], 1.0)?[0], scores, 1e-5);
    }
    Ok(())
}

#[test]
fn a_scalar_model_starts_from_the_trunk_of_a_language_model() -> Result<(), ModelError> {
    let (language, params) = model(Architecture::Olmo2, 1);
    let (reward, weights) = language.scalar_from(&params, 3);
    assert_eq!(reward.config().head, Head::Scalar);
    let names: Vec<&str> = weights.specs().iter().map(|spec| spec.name.as_str()).collect();
    assert!(names.contains(&"score.weight") && !names.contains(&"lm_head.weight"));
    let copied = |id| params.id(&weights.spec(id).name).map(|old| (id, old));
    let trunk: Vec<_> = weights.ids().filter_map(copied).collect();
    assert_eq!(trunk.len(), names.len() - 1, "all but the head are copied");
    for (new, old) in trunk {
        assert_eq!(weights.read(new), params.read(old));
    }
    // The scalar is the dot product of final hidden state and score.weight.
    let ids = sequences(&[9]).remove(0);
    let mut workspace = Workspace::new(params.device());
    let mut tape = Tape::inference(&params, &mut workspace);
    let hidden = language.hidden(&mut tape, &ids, &[0, 9], PastKeyValues::None)?;
    let head = weights.read(weights.id("score.weight").expect("just seen"));
    let expected: Vec<f32> = tape
        .read(hidden)
        .chunks(32)
        .map(|state| state.iter().zip(&head).map(|(h, w)| h * w).sum())
        .collect();
    assert_close(&scalars(&reward, &weights, &[&ids])?[0], &expected, 1e-5);
    // A value model made from the reward model keeps its head.
    let (_, value) = reward.scalar_from(&weights, 99);
    assert_eq!(value.read(value.id("score.weight").expect("a scalar model")), head);
    Ok(())
}
