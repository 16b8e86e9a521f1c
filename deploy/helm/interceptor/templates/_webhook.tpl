{{- define "interceptor.webhookArguments" -}}
{{- $webhook := .Values.webhook -}}
- webhook
{{- if $webhook.istioConfiguration.enabled }}
- --from-cluster
- --interception=agent
{{- end }}
{{- if ne $webhook.revision "default" }}
- --revision={{ $webhook.revision }}
{{- end }}
{{- if $webhook.istioConfiguration.enabled }}
{{- if ne .Values.global.istioNamespace "istio-system" }}
- --istioNamespace={{ .Values.global.istioNamespace }}
{{- end }}
{{- /* The webhook's default names have its own revision. */}}
{{- if ne $webhook.revision ($webhook.istioConfiguration.revision | default "default") }}
{{- $maps := fromYamlArray (include "interceptor.istioConfigMaps" .) }}
- --injectConfigMapName={{ index $maps 0 }}
- --meshConfigMapName={{ index $maps 1 }}
{{- end }}
{{- end }}
{{- end }}

{{- /* istiod's: the templates and their values, and the configuration of the mesh. */ -}}
{{- define "interceptor.istioConfigMaps" -}}
{{- $revision := .Values.webhook.istioConfiguration.revision }}
{{- $suffix := has $revision (list "" "default") | ternary "" (printf "-%s" $revision) -}}
- istio-sidecar-injector{{ $suffix }}
- istio{{ $suffix }}
{{- end }}

{{- /* One of the webhooks: its name and its two selectors' first expressions. */ -}}
{{- define "interceptor.mutatingWebhook" -}}
{{- $namespace := index . 0 -}}
- name: {{ index . 1 }}.injector.interceptor.dev
  clientConfig:
    service:
      name: interceptor-webhook
      namespace: {{ $namespace }}
      path: /inject
      port: 443
  rules:
    - apiGroups: [""]
      apiVersions: [v1]
      resources: [pods]
      operations: [CREATE]
      scope: Namespaced
  namespaceSelector:
    matchExpressions:
      {{- toYaml (index . 2) | nindent 6 }}
      - key: kubernetes.io/metadata.name
        operator: NotIn
        values: [{{ $namespace }}, kube-system, kube-public, kube-node-lease]
  objectSelector:
    matchExpressions:
      {{- toYaml (index . 3) | nindent 6 }}
  admissionReviewVersions: [v1, v1beta1]
  sideEffects: None
  failurePolicy: Fail
  # Webhooks that are called later may add containers.
  reinvocationPolicy: IfNeeded
  matchPolicy: Equivalent
  timeoutSeconds: 5
{{- end }}
