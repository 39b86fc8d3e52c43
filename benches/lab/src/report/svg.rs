//! A chart as SVG: lines over two axes, with a legend. It follows the reader's choice of light or dark.

use std::fmt::Write as _;

/// The picture, and what the axes leave of it to the lines.
const WIDTH: f64 = 780.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 240.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 56.0;

/// Steps of an axis, about.
const STEPS: f64 = 6.0;

/// Told apart by those who see colours differently (Okabe and Ito 2008), and on white and black.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"];

const STYLE: &str = "text{font:13px sans-serif;fill:#222}.axis{stroke:#222}.grid{stroke:#ddd}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.axis{stroke:#ddd}.grid{stroke:#444}}";

/// A line.
#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Lines over the same axes, which begin at zero.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// The file's, without its ending.
    pub(crate) name: &'static str,
    pub(crate) title: String,
    pub(crate) across: &'static str,
    pub(crate) up: &'static str,
    pub(crate) series: Vec<Series>,
    /// A mark at each point: for few.
    pub(crate) marks: bool,
}

impl Chart {
    pub(crate) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let across = Axis::to(points().map(|point| point.0).fold(0.0, f64::max));
        let up = Axis::to(points().map(|point| point.1).fold(0.0, f64::max));
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\">\n<style>{STYLE}</style>\n\
             <text x=\"{LEFT}\" y=\"24\" font-weight=\"bold\">{}</text>\n",
            escape(&self.title)
        );
        let place = |(x, y): (f64, f64)| {
            (
                LEFT + x / across.end * (WIDTH - LEFT - RIGHT),
                HEIGHT - BOTTOM - y / up.end * (HEIGHT - TOP - BOTTOM),
            )
        };
        self.draw_axes(&mut svg, &across, &up, &place);
        for (index, series) in self.series.iter().enumerate() {
            self.draw_series(&mut svg, index, series, &place);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn draw_axes(
        &self,
        svg: &mut String,
        across: &Axis,
        up: &Axis,
        place: &impl Fn((f64, f64)) -> (f64, f64),
    ) {
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for step in across.steps() {
            let (x, _) = place((step, 0.0));
            line(svg, "grid", (x, TOP), (x, bottom));
            text(svg, "middle", (x, bottom + 18.0), &label(step));
        }
        for step in up.steps() {
            let (_, y) = place((0.0, step));
            line(svg, "grid", (LEFT, y), (right, y));
            text(svg, "end", (LEFT - 8.0, y + 4.0), &label(step));
        }
        line(svg, "axis", (LEFT, TOP), (LEFT, bottom));
        line(svg, "axis", (LEFT, bottom), (right, bottom));
        text(svg, "middle", ((LEFT + right) / 2.0, HEIGHT - 14.0), self.across);
        let middle = (TOP + bottom) / 2.0;
        // Writing to a string does not fail.
        writeln!(
            svg,
            "<text text-anchor=\"middle\" transform=\"translate(18 {middle}) rotate(-90)\">{}</text>",
            escape(self.up)
        )
        .ok();
    }

    fn draw_series(
        &self,
        svg: &mut String,
        index: usize,
        series: &Series,
        place: &impl Fn((f64, f64)) -> (f64, f64),
    ) {
        let colour = COLOURS[index % COLOURS.len()];
        let placed: Vec<(f64, f64)> = series.points.iter().map(|point| place(*point)).collect();
        let points: Vec<String> = placed.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        writeln!(svg, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>")
            .ok();
        for (x, y) in placed.iter().filter(|_| self.marks) {
            writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\" fill=\"{colour}\"/>").ok();
        }
        let (x, y) = (WIDTH - RIGHT + 14.0, TOP + 8.0 + 20.0 * index as f64);
        writeln!(svg, "<rect x=\"{x}\" y=\"{}\" width=\"14\" height=\"4\" fill=\"{colour}\"/>", y - 6.0).ok();
        text(svg, "start", (x + 20.0, y), &series.name);
    }
}

/// An axis from zero.
struct Axis {
    end: f64,
    step: f64,
}

impl Axis {
    /// One with room for `most`, in steps of 1, 2 or 5 times a power of ten.
    fn to(most: f64) -> Self {
        let rough = most.max(f64::MIN_POSITIVE) / STEPS;
        let power = 10_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|times| times * power).into_iter().find(|step| *step >= rough);
        let step = step.unwrap_or(10.0 * power);
        Self { end: (most / step).ceil().max(1.0) * step, step }
    }

    fn steps(&self) -> impl Iterator<Item = f64> {
        let count = (self.end / self.step).round() as u32;
        (0..=count).map(|index| f64::from(index) * self.step)
    }
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    writeln!(svg, "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>")
        .ok();
}

fn text(svg: &mut String, anchor: &str, (x, y): (f64, f64), words: &str) {
    writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(words)).ok();
}

/// Without digits that say nothing.
fn label(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_axis_has_round_steps_and_room_for_all() {
        for (most, end, step) in
            [(187.0, 200.0, 50.0), (16.0, 20.0, 5.0), (0.02, 0.02, 0.005), (1.0, 1.0, 0.2)]
        {
            let axis = Axis::to(most);
            assert!((axis.end - end).abs() < 1e-9 && (axis.step - step).abs() < 1e-9, "{most}: {}", axis.end);
        }
        assert_eq!(label(0.5), "0.5");
        assert_eq!(label(200.0), "200");
    }

    #[test]
    fn a_chart_has_its_points_and_names() {
        let series = Series { name: "a < b".to_owned(), points: vec![(0.0, 0.0), (10.0, 5.0)] };
        let chart = Chart {
            name: "x",
            title: "t".to_owned(),
            across: "N",
            up: "Mbit/s",
            series: vec![series],
            marks: true,
        };
        let svg = chart.svg();
        assert!(svg.contains("a &lt; b") && svg.contains("Mbit/s"));
        // The end of both axes: at the right and at the top.
        assert!(svg.contains(&format!("{:.1},{TOP:.1}", WIDTH - RIGHT)), "{svg}");
    }
}
