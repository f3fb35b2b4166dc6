{{- /*
The environment: all that depends on where a pod runs. A name that the spec gives itself is left to the spec.
*/ -}}
{{- define "jobctl.env" -}}
{{- $spec := .spec -}}
{{- $plain := dict
  "JOBCTL_CONFIG" "/etc/jobctl/config.json"
  "JOBCTL_VOLUME" "/shared"
  "JOBCTL_TMP" "/tmp"
  "HOME" "/tmp"
  "JOBCTL_TERMINATION_LOG" "/dev/termination-log"
  "JOBCTL_METRICS_PORT" (toJson .metricsPort)
  "JOBCTL_GRACE_SECONDS" (toJson .graceSeconds)
-}}
{{- if .group -}}
{{- /* Index 0's name in the headless Service: the group meets there. */ -}}
{{- $_ := set $plain "JOBCTL_STORE" (printf "%s-0.%s:%s" .fullname .run (toJson .storePort)) -}}
{{- end -}}
{{- if eq $spec.kind "collect" -}}
{{- $_ := set $plain "MUJOCO_GL" "osmesa" -}}
{{- end -}}
{{- $plain = merge (dict) $spec.env $plain -}}
{{- $fields := dict
  "JOBCTL_POD_NAME" "metadata.name"
  "JOBCTL_POD_UID" "metadata.uid"
  "JOBCTL_POD_IP" "status.podIP"
  "JOBCTL_NODE" "spec.nodeName"
  "JOBCTL_NAMESPACE" "metadata.namespace"
  "JOBCTL_JOB_UID" "metadata.labels['batch.kubernetes.io/controller-uid']"
-}}
{{- range $name, $value := $plain }}
{{- if not (hasKey $spec.secretEnv $name) }}
- name: {{ quote $name }}
  value: {{ quote $value }}
{{- end }}
{{- end }}
{{- range $name, $field := $fields }}
{{- if not (or (hasKey $spec.env $name) (hasKey $spec.secretEnv $name)) }}
- name: {{ quote $name }}
  valueFrom:
    fieldRef:
      fieldPath: {{ $field }}
{{- end }}
{{- end }}
{{- range $name, $source := $spec.secretEnv }}
- name: {{ quote $name }}
  valueFrom:
    secretKeyRef:
      name: {{ quote $source.secret }}
      key: {{ quote $source.key }}
{{- end }}
{{- end -}}
