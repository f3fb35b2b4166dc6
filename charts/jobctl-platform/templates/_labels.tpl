{{- /* Labels of an object: (list ROOT COMPONENT MORE); MORE, from the values, never replaces those of the chart. */ -}}
{{- define "jobctl-platform.labels" -}}
{{- $root := index . 0 -}}
{{- $own := dict
  "app.kubernetes.io/name" "jobctl-platform"
  "app.kubernetes.io/instance" $root.Release.Name
  "app.kubernetes.io/component" (index . 1)
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service
-}}
{{- merge $own (index . 2) | include "jobctl-platform.quoted" -}}
{{- end -}}

{{- /* A map of texts as YAML: `quote` writes all that does not print as an escape, so no text can leave its quotes. */ -}}
{{- define "jobctl-platform.quoted" -}}
{{- range $key, $value := . }}
{{ quote $key }}: {{ quote $value }}
{{- end }}
{{- end -}}
