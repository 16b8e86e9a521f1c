//! How long a pod has been captured.

use jiff::{SignedDuration, Timestamp};

use crate::status::PodStatus;

/// The age in its largest unit, as kubectl prints it; `-` if it is not recorded.
pub(super) fn of(pod: &PodStatus, now: Timestamp) -> String {
    let attached_at = pod.attached.attached_at;
    attached_at.map_or_else(|| "-".to_owned(), |at| in_short(now.duration_since(at)))
}

fn in_short(age: SignedDuration) -> String {
    // The clock may have been set back.
    let seconds = age.as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_its_largest_unit() {
        for (seconds, text) in [
            (-5, "0s"),
            (119, "119s"),
            (120, "2m"),
            (7199, "119m"),
            (7200, "2h"),
            (172_800, "2d"),
        ] {
            assert_eq!(in_short(SignedDuration::from_secs(seconds)), text);
        }
    }
}
