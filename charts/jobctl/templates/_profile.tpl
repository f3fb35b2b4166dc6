{{- /*
Sizes as JSON {requests, limits, shm, tmp}: what the job needs, overridden by the spec's resources. Memory is requested as
it is limited, or the node could promise it twice and kill a pod that kept to its limit. There is no limit on the CPU: it
would only slow down a job whose node has nothing else to do.
*/ -}}
{{- define "jobctl.sizes" -}}
{{- $need := include "jobctl.need" . | fromJson -}}
{{- $own := .spec.resources -}}
{{- $memory := coalesce $own.requests.memory $own.limits.memory $need.memory -}}
{{- $requests := merge (dict) $own.requests (dict "cpu" ($own.limits.cpu | default $need.cpu) "memory" $memory) -}}
{{- $limits := merge (dict) $own.limits (dict "memory" $requests.memory) -}}
{{- if eq .profile.device "cuda" -}}
{{- $_ := set $limits "nvidia.com/gpu" (toJson .spec.gpusPerReplica) -}}
{{- end -}}
{{- dict "requests" $requests "limits" $limits "shm" ($own.shm | default $need.shm) "tmp" ($own.tmp | default $need.tmp) | toJson -}}
{{- end -}}

{{- /*
What one replica needs as JSON {cpu, memory, shm, tmp}: the terms of tasks/TASK.yaml, each times the counts that it names.
CPU is cut to its GPUs' share of their node, or with allowCpu to the cpu profile's: with less a job is only slower. Memory
is never cut: with less it would be killed.
*/ -}}
{{- define "jobctl.need" -}}
{{- $counts := include "jobctl.counts" . | fromJson -}}
{{- $cpu := 0.0 -}}
{{- $memory := 0.0 -}}
{{- range .needs.terms -}}
{{- $times := 1.0 -}}
{{- range .times -}}
{{- $times = mulf $times (index $counts .) -}}
{{- end -}}
{{- $cpu = addf $cpu (mulf $times (.cpuMillicores | default 0)) -}}
{{- $memory = addf $memory (mulf $times (.memoryMiB | default 0)) -}}
{{- end -}}
{{- $shm := addf .needs.shmMiB (gt $counts.processes 1.0 | ternary .profile.groupShmMiB 0) -}}
{{- $gpus := eq .profile.device "cuda" | ternary .spec.gpusPerReplica 1 -}}
{{- $share := .spec.allowCpu | ternary .cpuProfile.share.cpuMillicores (mulf $gpus .profile.share.cpuMillicores) -}}
{{- dict
  "cpu" (printf "%.0fm" (minf $share $cpu))
  "memory" (printf "%.0fMi" (ceil (addf $memory $shm)))
  "shm" (printf "%.0fMi" $shm)
  "tmp" (printf "%.0fMi" .needs.tmpMiB)
  | toJson -}}
{{- end -}}

{{- /*
What a term may be times of, as JSON: settings (the task's table has what one counts as that is left open), the pod's
processes, hostMemoryMiB of the profile, and `samples`: the pod's share of a training's batch.
*/ -}}
{{- define "jobctl.counts" -}}
{{- $settings := .spec.settings -}}
{{- $counts := dict "processes" .processes "hostMemoryMiB" .profile.hostMemoryMiB -}}
{{- range $name, $open := .needs.counts -}}
{{- $_ := set $counts $name (get $settings $name | default $open) -}}
{{- end -}}
{{- if eq .spec.kind "train" -}}
{{- $own := mulf .processes ($settings.batchPerReplica | default 0) -}}
{{- $_ := set $counts "samples" ($own | default (divf $counts.batch .spec.replicas)) -}}
{{- end -}}
{{- toJson $counts -}}
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
{{- range concat $tolerations .spec.scheduling.tolerations }}
-
  {{- include "jobctl.quoted" (omit . "tolerationSeconds") | trim | nindent 2 }}
  {{- if hasKey . "tolerationSeconds" }}
  tolerationSeconds: {{ int64 .tolerationSeconds }}
  {{- end }}
{{- end }}
{{- end -}}
