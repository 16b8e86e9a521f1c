//! Rendering of the templates, and merging of the result into the pod.

use std::borrow::Cow;

use serde_json::{Value, json};

use super::{
    CONTAINERS, INIT_CONTAINERS, PROXY, config::Config, containers, context::Context, merge,
    overlay::Overlays,
};
use crate::{pod, refusal::Problem};

/// The annotation with the names of templates.
const TEMPLATES: &str = "inject.istio.io/templates";
/// The annotation that decides whether the proxy is a native sidecar.
const NATIVE: &str = "sidecar.istio.io/nativeSidecar";

/// The pod with the templates merged into it.
pub(super) struct Rendered {
    pub(super) pod: Value,
    /// The templates alone: what is injected.
    pub(super) template_pod: Value,
}

/// Renders the templates that the pod asks for.
pub(super) fn render(original: &Value, context: &Context<'_>) -> Result<Rendered, Problem> {
    let overlays = Overlays::of(original, context)?;
    let mut rendered = Rendered {
        pod: original.clone(),
        template_pod: json!({}),
    };
    let native = is_native(original, context.config);
    for name in templates(original, context.config) {
        let failed = |problem: String| Problem::Other(format!("template {name}: {problem}"));
        let overlay = overlays.get(&name)?;
        rendered.apply(overlay, native).map_err(failed)?;
    }
    Ok(rendered)
}

/// The names of the templates, without aliases.
fn templates<'a>(pod: &'a Value, config: &'a Config) -> Vec<Cow<'a, str>> {
    let names: Vec<Cow<'a, str>> = match containers::annotation(pod, TEMPLATES) {
        Some(names) => names.split(',').map(|name| name.trim().into()).collect(),
        None => config.default_templates.iter().map(Into::into).collect(),
    };
    let resolved = names
        .into_iter()
        .map(|name| match config.aliases.get(&*name) {
            Some(names) => names.iter().map(Into::into).collect(),
            None => vec![name],
        });
    resolved.collect::<Vec<_>>().concat()
}

fn is_native(pod: &Value, config: &Config) -> bool {
    match containers::annotation(pod, NATIVE) {
        Some("true") => true,
        Some("false") => false,
        _ => config.options.native_sidecar,
    }
}

impl Rendered {
    fn apply(&mut self, mut overlay: Value, native: bool) -> Result<(), String> {
        if native {
            self.keep_proxy_native(&mut overlay);
        }
        merge::merge(&mut self.template_pod, &overlay)?;
        let is_init = |pod: &Value| containers::find(pod, INIT_CONTAINERS, PROXY).is_some();
        if native && is_init(&self.template_pod) {
            // The pod's own istio-proxy, with its overrides of the template.
            if let Some(proxy) = containers::take(&mut self.pod, CONTAINERS, PROXY) {
                containers::push(&mut self.pod, INIT_CONTAINERS, proxy);
            }
        }
        merge::merge(&mut self.pod, &overlay)?;
        pod::check_shape(&self.pod).map_err(|refusal| format!("with its result, {refusal}"))
    }

    /// Moves the overlay's istio-proxy to the init containers if an earlier template has it there. In
    /// Istio, the pod then has two containers of this name, which is invalid.
    fn keep_proxy_native(&self, overlay: &mut Value) {
        if containers::find(&self.template_pod, INIT_CONTAINERS, PROXY).is_some()
            && let Some(proxy) = containers::take(overlay, CONTAINERS, PROXY)
        {
            containers::push(overlay, INIT_CONTAINERS, proxy);
        }
    }
}
