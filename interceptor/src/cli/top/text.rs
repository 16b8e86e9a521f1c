//! Rates as a table.

use jiff::{Timestamp, Zoned, tz::TimeZone};

use super::rates::{ByVerdict, PodRates};

/// The width of names: the table is 98 columns wide.
const NAME: usize = 42;

/// The lines of the table, with their header.
pub(super) fn lines(pods: &[PodRates], time: Timestamp) -> Vec<String> {
    let total: f64 = pods.iter().map(PodRates::total).sum();
    let time = Zoned::new(time, TimeZone::system()).strftime("%H:%M:%S");
    let columns = format!("{:>9}{:>9}{:>9}", "CAPTURED", "PASSED", "REFUSED");
    let mut lines = vec![
        format!(
            "{time}  captured pods: {}  connections/s: {total:.1}",
            pods.len()
        ),
        format!("{:NAME$}{:>27}  {:>27}", "", "OUTBOUND/S", "INBOUND/S"),
        format!("{:NAME$}{columns}  {columns}", "POD"),
    ];
    lines.extend(pods.iter().map(|pod| {
        let name = pod.pod.display_name();
        let (outbound, inbound) = (cells(pod.outbound), cells(pod.inbound));
        format!("{name:NAME$}{outbound}  {inbound}")
    }));
    lines
}

fn cells(rates: ByVerdict<f64>) -> String {
    let ByVerdict {
        captured,
        passed,
        refused,
    } = rates;
    format!("{captured:9.1}{passed:9.1}{refused:9.1}")
}

#[cfg(test)]
mod tests {
    use super::{super::rates::tests::example, *};

    #[test]
    fn the_table_fits_a_hundred_columns() {
        let lines = lines(&example(), Timestamp::UNIX_EPOCH);
        assert!(lines.iter().all(|line| line.len() <= 100), "{lines:#?}");
        assert!(
            lines[0].ends_with("captured pods: 3  connections/s: 37.5"),
            "{lines:#?}"
        );
        let numbers: Vec<_> = lines[3].split_whitespace().collect();
        let expected = ["/run/netns/1", "20.0", "0.0", "0.0", "0.0", "0.0", "0.5"];
        assert_eq!(numbers, expected);
    }
}
