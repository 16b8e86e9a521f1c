//! Requests of the API server: the limits of a request, and the response.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Instant,
};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header::CONTENT_TYPE},
    response::{IntoResponse as _, Response},
    routing::post,
};
use interceptor_injection::{
    refusal::{Problem, Refusal},
    review::{Review, review},
};
use tokio::{sync::Semaphore, task::block_in_place};
use tracing::error;

use super::{
    body::{Bodies, Unread},
    injector::{Current, Injector},
    metrics::Metrics,
    other_injectors::Others,
};

/// From this size on, a review takes longer than a task may take between two awaits (some ms): another
/// thread then takes over the tasks of this one. For smaller reviews, that would cost more.
const LARGE: usize = 256 << 10;

/// What a request needs.
#[derive(Clone)]
pub(super) struct Webhook {
    injector: Injector,
    others: Others,
    metrics: Metrics,
    in_flight: Arc<Semaphore>,
    bodies: Bodies,
}

impl Webhook {
    pub(super) fn new(
        injector: Injector,
        others: Others,
        metrics: Metrics,
        max_in_flight: usize,
        max_body: usize,
    ) -> Self {
        Self {
            injector,
            others,
            metrics,
            in_flight: Arc::new(Semaphore::new(max_in_flight)),
            bodies: Bodies::new(max_body),
        }
    }

    /// Istio's paths.
    pub(super) fn router(self) -> Router {
        Router::new()
            .route("/inject", post(inject))
            .route("/inject/", post(inject))
            .route("/inject/{*environment}", post(inject))
            .with_state(self)
    }

    /// Processes a review. A panic refuses the pod; it does not end the process.
    fn review(&self, config: &Current, body: &[u8], path: &str) -> Review {
        let start = Instant::now();
        let audit = config.audit();
        let attempt = AssertUnwindSafe(|| {
            review(body, path, &audit, |pod, subject| {
                let mut outcome = config.inject(pod, subject)?;
                if self.others.warn(&mut outcome, pod, subject) {
                    self.metrics.other_injectors.injected_twice();
                }
                Ok(outcome)
            })
        });
        let review = catch_unwind(attempt).unwrap_or_else(|_reported| {
            self.metrics.panicked();
            error!("a review panicked, and its pod is refused: report this as a bug");
            review(body, path, &audit, |_, _| Err(internal_error()))
        });
        self.metrics.reviewed(review.result, start.elapsed());
        review
    }

    fn unread(&self, unread: &Unread) -> Response {
        if *unread == Unread::Overload {
            self.metrics.overloaded();
        }
        plain(status(unread), &format!("{unread}\n"))
    }
}

/// The status of a request without a body.
const fn status(unread: &Unread) -> StatusCode {
    match unread {
        Unread::TooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
        Unread::Overload => StatusCode::TOO_MANY_REQUESTS,
        Unread::Late => StatusCode::REQUEST_TIMEOUT,
        Unread::Incomplete => StatusCode::BAD_REQUEST,
    }
}

fn internal_error() -> Refusal {
    let problem = "internal error of the webhook, which has logged it".to_owned();
    Refusal(vec![Problem::Other(problem)])
}

async fn inject(
    State(webhook): State<Webhook>,
    uri: Uri,
    headers: HeaderMap,
    body: Body,
) -> Response {
    if !is_json(&headers) {
        return plain(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the content type must be application/json\n",
        );
    }
    // Not queued: a client that waits repeats its request when its timeout ends.
    let Ok(_permit) = webhook.in_flight.try_acquire() else {
        return webhook.unread(&Unread::Overload);
    };
    let body = match webhook.bodies.read(&headers, body).await {
        Ok(body) => body,
        Err(unread) => return webhook.unread(&unread),
    };
    if body.bytes.is_empty() {
        return plain(StatusCode::BAD_REQUEST, "the body is empty\n");
    }
    let Some(config) = webhook.injector.current() else {
        return plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "no valid configuration has been loaded: /readyz says why\n",
        );
    };
    let respond = || {
        let review = webhook.review(&config, &body.bytes, uri.path());
        review.response.to_string()
    };
    let response = if body.bytes.len() < LARGE {
        respond()
    } else {
        block_in_place(respond)
    };
    ([(CONTENT_TYPE, "application/json")], response).into_response()
}

/// `application/json`, with or without parameters.
fn is_json(headers: &HeaderMap) -> bool {
    let value = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = value.and_then(|value| value.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"))
}

fn plain(status: StatusCode, text: &str) -> Response {
    (status, text.to_owned()).into_response()
}
