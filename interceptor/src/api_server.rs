//! The API server's client. Its errors name the server's address and the cause.

use std::{error::Error, path::Path, time::Duration};

use anyhow::{Chain, Context as _, Result, anyhow};
use kube::{
    Client, Config,
    client::ClientBuilder,
    config::{InferConfigError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tokio::time::timeout;
use tower::{BoxError, util::MapErrLayer};

pub(crate) mod events;

/// Limit for a response. Longer than a watch.
const READ_TIMEOUT: Duration = Duration::from_secs(295);

/// No response arrived. (An error response becomes a [`kube::Error`] later.)
#[derive(Debug, thiserror::Error)]
#[error("cannot reach the API server at {address}: {cause}")]
struct Unreachable {
    address: String,
    cause: String,
}

/// How to reach the API server: what the file of `--kubeconfig` says, or else what the environment
/// does (`KUBECONFIG`, ~/.kube/config, a pod's service account).
pub(crate) async fn config(kubeconfig: Option<&Path>, context: Option<&str>) -> Result<Config> {
    let options = KubeConfigOptions {
        context: context.map(str::to_owned),
        ..KubeConfigOptions::default()
    };
    let config: Result<Config> = match (kubeconfig, context) {
        (Some(path), _) => {
            let config = match Kubeconfig::read_from(path) {
                Ok(file) => Config::from_custom_kubeconfig(file, &options).await,
                Err(error) => Err(error),
            };
            config.map_err(|error| {
                let problem = match &error {
                    // Its text has the path too.
                    KubeconfigError::ReadConfig(cause, _) => format!("cannot be read: {cause}"),
                    error => kubeconfig_problem(error),
                };
                anyhow!("--kubeconfig {}: {problem}", path.display())
            })
        }
        (None, Some(context)) => Config::from_kubeconfig(&options)
            .await
            .map_err(|error| anyhow!("--context {context}: {}", kubeconfig_problem(&error))),
        (None, None) => Config::infer().await.map_err(|error| {
            anyhow!(
                "no API server configuration: run in a pod with a service account, or set \
                 --kubeconfig: {}",
                inference_problem(&error)
            )
        }),
    };
    let mut config = config?;
    config.read_timeout = Some(READ_TIMEOUT);
    Ok(config)
}

/// Why no configuration is found: that of the kubeconfig file. No service account is the normal case.
fn inference_problem(error: &InferConfigError) -> String {
    let of_file = error
        .source()
        .and_then(|source| source.downcast_ref::<KubeconfigError>());
    of_file.map_or_else(|| chain(error), kubeconfig_problem)
}

/// What is wrong with a kubeconfig file, once.
fn kubeconfig_problem(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::ReadConfig(cause, path) => {
            format!("cannot read {}: {cause}", path.display())
        }
        // The lines that follow show a part of the file, which may be secret.
        error => {
            let chain = chain(error);
            let first = chain.lines().next().unwrap_or_default();
            first.replace(": error: ", ": ")
        }
    }
}

/// A client whose errors name the server's address if there is no response. kube's own error is
/// `ServiceError: client error (Connect)`.
pub(crate) fn client(config: Config) -> Result<Client> {
    let address = config.cluster_url.to_string();
    let with_address = move |error: BoxError| -> BoxError {
        if error.is::<kube::Error>() {
            return error;
        }
        let (address, cause) = (address.clone(), chain(&*error));
        Unreachable { address, cause }.into()
    };
    let builder = ClientBuilder::try_from(config).context("cannot create an API server client")?;
    Ok(builder.with_layer(&MapErrLayer::new(with_address)).build())
}

/// The result of `call`, or the error as text. Fails after `limit`.
pub(crate) async fn request<T>(
    limit: Duration,
    call: impl Future<Output = kube::Result<T>>,
) -> Result<T, String> {
    match timeout(limit, call).await {
        Ok(request) => request.map_err(|error| error_text(&error)),
        Err(_late) => Err(format!("no response from the API server within {limit:?}")),
    }
}

/// An error of a call, with the text of [`error_text`].
#[expect(
    clippy::needless_pass_by_value,
    reason = "the signature that map_err takes"
)]
pub(crate) fn described(error: kube::Error) -> anyhow::Error {
    anyhow::Error::msg(error_text(&error))
}

/// kube's reason for an error response whose body is not one of Kubernetes.
const NO_STATUS: &str = "Failed to parse error data";

/// An error of a call as text. kube's own text contains a Rust structure.
pub(crate) fn error_text(error: &(dyn Error + 'static)) -> String {
    match Chain::new(error).find_map(|error| error.downcast_ref()) {
        Some(kube::Error::Api(status)) if status.reason == NO_STATUS => {
            let first = status.message.lines().next().unwrap_or_default();
            format!(
                "status {} of a server that is no API server, or of a proxy before one: {first}",
                status.code
            )
        }
        Some(kube::Error::Api(status)) => {
            let (code, message) = (status.code, &status.message);
            format!(
                "the API server returned status {code} {}: {message}",
                status.reason
            )
        }
        Some(kube::Error::Service(unreachable)) => unreachable.to_string(),
        _ => chain(error),
    }
}

/// An error and its causes, without repetitions.
fn chain(error: &(dyn Error + 'static)) -> String {
    Chain::new(error).fold(String::new(), |chain, error| {
        let text = error.to_string();
        match chain.as_str() {
            "" => text,
            known if known.contains(&text) => chain,
            known => format!("{known}: {text}"),
        }
    })
}

#[cfg(test)]
mod tests {
    use kube::{core::Status, runtime::watcher};

    use super::*;

    #[test]
    fn an_error_response_has_its_status_and_message() {
        let status = Status::failure("pods is forbidden", "Forbidden").with_code(403);
        let refused = kube::Error::Api(status.boxed());
        let expected = "the API server returned status 403 Forbidden: pods is forbidden";
        assert_eq!(error_text(&refused), expected);
        // The same for an error of a watch.
        assert_eq!(
            error_text(&watcher::Error::WatchStartFailed(refused)),
            expected
        );
    }

    #[test]
    fn a_page_of_another_server_is_cut() {
        let page = Status::failure("<!DOCTYPE HTML>\n<html>", NO_STATUS).with_code(404);
        let text = error_text(&kube::Error::Api(page.boxed()));
        assert!(
            text.starts_with("status 404 of a server that is no API server"),
            "{text}"
        );
        assert!(text.ends_with(": <!DOCTYPE HTML>"), "{text}");
    }

    #[test]
    fn an_unreachable_server_is_named_with_the_cause() {
        let refused = std::io::Error::from_raw_os_error(111);
        let layers = kube::Error::ReadEvents(refused);
        assert_eq!(
            chain(&layers),
            "Error reading events stream: Connection refused (os error 111)"
        );
        let unreachable = Unreachable {
            address: "https://10.96.0.1/".to_owned(),
            cause: chain(&layers),
        };
        let text = error_text(&kube::Error::Service(unreachable.into()));
        assert!(
            text.starts_with("cannot reach the API server at https://10.96.0.1/: "),
            "{text}"
        );
        assert!(
            text.ends_with("Connection refused (os error 111)"),
            "{text}"
        );
    }
}
