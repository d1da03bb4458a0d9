//! Pictures of a report, as SVG.

use std::path::Path;

use anyhow::Result;
use plotters::prelude::*;

use crate::report::Report;

const SIZE: (u32, u32) = (900, 420);
/// Ratios beyond this are drawn as far as this; their number stands beside them.
const RATIO_MAX: f64 = 2.0;

/// Writes `cpu.svg` and `latency.svg`, as far as there is something to draw.
pub(crate) fn write(report: &Report, folder: &Path) -> Result<()> {
    let bars = report.bars();
    if !bars.is_empty() {
        cpu(&bars, &folder.join("cpu.svg"))?;
    }
    let lines = report.latencies();
    if !lines.is_empty() {
        latency(&lines, &folder.join("latency.svg"))?;
    }
    Ok(())
}

/// A colour for a proxy, the same in every picture.
fn colour(peer: &str) -> RGBColor {
    match peer {
        "serin" | "edge" => RGBColor(200, 80, 40),
        "nginx" => RGBColor(60, 130, 80),
        "haproxy" => RGBColor(70, 110, 180),
        "relay" => RGBColor(150, 150, 150),
        "envoy" => RGBColor(150, 80, 170),
        "traefik" => RGBColor(60, 160, 180),
        _ => RGBColor(190, 160, 60),
    }
}

/// CPU time for a request to nginx's, a group of bars for each job.
fn cpu(jobs: &[(String, Vec<(String, f64)>)], path: &Path) -> Result<()> {
    let rows: usize = jobs.iter().map(|(_, bars)| bars.len() + 1).sum();
    let height = u32::try_from(rows)? * 18 + 80;
    let area = SVGBackend::new(path, (SIZE.0, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("CPU time of the proxy for a request, to nginx's (less is better)", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(10)
        .build_cartesian_2d(0.0..RATIO_MAX * 1.25, 0..i32::try_from(rows)?)?;
    chart.configure_mesh().disable_y_mesh().disable_y_axis().x_labels(10).draw()?;
    let mut row = i32::try_from(rows)?;
    for (job, bars) in jobs {
        row -= 1;
        chart.draw_series([Text::new(
            job.clone(),
            (0.01, row + 1),
            ("sans-serif", 13).into_font().style(FontStyle::Bold),
        )])?;
        for (peer, ratio) in bars {
            row -= 1;
            let shown = ratio.min(RATIO_MAX);
            chart.draw_series([Rectangle::new([(0.0, row), (shown, row + 1)], colour(peer).mix(0.8).filled())])?;
            let text = format!("{peer} {ratio:.2}");
            chart.draw_series([Text::new(text, (shown + 0.01, row + 1), ("sans-serif", 12))])?;
        }
    }
    chart.draw_series([PathElement::new([(1.0, 0), (1.0, i32::try_from(rows)?)], BLACK.mix(0.4))])?;
    area.present()?;
    Ok(())
}

/// p99 at each rate, a line for each proxy.
fn latency(lines: &std::collections::BTreeMap<String, Vec<(f64, [f64; 3])>>, path: &Path) -> Result<()> {
    let most = lines.values().flatten().map(|(_, [_, p99, _])| *p99).fold(1.0, f64::max);
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("p99 in µs at a share of what nginx can do, in % (less is better)", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(28)
        .y_label_area_size(60)
        .build_cartesian_2d(25.0..100.0, (50.0..most * 1.3).log_scale())?;
    chart.configure_mesh().x_labels(8).draw()?;
    for (peer, points) in lines {
        let colour = colour(peer);
        let points: Vec<(f64, f64)> = points.iter().map(|(share, [_, p99, _])| (*share, *p99)).collect();
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        if let Some((share, p99)) = points.last() {
            chart.draw_series([Text::new(
                peer.clone(),
                (share + 1.0, *p99),
                ("sans-serif", 13).into_font().color(&colour),
            )])?;
        }
    }
    area.present()?;
    Ok(())
}
