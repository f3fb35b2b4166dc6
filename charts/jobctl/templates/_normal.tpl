{{- /*
Helm hands over `--set lr=0.0001` as text, a YAML file's 0.0001 as a number. These make one JSON text of both, so that
the worker's config and the hash do not depend on how a value was given.
*/ -}}

{{- /* Any value as JSON, numeric text turned into numbers at every depth. */ -}}
{{- define "jobctl.normal" -}}
{{- if kindIs "map" . -}}
{{- $parts := list -}}
{{- range $key, $value := . -}}
{{- $parts = append $parts (printf "%s:%s" (toJson $key) (include "jobctl.normal" $value)) -}}
{{- end -}}
{{- printf "{%s}" (join "," $parts) -}}
{{- else if kindIs "slice" . -}}
{{- $parts := list -}}
{{- range . -}}
{{- $parts = append $parts (include "jobctl.normal" .) -}}
{{- end -}}
{{- printf "[%s]" (join "," $parts) -}}
{{- else if and (kindIs "string" .) (regexMatch "^[-+]?([0-9]+\\.?[0-9]*|\\.[0-9]+)([eE][-+]?[0-9]+)?$" .) -}}
{{- float64 . | toJson -}}
{{- else -}}
{{- toJson . -}}
{{- end -}}
{{- end -}}

{{- /* A scalar as text: 1000000 stays that, where plain printing says 1e+06. */ -}}
{{- define "jobctl.text" -}}
{{- if kindIs "string" . -}}{{ . }}{{- else -}}{{ toJson . }}{{- end -}}
{{- end -}}

{{- /* A map of scalars as JSON with every value as text: environment, labels, quantities. Nulls are left out. */ -}}
{{- define "jobctl.texts" -}}
{{- $texts := dict -}}
{{- range $key, $value := . -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $texts $key (include "jobctl.text" $value) -}}
{{- end -}}
{{- end -}}
{{- toJson $texts -}}
{{- end -}}

{{- /*
A map of texts as YAML. `quote` writes all that does not print as an escape, so that no text can leave its quotes; toYaml
and toJson don't: U+0085 is a line break to YAML.
*/ -}}
{{- define "jobctl.quoted" -}}
{{- range $key, $value := . }}
{{ quote $key }}: {{ quote $value }}
{{- end }}
{{- end -}}

{{- /* The settings as JSON. Those that the task's schema declares to be text stay text, also when it looks like a number. */ -}}
{{- define "jobctl.settings" -}}
{{- $kind := .Values.kind | default "train" -}}
{{- $schema := .Files.Get (printf "tasks/%s.schema.json" .Values.task) | default "{}" | fromJson -}}
{{- $known := dig "$defs" $kind "properties" dict $schema -}}
{{- $settings := dict -}}
{{- range $key, $value := .Values.settings -}}
{{- if eq (dig $key "type" "" $known | toString) "string" -}}
{{- $_ := set $settings $key $value -}}
{{- else -}}
{{- $wrapped := printf "{\"value\":%s}" (include "jobctl.normal" $value) | fromJson -}}
{{- include "jobctl.checkBounds" (dict "name" $key "value" $wrapped.value "node" (get $known $key)) -}}
{{- $_ := set $settings $key $wrapped.value -}}
{{- end -}}
{{- end -}}
{{- toJson $settings -}}
{{- end -}}
