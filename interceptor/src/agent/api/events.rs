//! Server-sent events for the page: the node when it changes, and flows in batches.

use std::{collections::VecDeque, convert::Infallible, future, sync::Arc, time::Duration};

use anyhow::Result;
use axum::{
    extract::{Query, State},
    response::{
        IntoResponse,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures_util::{Stream, StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use tokio::{sync::broadcast::Receiver, time::sleep};

use super::{Api, node::AgentHealth};
use crate::agent::{
    flows::{self, FlowHub},
    policy::index::report::PodReport,
};

/// The shortest interval between two reads of the node's status for pages.
const NODE_INTERVAL: Duration = Duration::from_secs(2);
/// The interval is at least this many times as long as a read took, so that reads need at most a fiftieth
/// of a processor.
const IDLE_FACTOR: u32 = 50;
/// The time in which flows are collected for one event.
const BATCH_INTERVAL: Duration = Duration::from_millis(250);
/// Flows in one event. A page cannot show more in this time.
const MAX_BATCH: usize = 500;
/// Interval of an event while there is no other, so that the page notices a broken connection.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// The parameters of a request.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Parameters {
    /// Whether to send flows. Observing them costs the node.
    #[serde(default)]
    flows: bool,
}

pub(super) async fn stream(
    Query(parameters): Query<Parameters>,
    State(api): State<Api>,
) -> impl IntoResponse {
    let flows = if parameters.flows {
        flow_events(&api.flows).left_stream()
    } else {
        stream::empty().right_stream()
    };
    let events = stream::select(flows, node_events(api));
    let heartbeat = KeepAlive::new()
        .interval(HEARTBEAT)
        .event(Event::default().event("heartbeat").data("{}"));
    Sse::new(events.map(Ok::<_, Infallible>)).keep_alive(heartbeat)
}

/// All that the page shows, except flows.
#[derive(Serialize)]
struct Node<'a> {
    agent: AgentHealth,
    states: Vec<PodReport>,
    pods: &'a RawValue,
}

/// The state of one page's stream.
struct NodeChanges {
    api: Api,
    sent: Option<String>,
    interval: Duration,
}

fn node_events(api: Api) -> impl Stream<Item = Event> {
    let changes = NodeChanges {
        api,
        sent: None,
        interval: NODE_INTERVAL,
    };
    stream::unfold(changes, |mut changes| async move {
        let event = changes.next().await;
        Some((event, changes))
    })
}

impl NodeChanges {
    /// The first event at once, later ones after a change.
    async fn next(&mut self) -> Event {
        loop {
            if self.sent.is_some() {
                sleep(self.interval).await;
            }
            let (kind, text) = match self.read().await {
                Ok(text) => ("node", text),
                Err(error) => ("problem", format!("{error:#}")),
            };
            if self.sent.as_ref() != Some(&text) {
                self.sent = Some(text.clone());
                return Event::default().event(kind).data(text);
            }
        }
    }

    async fn read(&mut self) -> Result<String> {
        let status = self.api.reader.status(self.interval).await?;
        self.interval = NODE_INTERVAL.max(status.took * IDLE_FACTOR);
        let node = Node {
            agent: self.api.agent_health(),
            states: self.api.states.read().await?,
            pods: &status.pods,
        };
        Ok(serde_json::to_string(&node)?)
    }
}

/// First the flows that were observed last, then new ones.
fn flow_events(flows: &FlowHub) -> impl Stream<Item = Event> + use<> {
    let (recent, lines) = flows.observe();
    let first = batch(recent.into()).event("history");
    let new = stream::unfold(lines, |mut lines| async move {
        let event = next_batch(&mut lines).await?;
        Some((event, lines))
    });
    stream::once(future::ready(first)).chain(new)
}

async fn next_batch(lines: &mut Receiver<Arc<str>>) -> Option<Event> {
    let mut collected = VecDeque::from([flows::next(lines).await?]);
    sleep(BATCH_INTERVAL).await;
    while let Some(line) = flows::received(lines) {
        collected.push_back(line);
    }
    Some(batch(collected).event("flows"))
}

fn batch(lines: VecDeque<Arc<str>>) -> Event {
    Event::default().data(array(lines))
}

/// The newest lines as a JSON array, with the number of those that are left out.
fn array(mut lines: VecDeque<Arc<str>>) -> String {
    let omitted = lines.len().saturating_sub(MAX_BATCH);
    lines.drain(..omitted);
    let omitted = (omitted > 0).then(|| format!("{{\"omitted\":{omitted}}}"));
    let lines = lines.iter().map(|line| line.trim_end());
    let messages: Vec<_> = omitted.as_deref().into_iter().chain(lines).collect();
    format!("[{}]", messages.join(","))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn messages(count: usize) -> Vec<Value> {
        let lines = (1..=count).map(|number| format!("{{\"lost\":{number}}}\n").into());
        serde_json::from_str(&array(lines.collect())).unwrap()
    }

    #[test]
    fn a_batch_has_the_newest_messages_and_the_number_of_the_others() {
        assert_eq!(messages(0), Vec::<Value>::new());
        assert_eq!(messages(2), [json!({"lost": 1}), json!({"lost": 2})]);
        let full = messages(MAX_BATCH);
        assert_eq!(full.len(), MAX_BATCH);
        assert_eq!(full[0], json!({"lost": 1}));
        let more = messages(MAX_BATCH + 3);
        assert_eq!(more.len(), MAX_BATCH + 1);
        assert_eq!(more[..2], [json!({"omitted": 3}), json!({"lost": 4})]);
    }
}
