{{- define "drift.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "drift.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Of a part: (dict "root" $ "part" "gateway"). */}}
{{- define "drift.selector" -}}
app.kubernetes.io/name: drift-pipeline
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .part }}
{{- end -}}

{{- define "drift.labels" -}}
{{ include "drift.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- define "drift.metadata" -}}
name: {{ include "drift.name" .root }}-{{ .part }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "drift.labels" . | nindent 2 }}
{{- end -}}

{{- define "drift.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "drift.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* Where the models lie in a container. A ConfigMap's own folder of the moment is ..data: beside it lies a second copy. */}}
{{- define "drift.modelsPath" -}}
{{- if .Values.models.git.repository -}}
/models/current/{{ .Values.models.git.path }}
{{- else -}}
/models/..data
{{- end -}}
{{- end -}}

{{- define "drift.modelsVolume" -}}
name: models
{{- if .Values.models.git.repository }}
emptyDir: {sizeLimit: 1Gi}
{{- else }}
configMap:
  name: {{ include "drift.name" . }}-models
  items:
    {{- range $model, $files := .Values.models.inline }}
    {{- range $file, $text := $files }}
    - key: {{ $model }}.{{ $file }}
      path: {{ $model }}/{{ $file }}
    {{- end }}
    {{- end }}
{{- end }}
{{- end -}}

{{/* git-sync: (dict "root" $ "once" true). */}}
{{- define "drift.gitSync" -}}
{{- $git := .root.Values.models.git -}}
name: {{ ternary "models" "models-follow" .once }}
image: {{ $git.image }}
imagePullPolicy: IfNotPresent
{{- if not .once }}
restartPolicy: Always
{{- end }}
args:
  - --repo={{ $git.repository }}
  - --ref={{ $git.ref }}
  - --root=/models
  - --link=current
  - --depth=1
  {{- if .once }}
  - --one-time
  {{- else }}
  - --period={{ $git.period }}
  {{- end }}
env:
  - {name: HOME, value: /tmp}
{{- if $git.secret }}
envFrom:
  - secretRef: {name: {{ $git.secret }}}
{{- end }}
resources: {requests: {cpu: 10m, memory: 64Mi}, limits: {memory: 256Mi}}
securityContext:
  {{- include "drift.security" .root | nindent 2 }}
volumeMounts:
  - {name: models, mountPath: /models}
  - {name: tmp, mountPath: /tmp}
{{- end -}}

{{/* What the home lies on: (dict "root" $ "home" "claim", "spool" or "none"). */}}
{{- define "drift.volumes" -}}
- name: tmp
  emptyDir: {sizeLimit: 2Gi}
- {{ include "drift.modelsVolume" .root | nindent 2 | trim }}
{{- if eq .home "claim" }}
- name: home
  persistentVolumeClaim: {claimName: {{ .root.Values.home.existingClaim | default (printf "%s-home" (include "drift.name" .root)) }}}
{{- else if eq .home "spool" }}
- name: home
  emptyDir: {sizeLimit: {{ .root.Values.gateway.spool }}}
{{- end }}
{{- end -}}

{{/* (dict "root" $ "readOnly" false). */}}
{{- define "drift.mounts" -}}
- {name: tmp, mountPath: /tmp}
- {name: models, mountPath: /models, readOnly: true}
- {name: home, mountPath: /var/lib/drift{{ if .readOnly }}, readOnly: true{{ end }}}
{{- end -}}

{{/* Of the database's Secret what a part needs, and no more: (dict "root" $ "names" list). */}}
{{- define "drift.databases" -}}
{{- range .names }}
- name: {{ . }}
  valueFrom: {secretKeyRef: {name: {{ $.root.Values.database.secret }}, key: {{ . }}}}
{{- end }}
{{- end -}}

{{/* Variables: (dict "root" $ "secrets" list). */}}
{{- define "drift.envFrom" -}}
- configMapRef: {name: {{ include "drift.name" .root }}-environment}
{{- if .root.Values.store.secret }}
- secretRef: {name: {{ .root.Values.store.secret }}}
{{- end }}
{{- range .secrets }}
- secretRef: {name: {{ . }}}
{{- end }}
{{- end -}}

{{/* The head of a pod's spec: (dict "root" $ "account" "" "token" false). */}}
{{- define "drift.pod" -}}
serviceAccountName: {{ include "drift.name" .root }}{{ .account }}
automountServiceAccountToken: {{ .token }}
enableServiceLinks: false
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
securityContext:
  {{- include "drift.podSecurity" .root | nindent 2 }}
{{- end -}}

{{/* Beside the code location, where only one node can have the home. */}}
{{- define "drift.besideTheHome" -}}
{{- if eq .Values.home.accessMode "ReadWriteOnce" }}
affinity:
  podAffinity:
    requiredDuringSchedulingIgnoredDuringExecution:
      - topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- include "drift.selector" (dict "root" . "part" "code") | nindent 12 }}
{{- end }}
{{- end -}}
