{{- define "interceptor.monitoringLabels" -}}
{{- include "interceptor.labels" (list . "interceptor-monitoring") }}
{{- with .Values.monitoring.labels }}
{{ toYaml . }}
{{- end }}
{{- end }}
