//! Handling requests.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{Query, Request, State as Shared},
    http::{
        HeaderMap, Method, StatusCode,
        header::{AUTHORIZATION, CONTENT_TYPE},
    },
    response::{IntoResponse as _, Response},
};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::{
    admission,
    forwarding::{self, Upgrade},
    parameters::{Parameters, Version},
    patching::{self, Kind},
    rbac::{self, Account, Attributes},
    resource::Target,
    state::{Inner, Recorded, State},
    status::Failure,
    store::Listed,
    watching,
};

/// More than any client sends.
const MAX_BODY: usize = 1 << 20;

/// The server, as axum has it.
pub(super) fn router(state: Arc<State>) -> Router {
    Router::new().fallback(serve).with_state(state)
}

/// A parsed request.
struct ParsedRequest {
    verb: String,
    path: String,
    query: String,
    parameters: Parameters,
    patching: Option<Kind>,
    /// The account that its token names.
    account: Option<Account>,
    body: Value,
}

async fn serve(Shared(state): Shared<Arc<State>>, mut request: Request) -> Response {
    let delay = state.lock().faults.delay;
    sleep(delay).await;
    let upgrade = Upgrade::of(&mut request);
    let request = match ParsedRequest::read(request).await {
        Ok(request) => request,
        Err(failure) => return failure.into_response(),
    };
    let response = respond(&state, &request, upgrade).await;
    let response = response.unwrap_or_else(Failure::into_response);
    let ParsedRequest {
        verb,
        path,
        query,
        body,
        ..
    } = request;
    state.lock().recorded.push(Recorded {
        verb,
        path,
        query,
        body,
        status: response.status().as_u16(),
    });
    response
}

impl ParsedRequest {
    async fn read(request: Request) -> Result<Self, Failure> {
        let bad = |error: &dyn ToString| Failure::bad_request(error.to_string());
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, MAX_BODY).await;
        let body: Bytes = body.map_err(|error| bad(&error))?;
        let Query(parameters) =
            Query::<Parameters>::try_from_uri(&head.uri).map_err(|error| bad(&error))?;
        let path = head.uri.path().to_owned();
        let has_name = Target::parse(&path).is_some_and(|target| target.name.is_some());
        let verb = match head.method {
            Method::GET if parameters.is_watch() => "watch",
            Method::GET if has_name => "get",
            Method::GET => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            ref other => other.as_str(),
        };
        let content = head.headers.get(CONTENT_TYPE);
        let patching = content.and_then(|kind| Kind::of(kind.to_str().ok()?));
        Ok(Self {
            verb: verb.to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            path,
            parameters,
            patching,
            account: account(&head.headers),
            body: if body.is_empty() {
                Value::Null
            } else {
                serde_json::from_slice(&body).map_err(|error| bad(&error))?
            },
        })
    }
}

/// The account of a bearer token: see [`ApiServer::kubeconfig_of`](super::ApiServer::kubeconfig_of).
fn account(headers: &HeaderMap) -> Option<Account> {
    let token = headers.get(AUTHORIZATION)?.to_str().ok()?;
    Account::of_token(token.strip_prefix("Bearer ")?)
}

async fn respond(
    state: &Arc<State>,
    request: &ParsedRequest,
    upgrade: Option<Upgrade>,
) -> Result<Response, Failure> {
    let target = Target::parse(&request.path);
    let target = target
        .ok_or_else(|| Failure::not_found("the server could not find the requested resource"))?;
    authorize(&state.lock(), &target, request, &request.verb)?;
    if forwarding::is_forward(&target) {
        // As servers since 1.35 do.
        authorize(&state.lock(), &target, request, "create")?;
        let upgrade = upgrade.ok_or_else(|| Failure::bad_request("Upgrade request required"))?;
        return forwarding::start(state, &target, &request.query, upgrade);
    }
    let is_uninstalled = |inner: &Inner| inner.faults.uninstalled.contains(target.resource.plural);
    if is_uninstalled(&state.lock()) {
        return Err(Failure::not_found(
            "the server could not find the requested resource",
        ));
    }
    if request.verb == "create" && target.resource.plural == "pods" && target.part.is_none() {
        let pod = admission::admit(state, &target, &request.body).await?;
        let created = create(&mut state.lock(), &target, &pod);
        state.signal(|signal| signal.changes += 1);
        return created;
    }
    execute(state, &target, request)
}

fn authorize(
    inner: &Inner,
    target: &Target<'_>,
    request: &ParsedRequest,
    verb: &str,
) -> Result<(), Failure> {
    if inner.faults.unavailable {
        return Err(Failure::unavailable());
    }
    if let Some(account) = request.account.as_ref().or(inner.account.as_ref()) {
        let selector = request.parameters.selector()?;
        let attributes = Attributes::new(verb, target, &selector);
        rbac::authorize(&inner.store, account, attributes)?;
    }
    request
        .parameters
        .validate(!inner.faults.no_streaming_lists)
}

fn execute(
    state: &Arc<State>,
    target: &Target<'_>,
    request: &ParsedRequest,
) -> Result<Response, Failure> {
    let mut inner = state.lock();
    match request.verb.as_str() {
        "watch" => watching::start(state, &inner, &request.path, target, &request.parameters),
        "list" => list(&mut inner, target, &request.parameters),
        "get" => get(&inner, target),
        verb => {
            let changed = change(&mut inner, verb, target, request)?;
            drop(inner);
            state.signal(|signal| signal.changes += 1);
            Ok(changed)
        }
    }
}

fn get(inner: &Inner, target: &Target<'_>) -> Result<Response, Failure> {
    current(inner, target).map(|object| Json(object).into_response())
}

/// The one object that `target` names.
fn current(inner: &Inner, target: &Target<'_>) -> Result<Value, Failure> {
    let name = target.name.unwrap_or_default();
    let namespace = target.namespace.unwrap_or_default();
    let object = inner.store.get(target.resource, namespace, name);
    object
        .cloned()
        .ok_or_else(|| Failure::not_found(&format!("{} \"{name}\"", target.resource.plural)))
}

fn list(
    inner: &mut Inner,
    target: &Target<'_>,
    parameters: &Parameters,
) -> Result<Response, Failure> {
    let selector = parameters.selector()?;
    let store = &mut inner.store;
    let limit = parameters.limit.unwrap_or(0);
    let listed = if let Some(token) = parameters.token.as_deref().filter(|text| !text.is_empty()) {
        if matches!(parameters.version()?, Version::At(_)) {
            return Err(Failure::bad_request(
                "specifying resource version is not allowed when using continue",
            ));
        }
        store.next(token, limit)?
    } else {
        let current = store.version();
        // The watch cache, which serves version 0, ignores the limit.
        let limit = match parameters.version()? {
            Version::At(requested) if requested > current => {
                return Err(Failure::too_large(requested, current));
            }
            Version::Any => 0,
            Version::At(_) | Version::Newest => limit,
        };
        let mut items = store.list(target, &selector);
        if matches!(parameters.version()?, Version::Any) {
            let unlisted = &inner.faults.unlisted;
            items.retain(|item| {
                !item["metadata"]["name"]
                    .as_str()
                    .is_some_and(|name| unlisted.contains(name))
            });
        }
        store.cut(current, items, limit)
    };
    Ok(Json(list_object(target, listed)).into_response())
}

fn list_object(target: &Target<'_>, listed: Listed) -> Value {
    let mut metadata = json!({"resourceVersion": listed.version.to_string()});
    if let Some((token, left)) = listed.rest {
        metadata["continue"] = json!(token);
        metadata["remainingItemCount"] = json!(left);
    }
    json!({
        "kind": format!("{}List", target.resource.kind),
        "apiVersion": target.resource.api_version(),
        "metadata": metadata,
        "items": listed.items,
    })
}

fn change(
    inner: &mut Inner,
    verb: &str,
    target: &Target<'_>,
    request: &ParsedRequest,
) -> Result<Response, Failure> {
    match verb {
        "create" => create(inner, target, &request.body),
        "patch" | "update" => {
            let old = current(inner, target)?;
            let new = if verb == "patch" {
                let kind = request
                    .patching
                    .ok_or_else(|| Failure::bad_request("which kind of patch?"))?;
                patching::patched(kind, &old, &request.body)?
            } else {
                request.body.clone()
            };
            ensure_unchanged(&old, &new, target)?;
            Ok(Json(inner.store.put(target.resource, new)).into_response())
        }
        "delete" => {
            let old = current(inner, target)?;
            let (namespace, name) = (
                target.namespace.unwrap_or_default(),
                target.name.unwrap_or_default(),
            );
            inner.store.remove(target.resource, namespace, name);
            Ok(Json(old).into_response())
        }
        _ => Err(Failure::not_allowed()),
    }
}

fn create(inner: &mut Inner, target: &Target<'_>, body: &Value) -> Result<Response, Failure> {
    let mut object = body.clone();
    let metadata = &mut object["metadata"];
    if let (None, Some(prefix)) = (metadata["name"].as_str(), metadata["generateName"].as_str()) {
        metadata["name"] = json!(format!("{prefix}{:05}", inner.store.version()));
    }
    let Some(name) = metadata["name"].as_str().map(str::to_owned) else {
        return Err(Failure::invalid(
            "metadata.name: Required value: name or generateName is required",
        ));
    };
    let namespace = target.namespace.unwrap_or_default();
    let own = metadata["namespace"].as_str().unwrap_or(namespace);
    if own != namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if !namespace.is_empty() {
        metadata["namespace"] = json!(namespace);
    }
    if inner.store.get(target.resource, namespace, &name).is_some() {
        return Err(Failure::exists(&format!(
            "{} \"{name}\"",
            target.resource.plural
        )));
    }
    let object = inner.store.put(target.resource, object);
    Ok((StatusCode::CREATED, Json(object)).into_response())
}

/// An object with a resource version replaces only that version.
fn ensure_unchanged(old: &Value, new: &Value, target: &Target<'_>) -> Result<(), Failure> {
    let version = |object: &Value| object["metadata"]["resourceVersion"].clone();
    let named = version(new);
    if named.is_null() || named == "" || named == version(old) {
        return Ok(());
    }
    let name = target.name.unwrap_or_default();
    Err(Failure::conflict(&format!(
        "{} \"{name}\"",
        target.resource.plural
    )))
}
