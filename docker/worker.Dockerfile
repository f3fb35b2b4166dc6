# The workers' image: everything that `python -m workers` needs, run as uid 1000 on a read-only root.
#   docker build -f docker/worker.Dockerfile -t jobctl-worker:0.1.0 .
#   docker build -f docker/worker.Dockerfile --build-arg REQUIREMENTS=cuda.txt -t jobctl-worker:0.1.0-cuda .
# BUILD_BASE and BASE must hold the same Python (3.11 or newer) at the same place. Tags move: pin both by digest, such as
#   --build-arg BASE=python:3.11-slim-bookworm@sha256:…   (docs/security.md says how to find it)
ARG BUILD_BASE=python:3.11-bookworm
ARG BASE=python:3.11-slim-bookworm

FROM ${BUILD_BASE} AS packages
# cpu.txt or cuda.txt. An index of one's own goes by PIP_INDEX_URL and PIP_EXTRA_INDEX_URL; they stay in this stage.
ARG REQUIREMENTS=cpu.txt
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
COPY requirements/${REQUIREMENTS} /requirements/
# Compiled modules stay: nobody could write them at run time, and torch's import takes twice as long without them. What
# goes is the compiler's side of torch, its own tests and pip.
RUN --mount=type=cache,target=/root/.cache/pip \
    python3 -m venv /opt/jobctl \
    && /opt/jobctl/bin/pip install --quiet --disable-pip-version-check --require-hashes -r /requirements/${REQUIREMENTS} \
    && find /opt/jobctl/lib/python3*/site-packages/torch/bin -mindepth 1 ! -name torch_shm_manager -delete \
    && rm -rf /opt/jobctl/bin/pip* /opt/jobctl/lib/python3*/site-packages/pip /opt/jobctl/lib/python3*/site-packages/pip-* \
        /opt/jobctl/lib/python3*/site-packages/torch/include /opt/jobctl/lib/python3*/site-packages/torch/test

FROM ${BASE}
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends libosmesa6 \
    && rm -rf /var/lib/apt/lists/*
COPY --from=packages /opt/jobctl /opt/jobctl
ENV PATH=/opt/jobctl/bin:$PATH PYTHONPATH=/opt/source PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 MUJOCO_GL=osmesa
# The source comes last: a change of it builds and pushes this layer alone.
COPY workers/ /opt/source/workers/
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG BASE
LABEL org.opencontainers.image.title="jobctl-worker" \
      org.opencontainers.image.description="Collects episodes, trains on them, evaluates the result" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 1000:1000
WORKDIR /tmp
ENTRYPOINT []
CMD ["python", "-m", "workers", "--help"]
