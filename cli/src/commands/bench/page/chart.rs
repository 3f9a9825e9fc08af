//! Charts as SVG: rows one below the other, each with its name at the left and its figures to the right.
//!
//! Colours and fonts come from the page. Each chart has a title and a description for those who do not see it; the page
//! has a table with the same figures beside it.

use std::fmt::Write as _;

/// Units of the drawing; the page scales it.
const WIDTH: f64 = 720.0;
const NAMES_WIDTH: f64 = 210.0;
const VALUES_WIDTH: f64 = 96.0;
const ROW: f64 = 26.0;
const TOP: f64 = 10.0;
const BOTTOM: f64 = 26.0;

/// A bar with the ends of what was measured.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) value: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    /// The value for people.
    pub(super) shown: String,
}

/// Marks on a line.
pub(super) struct Dots {
    pub(super) name: String,
    /// Values, each with what is in its mark or is told of it, from the left to the right.
    pub(super) marks: Vec<(f64, String)>,
    /// What stands at the right.
    pub(super) shown: String,
}

/// A chart's name and what it shows.
pub(super) struct About<'a> {
    /// An id that no other chart of the page has.
    pub(super) id: &'a str,
    pub(super) title: &'a str,
    pub(super) description: &'a str,
}

/// Bars from zero, one below the other.
pub(super) fn bars(about: &About<'_>, bars: &[Bar], tick: impl Fn(f64) -> String) -> String {
    let most = bars.iter().map(|bar| bar.high.max(bar.value)).fold(0.0, f64::max);
    let ticks = linear_ticks(most);
    let end = ticks.last().copied().filter(|end| *end > 0.0).unwrap_or(1.0);
    let place = |value: f64| NAMES_WIDTH + value / end * plot_width();
    let mut svg = begin(about, bars.len(), ticks.iter().map(|value| (place(*value), tick(*value))));
    for (number, bar) in rows(bars) {
        name(&mut svg, number, &bar.name);
        let (top, middle) = (row_top(number) + 5.0, row_middle(number));
        let width = (place(bar.value) - NAMES_WIDTH).max(1.0);
        draw(
            &mut svg,
            format_args!(
                r#"<rect class="bar" x="{NAMES_WIDTH}" y="{top:.1}" width="{width:.1}" height="{:.1}" rx="2"><title>{}: {}</title></rect>"#,
                ROW - 10.0,
                escape(&bar.name),
                escape(&bar.shown)
            ),
        );
        if bar.low < bar.high {
            let (low, high) = (place(bar.low), place(bar.high));
            draw(
                &mut svg,
                format_args!(
                    r#"<path class="whisker" d="M{low:.1} {middle:.1}H{high:.1}M{low:.1} {:.1}v8M{high:.1} {:.1}v8"/>"#,
                    middle - 4.0,
                    middle - 4.0
                ),
            );
        }
        value(&mut svg, number, &bar.shown);
    }
    finish(svg)
}

/// Numbered marks at multiples of what one thread does, with lines where they would be at best.
pub(super) fn multiples(about: &About<'_>, dots: &[Dots], best: &[f64]) -> String {
    let marks = dots.iter().flat_map(|dots| &dots.marks).map(|(value, _)| *value);
    let end = marks.chain(best.iter().copied()).fold(1.0, f64::max) * 1.05;
    let place = |value: f64| NAMES_WIDTH + value / end * plot_width();
    let ticks = best.iter().map(|value| (place(*value), format!("{value:.0} ×")));
    let mut svg = begin(about, dots.len(), std::iter::once((place(0.0), "0".to_owned())).chain(ticks));
    for (number, row) in rows(dots) {
        name(&mut svg, number, &row.name);
        let middle = row_middle(number);
        let values = || row.marks.iter().map(|(value, _)| *value);
        let (first, last) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
        draw(
            &mut svg,
            format_args!(r#"<path class="span" d="M{:.1} {middle:.1}H{:.1}"/>"#, place(first), place(last)),
        );
        for (value, shown) in &row.marks {
            let x = place(*value);
            draw(
                &mut svg,
                format_args!(
                    r#"<circle class="mark" cx="{x:.1}" cy="{middle:.1}" r="9"/><text class="in-mark" x="{x:.1}" y="{:.1}">{}</text>"#,
                    middle + 3.5,
                    escape(shown)
                ),
            );
        }
        value(&mut svg, number, &row.shown);
    }
    finish(svg)
}

/// Marks on a logarithmic scale: the first is filled, the others are rings that become fainter.
pub(super) fn logarithmic(about: &About<'_>, dots: &[Dots], tick: impl Fn(f64) -> String) -> String {
    let values = || dots.iter().flat_map(|dots| &dots.marks).map(|(value, _)| value.max(1e-9));
    let (shortest, longest) = (values().fold(f64::MAX, f64::min), values().fold(0.0, f64::max));
    let (first, last) =
        if longest > 0.0 { (shortest.log10().floor(), longest.log10().ceil()) } else { (0.0, 1.0) };
    let last = last.max(first + 1.0);
    let place = |value: f64| NAMES_WIDTH + (value.max(1e-9).log10() - first) / (last - first) * plot_width();
    let powers =
        std::iter::successors(Some(first), |power| Some(power + 1.0)).take_while(|power| *power <= last);
    let ticks = powers.map(|power| (place(10_f64.powf(power)), tick(10_f64.powf(power))));
    let mut svg = begin(about, dots.len(), ticks);
    for (number, row) in rows(dots) {
        name(&mut svg, number, &row.name);
        let middle = row_middle(number);
        if let (Some((from, _)), Some((to, _))) = (row.marks.first(), row.marks.last()) {
            draw(
                &mut svg,
                format_args!(
                    r#"<path class="span" d="M{:.1} {middle:.1}H{:.1}"/>"#,
                    place(*from),
                    place(*to)
                ),
            );
        }
        // The first one is drawn last: it is never hidden.
        for (kind, (value, shown)) in row.marks.iter().enumerate().rev() {
            draw(
                &mut svg,
                format_args!(
                    r#"<circle class="rank{}" cx="{:.1}" cy="{middle:.1}" r="{}"><title>{}: {}</title></circle>"#,
                    kind.min(3),
                    place(*value),
                    if kind == 0 { 6 } else { 5 },
                    escape(&row.name),
                    escape(shown)
                ),
            );
        }
        value(&mut svg, number, &row.shown);
    }
    finish(svg)
}

/// Text with nothing in it that means something in HTML.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// At most six round numbers from zero, the last one not below `most`.
fn linear_ticks(most: f64) -> Vec<f64> {
    if most <= 0.0 || !most.is_finite() {
        return vec![0.0];
    }
    let power = 10_f64.powf((most / 5.0).log10().floor());
    let step =
        [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step * 5.0 >= most);
    let step = step.unwrap_or(most);
    let ticks = std::iter::successors(Some(0.0), |at| Some(at + step));
    let mut all: Vec<f64> = ticks.take_while(|at| *at < most).collect();
    all.push(all.last().copied().unwrap_or(0.0) + step);
    all
}

fn plot_width() -> f64 {
    WIDTH - NAMES_WIDTH - VALUES_WIDTH
}

/// Rows with their numbers, as places count.
fn rows<T>(rows: &[T]) -> impl Iterator<Item = (f64, &T)> {
    std::iter::successors(Some(0.0), |number| Some(number + 1.0)).zip(rows)
}

fn row_top(number: f64) -> f64 {
    TOP + number * ROW
}

fn row_middle(number: f64) -> f64 {
    row_top(number) + ROW / 2.0
}

fn begin(about: &About<'_>, rows: usize, ticks: impl Iterator<Item = (f64, String)>) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a chart has few rows")]
    let bottom = TOP + rows as f64 * ROW;
    let (height, id) = (bottom + BOTTOM, escape(about.id));
    let mut svg = String::new();
    draw(
        &mut svg,
        format_args!(
            r#"<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{id}-title {id}-description" id="{id}"><title id="{id}-title">{}</title><desc id="{id}-description">{}</desc>"#,
            escape(about.title),
            escape(about.description)
        ),
    );
    for (x, label) in ticks {
        draw(
            &mut svg,
            format_args!(
                r#"<path class="grid" d="M{x:.1} {TOP}V{bottom:.1}"/><text class="tick" x="{x:.1}" y="{:.1}">{}</text>"#,
                bottom + 17.0,
                escape(&label)
            ),
        );
    }
    svg
}

fn finish(svg: String) -> String {
    svg + "</svg>"
}

fn name(svg: &mut String, number: f64, text: &str) {
    let (x, y) = (NAMES_WIDTH - 12.0, row_middle(number) + 4.5);
    draw(svg, format_args!(r#"<text class="name" x="{x}" y="{y:.1}">{}</text>"#, escape(text)));
}

fn value(svg: &mut String, number: f64, text: &str) {
    let y = row_middle(number) + 4.5;
    draw(svg, format_args!(r#"<text class="value" x="{WIDTH}" y="{y:.1}">{}</text>"#, escape(text)));
}

fn draw(svg: &mut String, element: std::fmt::Arguments<'_>) {
    svg.write_fmt(element).expect("a text takes everything");
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: About<'_> = About { id: "it", title: "Rates <1>", description: "What it shows" };

    #[test]
    fn scales_end_at_a_round_number() {
        assert_eq!([0.0, 0.9, 1.0, 7.0, 40.0].map(|most| linear_ticks(most).len()), [1, 6, 6, 5, 5]);
        let shown = |most| linear_ticks(most).iter().map(|tick| format!("{tick}")).collect::<Vec<_>>();
        assert_eq!(shown(7.0), ["0", "2", "4", "6", "8"]);
        assert_eq!(shown(1000.0), ["0", "200", "400", "600", "800", "1000"]);
    }

    #[test]
    fn nothing_of_a_text_is_taken_as_markup() {
        assert_eq!(escape("<a href='\"'>&\u{1b}"), "&lt;a href=&#39;&quot;&#39;&gt;&amp;\u{fffd}");
        let bar =
            Bar { name: "<b>".to_owned(), value: 2.0, low: 1.0, high: 3.0, shown: "2 & more".to_owned() };
        let svg = bars(&ABOUT, &[bar], |value| format!("{value}"));
        assert!(
            svg.contains("Rates &lt;1&gt;") && svg.contains("&lt;b&gt;") && svg.contains("2 &amp; more"),
            "{svg}"
        );
        assert!(!svg.contains("<b>"), "{svg}");
    }

    #[test]
    fn charts_without_figures_are_drawn_too() {
        for svg in [
            bars(&ABOUT, &[], |_| String::new()),
            multiples(&ABOUT, &[], &[]),
            logarithmic(&ABOUT, &[], |_| String::new()),
        ] {
            assert!(svg.starts_with("<svg") && svg.ends_with("</svg>") && !svg.contains("NaN"), "{svg}");
        }
        let nothing = Bar { name: String::new(), value: 0.0, low: 0.0, high: 0.0, shown: String::new() };
        assert!(!bars(&ABOUT, &[nothing], |_| String::new()).contains("NaN"));
    }
}
