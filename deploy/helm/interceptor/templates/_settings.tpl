{{- /* The agent's values, as strings. */ -}}
{{- define "interceptor.settings" -}}
{{- with .Values -}}
chained: {{ .chained | quote }}
{{- with .cniConfFileName }}
cniConfFileName: {{ . | quote }}
{{- end }}
excludeNamespaces: {{ join "," .excludeNamespaces | quote }}
logging.level: {{ include "interceptor.logLevel" . | quote }}
logAsJson: {{ .global.logAsJson | quote }}
repair.enabled: {{ .repair.enabled | quote }}
closeConnections: {{ .closeConnections | quote }}
taint.enabled: {{ .taint.enabled | quote }}
runtimeClasses.allow: {{ join "," .runtimeClasses.allow | quote }}
unsupportedRuntimePolicy: {{ .unsupportedRuntimePolicy | quote }}
failurePolicy: {{ .failurePolicy | quote }}
liveAnnotations: {{ .liveAnnotations | quote }}
strictMode: {{ .strictMode | quote }}
podMetrics: {{ .podMetrics | quote }}
pagePort: {{ .pagePort | quote }}
{{- end }}
{{- $own := regexReplaceAll "(:[^/:@]*)?(@.*)?$" (include "interceptor.image" .) "" }}
imageRepositories: {{ join "," (.Values.imageRepositories | default (list $own)) | quote }}
{{- end }}

{{- /* Ends with a hash of the values, so that a change restarts the agents. */ -}}
{{- define "interceptor.settingsName" -}}
interceptor-settings-{{ include "interceptor.settings" . | sha256sum | trunc 10 }}
{{- end }}
