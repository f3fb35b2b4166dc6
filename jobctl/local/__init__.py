"""The local backend: rendered manifests as processes of this machine, with the meaning that batch/v1 gives them.

    submit ── translate ──> state directory ──> supervisor (one detached process a revision, the Job controller)
                                                    └── shim (one a pod, the kubelet) ── the container's process

A command talks to a supervisor through files only, so it works from any shell. Linux only (subreaper, /proc).
This package must not import what takes long to import: a job starts in the time that this package loads.
"""
