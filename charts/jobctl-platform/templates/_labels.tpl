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
{{- merge $own (index . 2) | toYaml -}}
{{- end -}}
