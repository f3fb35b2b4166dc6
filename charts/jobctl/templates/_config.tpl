{{- /* The one file that a worker reads: no path of the pod, no host, so that it means the same wherever it runs. */ -}}
{{- define "jobctl.config" -}}
{{- dict
  "version" .version
  "run" .run
  "kind" .spec.kind
  "task" .spec.task
  "gpu" .spec.gpu
  "device" .profile.device
  "allowCpu" .spec.allowCpu
  "replicas" .spec.replicas
  "gpusPerReplica" .spec.gpusPerReplica
  "preset" .spec.preset
  "data" .spec.data
  "from" .spec.from
  "settings" .spec.settings
  "checkpoint" .spec.checkpoint
  "gates" .spec.gates
  "specHash" .specHash
  "graceSeconds" .graceSeconds
  "freshToken" .freshToken
  "replaces" .replaces
  "spec" .spec
  | toPrettyJson
-}}
{{- end -}}
