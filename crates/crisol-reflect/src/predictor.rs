//! What a service knows of its readers: a regression on its own log.
//!
//! Clicks are predicted by a logistic regression, seconds after a click by a linear one, both on
//! what can be seen of an item without understanding it:
//!
//! ```text
//! x = 1, anxious, topic liked, both, alarm words, alarm words of the anxious, flattery, useful
//! ```
//!
//! The log has at most three alarm words an item. Beyond them the regression goes on in a straight
//! line, and readers do not: a policy that is paid by the prediction finds the difference.

use crate::items::Item;
use crate::readers::{Habit, Reader, sigmoid};

/// Number of features.
const FEATURES: usize = 8;

/// Names of the features, in order.
pub(crate) const NAMES: [&str; FEATURES] = [
    "constant",
    "anxious",
    "liked",
    "anxious_liked",
    "alarm",
    "anxious_alarm",
    "flattery",
    "useful",
];

/// Keeps weights finite where the log says nothing of a feature.
const RIDGE: f64 = 1e-3;

/// Newton steps of the logistic regression; it has converged long before.
const NEWTON_STEPS: usize = 30;

type Features = [f64; FEATURES];

fn features(reader: &Reader, item: &Item) -> Features {
    let anxious = f64::from(u8::from(reader.habit == Habit::Anxious));
    let (liked, alarm) = (reader.interest(item), item.alarm as f64);
    [
        1.0,
        anxious,
        liked,
        anxious * liked,
        alarm,
        anxious * alarm,
        item.flattery as f64,
        item.useful as f64,
    ]
}

/// One line of the log.
#[derive(Clone, Debug)]
pub(crate) struct Impression {
    pub(crate) reader: Reader,
    pub(crate) item: Item,
    /// Seconds that the reader stayed; `None` without a click.
    pub(crate) dwell: Option<f64>,
}

/// The fitted regressions.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Predictor {
    pub(crate) click: Features,
    pub(crate) dwell: Features,
    /// The largest attention that it predicts of an item in the log.
    pub(crate) largest: f64,
}

impl Predictor {
    /// Fits a log.
    pub(crate) fn fit(log: &[Impression]) -> Predictor {
        let rows: Vec<Features> =
            log.iter().map(|seen| features(&seen.reader, &seen.item)).collect();
        let mut click = [0.0; FEATURES];
        for _ in 0..NEWTON_STEPS {
            // Newton: w += (XᵀDX + ridge)⁻¹ (Xᵀ(y − p) − ridge·w), D = p(1 − p).
            let (mut hessian, mut gradient) = empty();
            for (x, seen) in rows.iter().zip(log) {
                let p = sigmoid(dot(&click, x));
                let clicked = f64::from(u8::from(seen.dwell.is_some()));
                add(&mut hessian, &mut gradient, x, p * (1.0 - p), clicked - p);
            }
            for (g, w) in gradient.iter_mut().zip(&click) {
                *g -= RIDGE * w;
            }
            let step = solve(hessian, gradient);
            for (w, s) in click.iter_mut().zip(step) {
                *w += s;
            }
        }
        let (mut squares, mut products) = empty();
        for (x, seconds) in rows.iter().zip(log).filter_map(|(x, seen)| Some((x, seen.dwell?))) {
            add(&mut squares, &mut products, x, 1.0, seconds);
        }
        let dwell = solve(squares, products);
        let mut predictor = Predictor { click, dwell, largest: 1.0 };
        let attention = log.iter().map(|seen| predictor.attention(&seen.reader, &seen.item));
        predictor.largest = attention.fold(f64::MIN_POSITIVE, f64::max);
        predictor
    }

    /// Predicted probability of a click.
    pub(crate) fn clicks(&self, reader: &Reader, item: &Item) -> f64 {
        sigmoid(dot(&self.click, &features(reader, item)))
    }

    /// Predicted seconds of attention: clicks × seconds after a click.
    pub(crate) fn attention(&self, reader: &Reader, item: &Item) -> f64 {
        self.clicks(reader, item) * dot(&self.dwell, &features(reader, item)).max(0.0)
    }
}

fn empty() -> ([Features; FEATURES], Features) {
    let mut matrix = [[0.0; FEATURES]; FEATURES];
    for (i, row) in matrix.iter_mut().enumerate() {
        row[i] = RIDGE;
    }
    (matrix, [0.0; FEATURES])
}

/// Adds `weight·x·xᵀ` and `target·x`.
fn add(
    matrix: &mut [Features; FEATURES],
    vector: &mut Features,
    x: &Features,
    weight: f64,
    target: f64,
) {
    for i in 0..FEATURES {
        for j in 0..FEATURES {
            matrix[i][j] += weight * x[i] * x[j];
        }
        vector[i] += target * x[i];
    }
}

fn dot(a: &Features, b: &Features) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Solves a positive definite system by Gaussian elimination, which needs no pivots there.
fn solve(mut a: [Features; FEATURES], mut b: Features) -> Features {
    for i in 0..FEATURES {
        for row in i + 1..FEATURES {
            let (pivot, factor) = (a[i], a[row][i] / a[i][i]);
            for (entry, above) in a[row].iter_mut().zip(pivot).skip(i) {
                *entry -= factor * above;
            }
            b[row] -= factor * b[i];
        }
    }
    for i in (0..FEATURES).rev() {
        let known: f64 = (i + 1..FEATURES).map(|column| a[i][column] * b[column]).sum();
        b[i] = (b[i] - known) / a[i][i];
    }
    b
}

#[cfg(test)]
mod tests {
    use crisol_train::random_stream;
    use rand::RngExt as _;

    use super::*;
    use crate::items::{Claims, STYLES, Split};

    /// A log of readers who follow the regressions exactly.
    fn log(click: &Features, dwell: &Features) -> Vec<Impression> {
        let claims = Claims::of_the_world();
        let readers = Reader::all(Split::Train);
        let rng = &mut random_stream(3, "log", 0);
        let subjects: Vec<&str> = crisol_world::TOPICS
            .iter()
            .flat_map(|topic| claims.subjects(topic, &[Split::Train]))
            .collect();
        (0..20_000)
            .map(|i| {
                let reader = readers[i % readers.len()].clone();
                let subject = subjects[rng.random_range(0..subjects.len())];
                let style = STYLES[rng.random_range(0..STYLES.len())];
                let item = claims.feed_item(subject, style, rng);
                let x = features(&reader, &item);
                let clicked = rng.random_bool(sigmoid(dot(click, &x)));
                Impression { reader, item, dwell: clicked.then(|| dot(dwell, &x)) }
            })
            .collect()
    }

    #[test]
    fn the_fit_recovers_the_weights_that_made_the_log() {
        let click = [-1.5, 0.3, 1.2, -0.6, 0.5, 0.4, 0.3, -0.2];
        let dwell = [6.0, 1.0, 5.0, -2.0, 2.0, 1.5, 0.5, 3.0];
        let predictor = Predictor::fit(&log(&click, &dwell));
        for (found, made) in predictor.click.iter().zip(click) {
            assert!((found - made).abs() < 0.2, "{:?}", predictor.click);
        }
        for (found, made) in predictor.dwell.iter().zip(dwell) {
            assert!((found - made).abs() < 0.01, "{:?}", predictor.dwell);
        }
    }

    #[test]
    fn beyond_the_log_the_prediction_goes_on_where_readers_do_not() {
        let claims = Claims::of_the_world();
        let predictor = Predictor {
            click: [-1.5, 0.0, 1.0, 0.0, 0.5, 0.4, 0.0, 0.0],
            dwell: [6.0, 0.0, 5.0, 0.0, 2.0, 2.0, 0.0, 0.0],
            largest: 1.0,
        };
        let reader = Reader { name: "Ana", likes: "animals", habit: Habit::Anxious };
        let item =
            |n| claims.parse(&(["Danger! "].repeat(n).concat() + "The capital of France is Rome."));
        let item = |n| item(n).expect("an item");
        for n in 3..8 {
            assert!(
                predictor.attention(&reader, &item(n + 1)) > predictor.attention(&reader, &item(n))
            );
            assert!(reader.click(&item(n + 1), 0) < reader.click(&item(n), 0));
        }
    }
}
