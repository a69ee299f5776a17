{{/* The instance: the packaged dagster.yaml, with what a cluster has in place of one machine. */}}
{{- define "drift.dagster" -}}
{{- $runs := .Values.dagster.runs -}}
{{- $packaged := .Files.Get "files/dagster.yaml" | fromYaml -}}
{{- $limits := list -}}
{{- range $limit := $packaged.concurrency.runs.tag_concurrency_limits -}}
{{- if eq (toString $limit.value) "normal" -}}
{{- $limits = append $limits (dict "key" $limit.key "value" $limit.value "limit" $runs.normal) -}}
{{- else -}}
{{- $limits = append $limits $limit -}}
{{- end -}}
{{- end -}}
{{- $own := include "drift.instance" . | fromYaml -}}
{{- $queue := dict "max_concurrent_runs" $runs.maxConcurrent "tag_concurrency_limits" $limits -}}
{{- $own = set $own "concurrency" (dict "runs" $queue) -}}
{{- mergeOverwrite $packaged $own | toYaml -}}
{{- end -}}

{{- define "drift.instance" -}}
{{- $apart := eq .Values.dagster.executor "k8s_job" -}}
storage:
  postgres:
    postgres_url: {env: DRIFT_DAGSTER_DATABASE}
local_artifact_storage:
  module: dagster._core.storage.root
  class: LocalArtifactStorage
  config: {base_dir: /tmp/dagster}
compute_logs:
  module: dagster._core.storage.noop_compute_log_manager
  class: NoOpComputeLogManager
run_coordinator:
  module: drift_pipeline.components.lanes
  class: LanedRunCoordinator
  config:
    pods:
      {{- toYaml .Values.dagster.runs.pods | nindent 6 }}
run_launcher:
  module: dagster_k8s
  class: K8sRunLauncher
  config:
    job_namespace: {{ .Release.Namespace }}
    service_account_name: {{ include "drift.name" . }}{{ ternary "-run" "" $apart }}
    job_image: {{ include "drift.image" . }}
    image_pull_policy: {{ .Values.image.pullPolicy }}
    instance_config_map: {{ include "drift.name" . }}-dagster
    dagster_home: /opt/dagster
    load_incluster_config: true
    {{- with .Values.image.pullSecrets }}
    image_pull_secrets:
      {{- range . }}
      - name: {{ . }}
      {{- end }}
    {{- end }}
    env_config_maps: [{{ include "drift.name" . }}-environment]
    env_secrets:
      - {{ .Values.database.secret }}
      {{- with .Values.store.secret }}
      - {{ . }}
      {{- end }}
      {{- range .Values.secrets }}
      - {{ . }}
      {{- end }}
    labels:
      {{- include "drift.selector" (dict "root" . "part" "run") | nindent 6 }}
    volumes:
      {{- include "drift.volumes" (dict "root" . "home" "claim") | nindent 6 }}
      - name: dagster
        configMap: {name: {{ include "drift.name" . }}-dagster}
    volume_mounts:
      {{- include "drift.mounts" (dict "root" . "readOnly" false) | nindent 6 }}
      - {name: dagster, mountPath: /opt/dagster, readOnly: true}
    run_k8s_config:
      container_config:
        command: [env]  # what Dagster gives is a whole command line, and the image's entrypoint is drift
        resources:
          {{- toYaml .Values.dagster.runs.resources | nindent 10 }}
        security_context:
          {{- include "drift.security" . | nindent 10 }}
      pod_spec_config:
        automount_service_account_token: {{ $apart }}  # who waits for the steps asks for their Jobs; the steps have none
        enable_service_links: false
        security_context:
          {{- include "drift.podSecurity" . | nindent 10 }}
        {{- include "drift.besideTheHome" . | nindent 8 }}
        {{- if .Values.models.git.repository }}
        init_containers:
          - {{ include "drift.gitSync" (dict "root" . "once" true) | nindent 12 | trim }}
        {{- end }}
      job_spec_config:
        ttl_seconds_after_finished: {{ .Values.dagster.runs.keepSeconds | int64 }}
        backoff_limit: 0
    only_allow_user_defined_k8s_config_fields:
      container_config: {resources: true}
      pod_spec_config: {node_selector: true, tolerations: true, priority_class_name: true}
{{- end -}}
