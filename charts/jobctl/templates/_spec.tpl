{{- /*
The normalised spec as JSON: every key present, defaults filled in, numbers as numbers, keys sorted by toJson. The hash is
taken of this text, so neither `planned` nor the chart's default image is in it.
*/ -}}
{{- define "jobctl.spec" -}}
{{- include "jobctl.check" . -}}
{{- $values := .Values -}}
{{- $checkpoint := $values.checkpoint | default dict -}}
{{- $scheduling := $values.scheduling | default dict -}}
{{- $resources := $values.resources | default dict -}}
{{- $pod := $values.pod | default dict -}}
{{- $image := $values.image -}}
{{- if eq (toString $image) (include "jobctl.defaultImage" .) -}}
{{- $image = "" -}}
{{- end -}}
{{- $numbers := dict
  "replicas" $values.replicas
  "gpusPerReplica" $values.gpusPerReplica
  "checkpoint" (dict "everySeconds" ($checkpoint.everySeconds | default 60) "keep" ($checkpoint.keep | default 3))
  "gates" ($values.gates | default dict)
  "retry" (dict "perReplica" (dig "perReplica" 3 ($values.retry | default dict)))
  "deadlineSeconds" $values.deadlineSeconds
  "runAsUser" ($pod.runAsUser | default 1000)
  "fsGroup" ($pod.fsGroup | default 1000)
  | include "jobctl.normal" | fromJson
-}}
{{- $tolerations := list -}}
{{- range $scheduling.tolerations -}}
{{- $seconds := dict "tolerationSeconds" .tolerationSeconds | include "jobctl.normal" | fromJson -}}
{{- $toleration := omit . "tolerationSeconds" | include "jobctl.texts" | fromJson -}}
{{- $tolerations = append $tolerations (hasKey . "tolerationSeconds" | ternary (merge $toleration $seconds) $toleration) -}}
{{- end -}}
{{- $own := dict
  "labels" (include "jobctl.texts" $pod.labels | fromJson)
  "annotations" (include "jobctl.texts" $pod.annotations | fromJson)
  "imagePullSecrets" ($pod.imagePullSecrets | default list)
  "runtimeClassName" ($pod.runtimeClassName | default nil)
  "runAsUser" $numbers.runAsUser
  "fsGroup" $numbers.fsGroup
-}}
{{- /* Keys that came later, only where they differ from the default: a key more would give every spec another hash. */ -}}
{{- if eq (toJson $pod.hostUsers) "false" -}}
{{- $_ := set $own "hostUsers" false -}}
{{- end -}}
{{- $normal := dict
  "apiVersion" ($values.apiVersion | default "jobctl/v1")
  "kind" ($values.kind | default "train")
  "task" $values.task
  "gpu" $values.gpu
  "allowCpu" ($values.allowCpu | default false)
  "replicas" $numbers.replicas
  "gpusPerReplica" $numbers.gpusPerReplica
  "preset" ($values.preset | default "balanced")
  "data" ($values.data | default (printf "datasets/%s" .Release.Name))
  "from" ($values.from | default nil)
  "volume" (dict "claim" (dig "claim" "shared" ($values.volume | default dict)))
  "settings" (include "jobctl.settings" . | fromJson)
  "checkpoint" $numbers.checkpoint
  "gates" $numbers.gates
  "retry" $numbers.retry
  "deadlineSeconds" $numbers.deadlineSeconds
  "image" ($image | default nil)
  "env" (include "jobctl.texts" $values.env | fromJson)
  "secretEnv" ($values.secretEnv | default dict)
  "scheduling" (dict
    "queue" ($scheduling.queue | default nil)
    "priority" ($scheduling.priority | default nil)
    "spot" ($scheduling.spot | default false)
    "nodeSelector" (include "jobctl.texts" $scheduling.nodeSelector | fromJson)
    "tolerations" $tolerations)
  "resources" (dict
    "requests" (include "jobctl.texts" $resources.requests | fromJson)
    "limits" (include "jobctl.texts" $resources.limits | fromJson)
    "shm" (include "jobctl.texts" (dict "size" $resources.shm) | fromJson | dig "size" nil)
    "tmp" (include "jobctl.texts" (dict "size" $resources.tmp) | fromJson | dig "size" nil))
  "pod" $own
-}}
{{- if $values.networkPolicy -}}
{{- $_ := set $normal "networkPolicy" true -}}
{{- end -}}
{{- toJson $normal -}}
{{- end -}}
