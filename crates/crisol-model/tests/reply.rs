//! Answers as text with stop strings: batched prompts of any length equal single prompts.

use std::ops::ControlFlow;

use crisol_engine::{Device, Params, Role};
use crisol_model::{
    Architecture, Config, Model, ModelError, Reply, SamplingOptions, StopReason, replies,
    stream_reply,
};
use crisol_text::{EMBEDDED_TOKENS, TextSetup, Tokenizer};

const TEXT: &str =
    "The capital of Peru is Lima, and the capital of Chile is Santiago. Who says so?";

fn setup() -> (Model, Params, TextSetup) {
    let tokenizer = Tokenizer::train([TEXT], 300, &EMBEDDED_TOKENS).expect("enough text");
    let text = TextSetup::embedded(tokenizer).expect("it has the embedded tokens");
    let config = Config::new(Architecture::Llama, text.tokenizer.vocab_size(), 32, 2, 4, 48);
    let (model, mut params) = Model::init(config, &Device::cpu(Some(2)), 7).expect("a valid shape");
    for id in params.ids() {
        if params.spec(id).role != Role::Vector {
            let larger: Vec<f32> = params.read(id).iter().map(|w| w * 12.0).collect();
            params.write(id, &larger);
        }
    }
    (model, params, text)
}

#[test]
fn stop_strings_end_each_answer_of_a_batch_separately() -> Result<(), ModelError> {
    let (model, params, text) = setup();
    let prompts: Vec<Vec<u32>> =
        (1..40).map(|end| text.tokenizer.encode(&TEXT[..end])).collect::<Result<_, _>>()?;
    let options = SamplingOptions::greedy(24, text.stop_ids.clone());
    let whole = replies(&model, &params, &text, &prompts, &options, &[])?;
    // A pair of characters that some answers contain and others do not.
    let holds = |stop: &String| whole.iter().filter(|reply| reply.text.contains(stop)).count();
    let letters = || ('!'..='z').flat_map(|a| ('!'..='z').map(move |b| format!("{a}{b}")));
    let stop = letters().find(|stop| (3..30).contains(&holds(stop))).expect("answers differ");
    let stops = [stop.clone(), "never said".to_owned()];
    let cut = replies(&model, &params, &text, &prompts, &options, &stops)?;
    assert_eq!((cut.len(), whole.len()), (prompts.len(), prompts.len()));
    for (prompt, (cut, whole)) in prompts.iter().zip(cut.iter().zip(&whole)) {
        match whole.text.find(&stop) {
            Some(at) => {
                assert_eq!(
                    (cut.text.as_str(), cut.generated.stopped_by),
                    (&whole.text[..at], StopReason::StopString)
                );
                assert!(whole.generated.ids.starts_with(&cut.generated.ids));
                // The sequence ended as soon as the stop string was complete.
                let all_but_one = &cut.generated.ids[..cut.generated.ids.len() - 1];
                assert!(!text.tokenizer.decode(all_but_one, true).contains(&stop));
            }
            None => assert_eq!(cut, whole),
        }
        let mut shown = String::new();
        let streamed = stream_reply(&model, &params, &text, prompt, &options, &stops, |new| {
            shown += new;
            ControlFlow::Continue(())
        })?;
        assert_eq!((&shown, &streamed.text), (&cut.text, &cut.text));
        assert_eq!(
            (streamed.generated.ids, streamed.generated.stopped_by),
            (cut.generated.ids.clone(), cut.generated.stopped_by)
        );
    }
    Ok(())
}

#[test]
fn special_tokens_are_stop_strings_and_empty_ones_are_refused() -> Result<(), ModelError> {
    let (model, params, text) = setup();
    let prompt = text.tokenizer.encode(TEXT)?;
    let ask = |stop_ids: Vec<u32>, stops: &[String]| -> Result<Reply, ModelError> {
        let options = SamplingOptions {
            temperature: 1.5,
            stop_ids,
            max_new_tokens: 400,
            ..Default::default()
        };
        Ok(replies(&model, &params, &text, std::slice::from_ref(&prompt), &options, stops)?
            .remove(0))
    };
    let by_id = ask(vec![text.eos], &[])?;
    assert_eq!(by_id.generated.stopped_by, StopReason::StopToken);
    assert_eq!(ask(vec![], &["<|eos|>".to_owned()])?, by_id);
    assert!(matches!(ask(vec![], &[String::new()]), Err(ModelError::EmptyStop)));
    Ok(())
}
