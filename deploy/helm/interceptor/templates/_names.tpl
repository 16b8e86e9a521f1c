{{- /* Whether objects of a part (agent, webhook, viewer) and a scope (cluster, namespace) are rendered. */ -}}
{{- define "interceptor.has" -}}
{{- $root := index . 0 }}
{{- $isEnabled := (get $root.Values (index . 1)).enabled }}
{{- if and $isEnabled (has $root.Values.global.resourceScope (list "all" (index . 2))) }}true{{ end }}
{{- end }}

{{- /* The labels of an object, by the name of what it belongs to. */ -}}
{{- define "interceptor.labels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ index . 1 }}
app.kubernetes.io/part-of: interceptor
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name ($root.Chart.Version | replace "+" "_") }}
{{- end }}

{{- define "interceptor.image" -}}
{{- $image := .Values.image }}
{{- if has $image (list "" "install-cni") -}}
interceptor:{{ .Chart.AppVersion }}
{{- else -}}
{{ $image }}
{{- end }}
{{- end }}

{{- define "interceptor.pullPolicy" -}}
{{ coalesce .Values.pullPolicy .Values.global.imagePullPolicy "IfNotPresent" }}
{{- end }}

{{- /* Of the values. */ -}}
{{- define "interceptor.logLevel" -}}
{{ coalesce .logging.level .global.logging.level }}
{{- end }}

{{- define "interceptor.serviceAccount" -}}
{{- $root := index . 0 -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ index . 1 }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "interceptor.labels" . | nindent 4 }}
{{- with $root.Values.global.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Binds the ClusterRole, or the Role, of this name to the account. */ -}}
{{- define "interceptor.bindingOf" -}}
{{- $root := index . 0 }}
{{- $account := index . 1 -}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ index . 2 }}
  name: {{ index . 3 }}
subjects:
  - kind: ServiceAccount
    name: {{ $account }}
    namespace: {{ $root.Release.Namespace }}
{{- end }}

{{- /* A ClusterRoleBinding of the account to the ClusterRole of the same name. */ -}}
{{- define "interceptor.clusterRoleBinding" -}}
{{- $root := index . 0 }}
{{- $account := index . 1 }}
{{- $name := index . 2 -}}
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ $name }}
  labels:
    {{- include "interceptor.labels" (list $root $account) | nindent 4 }}
{{ include "interceptor.bindingOf" (list $root $account "ClusterRole" $name) }}
{{- end }}
