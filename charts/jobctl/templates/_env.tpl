{{- /*
The environment: all that depends on where a pod runs, then what the spec asks for, as it was typed. The spec can't set the
former (_check.tpl); HOME and MUJOCO_GL it can. What refers to another variable stands behind it.
*/ -}}
{{- define "jobctl.env" -}}
{{- $spec := .spec -}}
{{- $wiring := dict
  "JOBCTL_CONFIG" "/etc/jobctl/config.json"
  "JOBCTL_VOLUME" "/shared"
  "JOBCTL_TMP" "/tmp"
  "JOBCTL_TERMINATION_LOG" "/dev/termination-log"
  "JOBCTL_METRICS_PORT" (toJson .metricsPort)
  "JOBCTL_GRACE_SECONDS" (toJson .graceSeconds)
-}}
{{- if .group -}}
{{- /* Index 0's name in the headless Service: the group meets there. */ -}}
{{- $_ := set $wiring "JOBCTL_STORE" (printf "%s-0.%s:%s" .fullname .run (toJson .storePort)) -}}
{{- end -}}
{{- $fields := dict
  "JOBCTL_POD_NAME" "metadata.name"
  "JOBCTL_POD_UID" "metadata.uid"
  "JOBCTL_POD_IP" "status.podIP"
  "JOBCTL_NODE" "spec.nodeName"
  "JOBCTL_NAMESPACE" "metadata.namespace"
  "JOBCTL_JOB_UID" "metadata.labels['batch.kubernetes.io/controller-uid']"
-}}
{{- $defaults := dict "HOME" "$(JOBCTL_TMP)" -}}
{{- if eq $spec.kind "collect" -}}
{{- $_ := set $defaults "MUJOCO_GL" "osmesa" -}}
{{- end -}}
{{- range $name, $value := $wiring }}
- name: {{ quote $name }}
  value: {{ quote $value }}
{{- end }}
{{- range $name, $field := $fields }}
- name: {{ quote $name }}
  valueFrom:
    fieldRef:
      fieldPath: {{ $field }}
{{- end }}
{{- range $name, $value := $defaults }}
{{- if not (or (hasKey $spec.env $name) (hasKey $spec.secretEnv $name)) }}
- name: {{ quote $name }}
  value: {{ quote $value }}
{{- end }}
{{- end }}
{{- /* Kubernetes expands $(NAME) and makes one $ of two, so two stand for each that was typed. */ -}}
{{- range $name, $value := $spec.env }}
- name: {{ quote $name }}
  value: {{ replace "$" "$$" $value | quote }}
{{- end }}
{{- range $name, $source := $spec.secretEnv }}
- name: {{ quote $name }}
  valueFrom:
    secretKeyRef:
      name: {{ quote $source.secret }}
      key: {{ quote $source.key }}
{{- end }}
{{- end -}}
