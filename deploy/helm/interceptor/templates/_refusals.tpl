{{- /* Values of istio-cni that mean something which Interceptor does not have, each with the way out. */ -}}
{{- define "interceptor.refusals" -}}
{{- $problems := list }}
{{- with .Values }}
{{- $profile := coalesce .profile .global.profile | default "default" }}
{{- if or (eq $profile "ambient") (.ambient).enabled }}
{{- $problems = append $problems "ambient is set: Interceptor captures pods with sidecars only. Keep istio-cni for ambient, or remove `profile: ambient` and set `ambient.enabled` to false" }}
{{- else if not (has $profile (list "default" "demo" "empty" "minimal" "preview" "remote" "stable")) }}
{{- $problems = append $problems (printf "the profile %q is unknown: a platform is set by `global.platform`; no other profile of Istio changes this chart" $profile) }}
{{- end }}
{{- if .istioOwnedCNIConfig }}
{{- $problems = append $problems "istioOwnedCNIConfig is set: Interceptor has no configuration file of its own, but adds its plugin to the runtime's file and restores it there. Remove the value" }}
{{- end }}
{{- if contains "istio-cni" .cniConfFileName }}
{{- $problems = append $problems (printf "cniConfFileName is %q, a file of istio-cni: remove the value, and the agent finds the file that the runtime uses" .cniConfFileName) }}
{{- end }}
{{- if and .repair.enabled (not .repair.repairPods) }}
{{- $problems = append $problems "repair.repairPods is false: Interceptor repairs a running pod by capturing it, and neither deletes nor labels pods. Set repair.repairPods to true, or repair.enabled to false" }}
{{- end }}
{{- $level := include "interceptor.logLevel" . }}
{{- if not (or (has $level (list "error" "warn" "info" "debug" "trace")) (contains "=" $level)) }}
{{- $problems = append $problems (printf "the logging level is %q: Interceptor has no scopes of Istio. Set logging.level to error, warn, info, debug or trace" $level) }}
{{- end }}
{{- range $name := list "cniBinDir" "cniConfDir" "cniNetnsDir" }}
{{- if not (get $.Values $name) }}
{{- $problems = append $problems (printf "%s is empty: remove the value, or set `global.platform`, which knows the directory" $name) }}
{{- end }}
{{- end }}
{{- end }}
{{- with include "interceptor.imageProblem" . }}
{{- $problems = append $problems . }}
{{- end }}
{{- with $problems }}
{{- fail (printf "\n\n- %s\n" (join "\n- " .)) }}
{{- end }}
{{- end }}

{{- /* Istio's images are named by hub, image and tag. Ours is in none of Istio's registries. */ -}}
{{- define "interceptor.imageProblem" -}}
{{- $way := "set `image` to the full name of Interceptor's image, such as registry.example.org/interceptor:0.1.0" }}
{{- $image := .Values.image }}
{{- if contains "/install-cni" $image -}}
image is {{ quote $image }}, which is istio-cni's: {{ $way }}
{{- else if not (has $image (list "" "install-cni")) }}
{{- if not (regexMatch "[/:@]" $image) -}}
image is {{ quote $image }}, without a registry or a tag: {{ $way }}
{{- end }}
{{- else if or .Values.hub .Values.tag .Values.global.hub .Values.global.tag -}}
hub and tag name Istio's images: {{ $way }}
{{- end }}
{{- end }}
