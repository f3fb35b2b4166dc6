{{- define "jobctl.podSpec" -}}
{{- $spec := .spec -}}
{{- $sizes := include "jobctl.sizes" . | fromJson -}}
restartPolicy: Never
terminationGracePeriodSeconds: {{ .graceSeconds }}
serviceAccountName: {{ .run | quote }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- if .group }}
subdomain: {{ .run | quote }}
{{- end }}
{{- if hasKey $spec.pod "hostUsers" }}
hostUsers: {{ $spec.pod.hostUsers }}
{{- end }}
{{- with $spec.scheduling.priority }}
priorityClassName: {{ quote . }}
{{- end }}
{{- with $spec.pod.runtimeClassName }}
runtimeClassName: {{ quote . }}
{{- end }}
{{- with $spec.pod.imagePullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ quote . }}
  {{- end }}
{{- end }}
{{- with $spec.scheduling.nodeSelector }}
nodeSelector:
  {{- include "jobctl.quoted" . | trim | nindent 2 }}
{{- end }}
{{- with include "jobctl.affinity" . }}
affinity:
  {{- nindent 2 . }}
{{- end }}
{{- with include "jobctl.tolerations" . }}
tolerations:
  {{- trim . | nindent 2 }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: {{ int64 $spec.pod.runAsUser }}
  runAsGroup: {{ int64 $spec.pod.fsGroup }}
  fsGroup: {{ int64 $spec.pod.fsGroup }}
  # A volume of many episodes is not walked through at every start.
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile:
    type: RuntimeDefault
containers:
  - name: worker
    image: {{ .image | quote }}
    # The config's place comes by environment, so that arguments hold no absolute path.
    command: ["python", "-m", "workers", {{ quote $spec.kind }}, "--config", "$(JOBCTL_CONFIG)"]
    env:
      {{- include "jobctl.env" . | trim | nindent 6 }}
    ports:
      {{- range $rank, $_ := until (int .processes) }}
      - name: metrics{{ if $rank }}-{{ $rank }}{{ end }}
        containerPort: {{ add $.metricsPort $rank }}
      {{- end }}
      {{- if .group }}
      - name: store
        containerPort: {{ .storePort }}
      {{- end }}
    resources:
      requests:
        {{- range $name, $quantity := $sizes.requests }}
        {{ quote $name }}: {{ quote $quantity }}
        {{- end }}
      limits:
        {{- range $name, $quantity := $sizes.limits }}
        {{ quote $name }}: {{ quote $quantity }}
        {{- end }}
    securityContext:
      allowPrivilegeEscalation: false
      readOnlyRootFilesystem: true
      capabilities:
        drop: [ALL]
    # The worker writes a summary there; its log's end would only repeat what `jobctl logs` shows.
    terminationMessagePolicy: File
    volumeMounts:
      - name: shared
        mountPath: /shared
      - name: config
        mountPath: /etc/jobctl
        readOnly: true
      - name: shm
        mountPath: /dev/shm
      - name: tmp
        mountPath: /tmp
volumes:
  - name: shared
    persistentVolumeClaim:
      claimName: {{ quote $spec.volume.claim }}
  - name: config
    configMap:
      name: {{ .fullname | quote }}
  - name: shm
    emptyDir:
      medium: Memory
      sizeLimit: {{ quote $sizes.shm }}
  - name: tmp
    emptyDir:
      sizeLimit: {{ quote $sizes.tmp }}
{{- end -}}
