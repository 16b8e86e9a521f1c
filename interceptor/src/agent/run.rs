//! The agent's main function: starts its tasks, and handles SIGTERM.

use std::{rc::Rc, time::Duration};

use anyhow::{Context as _, Result};
use futures_util::{StreamExt as _, pin_mut};
use kube::Client;
use tokio::{
    runtime,
    signal::unix::{SignalKind, signal},
    sync::watch as channel,
    task::{LocalSet, spawn_local},
    time::{Instant, sleep, sleep_until},
};
use tracing::{error, info, warn};

use super::{
    api::{
        self, Api,
        states::{self, StateRequests},
    },
    blocking::blocking,
    host::malloc,
    install::{self, InstallState, IstioCni},
    kube::{deployment::Deployment, pods, shutdown::ShutdownAction, taint},
    options::AgentOptions,
    reconcile::{cni_handler::CniHandler, controller::Controller, sweeps::Sweeps},
    telemetry::{
        health::{Health, Part},
        http,
        metrics::Metrics,
    },
};
use crate::{
    api_server,
    cni::{
        files,
        protocol::{self, BindError, Listener},
    },
    host,
    listen::listen,
};

/// The maximum number of blocking threads. Changes are made one at a time in any case.
const MAX_BLOCKING_THREADS: usize = 4;

/// Interval between attempts of a second agent to lock the socket.
const LOCK_RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// Limit for blocking work to complete when the agent exits.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Runs the agent until SIGTERM or SIGINT.
pub fn run(options: AgentOptions) -> Result<()> {
    malloc::share_arena();
    host::raise_open_files().unwrap_or_else(|error| warn!("{error:#}"));
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .build()
        .context("cannot start the async runtime")?;
    let result = LocalSet::new().block_on(&runtime, serve(options));
    // Blocking work may take longer than the agent should wait.
    runtime.shutdown_timeout(SHUTDOWN_TIMEOUT);
    result
}

async fn serve(options: AgentOptions) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let client = client(&options, ClientRetries::Many).await?;
    let deployment = Rc::new(Deployment::new(&options.install));
    let (watched, watch_client) = (deployment.clone(), client.clone());
    spawn_local(async move { watched.watch(watch_client).await });
    tokio::select! {
        result = work(&options, &client) => return result,
        _ = interrupt.recv() => info!("interrupted: pods stay captured"),
        _ = terminate.recv() => shut_down(&options, &deployment).await?,
    }
    Ok(())
}

/// Whether the client retries requests that the API server could not serve (429, 503, 504).
#[derive(Clone, Copy, PartialEq, Eq)]
enum ClientRetries {
    Many,
    None,
}

async fn client(options: &AgentOptions, retries: ClientRetries) -> Result<Client> {
    let mut config = api_server::config(options.kubeconfig.as_deref(), None).await?;
    config.default_retry = retries == ClientRetries::Many;
    api_server::client(config)
}

async fn work(options: &AgentOptions, client: &Client) -> Result<()> {
    let metrics = Metrics::new(options.detail());
    let mut waiting = vec![(Part::Pods, "waiting for the initial pod list")];
    if !options.node.no_cni {
        waiting.push((Part::Cni, "the CNI plugin is not installed yet"));
    }
    let health = Health::new(metrics.clone(), &waiting);
    let web = listen(options.http_address, "--http-address").await;
    let early = web.is_ok();
    if let Ok(web) = web {
        spawn_local(http::serve(web, health.clone(), metrics.clone()));
    }
    let listener = bind_socket(options, &health).await?;
    if !early {
        // The previous agent, which has exited, used the address.
        let web = listen(options.http_address, "--http-address").await?;
        spawn_local(http::serve(web, health.clone(), metrics.clone()));
    }
    let node = Rc::new(Controller::new(
        options.clone(),
        client.clone(),
        metrics,
        health,
    )?);
    node.adopt().await?;
    let observers = protocol::observers_socket(&options.install.socket);
    let (states, requests) = states::channel();
    let api = Api::new(&options.node_name, node.health.clone(), states);
    tokio::select! {
        result = node.watch_cgroups() => result.context("cannot watch cgroups"),
        result = install(&node) => result,
        () = handle_pod_events(&node) => Ok(()),
        () = protocol::serve(listener, CniHandler(node.clone())) => Ok(()),
        never = sweep_when_notified(&node) => never,
        result = untaint(&node) => result,
        never = api::serve(&observers, api.clone()) => never,
        never = api::serve_page(options.page_port, api) => never,
        never = report_states(&node, requests) => never,
    }
}

/// The agent's socket, once no other agent has it.
async fn bind_socket(options: &AgentOptions, health: &Health) -> Result<Listener> {
    let mut is_first = true;
    loop {
        match Listener::bind(&options.install.socket) {
            Ok(listener) => {
                health.resolve(Part::Alone);
                return Ok(listener);
            }
            Err(error @ BindError::Taken(_)) => {
                if is_first {
                    warn!("waiting for the other agent on this node to exit: {error}");
                }
                is_first = false;
                health.report(Part::Alone, format!("waiting: {error}"));
            }
            Err(error) => return Err(error.into()),
        }
        sleep(LOCK_RETRY_INTERVAL).await;
    }
}

async fn handle_pod_events(node: &Rc<Controller>) {
    let options = &node.options;
    let jitter = Duration::from_millis(options.start_jitter);
    let events = pods::watch_pods(node.client.clone(), &options.node_name, jitter);
    pin_mut!(events);
    while let Some(event) = events.next().await {
        node.handle_event(event).await;
    }
}

/// Keeps the CNI plugin installed, except with `--no-cni`.
async fn install(node: &Controller) -> Result<()> {
    if node.options.node.no_cni {
        return std::future::pending().await;
    }
    let (state, states) = channel::channel(InstallState::Starting);
    let (istio_cni, findings) = channel::channel(IstioCni::Unknown);
    let installed = each(states, |state| match state {
        InstallState::Installed(_) => node.health.resolve(Part::Cni),
        InstallState::Not { reason } => node.health.report(Part::Cni, reason.clone()),
        InstallState::Starting => {}
    });
    let found = each(findings, |istio_cni| node.on_istio_cni_changed(istio_cni));
    tokio::select! {
        result = install::keep(&node.options.install, &state, &istio_cni) => result,
        () = installed => Ok(()),
        () = found => Ok(()),
    }
}

/// Calls `work` with the current value, and again after each change.
async fn each<T>(mut values: channel::Receiver<T>, work: impl Fn(&T)) {
    loop {
        work(&values.borrow_and_update());
        if values.changed().await.is_err() {
            return;
        }
    }
}

/// Deletes what is kept for deleted network namespaces, at several times after each request.
async fn sweep_when_notified(node: &Controller) -> ! {
    let mut sweeps = Sweeps::default();
    loop {
        let due = async {
            match sweeps.next() {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = node.sweep.notified() => sweeps.request(Instant::now()),
            () = due => {
                if let Err(error) = node.capture.sweep().await {
                    warn!("cannot clean up after removed sandboxes: {error:#}");
                }
                sweeps.complete(Instant::now());
            }
        }
    }
}

/// Reads the states of the pods for the API.
async fn report_states(node: &Controller, requests: StateRequests) -> ! {
    requests.serve(|| node.index.borrow().reports()).await;
    std::future::pending().await
}

async fn untaint(node: &Controller) -> Result<()> {
    if node.options.node.taint {
        node.health.until_ready().await;
        let (name, key) = (&node.options.node_name, &node.options.node.taint_key);
        taint::remove(node.client.clone(), name, key).await;
    }
    std::future::pending().await
}

/// Uninstalls the plugin from the node if the agent is being uninstalled. Pods stay captured.
async fn shut_down(options: &AgentOptions, deployment: &Deployment) -> Result<()> {
    if options.node.no_cni {
        info!("SIGTERM: pods stay captured");
        return Ok(());
    }
    // No retries: the first error is to be logged.
    let client = client(options, ClientRetries::None).await?;
    match deployment.shutdown_action(&client).await {
        ShutdownAction::Keep(why) => info!(
            "SIGTERM: pods stay captured and the CNI plugin stays \
             installed: {why}"
        ),
        ShutdownAction::Unsure(why) => warn!(
            "SIGTERM: pods stay captured and the CNI plugin stays installed, as the agent cannot \
             determine whether it is being uninstalled: {why}. If it is, new pods do not start on this node until `interceptor uninstall --node` runs here (as a Job: deploy/examples/uninstall)"
        ),
        ShutdownAction::Uninstall(why) => {
            info!("SIGTERM: pods stay captured, uninstalling the CNI plugin: {why}");
            uninstall(options.clone()).await;
        }
    }
    Ok(())
}

async fn uninstall(options: AgentOptions) {
    install::at_rest().await;
    let uninstalled = blocking(move || Ok(files::uninstall(&options.install.dirs)?));
    match uninstalled.await {
        Ok(done) => done.iter().for_each(|done| info!("{done}")),
        Err(error) => error!("cannot uninstall the CNI plugin: {error:#}"),
    }
}
