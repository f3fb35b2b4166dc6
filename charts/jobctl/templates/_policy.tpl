{{- /*
What a worker's exit code means for the Job; the first rule that matches counts.
64 bad configuration, 65 bad data, 66 gate missed, 70 no progress: trying again would end the same way.
A pod that was taken away, or left with 75 (interrupted, state saved), 76 (peers lost) or 143 (SIGTERM before it could
say 75), comes back without touching the retries. Everything else is a crash, and counted.
*/ -}}
{{- define "jobctl.podFailurePolicy" -}}
rules:
  - action: {{ eq .spec.kind "train" | ternary "FailJob" "FailIndex" }}
    onExitCodes:
      containerName: worker
      operator: In
      values: [64, 65, 66, 70]
  - action: Ignore
    onPodConditions:
      - type: DisruptionTarget
        status: "True"
  - action: Ignore
    onExitCodes:
      containerName: worker
      operator: In
      values: [75, 76, 143]
{{- end -}}
