//! The targets, on a terminal.

use comfy_table::{Table, presets};

use super::{Summary, Unit, targets::Target};

const HEADER: [&str; 5] = ["what", "target", "interceptor", "iptables-nft", "verdict"];

/// Draws the table.
pub(super) fn draw(targets: &[Target]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    table.set_header(HEADER);
    for target in targets {
        table.add_row(cells(target));
    }
    table.to_string()
}

/// A target's row.
pub(super) fn cells(target: &Target) -> [String; 5] {
    let text = |summary: Option<Summary>| {
        summary.map_or_else(|| "–".to_owned(), |summary| spread(&summary, target.unit))
    };
    [
        target.what.clone(),
        target.wanted.clone(),
        text(target.measured),
        text(target.iptables),
        target.verdict.name().to_owned(),
    ]
}

/// `1.02 (0.99–1.05)`
pub(super) fn spread(summary: &Summary, unit: Option<Unit>) -> String {
    let middle = number(summary.median);
    let symbol = unit.map_or_else(String::new, |unit| format!(" {}", unit.symbol()));
    if summary.count < 2 {
        return format!("{middle}{symbol}");
    }
    let (low, high) = (number(summary.low), number(summary.high));
    format!("{middle} ({low}–{high}){symbol}")
}

/// With three significant digits.
fn number(number: f64) -> String {
    match number.abs() {
        size if size >= 1000.0 => thousands(&format!("{number:.0}")),
        size if size >= 100.0 => format!("{number:.0}"),
        size if size >= 10.0 => format!("{number:.1}"),
        size if size >= 0.1 || size == 0.0 => format!("{number:.2}"),
        _ => format!("{number:.4}"),
    }
}

fn thousands(digits: &str) -> String {
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits),
    };
    let groups: Vec<String> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| String::from_utf8_lossy(group).into_owned())
        .collect();
    format!("{sign}{}", groups.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_significant_digits() {
        let numbers = [1_234_567.8, 123.4, 12.34, 1.234, 0.012_34, 0.0].map(number);
        assert_eq!(
            numbers,
            ["1,234,568", "123", "12.3", "1.23", "0.0123", "0.00"]
        );
    }

    #[test]
    fn one_number_has_no_spread() {
        let one = Summary::of(&[2.0]);
        assert_eq!(spread(&one, Some(Unit::Bytes)), "2.00 bytes");
        let more = Summary::of(&[1.0, 2.0, 3.0]);
        assert_eq!(spread(&more, None), "2.00 (1.50–2.50)");
    }
}
