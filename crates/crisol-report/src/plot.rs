//! Line charts as inline SVG. A noisy series is smoothed, its raw values faint behind the line.
//! Values that are not finite are gaps.
//!
//! A chart is drawn small, so that its text stays readable when a phone scales it. Its colours are
//! those of the page's style sheet.

use std::borrow::Cow;
use std::fmt::Write as _;

use crate::Language;
use crate::markup::Escaped;

const WIDTH: f64 = 360.0;
const HEIGHT: f64 = 200.0;
/// Room for one character of a label. The widest digits of common fonts take 7 units at this size.
const CHARACTER: f64 = 7.2;
/// Between a label of the vertical axis and the drawing.
const GAP: f64 = 6.0;
const RIGHT: f64 = 10.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 28.0;
/// Points drawn per line: about as many as the chart has units across.
const DRAWN: usize = 300;
/// Steps that can be hovered.
const HOVERED: usize = 48;
/// Maximum points of a series that is drawn completely.
const FEW: usize = 40;

/// One line of a chart.
pub(crate) struct Line<'a> {
    /// Shown in hover titles, and in a legend where there are several lines.
    pub(crate) label: Cow<'a, str>,
    /// Where it is across, and its value there.
    pub(crate) points: &'a [(f64, f64)],
    /// Colour and dashes: a class of the style sheet, `l0` to `l3`.
    pub(crate) style: usize,
    /// Dots that no line joins.
    pub(crate) dots: bool,
}

/// Quantity of the x axis.
#[derive(Clone, Copy)]
pub(crate) enum XAxis {
    /// Training steps.
    Steps,
    /// Logarithms (to the base of ten) of operations.
    LogFlops,
    /// Alarm words of an item.
    AlarmWords,
}

impl XAxis {
    /// The position `x` in words.
    fn describe(self, x: f64, language: Language) -> String {
        match self {
            XAxis::Steps => (language.texts().training.step)([&language.plain(x)]),
            XAxis::LogFlops => language.prefixed(10f64.powf(x), "FLOP"),
            XAxis::AlarmWords => (language.texts().reflect.words)(x as usize),
        }
    }
}

/// Draws a chart. `share` writes values in per cent.
pub(crate) fn chart(
    title: &str,
    lines: &[Line<'_>],
    share: bool,
    across: XAxis,
    language: Language,
) -> String {
    let write_value =
        |value: f64| if share { language.percent(value) } else { language.plain(value) };
    let describe = |x: f64| across.describe(x, language);
    let finite: Vec<Vec<(f64, f64)>> =
        lines.iter().map(|line| line.points.iter().copied().filter(drawable).collect()).collect();
    let all = || finite.iter().flatten().copied();
    if all().next().is_none() {
        let no_data = language.texts().plot.no_data;
        return format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}: \
             {no_data}\"> <text class=\"empty\" x=\"{}\" y=\"{}\">{no_data}</text></svg>",
            Escaped(title),
            WIDTH / 2.0,
            HEIGHT / 2.0
        );
    }
    let mut y = Axis::over(all().map(|(_, y)| y), HEIGHT - BOTTOM, TOP, true);
    if share && all().all(|(_, y)| y <= 1.0) {
        // No share is above the whole.
        y.high = y.high.min(1.0);
    }
    let ticks: Vec<(f64, String)> =
        y.ticks(5, 0.0).into_iter().map(|tick| (y.pixel(tick), write_value(tick))).collect();
    let longest = ticks.iter().map(|(_, label)| label.chars().count()).max().unwrap_or(0);
    let left = (longest as f64 * CHARACTER + GAP + 2.0).max(30.0);
    let x = Axis::over(all().map(|(x, _)| x), left, WIDTH - RIGHT, false);

    let mut svg = format!(
        "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
        Escaped(&summary(title, lines, &finite, write_value, describe, language))
    );
    for (at, label) in ticks {
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{left:.1}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"tick y\" x=\"{:.1}\" y=\"{:.1}\">{label}</text>",
            WIDTH - RIGHT,
            left - GAP,
            at + 3.5,
        );
    }
    let floor = HEIGHT - BOTTOM;
    let _ = write!(
        svg,
        "<line class=\"axis\" x1=\"{left:.1}\" x2=\"{}\" y1=\"{floor}\" y2=\"{floor}\"/>",
        WIDTH - RIGHT
    );
    let min_step = match across {
        XAxis::Steps | XAxis::AlarmWords => 1.0,
        XAxis::LogFlops => 0.0,
    };
    for tick in x.ticks(4, min_step) {
        let at = x.pixel(tick);
        let anchor = if at > WIDTH - RIGHT - 16.0 { " end" } else { "" };
        let _ = write!(
            svg,
            "<text class=\"tick x{anchor}\" x=\"{at:.1}\" y=\"{}\">{}</text>",
            HEIGHT - 10.0,
            language.prefixed(tick, "")
        );
    }
    for (line, finite) in lines.iter().zip(&finite) {
        draw_line(&mut svg, line, finite, &x, &y);
    }
    draw_hovers(&mut svg, lines, &finite, &x, &y, write_value, describe);
    svg.push_str("</svg>");
    svg
}

/// Whether a point can be drawn: finite, and far enough from the limits of f64 that no arithmetic
/// on it overflows.
fn drawable(point: &(f64, f64)) -> bool {
    point.0.abs() < 1e150 && point.1.abs() < 1e150
}

/// Says in words what the lines do, for readers who do not see them.
fn summary(
    title: &str,
    lines: &[Line<'_>],
    finite: &[Vec<(f64, f64)>],
    write_value: impl Fn(f64) -> String,
    describe: impl Fn(f64) -> String,
    language: Language,
) -> String {
    let line_to = language.texts().plot.line;
    let mut text = title.to_owned();
    for (line, points) in lines.iter().zip(finite) {
        if let (Some(first), Some(last)) = (points.first(), points.last()) {
            let (from, to) = (write_value(first.1), write_value(last.1));
            text.push_str("; ");
            text += &line_to([&line.label, &from, &to, &describe(last.0)]);
        }
    }
    text
}

fn draw_line(svg: &mut String, line: &Line<'_>, finite: &[(f64, f64)], x: &Axis, y: &Axis) {
    let &Line { points, style: class, dots, .. } = line;
    if dots || finite.len() == 1 {
        for (at, value) in finite {
            let _ = write!(
                svg,
                "<circle class=\"dot l{class}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\"/>",
                x.pixel(*at),
                y.pixel(*value)
            );
        }
        return;
    }
    let noisy = is_noisy(finite);
    let _ = write!(
        svg,
        "<path class=\"line l{class}{}\" d=\"{}\"/>",
        if noisy { " raw" } else { "" },
        path(points, x, y)
    );
    if noisy {
        let _ =
            write!(svg, "<path class=\"line l{class}\" d=\"{}\"/>", path(&smooth(finite), x, y));
    }
}

/// Path data. Of a long series, each bucket's lowest and highest points are kept, so that spikes
/// stay.
fn path(points: &[(f64, f64)], x: &Axis, y: &Axis) -> String {
    let bucket = points.len().div_ceil(DRAWN / 2).max(1);
    let mut data = String::new();
    let mut pen_down = false;
    let mut put = |point: Option<(f64, f64)>| {
        if let Some((at, value)) = point {
            let command = if pen_down { 'L' } else { 'M' };
            let _ = write!(data, "{command}{:.1} {:.1}", x.pixel(at), y.pixel(value));
        }
        pen_down = point.is_some();
    };
    for bucket in points.chunks(bucket) {
        let finite = || bucket.iter().copied().filter(drawable);
        let low = finite().min_by(|a, b| a.1.total_cmp(&b.1));
        let high = finite().max_by(|a, b| a.1.total_cmp(&b.1));
        match (low, high) {
            (Some(low), Some(high)) if low.0 == high.0 => put(Some(low)),
            (Some(low), Some(high)) => {
                let (first, second) = if low.0 < high.0 { (low, high) } else { (high, low) };
                put(Some(first));
                put(Some(second));
            }
            _ => put(None),
        }
    }
    data
}

/// Whether a series is smoothed: one that often turns back. A schedule, a counter or a held-out
/// loss that falls steadily has nothing to smooth, and smoothing would show values that it never
/// had.
fn is_noisy(points: &[(f64, f64)]) -> bool {
    let steps = points.windows(2).map(|pair| pair[1].1 - pair[0].1).filter(|step| *step != 0.0);
    let signs: Vec<bool> = steps.map(f64::is_sign_positive).collect();
    let turns = signs.windows(2).filter(|pair| pair[0] != pair[1]).count();
    points.len() > FEW && turns > points.len() / 8
}

/// A centred moving average over at most a twentieth of the series on either side. Towards the
/// start, where curves are steep, the window shrinks: the line starts where the values do. At the
/// end it is cut off.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let radius = (points.len() / 20).max(2);
    let average = |index: usize| {
        let radius = radius.min(index);
        let window = &points[index - radius..=(index + radius).min(points.len() - 1)];
        (points[index].0, window.iter().map(|point| point.1).sum::<f64>() / window.len() as f64)
    };
    (0..points.len()).map(average).collect()
}

/// Invisible bands that show the values at their step when pointed at.
fn draw_hovers(
    svg: &mut String,
    lines: &[Line<'_>],
    finite: &[Vec<(f64, f64)>],
    x: &Axis,
    y: &Axis,
    write_value: impl Fn(f64) -> String,
    describe: impl Fn(f64) -> String,
) {
    let Some(longest) = finite.iter().max_by_key(|points| points.len()) else { return };
    let count = longest.len().min(HOVERED);
    let band = (x.to - x.from) / count as f64;
    for index in 0..count {
        let step =
            longest[if count == 1 { 0 } else { index * (longest.len() - 1) / (count - 1) }].0;
        let centre = x.pixel(step);
        let mut title = describe(step);
        let mut marks = String::new();
        for (line, points) in lines.iter().zip(finite) {
            let Some(near) =
                points.iter().min_by(|a, b| (a.0 - step).abs().total_cmp(&(b.0 - step).abs()))
            else {
                continue;
            };
            // Of dots, the nearest may be far away.
            if line.dots && (x.pixel(near.0) - centre).abs() > band {
                continue;
            }
            let _ = write!(title, "\n{}: {}", line.label, write_value(near.1));
            let _ = write!(
                marks,
                "<circle class=\"dot l{}\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
                line.style,
                x.pixel(near.0),
                y.pixel(near.1)
            );
        }
        let left = (centre - band / 2.0).clamp(x.from, x.to);
        let right = (centre + band / 2.0).clamp(x.from, x.to);
        let _ = write!(
            svg,
            "<g class=\"hover\"><title>{}</title><rect x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" \
             height=\"{}\"/>{marks}</g>",
            Escaped(&title),
            right - left,
            HEIGHT - TOP - BOTTOM
        );
    }
}

/// A linear scale from values to places in the drawing.
struct Axis {
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Axis {
    fn over(values: impl Iterator<Item = f64>, from: f64, to: f64, padded: bool) -> Self {
        let (mut low, mut high) = values
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
        if high - low <= low.abs().max(high.abs()) * 1e-12 {
            let pad = if low == 0.0 { 1.0 } else { low.abs() * 0.1 };
            (low, high) = (low - pad, high + pad);
        } else if padded {
            let pad = (high - low) * 0.04;
            // A quantity that is never negative must not be given a negative axis.
            let floor = if low >= 0.0 { 0.0 } else { f64::NEG_INFINITY };
            (low, high) = ((low - pad).max(floor), high + pad);
        }
        Self { low, high, from, to }
    }

    fn pixel(&self, value: f64) -> f64 {
        let share = (value - self.low) / (self.high - self.low);
        self.from + (self.to - self.from) * share
    }

    /// About `count` round values within the range, in steps of 1, 2, 2.5 or 5 times a power of
    /// ten, and at least `min_step`.
    fn ticks(&self, count: usize, min_step: f64) -> Vec<f64> {
        let rough = ((self.high - self.low) / count as f64).max(min_step);
        let power = 10f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 2.5, 5.0, 10.0]
            .into_iter()
            .map(|k| k * power)
            .find(|step| *step >= rough * 0.999);
        let Some(step) = step.filter(|step| step.is_finite() && *step > 0.0) else {
            return Vec::new();
        };
        let first = (self.low / step).ceil();
        // Adding 0.0 turns a negative zero into zero.
        (0..=2 * count)
            .map(|index| (first + index as f64) * step + 0.0)
            .take_while(|tick| *tick <= self.high + step * 1e-9)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(points: &[(f64, f64)]) -> String {
        chart(
            "loss",
            &[Line { label: "loss".into(), points, style: 0, dots: false }],
            false,
            XAxis::Steps,
            Language::English,
        )
    }

    #[test]
    fn nothing_to_draw() {
        assert!(one(&[]).contains("no data"));
        assert!(one(&[(1.0, f64::NAN), (f64::INFINITY, 2.0)]).contains("no data"));
        assert!(chart("loss", &[], false, XAxis::Steps, Language::English).contains("no data"));
    }

    #[test]
    fn one_point_is_a_dot() {
        let svg = one(&[(10.0, 2.5)]);
        assert!(svg.contains("<circle class=\"dot l0\"") && !svg.contains("<path"));
    }

    #[test]
    fn dots_are_not_joined() {
        let points = [(11.0, 3.0), (12.0, 2.0)];
        let svg = chart(
            "loss",
            &[Line { label: "measured".into(), points: &points, style: 3, dots: true }],
            false,
            XAxis::LogFlops,
            Language::English,
        );
        assert!(svg.contains("<circle class=\"dot l3\"") && !svg.contains("<path"), "{svg}");
        assert!(svg.contains("from 3 to 2 at 1\u{a0}TFLOP"), "{svg}");
    }

    #[test]
    fn not_finite_values_are_gaps() {
        let svg = one(&[
            (1.0, 1.0),
            (2.0, 2.0),
            (3.0, f64::NAN),
            (4.0, 1.0),
            (5.0, f64::INFINITY),
            (6.0, 2.0),
        ]);
        let data = svg.split("d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(data.matches('M').count(), 3, "{data}");
        assert_eq!(data.matches('L').count(), 1, "{data}");
    }

    #[test]
    fn no_coordinate_is_ever_outside_the_drawing_or_not_a_number() {
        let extremes = [
            f64::MIN,
            -1e149,
            1e149,
            0.0,
            -0.0,
            1e-300,
            -1e-300,
            5.0,
            5.0 + 1e-15,
            f64::MIN_POSITIVE,
        ];
        let mut drawn = 0;
        for a in extremes {
            for b in extremes {
                let svg = one(&[(0.0, a), (1.0, b), (2.0, a)]);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{a:e} {b:e}: {svg}");
                let data = svg.split(" d=\"").nth(1).unwrap_or_default().split('"').next().unwrap();
                for pair in data.split(['M', 'L']).skip(1) {
                    let y: f64 = pair.split(' ').nth(1).unwrap().parse().unwrap();
                    assert!(
                        (TOP - 0.1..=HEIGHT - BOTTOM + 0.1).contains(&y),
                        "{a:e} {b:e}: {pair}"
                    );
                    drawn += 1;
                }
            }
        }
        assert!(drawn > 100, "{drawn} points");
    }

    #[test]
    fn long_series_are_thinned_but_keep_their_spike() {
        let mut points: Vec<(f64, f64)> =
            (0..10_000).map(|step| (f64::from(step), f64::from(1 + step % 2))).collect();
        points[5_431].1 = 100.0;
        let svg = one(&points);
        let raw = svg.split("raw\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(raw.matches('L').count() <= DRAWN);
        let top = Axis::over([1.0, 100.0].into_iter(), HEIGHT - BOTTOM, TOP, true).pixel(100.0);
        assert!(raw.contains(&format!(" {top:.1}")), "the spike is gone");
    }

    #[test]
    fn smoothing_keeps_a_straight_line_and_the_start() {
        let line: Vec<(f64, f64)> =
            (0..100).map(|step| (f64::from(step), f64::from(3 * step))).collect();
        assert_eq!(smooth(&line).len(), line.len());
        for (raw, smooth) in line.iter().zip(smooth(&line)).take(95) {
            assert!((raw.1 - smooth.1).abs() < 1e-9);
        }
        let noisy: Vec<(f64, f64)> =
            (0..100).map(|step| (f64::from(step), f64::from(step % 2))).collect();
        let smoothed = smooth(&noisy);
        assert_eq!(smoothed[0].1, 0.0);
        assert!(smoothed[10..].iter().all(|point| (point.1 - 0.5).abs() < 0.1));
    }

    /// A schedule, a counter, a steadily falling loss: the line goes through the values and nothing
    /// else.
    #[test]
    fn only_noise_is_smoothed() {
        let steps = || (0..400).map(f64::from);
        let wsd = |step: f64| 1e-3 * (step / 20.0).min(1.0) * ((400.0 - step) / 80.0).min(1.0);
        let cosine = |step: f64| 1e-3 * (1.0 + (step * std::f64::consts::PI / 400.0).cos());
        let counter = |step: f64| (step / 7.0).floor();
        let passes = |step: f64| step % 50.0;
        let falling = |step: f64| 3.0 / (1.0 + step);
        let all: [&dyn Fn(f64) -> f64; 5] = [&wsd, &cosine, &counter, &passes, &falling];
        for value in all {
            let points: Vec<(f64, f64)> = steps().map(|step| (step, value(step))).collect();
            let svg = one(&points);
            assert!(!svg.contains("raw") && svg.matches("<path").count() == 1);
        }
        let noisy: Vec<(f64, f64)> =
            steps().map(|step| (step, falling(step) + 0.1 * (step * 12.9898).sin())).collect();
        assert!(one(&noisy).contains("raw"));
    }

    #[test]
    fn labels_of_the_vertical_axis_fit() {
        for scale in [8e-4, -8e-4, 1.25e-5, -2.5e12, 123_456_789.0, 0.01, 1.0, 1e149] {
            let svg = one(&[(0.0, 0.0), (1.0, scale), (2.0, 0.37 * scale)]);
            let labels: Vec<&str> = svg.split("class=\"tick y\" x=\"").skip(1).collect();
            assert!(labels.len() >= 3, "{svg}");
            for label in labels {
                let end: f64 = label.split('"').next().unwrap().parse().unwrap();
                let text = label.split('>').nth(1).unwrap().split('<').next().unwrap();
                assert!(end >= 7.0 * text.chars().count() as f64, "{text:?} ends at {end}");
            }
        }
    }

    #[test]
    fn a_share_is_at_most_the_whole() {
        let share = |points: &[(f64, f64)]| {
            chart(
                "ended",
                &[Line { label: "ended".into(), points, style: 0, dots: false }],
                true,
                XAxis::Steps,
                Language::English,
            )
        };
        assert!(!share(&[(1.0, 1.0), (2.0, 1.0)]).contains(">110"));
        // A value above the whole is no share, and is drawn where it is.
        assert!(share(&[(1.0, 1.0), (2.0, 1.5)]).contains(">140"));
    }

    #[test]
    fn ticks_are_round() {
        let axis = Axis { low: 0.3, high: 7.9, from: 0.0, to: 1.0 };
        assert_eq!(axis.ticks(4, 0.0), [2.0, 4.0, 6.0]);
        let axis = Axis { low: 0.0, high: 1.0, from: 0.0, to: 1.0 };
        assert_eq!(axis.ticks(4, 0.0), [0.0, 0.25, 0.5, 0.75, 1.0]);
        let axis = Axis { low: 105.0, high: 107.0, from: 0.0, to: 1.0 };
        assert_eq!(axis.ticks(4, 1.0), [105.0, 106.0, 107.0], "no step is a fraction");
    }
}
