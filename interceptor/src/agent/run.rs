//! The agent from its start to its end.

use std::{rc::Rc, time::Duration};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, pin_mut};
use k8s_openapi::api::{apps::v1::DaemonSet, core::v1 as k8s};
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::watch as channel,
    task::{LocalSet, spawn_local},
    time::{sleep, timeout},
};
use tracing::{error, info, warn};

use super::{
    capture::blocking,
    health::{Health, Part},
    http,
    install::{self, InstallState, IstioCni},
    leaving::{self, Asked, Leaving},
    memory,
    metrics::Metrics,
    node::Node,
    options::AgentOptions,
    plugin::Plugin,
    protocol::{self, BindError, Listener},
    taint, watch,
};
use crate::host;

/// How many threads may block at a time. One change is made at a time in any case.
const THREADS: usize = 4;

/// How often a second agent looks whether the first has ended.
const SECOND: Duration = Duration::from_secs(1);

/// No answer of the API server is waited for longer, but a watch's, which ends before.
const LONGEST_ANSWER: Duration = Duration::from_secs(295);

/// How long the API server may take when the agent is to end.
const LAST_QUESTION: Duration = Duration::from_secs(3);

/// How long work that blocks may take to complete when the agent ends.
const LAST_WORK: Duration = Duration::from_secs(2);

/// How long a network namespace may take to end: mostly a moment, at worst as long as TCP sends a
/// last segment again that nobody acknowledges.
const ENDING: [Duration; 4] = [
    Duration::from_secs(2),
    Duration::from_secs(10),
    Duration::from_mins(1),
    Duration::from_mins(4),
];

/// Runs the agent until it is told to end.
pub fn run(options: AgentOptions) -> Result<()> {
    memory::share_arena();
    host::raise_open_files().unwrap_or_else(|error| warn!("{error:#}"));
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(THREADS)
        .build()
        .context("cannot start a runtime")?;
    let result = LocalSet::new().block_on(&runtime, serve(options));
    // Work that blocks completes by itself; what is waited for in vain is not waited for.
    runtime.shutdown_timeout(LAST_WORK);
    result
}

async fn serve(options: AgentOptions) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let client = client(&options).await?;
    tokio::select! {
        result = work(&options, &client) => return result,
        _ = interrupt.recv() => info!("interrupted: pods stay captured"),
        _ = terminate.recv() => leave(&options, client.clone()).await,
    }
    Ok(())
}

async fn client(options: &AgentOptions) -> Result<Client> {
    let config = match &options.kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)
                .with_context(|| format!("--kubeconfig {}", path.display()))?;
            Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => Config::infer().await.context(
            "cannot tell how to reach the API server: run in a pod with a service account, or give \
             --kubeconfig",
        )?,
    };
    let mut config = config;
    config.read_timeout = Some(LONGEST_ANSWER);
    Client::try_from(config).context("cannot make a client of the API server")
}

async fn work(options: &AgentOptions, client: &Client) -> Result<()> {
    let metrics = Metrics::new();
    let mut waiting = vec![(
        Part::Pods,
        "the API server has not told of the node's pods yet",
    )];
    if !options.node.no_cni {
        waiting.push((Part::Cni, "the CNI plugin is not installed yet"));
    }
    let health = Health::new(metrics.clone(), &waiting);
    let web = http::listen(options.http_address).await;
    let early = web.is_ok();
    if let Ok(web) = web {
        spawn_local(http::serve(web, health.clone(), metrics.clone()));
    }
    let listener = alone(options, &health).await?;
    if !early {
        // Where the agent before has listened.
        let web = http::listen(options.http_address).await?;
        spawn_local(http::serve(web, health.clone(), metrics.clone()));
    }
    let node = Rc::new(Node::new(options.clone(), client.clone(), metrics, health)?);
    node.take_over().await?;
    tokio::select! {
        result = node.follow_cgroups() => result.context("cannot watch cgroups"),
        result = install(&node) => result,
        () = listen_to_pods(&node) => Ok(()),
        () = protocol::serve(listener, Plugin(node.clone())) => Ok(()),
        never = keep_tidy(&node) => never,
        result = untaint(&node) => result,
    }
}

/// The agent's socket, once no other agent has it.
async fn alone(options: &AgentOptions, health: &Health) -> Result<Listener> {
    let mut is_first = true;
    loop {
        match Listener::bind(&options.install.socket) {
            Ok(listener) => {
                health.right(Part::Alone);
                return Ok(listener);
            }
            Err(error @ BindError::Taken(_)) => {
                if is_first {
                    warn!("waiting until the other agent of this node ends: {error}");
                }
                is_first = false;
                health.wrong(Part::Alone, format!("waiting: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
        sleep(SECOND).await;
    }
}

async fn listen_to_pods(node: &Rc<Node>) {
    let options = &node.options;
    let jitter = Duration::from_millis(options.start_jitter);
    let told = watch::pods(node.client.clone(), &options.node_name, jitter);
    pin_mut!(told);
    while let Some(told) = told.next().await {
        node.hear(told).await;
    }
}

/// Keeps the CNI plugin installed, unless that is not wanted.
async fn install(node: &Node) -> Result<()> {
    if node.options.node.no_cni {
        return std::future::pending().await;
    }
    let (state, states) = channel::channel(InstallState::Starting);
    let (istio_cni, findings) = channel::channel(IstioCni::Unknown);
    let installed = each(states, |state| match state {
        InstallState::Installed(_) => node.health.right(Part::Cni),
        InstallState::Not { reason } => node.health.wrong(Part::Cni, reason.clone()),
        InstallState::Starting => {}
    });
    let found = each(findings, |istio_cni| node.heed(istio_cni));
    tokio::select! {
        result = install::keep(&node.options.install, &state, &istio_cni) => result,
        () = installed => Ok(()),
        () = found => Ok(()),
    }
}

/// Has `work` done for what is told now and each time that it changes.
async fn each<T>(mut told: channel::Receiver<T>, work: impl Fn(&T)) {
    loop {
        work(&told.borrow_and_update());
        if told.changed().await.is_err() {
            return;
        }
    }
}

/// Takes away what is kept for network namespaces that are gone, a while after it was asked for.
///
/// The kernel does not tell when one ends: connections that are still being closed keep it after its
/// last process.
async fn keep_tidy(node: &Node) -> ! {
    loop {
        node.tidy.notified().await;
        for wait in ENDING {
            sleep(wait).await;
            if let Err(error) = node.capture.tidy().await {
                warn!("cannot take away what is left of sandboxes that are gone: {error:#}");
            }
        }
    }
}

async fn untaint(node: &Node) -> Result<()> {
    if node.options.node.taint {
        node.health.until_ready().await;
        let (name, key) = (&node.options.node_name, &node.options.node.taint_key);
        taint::remove(node.client.clone(), name, key).await;
    }
    std::future::pending().await
}

/// Ends, and takes the plugin off the node if the `DaemonSet` is gone or going. Pods stay captured.
async fn leave(options: &AgentOptions, client: Client) {
    if options.node.no_cni {
        info!("told to end: pods stay captured");
        return;
    }
    let found = timeout(LAST_QUESTION, daemon_set(options, client)).await;
    let asked = match &found {
        Ok(Ok(Some(set))) => Asked::Found(set),
        Ok(Ok(None)) => Asked::Gone,
        Ok(Err(_)) | Err(_) => Asked::Unknown,
    };
    match leaving::decide(&asked) {
        Leaving::Keep => info!("told to end: pods stay captured, and the CNI plugin stays"),
        Leaving::Uninstall => uninstall(options.clone()).await,
    }
}

async fn uninstall(options: AgentOptions) {
    info!("told to end, and the DaemonSet goes: the CNI plugin is taken off, pods stay captured");
    install::at_rest().await;
    let uninstalled = blocking(move || Ok(install::uninstall(&options.install.folders)?));
    match uninstalled.await {
        Ok(done) => done.iter().for_each(|done| info!("{done}")),
        Err(error) => error!("the CNI plugin is still on the node: {error:#}"),
    }
}

/// Our `DaemonSet`, by the pod that we are. `None` only if the API server says that there is none.
async fn daemon_set(options: &AgentOptions, client: Client) -> Result<Option<DaemonSet>> {
    let install = &options.install;
    let (Some(name), Some(namespace)) = (&install.pod_name, &install.pod_namespace) else {
        anyhow::bail!("the agent's own pod is not known");
    };
    let pods: Api<k8s::Pod> = Api::namespaced(client.clone(), namespace);
    let pod = pods.get(name).await?;
    let owners = pod.metadata.owner_references.unwrap_or_default();
    let owner = owners.into_iter().find(|owner| owner.kind == "DaemonSet");
    let owner = owner.context("the agent's own pod is no DaemonSet's")?;
    let sets: Api<DaemonSet> = Api::namespaced(client, namespace);
    Ok(sets.get_opt(&owner.name).await?)
}
