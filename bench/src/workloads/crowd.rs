//! More connections at once than there are ephemeral ports.

use std::net::SocketAddr;

use anyhow::{Result, bail};

use crate::{
    Contestant, Direction, Pod, Row, Section, Unit,
    load::{LoadReply, LoadRequest},
    pod::stock,
};

const RANGE: &str = "20000 20499";
const DESTINATIONS: u8 = 8;
const EACH: usize = 400;

pub(super) fn run() -> Result<Section> {
    let mut values = Vec::new();
    let mut notes = Vec::new();
    for contestant in Contestant::ALL {
        let pod = Pod::new(contestant, &stock())?;
        pod.netns().sysctl("net.ipv4.ip_local_port_range", RANGE)?;
        let to = destinations(&pod);
        let each = EACH;
        let LoadReply::Held { open, errors } =
            pod.call(Direction::Outbound, &LoadRequest::Hold { to, each })?
        else {
            bail!("not held");
        };
        let open = u32::try_from(open)?;
        values.push((contestant.name().to_owned(), vec![f64::from(open)]));
        notes.extend(
            errors
                .keys()
                .map(|error| format!("{contestant}: the missing connections failed with {error}.")),
        );
    }
    Ok(Section {
        method: format!(
            "An app with 500 ephemeral ports ({RANGE}) opens {EACH} connections to each of \
             {DESTINATIONS} destinations and keeps them; without interception it has one \
             destination, the proxy."
        ),
        rows: vec![Row::new("open at once", Unit::Count, &values)],
        notes,
        ..Section::default()
    })
}

fn destinations(pod: &Pod) -> Vec<SocketAddr> {
    let first = pod.destination(Direction::Outbound);
    match pod.contestant() {
        Contestant::Direct => vec![first; DESTINATIONS.into()],
        _ => (0..DESTINATIONS)
            .map(|number| ([10, 2, 1, number], 80).into())
            .collect(),
    }
}
