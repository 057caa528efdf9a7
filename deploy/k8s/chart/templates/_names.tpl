{{- define "neurogate.name" -}}
{{- .Values.nameOverride | default "neurogate" | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* Labels that select; they never change. Call with (list $ "component"). */}}
{{- define "neurogate.selector" -}}
app.kubernetes.io/name: neurogate
app.kubernetes.io/instance: {{ include "neurogate.name" (index . 0) }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "neurogate.labels" -}}
{{ include "neurogate.selector" . }}
app.kubernetes.io/part-of: neurogate
app.kubernetes.io/version: {{ (index . 0).Chart.AppVersion | quote }}
{{- end }}

{{/* Call with (list $ .Values.gateway.image). */}}
{{- define "neurogate.image" -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default (index . 0).Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "neurogate.secret" -}}
{{- .Values.secrets.existingSecret | default (printf "%s-secrets" (include "neurogate.name" .)) -}}
{{- end }}

{{/* One variable from the Secret. Call with (list $ "NAME"). */}}
{{- define "neurogate.secretEnv" -}}
{{- $root := index . 0 -}}
- name: {{ index . 1 }}
  valueFrom:
    secretKeyRef:
      name: {{ include "neurogate.secret" $root }}
      key: {{ index . 1 }}
      optional: {{ not (and $root.Values.secrets.required (eq (index . 1) "API_KEYS")) }}
{{- end }}

{{/* Restricted Pod Security, and more than it asks for. */}}
{{- define "neurogate.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "neurogate.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Call with (list $ "component" $values). */}}
{{- define "neurogate.placement" -}}
{{- $values := index . 2 -}}
{{- with $values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- if $values.topologySpread }}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "neurogate.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The configuration file's sections: what the chart knows, below what the values say. */}}
{{- define "neurogate.config" -}}
{{- $gateway := dict
  "balancer" "least_requests"
  "drain_delay_s" .Values.gateway.drainDelaySeconds
  "drain_timeout_s" .Values.gateway.drainTimeoutSeconds
  "max_bodies_bytes" 67108864
  "log_format" "json" -}}
{{- $worker := dict "drain_timeout_s" .Values.worker.drainTimeoutSeconds "log_format" "json" -}}
{{- $engine := dict "engine" .Values.worker.engine -}}
{{- with .Values.worker.engineUrl }}{{ $_ := set $engine "url" . }}{{ end -}}
{{- with .Values.worker.model }}{{ $_ := set $engine "model" . }}{{ end -}}
{{- $discovery := dict "sources" (.Values.gateway.discovery | default (list (printf "kubernetes:%s-worker-headless:grpc" (include "neurogate.name" .)))) -}}
{{- $config := dict "discovery" $discovery "gateway" $gateway "worker" $worker "engine" $engine "http" (dict "health_port" -1) -}}
{{- if .Values.gateway.tls.existingSecret -}}
{{- $_ := set $config "tls" (dict "cert" "/etc/neurogate/tls/tls.crt" "key" "/etc/neurogate/tls/tls.key") -}}
{{- end -}}
{{- if .Values.linkTls.existingSecret -}}
{{- $_ := set $config "link_tls" (dict "cert" "/etc/neurogate/link/tls.crt" "key" "/etc/neurogate/link/tls.key" "ca" "/etc/neurogate/link/ca.crt" "name" .Values.linkTls.name) -}}
{{- end -}}
{{- mergeOverwrite $config (deepCopy .Values.config) | toYaml -}}
{{- end }}
