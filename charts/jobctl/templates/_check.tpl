{{- /*
What the schema cannot say. Each message names the key, what is wrong with it, and what to try.
*/ -}}
{{- define "jobctl.check" -}}
{{- include "jobctl.checkName" . -}}
{{- include "jobctl.checkVersions" . -}}
{{- include "jobctl.checkRevision" . -}}
{{- include "jobctl.checkKnown" . -}}
{{- include "jobctl.checkTexts" . -}}
{{- include "jobctl.checkEnv" . -}}
{{- $values := .Values -}}
{{- $kind := $values.kind | default "" -}}
{{- if not $kind -}}
{{- fail "kind is missing: collect, train or eval (--set kind=train)" -}}
{{- end -}}
{{- range $key := list "replicas" "gpusPerReplica" -}}
{{- if lt (index $values $key | toString | float64) 1.0 -}}
{{- fail (printf "%s is %v: it must be at least 1 (to pause a job, suspend it)" $key (index $values $key)) -}}
{{- end -}}
{{- end -}}
{{- range $key := list "runAsUser" "fsGroup" -}}
{{- $number := get ($values.pod | default dict) $key -}}
{{- if and $number (lt (toString $number | float64) 1.0) -}}
{{- fail (printf "pod.%s is %v: it must be at least 1, as root is refused" $key $number) -}}
{{- end -}}
{{- end -}}
{{- if and (eq $kind "eval") (not $values.from) -}}
{{- fail "from is missing: eval judges the weights of a run, so name one (--set from=RUN)" -}}
{{- end -}}
{{- if and (eq $kind "collect") $values.from -}}
{{- fail "from has no meaning for collect: it starts from no run's weights; leave it out" -}}
{{- end -}}
{{- if and (eq $kind "collect") $values.data (not (hasPrefix "datasets/" $values.data)) -}}
{{- fail (printf "data is %q: collect writes below datasets/ only (--set data=datasets/NAME)" $values.data) -}}
{{- end -}}
{{- if and (eq $kind "train") $values.gates -}}
{{- fail "gates have no meaning for train: state them in collect (data) and eval (quality)" -}}
{{- end -}}
{{- range $name, $_ := $values.secretEnv -}}
{{- if hasKey ($values.env | default dict) $name -}}
{{- fail (printf "%s stands in both env and secretEnv: keep one" $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Text as it was typed. What YAML has read as a number or a boolean is that no more, so it can't be made text again. */ -}}
{{- define "jobctl.checkTexts" -}}
{{- $scheduling := .Values.scheduling | default dict -}}
{{- $pod := .Values.pod | default dict -}}
{{- $maps := dict
  "env" .Values.env
  "pod.annotations" $pod.annotations
  "pod.labels" $pod.labels
  "scheduling.nodeSelector" $scheduling.nodeSelector
-}}
{{- range $number, $toleration := $scheduling.tolerations -}}
{{- $_ := set $maps (printf "scheduling.tolerations.%d" $number) (pick $toleration "value") -}}
{{- end -}}
{{- range $path, $texts := $maps -}}
{{- range $key, $value := $texts -}}
{{- if not (or (kindIs "string" $value) (kindIs "invalid" $value)) -}}
{{- fail (printf "%s.%s is %s, which is no text: put it in quotes in a file, or say --set-string instead of --set" $path $key (toJson $value)) -}}
{{- else if regexMatch "[\\x{7f}-\\x{9f}\\x{fffe}\\x{ffff}]" (toString $value) -}}
{{- fail (printf "%s.%s holds a control character that the Kubernetes API refuses or changes: %q" $path $key $value) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "jobctl.checkEnv" -}}
{{- $knobs := .Files.Get "knobs.yaml" | fromYaml -}}
{{- range $key := list "env" "secretEnv" -}}
{{- range $name, $value := get $.Values $key -}}
{{- $reserved := and (hasPrefix "JOBCTL_" $name) (not (hasPrefix "JOBCTL_TEST_" $name)) (not (hasKey $knobs $name)) -}}
{{- if or $reserved (eq $name "JOB_COMPLETION_INDEX") -}}
{{- fail (printf "%s.%s can't be set: it tells a pod its place (what can be set of JOBCTL_: %s)" $key $name (keys $knobs | sortAlpha | join ", ")) -}}
{{- end -}}
{{- if kindIs "string" $value -}}
{{- if gt (add (len $name) (len $value)) 131070 -}}
{{- fail (printf "%s.%s has %d bytes: a process takes at most 131072 for a variable's name and value, so put it into a file" $key $name (len $value)) -}}
{{- else if contains "\x00" $value -}}
{{- fail (printf "%s.%s holds U+0000: no variable can" $key $name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "jobctl.checkName" -}}
{{- $name := .Release.Name -}}
{{- if gt (len $name) 50 -}}
{{- fail (printf "the name %q has %d characters: at most 50 fit into the names of its pods" $name (len $name)) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" $name) -}}
{{- fail (printf "the name %q is no DNS label: use lower-case letters, digits and '-' between them" $name) -}}
{{- end -}}
{{- $replicas := .Values.replicas | toString | float64 -}}
{{- if and (eq (.Values.kind | default "") "train") (gt $replicas 1.0) (not (regexMatch "^[a-z]" $name)) -}}
{{- fail (printf "the name %q begins with a digit: replicas that train together need one that begins with a letter" $name) -}}
{{- end -}}
{{- end -}}

{{- define "jobctl.checkVersions" -}}
{{- with .Capabilities.HelmVersion.Version -}}
{{- if semverCompare "<3.18.0-0" . -}}
{{- fail (printf "Helm is %s: jobctl's charts need 3.18 or newer" .) -}}
{{- end -}}
{{- end -}}
{{- if semverCompare "<1.34.0-0" .Capabilities.KubeVersion.Version -}}
{{- fail (printf "Kubernetes is %s: jobctl needs 1.34 or newer" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- $planned := .Values.planned | default dict -}}
{{- with $planned.jobctlVersion -}}
{{- $own := semver $.Chart.AppVersion -}}
{{- $asked := semver . -}}
{{- if or (ne $own.Major $asked.Major) (ne $own.Minor $asked.Minor) -}}
{{- fail (printf "jobctl is %s but the chart is %s: install the jobctl that belongs to the chart, or use the chart inside jobctl" . $.Chart.AppVersion) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /*
Of two calls that become one revision at once, Helm lets only one create its Secret; one that comes later finds itself a
later revision, and fails here. Values that are used once more (--reuse-values) expect nothing any more.
*/ -}}
{{- define "jobctl.checkRevision" -}}
{{- $expected := dig "expectRevision" 0 (.Values.planned | default dict) | toString | int64 -}}
{{- if and $expected (ne $expected (int64 .Release.Revision)) (not (include "jobctl.isReused" .)) -}}
{{- fail (printf "planned.expectRevision is %d, but this is revision %d of %s: it has changed meanwhile; look at it again (with plain Helm, --set planned.expectRevision=null goes on)" $expected .Release.Revision .Release.Name) -}}
{{- end -}}
{{- end -}}

{{- define "jobctl.checkKnown" -}}
{{- $profiles := list -}}
{{- range $path, $_ := .Files.Glob "profiles/*.yaml" -}}
{{- $profiles = append $profiles (base $path | trimSuffix ".yaml") -}}
{{- end -}}
{{- if not (has (toString .Values.gpu) $profiles) -}}
{{- fail (printf "gpu: there is no profile %q (known: %s)" (toString .Values.gpu) (sortAlpha $profiles | join ", ")) -}}
{{- end -}}
{{- $tasks := list -}}
{{- range $path, $_ := .Files.Glob "tasks/*.schema.json" -}}
{{- $tasks = append $tasks (base $path | trimSuffix ".schema.json") -}}
{{- end -}}
{{- if not (has (toString .Values.task) $tasks) -}}
{{- fail (printf "task: there is no task %q (known: %s)" (toString .Values.task) (sortAlpha $tasks | join ", ")) -}}
{{- end -}}
{{- end -}}

{{- /*
A setting within its bounds. The schema holds numbers to them, but a number that came as text it only knows by its digits.
*/ -}}
{{- define "jobctl.checkBounds" -}}
{{- $value := .value -}}
{{- $name := .name -}}
{{- if kindIs "float64" $value -}}
{{- $node := .node | default dict -}}
{{- range $rule := prepend (dig "anyOf" list $node) $node -}}
{{- if lt $value (dig "minimum" $value $rule) -}}
{{- fail (printf "settings.%s is %v: it must be at least %v" $name $value $rule.minimum) -}}
{{- else if gt $value (dig "maximum" $value $rule) -}}
{{- fail (printf "settings.%s is %v: it must be at most %v" $name $value $rule.maximum) -}}
{{- else if and (hasKey $rule "exclusiveMinimum") (le $value (dig "exclusiveMinimum" $value $rule)) -}}
{{- fail (printf "settings.%s is %v: it must be more than %v" $name $value $rule.exclusiveMinimum) -}}
{{- else if and (hasKey $rule "exclusiveMaximum") (ge $value (dig "exclusiveMaximum" $value $rule)) -}}
{{- fail (printf "settings.%s is %v: it must be less than %v" $name $value $rule.exclusiveMaximum) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
