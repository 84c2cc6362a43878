//! A line chart as SVG: what a sweep measured, one line a series, on a common x axis.

use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, Result};

use crate::report::progress;

/// One line.
pub struct Series {
    pub name: &'static str,
    /// x and y, by x.
    pub points: Vec<(f64, f64)>,
    pub colour: &'static str,
}

pub struct Chart {
    pub title: String,
    pub x_name: &'static str,
    pub y_name: &'static str,
    pub series: Vec<Series>,
}

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const MARGIN: f64 = 60.0;
const GRID_LINES: u32 = 5;

impl Chart {
    /// Writes the document beside the results `out`, and says so for benchmark `id`.
    pub fn save(&self, id: &str, out: &Path, name: &str) -> Result<()> {
        let path = out.with_file_name(name);
        std::fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        std::fs::write(&path, self.svg()).with_context(|| format!("cannot write {}", path.display()))?;
        progress(&format!("{id}: plot in {}", path.display()));
        Ok(())
    }

    /// The document. The y axis begins at 0.
    pub fn svg(&self) -> String {
        let all = || self.series.iter().flat_map(|series| &series.points);
        let x_min = all().map(|point| point.0).fold(f64::INFINITY, f64::min);
        let x_max = all().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
        let y_max = all().map(|point| point.1).fold(0.0, f64::max);
        let at_x = |x: f64| MARGIN + (x - x_min) / (x_max - x_min).max(1e-9) * (WIDTH - 2.0 * MARGIN);
        let at_y = |y: f64| HEIGHT - MARGIN - y / y_max.max(1e-9) * (HEIGHT - 2.0 * MARGIN);
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
             <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n"
        );
        let mut text = |x: f64, y: f64, anchor: &str, colour: &str, text: &str| {
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>"
            );
        };
        text(WIDTH / 2.0, 20.0, "middle", "black", &self.title);
        text(WIDTH / 2.0, HEIGHT - 15.0, "middle", "black", self.x_name);
        text(MARGIN, MARGIN - 15.0, "middle", "black", self.y_name);
        for (row, series) in self.series.iter().enumerate() {
            text(
                WIDTH - MARGIN,
                HEIGHT - MARGIN - 15.0 - 16.0 * row as f64,
                "end",
                series.colour,
                series.name,
            );
        }
        for line in 0..=GRID_LINES {
            let part = f64::from(line) / f64::from(GRID_LINES);
            let (x, y) = (x_min + part * (x_max - x_min), part * y_max);
            text(at_x(x), HEIGHT - MARGIN + 18.0, "middle", "black", &format!("{x:.0}"));
            text(MARGIN - 8.0, at_y(y) + 4.0, "end", "black", &format!("{y:.0}"));
        }
        for line in 0..=GRID_LINES {
            let y = at_y(f64::from(line) / f64::from(GRID_LINES) * y_max);
            let _ = writeln!(svg, "<path d=\"M{MARGIN} {y:.1}H{:.1}\" stroke=\"#ddd\"/>", WIDTH - MARGIN);
        }
        for series in &self.series {
            let path: Vec<String> =
                series.points.iter().map(|(x, y)| format!("{:.1} {:.1}", at_x(*x), at_y(*y))).collect();
            let _ = writeln!(
                svg,
                "<path d=\"M{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"2\"/>",
                path.join("L"),
                series.colour
            );
        }
        svg + "</svg>\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_lie_between_the_margins_and_higher_is_up() {
        let series = Series { name: "a", points: vec![(50.0, 10.0), (150.0, 20.0)], colour: "red" };
        let svg = Chart { title: "t".into(), x_name: "x", y_name: "y", series: vec![series] }.svg();
        assert!(svg.contains("d=\"M60.0 200.0L660.0 60.0\""), "{svg}");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }
}
