{{- /*
The one file that a worker reads: no path of the pod, no host, so that it means the same wherever it runs. Of the
environment it has the names alone: what an experiment tracker's key is lies in fewer places so.
*/ -}}
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
  "spec" (set (omit .spec "env") "env" (keys .spec.env | sortAlpha))
  | toPrettyJson
-}}
{{- end -}}
