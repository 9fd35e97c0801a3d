# One image for api, worker, migrations and CLI.
# pip's own settings reach the build as arguments, for example a CPU build of torch from an index of yours:
#   docker compose build --build-arg PIP_EXTRA_INDEX_URL=...
FROM python:3.11-slim-bookworm AS build
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
RUN python -m venv /opt/traind
WORKDIR /src
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY traind traind
COPY api api
COPY jobs jobs
COPY worker worker
COPY optim_core optim_core
COPY local local
COPY migrations migrations
RUN /opt/traind/bin/pip install --no-cache-dir --constraint constraints.txt ".[server,worker]"

FROM python:3.11-slim-bookworm
# OpenMP for the native kernel, where torch brings none under this name. Fashion-MNIST: 31 MB, MIT licence.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 dataset-fashion-mnist \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 10001 traind && mkdir -p /home/traind/.cache/traind && chown -R traind /home/traind/.cache
COPY --from=build /opt/traind /opt/traind
ENV PATH=/opt/traind/bin:$PATH PYTHONUNBUFFERED=1
USER traind
WORKDIR /home/traind
EXPOSE 8321
STOPSIGNAL SIGTERM
CMD ["traind", "--help"]
