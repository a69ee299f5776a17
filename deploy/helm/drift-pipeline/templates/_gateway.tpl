{{/* A gateway's pod, with its capture: (dict "root" $ "part" "gateway" "args" list). */}}
{{- define "drift.gateway" -}}
{{- $root := .root -}}
{{- $gateway := $root.Values.gateway -}}
{{- include "drift.pod" (dict "root" $root "account" "" "token" false) }}
terminationGracePeriodSeconds: {{ add $gateway.drainSeconds 45 }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "drift.selector" . | nindent 8 }}
initContainers:
  {{- if $root.Values.models.git.repository }}
  - {{ include "drift.gitSync" (dict "root" $root "once" true) | nindent 4 | trim }}
  - {{ include "drift.gitSync" (dict "root" $root "once" false) | nindent 4 | trim }}
  {{- end }}
  - name: capture  # ends after the gateway, and lands what it left
    image: {{ include "drift.image" $root }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    restartPolicy: Always
    command: [drift]
    args: [capture, --drain, {{ $gateway.drainSeconds }}s]
    env:
      {{- include "drift.databases" (dict "root" $root "names" (list "DRIFT_DATABASE")) | nindent 6 }}
    envFrom:
      {{- include "drift.envFrom" (dict "root" $root "secrets" list) | nindent 6 }}
    resources:
      {{- toYaml $gateway.capture.resources | nindent 6 }}
    securityContext:
      {{- include "drift.security" $root | nindent 6 }}
    volumeMounts:
      {{- include "drift.mounts" (dict "root" $root "readOnly" false) | nindent 6 }}
containers:
  - name: gateway
    image: {{ include "drift.image" $root }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    command: [drift]
    args: {{ concat (list "serve" "--host" "0.0.0.0" "--port" "8080") .args | toJson }}
    ports: [{name: http, containerPort: 8080}]
    env:
      {{- include "drift.databases" (dict "root" $root "names" (list "DRIFT_DATABASE")) | nindent 6 }}
    envFrom:
      {{- include "drift.envFrom" (dict "root" $root "secrets" $gateway.secrets) | nindent 6 }}
    startupProbe: {httpGet: {path: /v2/health/live, port: http}, periodSeconds: 2, failureThreshold: 150}
    livenessProbe: {httpGet: {path: /v2/health/live, port: http}, periodSeconds: 10, timeoutSeconds: 3, failureThreshold: 3}
    readinessProbe: {httpGet: {path: /v2/health/ready, port: http}, periodSeconds: 5, timeoutSeconds: 3, failureThreshold: 2}
    lifecycle: {preStop: {exec: {command: [sleep, "5"]}}}  # until no proxy sends to it any more
    resources:
      {{- toYaml $gateway.resources | nindent 6 }}
    securityContext:
      {{- include "drift.security" $root | nindent 6 }}
    volumeMounts:
      {{- include "drift.mounts" (dict "root" $root "readOnly" false) | nindent 6 }}
volumes:
  {{- include "drift.volumes" (dict "root" $root "home" "spool") | nindent 2 }}
{{- end -}}

{{/* DRIFT_CONTROLLER_FILE: the values' own, and the pods, each pinned to the version that it is made for. */}}
{{- define "drift.routing" -}}
{{- $part := dict "root" . "part" "pinned" "args" (list "--pin" "{model}" "{digest}") -}}
{{- $own := dict "namespace" .Release.Namespace "port" 8080 -}}
{{- $own = set $own "labels" (set (include "drift.selector" $part | fromYaml) "drift/job" "drift_gateway") -}}
{{- $own = set $own "pod" (include "drift.gateway" $part | fromYaml) -}}
{{- mergeOverwrite (deepCopy .Values.routing) $own | toYaml -}}
{{- end -}}
