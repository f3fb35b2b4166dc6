{{- /*
Sizes as JSON {requests, limits, shm, tmp}: the profile's for this kind, overridden by the spec's resources. Memory is
requested as it is limited, or the node could promise it twice and kill a pod that kept to its limit. There is no limit
on the CPU: it would only slow down a job whose node has nothing else to do.
*/ -}}
{{- define "jobctl.sizes" -}}
{{- $need := index .profile.kinds .spec.kind -}}
{{- $own := .spec.resources -}}
{{- $memory := coalesce $own.requests.memory $own.limits.memory $need.memory -}}
{{- $requests := merge (dict) $own.requests (dict "cpu" $need.cpu "memory" $memory) -}}
{{- $limits := merge (dict) $own.limits (dict "memory" $requests.memory) -}}
{{- if eq .profile.device "cuda" -}}
{{- $_ := set $limits "nvidia.com/gpu" (toJson .spec.gpusPerReplica) -}}
{{- end -}}
{{- dict "requests" $requests "limits" $limits "shm" ($own.shm | default $need.shm) "tmp" ($own.tmp | default $need.tmp) | toJson -}}
{{- end -}}

{{- /* Where pods may and should run, as the pod's affinity. */ -}}
{{- define "jobctl.affinity" -}}
{{- if or .profile.products .spec.scheduling.spot -}}
nodeAffinity:
  {{- with .profile.products }}
  requiredDuringSchedulingIgnoredDuringExecution:
    nodeSelectorTerms:
      - matchExpressions:
          - key: nvidia.com/gpu.product
            operator: In
            values: {{ toJson . }}
  {{- end }}
  {{- if .spec.scheduling.spot }}
  preferredDuringSchedulingIgnoredDuringExecution:
    {{- range $key, $value := include "jobctl.spotLabels" . | fromJson }}
    - weight: 50
      preference:
        matchExpressions:
          - key: {{ $key }}
            operator: In
            values: [{{ quote $value }}]
    {{- end }}
  {{- end }}
{{- end -}}
{{- end -}}

{{- /* How the large providers label nodes that they may take away. */ -}}
{{- define "jobctl.spotLabels" -}}
{{- dict
  "cloud.google.com/gke-spot" "true"
  "eks.amazonaws.com/capacityType" "SPOT"
  "karpenter.sh/capacity-type" "spot"
  "kubernetes.azure.com/scalesetpriority" "spot"
  | toJson -}}
{{- end -}}

{{- define "jobctl.tolerations" -}}
{{- $tolerations := list -}}
{{- if eq .profile.device "cuda" -}}
{{- $tolerations = append $tolerations (dict "key" "nvidia.com/gpu" "operator" "Exists" "effect" "NoSchedule") -}}
{{- end -}}
{{- if .spec.scheduling.spot -}}
{{- range $key, $value := include "jobctl.spotLabels" . | fromJson -}}
{{- $tolerations = append $tolerations (dict "key" $key "operator" "Equal" "value" $value "effect" "NoSchedule") -}}
{{- end -}}
{{- end -}}
{{- with concat $tolerations .spec.scheduling.tolerations -}}
{{- toYaml . -}}
{{- end -}}
{{- end -}}
