//! Charts.

use anyhow::Result;
use plotters::{
    chart::{ChartBuilder, ChartContext, SeriesLabelPosition},
    coord::{
        Shift,
        cartesian::Cartesian2d,
        ranged1d::{Ranged, ValueFormatter},
        types::RangedCoordf64,
    },
    drawing::{DrawingArea, IntoDrawingArea as _},
    element::{Circle, PathElement, Rectangle},
    prelude::{IntoLogRange as _, SVGBackend},
    series::LineSeries,
    style::{Color as _, IntoFont as _, RGBColor, WHITE},
};
use serde::{Deserialize, Serialize};

use super::{Contestant, Results, Row};

const SIZE: (u32, u32) = (760, 400);
const FONT: (&str, u32) = ("sans-serif", 14);
const TITLE: (&str, u32) = ("sans-serif", 18);
/// The space above the highest value.
const HEADROOM: f64 = 1.15;
/// The part of a group's width that its bars use.
const GROUP: f64 = 0.75;

const OTHERS: RGBColor = RGBColor(120, 120, 120);

/// A chart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Chart {
    /// Its file name, without the extension.
    pub name: String,
    /// Its title.
    pub title: String,
    /// The label of the y axis.
    pub y: String,
    /// Its content.
    pub drawn: Drawn,
}

/// The content of a chart.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Drawn {
    /// Lines over a common axis.
    Lines {
        /// The label of the x axis.
        x: String,
        /// Whether it is logarithmic.
        is_log: bool,
        /// The lines.
        lines: Vec<Line>,
    },
    /// Bars in groups.
    Bars {
        /// The names of the groups.
        groups: Vec<String>,
        /// Names, and a bar in every group.
        bars: Vec<(String, Vec<f64>)>,
    },
}

/// A line.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// All charts of a run.
pub(super) fn of(results: &Results) -> Vec<&Chart> {
    let sections = results.sections.iter();
    sections.flat_map(|section| &section.charts).collect()
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Context<'a, 'b, X> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, RangedCoordf64>>;

impl Chart {
    /// A chart of lines. `axes`: the labels of the x and y axes.
    pub(super) fn lines(
        name: &str,
        title: &str,
        axes: (&str, &str),
        is_log: bool,
        lines: Vec<Line>,
    ) -> Self {
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            y: axes.1.to_owned(),
            drawn: Drawn::Lines {
                x: axes.0.to_owned(),
                is_log,
                lines,
            },
        }
    }

    /// A chart of bars: the medians of the rows of these names.
    pub(super) fn bars(name: &str, title: &str, y: &str, rows: &[Row], groups: &[&str]) -> Self {
        let found = |group: &&str| rows.iter().find(|row| row.what == *group);
        let rows: Vec<&Row> = groups.iter().filter_map(found).collect();
        let bars = Contestant::ALL
            .iter()
            .map(|contestant| {
                let of = |row: &&Row| Some(row.value(contestant.name())?.median);
                let values: Vec<f64> = rows.iter().filter_map(of).collect();
                (contestant.to_string(), values)
            })
            .filter(|(_, values)| values.len() == rows.len())
            .collect();
        Self {
            name: name.to_owned(),
            title: title.to_owned(),
            y: y.to_owned(),
            drawn: Drawn::Bars {
                groups: groups.iter().map(|group| (*group).to_owned()).collect(),
                bars,
            },
        }
    }

    /// As SVG.
    pub(super) fn draw(&self) -> Result<String> {
        let mut svg = String::new();
        {
            let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            area.fill(&WHITE)?;
            match &self.drawn {
                Drawn::Lines { x, is_log, lines } => self.draw_lines(&area, x, *is_log, lines)?,
                Drawn::Bars { groups, bars } => self.draw_bars(&area, groups, bars)?,
            }
            area.present()?;
        }
        Ok(svg)
    }

    fn builder<'a, 'b>(&self, area: &'a Area<'b>) -> ChartBuilder<'a, 'b, SVGBackend<'b>> {
        let mut builder = ChartBuilder::on(area);
        builder
            .caption(&self.title, TITLE.into_font())
            .margin(12)
            .x_label_area_size(42)
            .y_label_area_size(70);
        builder
    }

    fn draw_lines(&self, area: &Area<'_>, x: &str, is_log: bool, lines: &[Line]) -> Result<()> {
        let points = || lines.iter().flat_map(|line| line.points.iter().copied());
        let right = points().map(|(x, _)| x).fold(1.0, f64::max);
        let top = points().map(|(_, y)| y).fold(0.0, f64::max) * HEADROOM;
        let mut builder = self.builder(area);
        if is_log {
            let context = builder.build_cartesian_2d((1.0..right).log_scale(), 0.0..top)?;
            self.draw_lines_in(context, x, lines)
        } else {
            let context = builder.build_cartesian_2d(0.0..right, 0.0..top)?;
            self.draw_lines_in(context, x, lines)
        }
    }

    #[expect(
        single_use_lifetimes,
        reason = "the backend outlives what draws with it"
    )]
    fn draw_lines_in<'a, 's: 'a, X>(
        &self,
        mut context: Context<'a, 's, X>,
        x: &str,
        lines: &[Line],
    ) -> Result<()>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        context
            .configure_mesh()
            .max_light_lines(1)
            .label_style(FONT)
            .x_desc(x)
            .y_desc(&self.y)
            .draw()?;
        for line in lines {
            let color = color(&line.name);
            context
                .draw_series(LineSeries::new(line.points.clone(), color.stroke_width(2)))?
                .label(&line.name)
                .legend(move |(x, y)| {
                    PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2))
                });
            if line.points.len() < 20 {
                let dots = line
                    .points
                    .iter()
                    .map(|at| Circle::new(*at, 3, color.filled()));
                context.draw_series(dots)?;
            }
        }
        draw_legend(&mut context)
    }

    fn draw_bars(
        &self,
        area: &Area<'_>,
        groups: &[String],
        bars: &[(String, Vec<f64>)],
    ) -> Result<()> {
        let highest = bars.iter().flat_map(|(_, values)| values.iter().copied());
        let top = highest.fold(0.0, f64::max) * (HEADROOM + 0.2);
        let [count, width] = [groups.len(), bars.len()].map(as_number);
        let mut context = self
            .builder(area)
            .build_cartesian_2d(0.0..count, 0.0..top)?;
        let name = |position: &f64| {
            let mut named = (0..).map(as_number).zip(groups);
            let found = named.find(|(number, _)| (number + 0.5 - position).abs() < 0.01);
            found.map_or_else(String::new, |(_, name)| name.clone())
        };
        context
            .configure_mesh()
            .disable_x_mesh()
            .max_light_lines(1)
            .label_style(FONT)
            .x_labels(2 * groups.len() + 1)
            .x_label_formatter(&name)
            .y_desc(&self.y)
            .draw()?;
        for (index, (name, values)) in bars.iter().enumerate() {
            let color = color(name);
            let bar = |(group, value): (usize, &f64)| {
                let start = (1.0 - GROUP) / 2.0 + as_number(index) * GROUP / width;
                let left = as_number(group) + start;
                let corners = [(left, 0.0), (left + GROUP / width * 0.92, *value)];
                Rectangle::new(corners, color.filled())
            };
            context
                .draw_series(values.iter().enumerate().map(bar))?
                .label(name)
                .legend(move |(x, y)| {
                    Rectangle::new([(x, y - 5), (x + 14, y + 5)], color.filled())
                });
        }
        draw_legend(&mut context)
    }
}

#[expect(single_use_lifetimes, reason = "as above")]
fn draw_legend<'a, 's: 'a, X>(context: &mut Context<'a, 's, X>) -> Result<()>
where
    X: Ranged<ValueType = f64>,
{
    context
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(FONT)
        .background_style(WHITE.mix(0.8))
        .border_style(OTHERS)
        .draw()?;
    Ok(())
}

fn color(name: &str) -> RGBColor {
    match Contestant::ALL
        .into_iter()
        .find(|contestant| contestant.name() == name)
    {
        Some(Contestant::Direct) => RGBColor(90, 90, 90),
        Some(Contestant::Iptables) => RGBColor(213, 94, 0),
        Some(Contestant::Interceptor) => RGBColor(0, 114, 178),
        None => OTHERS,
    }
}

#[expect(clippy::cast_precision_loss, reason = "a handful")]
const fn as_number(count: usize) -> f64 {
    count as f64
}
