//! The server, as kube's own client and watcher use it.

use std::{pin::pin, time::Duration};

use anyhow::Result;
use futures_util::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, Config, Error, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};
use serde_json::json;
use tokio::time::timeout;

use super::ApiServer;

/// Time limit of an event.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

fn pod(name: &str, node: &str) -> serde_json::Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-of-{name}")},
        "spec": {"nodeName": node, "containers": [{"name": "app"}]},
    })
}

fn client(server: &ApiServer) -> Client {
    let mut config = Config::new(server.url().parse().expect("a URL"));
    // Without retries: the test checks the server's responses.
    config.default_retry = false;
    Client::try_from(config).expect("a client")
}

fn config() -> watcher::Config {
    watcher::Config::default().fields("spec.nodeName=one")
}

fn run(test: impl Future<Output = Result<()>>) {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map(|runtime| runtime.block_on(test))
        .expect("a runtime")
        .expect("the test");
}

/// The watcher's next event: `init`, `listed a`, `all`, `a`, `deleted a`, `error`.
async fn next(events: &mut (impl Stream<Item = watcher::Result<Event<Pod>>> + Unpin)) -> String {
    let event = timeout(EVENT_TIMEOUT, events.next())
        .await
        .expect("in time")
        .expect("an event");
    match event {
        Ok(Event::Init) => "init".to_owned(),
        Ok(Event::InitApply(pod)) => format!("listed {}", pod.name_any()),
        Ok(Event::InitDone) => "all".to_owned(),
        Ok(Event::Apply(pod)) => pod.name_any(),
        Ok(Event::Delete(pod)) => format!("deleted {}", pod.name_any()),
        Err(_) => "error".to_owned(),
    }
}

async fn expect(
    events: &mut (impl Stream<Item = watcher::Result<Event<Pod>>> + Unpin),
    expected: &[&str],
) {
    for expected in expected {
        assert_eq!(next(events).await, *expected);
    }
}

/// Waits until the watch after a list has started: earlier changes are reported as well, but a
/// fault would not affect any watch.
async fn until_watched(server: &ApiServer) {
    let watched = async {
        while server.watches() == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(EVENT_TIMEOUT, watched).await.expect("a watch");
}

#[test]
fn a_watcher_gets_the_events_of_its_node() {
    run(async {
        let server = ApiServer::start()?;
        server.put(pod("a", "one"))?;
        server.put(pod("elsewhere", "two"))?;
        let mut events = pin!(watcher(Api::<Pod>::all(client(&server)), config()));
        expect(&mut events, &["init", "listed a", "all"]).await;
        server.put(pod("b", "one"))?;
        server.put(pod("elsewhere", "two"))?;
        server.put(pod("a", "one"))?;
        server.remove("v1", "Pod", "shop", "b")?;
        expect(&mut events, &["b", "a", "deleted b"]).await;
        // No longer selected.
        server.put(pod("a", "two"))?;
        expect(&mut events, &["deleted a"]).await;
        Ok(())
    });
}

#[test]
fn events_between_list_and_watch_are_delivered() {
    run(async {
        let server = ApiServer::start()?;
        let mut events = pin!(watcher(Api::<Pod>::all(client(&server)), config()));
        expect(&mut events, &["init", "all"]).await;
        assert_eq!(server.watches(), 0);
        server.put(pod("a", "one"))?;
        server.remove("v1", "Pod", "shop", "a")?;
        expect(&mut events, &["a", "deleted a"]).await;
        Ok(())
    });
}

#[test]
fn a_closed_watch_resumes_at_its_version() {
    run(async {
        let server = ApiServer::start()?;
        let events = watcher(Api::<Pod>::all(client(&server)), config());
        let mut events = pin!(events.default_backoff());
        expect(&mut events, &["init", "all"]).await;
        server.put(pod("a", "one"))?;
        expect(&mut events, &["a"]).await;
        server.disconnect();
        server.put(pod("b", "one"))?;
        expect(&mut events, &["b"]).await;
        let lists = server
            .recorded()
            .iter()
            .filter(|request| request.verb == "list")
            .count();
        assert_eq!(lists, 1);
        Ok(())
    });
}

#[test]
fn a_watcher_lists_again_after_410() {
    run(async {
        let server = ApiServer::start()?;
        server.put(pod("a", "one"))?;
        let events = watcher(Api::<Pod>::all(client(&server)), config());
        let mut events = pin!(events.default_backoff());
        expect(&mut events, &["init", "listed a", "all"]).await;
        server.put(pod("b", "one"))?;
        expect(&mut events, &["b"]).await;
        server.expire();
        expect(
            &mut events,
            &["error", "init", "listed a", "listed b", "all"],
        )
        .await;
        Ok(())
    });
}

#[test]
fn a_watch_can_resume_from_a_bookmark() {
    run(async {
        let server = ApiServer::start()?;
        let pods = Api::<Pod>::all(client(&server));
        let old = pods
            .list(&ListParams::default())
            .await?
            .metadata
            .resource_version;
        let old = old.expect("a version");
        let parameters = WatchParams::default().fields("spec.nodeName=one");
        let mut watch = pin!(pods.watch(&parameters, &old).await?);
        server.put(pod("elsewhere", "two"))?;
        server.forget();
        server.bookmark();
        let received = timeout(EVENT_TIMEOUT, watch.next())
            .await?
            .expect("an event")?;
        let WatchEvent::Bookmark(bookmark) = received else {
            panic!("{received:?}");
        };
        for (version, is_known) in [(bookmark.metadata.resource_version, true), (old, false)] {
            let mut watch = pin!(pods.watch(&parameters, &version).await?);
            server.put(pod("a", "one"))?;
            let received = timeout(EVENT_TIMEOUT, watch.next())
                .await?
                .expect("an event")?;
            let is_expired = matches!(&received, WatchEvent::Error(status) if status.code == 410);
            assert_eq!(is_expired, !is_known, "{received:?}");
        }
        Ok(())
    });
}

#[test]
fn the_parts_of_a_list_have_one_version() {
    run(async {
        let server = ApiServer::start()?;
        for name in ["a", "b", "c"] {
            server.put(pod(name, "one"))?;
        }
        let pods = Api::<Pod>::all(client(&server));
        let first = pods.list(&ListParams::default().limit(2)).await?;
        let token = first.metadata.continue_.clone().expect("a token");
        assert_eq!(first.items.len(), 2);
        assert_eq!(first.metadata.remaining_item_count, Some(1));
        server.remove("v1", "Pod", "shop", "c")?;
        let second = pods
            .list(&ListParams::default().limit(2).continue_token(&token))
            .await?;
        let names: Vec<_> = second.items.iter().map(ResourceExt::name_any).collect();
        assert_eq!(names, ["c"]);
        assert_eq!(
            second.metadata.resource_version,
            first.metadata.resource_version
        );
        // The cache ignores the limit.
        let all = pods.list(&ListParams::default().match_any()).await?;
        assert_eq!(all.items.len(), 2);
        Ok(())
    });
}

#[test]
fn the_token_of_a_list_expires() {
    run(async {
        let server = ApiServer::start()?;
        for name in ["a", "b"] {
            server.put(pod(name, "one"))?;
        }
        let pods = Api::<Pod>::all(client(&server));
        let first = pods.list(&ListParams::default().limit(1)).await?;
        server.forget();
        let token = first.metadata.continue_.expect("a token");
        let refused = pods
            .list(&ListParams::default().limit(1).continue_token(&token))
            .await;
        assert!(matches!(refused, Err(Error::Api(status)) if status.code == 410));
        Ok(())
    });
}

#[test]
fn lists_can_be_streamed_if_the_server_supports_it() {
    run(async {
        let server = ApiServer::start()?;
        server.put(pod("a", "one"))?;
        let pods = || Api::<Pod>::all(client(&server));
        let mut events = pin!(watcher(pods(), config().streaming_lists()));
        expect(&mut events, &["init", "listed a", "all"]).await;
        server.put(pod("b", "one"))?;
        expect(&mut events, &["b"]).await;
        server.refuse_streaming_lists();
        let mut events = pin!(watcher(pods(), config().streaming_lists()));
        assert_eq!(next(&mut events).await, "error");
        let refused = server.refused();
        assert_eq!(refused.last().map(|request| request.status), Some(422));
        Ok(())
    });
}

#[test]
fn a_server_may_be_slow_or_unavailable() {
    run(async {
        let server = ApiServer::start()?;
        let pods = Api::<Pod>::all(client(&server));
        server.delay(Duration::from_millis(300));
        let parameters = ListParams::default();
        let hasty = timeout(Duration::from_millis(20), pods.list(&parameters));
        assert!(hasty.await.is_err());
        server.delay(Duration::ZERO);
        server.set_unavailable(true);
        let refused = pods.list(&ListParams::default()).await;
        assert!(matches!(refused, Err(Error::Api(status)) if status.code == 503));
        server.set_unavailable(false);
        assert!(pods.list(&ListParams::default()).await.is_ok());
        Ok(())
    });
}

const RBAC: &str = "rbac.authorization.k8s.io/v1";

/// Permits an account these verbs on pods, and nothing else.
fn grant(server: &ApiServer, verbs: &[&str]) -> Result<()> {
    let account = json!({"kind": "ServiceAccount", "namespace": "mesh", "name": "agent"});
    for object in [
        json!({"apiVersion": "v1", "kind": "ServiceAccount",
            "metadata": {"namespace": "mesh", "name": "agent"}}),
        json!({"apiVersion": RBAC, "kind": "ClusterRole", "metadata": {"name": "agent"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": verbs}]}),
        json!({"apiVersion": RBAC, "kind": "ClusterRoleBinding", "metadata": {"name": "agent"},
            "roleRef": {"kind": "ClusterRole", "name": "agent"}, "subjects": [account]}),
    ] {
        server.put(object)?;
    }
    server.authenticate_as("mesh", "agent");
    Ok(())
}

/// The real one authorizes a request once, when it starts.
#[test]
fn a_watch_continues_when_its_permissions_are_deleted() {
    run(async {
        let server = ApiServer::start()?;
        grant(&server, &["list", "watch"])?;
        let mut events = pin!(watcher(Api::<Pod>::all(client(&server)), config()));
        expect(&mut events, &["init", "all"]).await;
        let deleting = async {
            until_watched(&server).await;
            server.remove(RBAC, "ClusterRoleBinding", "", "agent")?;
            server.remove("v1", "ServiceAccount", "mesh", "agent")?;
            let pods = Api::<Pod>::all(client(&server));
            let refused = pods.list(&ListParams::default()).await;
            assert!(matches!(refused, Err(Error::Api(status)) if status.code == 401));
            server.put(pod("a", "one"))
        };
        let (received, put) = tokio::join!(next(&mut events), deleting);
        put?;
        assert_eq!(received, "a");
        Ok(())
    });
}

#[test]
fn a_request_without_a_rule_is_forbidden_and_recorded() {
    run(async {
        let server = ApiServer::start()?;
        server.put(pod("a", "one"))?;
        grant(&server, &["list"])?;
        let pods = Api::<Pod>::namespaced(client(&server), "shop");
        assert!(pods.list(&ListParams::default()).await.is_ok());
        let refused = pods.delete("a", &DeleteParams::default()).await;
        assert!(matches!(refused, Err(Error::Api(status)) if status.code == 403));
        let refused: Vec<_> = server
            .refused()
            .into_iter()
            .map(|request| request.verb)
            .collect();
        assert_eq!(refused, ["delete"]);
        assert!(server.get("v1", "Pod", "shop", "a").is_some());
        Ok(())
    });
}

#[test]
fn conflicting_creates_and_patches_fail() {
    run(async { until_changed(&ApiServer::start()?).await });
}

async fn until_changed(server: &ApiServer) -> Result<()> {
    let nodes = Api::<Node>::all(client(server));
    let node = json!({"metadata": {"name": "one"}, "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}});
    let node: Node = serde_json::from_value(node)?;
    let made = nodes.create(&PostParams::default(), &node).await?;
    let again = nodes.create(&PostParams::default(), &node).await;
    assert!(matches!(again, Err(Error::Api(status)) if status.code == 409));
    let version = made.resource_version().expect("a version");
    let patch = |version: &str| {
        Patch::Merge(json!({"metadata": {"resourceVersion": version}, "spec": {"taints": []}}))
    };
    let parameters = PatchParams::default();
    let stale = nodes.patch("one", &parameters, &patch("1")).await;
    assert!(matches!(stale, Err(Error::Api(status)) if status.code == 409));
    let patched = nodes.patch("one", &parameters, &patch(&version)).await?;
    assert_eq!(patched.spec.and_then(|spec| spec.taints), Some(Vec::new()));
    assert!(nodes.get_opt("two").await?.is_none());
    Ok(())
}

#[test]
fn a_watch_is_closed_with_the_server() {
    run(async {
        let server = ApiServer::start()?;
        let mut events = pin!(watcher(Api::<Pod>::all(client(&server)), config()));
        expect(&mut events, &["init", "all"]).await;
        let watching = async { next(&mut events).await };
        let ending = async {
            until_watched(&server).await;
            server.put(pod("a", "one"))
        };
        let (received, put) = tokio::join!(watching, ending);
        put?;
        assert_eq!(received, "a");
        drop(server);
        assert_eq!(next(&mut events).await, "error");
        Ok(())
    });
}
