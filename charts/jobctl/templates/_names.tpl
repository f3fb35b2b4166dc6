{{- /*
The job as JSON, worked out once a template: what it is called, what was asked for (normalised), its hash, its profile.
All other helpers take this rather than the root, so nothing is rendered before the checks have passed.
*/ -}}
{{- define "jobctl.job" -}}
{{- $spec := include "jobctl.spec" . -}}
{{- $asked := fromJson $spec -}}
{{- $planned := .Values.planned | default dict -}}
{{- /* jobctl gives the revision where Helm cannot know it: `helm template` always says 1. */ -}}
{{- $revision := include "jobctl.normal" ($planned.revision | default .Release.Revision) -}}
{{- /* An upgrade by Helm alone is meant as one; jobctl says by planned.replace whether its is. */ -}}
{{- $byHelm := or (not $planned.jobctlVersion) (include "jobctl.isReused" .) -}}
{{- $profile := .Files.Get (printf "profiles/%s.yaml" $asked.gpu) | fromYaml -}}
{{- $several := and (eq $asked.kind "train") (eq $profile.device "cuda") -}}
{{- dict
  "run" .Release.Name
  "namespace" .Release.Namespace
  "managedBy" .Release.Service
  "fullname" (printf "%s-r%s" .Release.Name $revision)
  "version" .Chart.AppVersion
  "spec" $asked
  "specHash" (sha256sum $spec | trunc 16)
  "freshToken" ($planned.freshToken | default nil)
  "replaces" (hasKey $planned "replace" | ternary $planned.replace (and .Release.IsUpgrade $byHelm))
  "profile" $profile
  "cpuProfile" (.Files.Get "profiles/cpu.yaml" | fromYaml)
  "needs" (index (.Files.Get (printf "tasks/%s.yaml" $asked.task) | fromYaml).needs $asked.kind)
  "processes" ($several | ternary $asked.gpusPerReplica 1)
  "image" ($asked.image | default (include "jobctl.defaultImage" .))
  "group" (and (eq $asked.kind "train") (gt (int $asked.replicas) 1))
  "graceSeconds" 60
  "metricsPort" 9400
  "storePort" 29400
  | toJson
-}}
{{- end -}}

{{- /*
Whether these values are those of the release's last revision, used once more (`helm upgrade --reuse-values`), rather
than sent by jobctl for this one: Helm keeps the token of the call that sent them as a label of its Secret. "" for no.
*/ -}}
{{- define "jobctl.isReused" -}}
{{- with dig "submitToken" "" (.Values.planned | default dict) -}}
{{- $last := printf "sh.helm.release.v1.%s.v%d" $.Release.Name (sub $.Release.Revision 1) -}}
{{- if eq (toString .) (lookup "v1" "Secret" $.Release.Namespace $last | dig "metadata" "labels" "jobctl-submit" "") -}}
yes
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "jobctl.defaultImage" -}}
{{- printf "jobctl-worker:%s" .Chart.AppVersion -}}
{{- end -}}

{{- /* Labels that all revisions of a release share: what the Service and jobctl select by. */ -}}
{{- define "jobctl.selectorLabels" -}}
app.kubernetes.io/name: jobctl
app.kubernetes.io/instance: {{ .run | quote }}
{{- end -}}

{{- define "jobctl.labels" -}}
{{ include "jobctl.selectorLabels" . }}
app.kubernetes.io/component: worker
app.kubernetes.io/version: {{ .version | quote }}
app.kubernetes.io/managed-by: {{ .managedBy | quote }}
jobctl.dev/kind: {{ .spec.kind | quote }}
jobctl.dev/task: {{ .spec.task | quote }}
jobctl.dev/gpu: {{ .spec.gpu | quote }}
jobctl.dev/spec-hash: {{ .specHash | quote }}
{{- end -}}

{{- /* The pod's labels as YAML: the spec's own, which never replace those that objects are found by. */ -}}
{{- define "jobctl.podLabels" -}}
{{- merge (dict) (include "jobctl.labels" . | fromYaml) .spec.pod.labels | include "jobctl.quoted" -}}
{{- end -}}
