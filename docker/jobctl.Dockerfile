# jobctl with Helm and its charts, for running it inside a cluster (a CI step, a CronJob): uid 1000, read-only root.
#   docker build -f docker/jobctl.Dockerfile -t jobctl:0.1.0 .
#   docker run --rm jobctl:0.1.0 render train
# BUILD_BASE and BASE must hold the same Python (3.11 or newer) at the same place. Tags move: pin both by digest, such as
#   --build-arg BASE=python:3.11-slim-bookworm@sha256:…   (docs/security.md says how to find it)
ARG BUILD_BASE=python:3.11-bookworm
ARG BASE=python:3.11-slim-bookworm

FROM ${BUILD_BASE} AS packages
# An index of one's own goes by these two; they stay in this stage.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
COPY requirements/helm.txt /set-up/requirements/
COPY scripts/setup.py /set-up/scripts/
RUN python3 -m venv /opt/jobctl && python3 /set-up/scripts/setup.py --helm /opt/jobctl/bin/helm
COPY requirements/jobctl.txt /requirements/
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/jobctl/bin/pip install --quiet --disable-pip-version-check --require-hashes -r /requirements/jobctl.txt \
    && rm -rf /opt/jobctl/lib/python3*/site-packages/pip /opt/jobctl/lib/python3*/site-packages/pip-* /opt/jobctl/bin/pip* \
    && printf "%s\n" "#!/opt/jobctl/bin/python" "import sys" "from jobctl.cli.main import main" "sys.exit(main())" > /opt/jobctl/bin/jobctl \
    && chmod 755 /opt/jobctl/bin/jobctl

FROM ${BASE}
COPY --from=packages /opt/jobctl /opt/jobctl
# Helm and jobctl keep what they remember under HOME: mount a volume there where the root is read-only.
ENV PATH=/opt/jobctl/bin:$PATH PYTHONPATH=/opt/source PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
COPY charts/ /opt/source/charts/
COPY jobctl/ /opt/source/jobctl/
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG BASE
LABEL org.opencontainers.image.title="jobctl" \
      org.opencontainers.image.description="Kubernetes batch jobs for collecting episodes, training and evaluating" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.base.name="${BASE}" \
      org.opencontainers.image.licenses="Apache-2.0"
USER 1000:1000
WORKDIR /tmp
ENTRYPOINT ["jobctl"]
CMD ["--help"]
