# syntax=docker/dockerfile:1
# CPU:  docker build --build-arg TORCH_INDEX=ADDRESS .   (an index with torch's builds for CPUs; without, CUDA's are installed)
# CUDA: docker build --build-arg BASE=nvidia/cuda:12.8.1-base-ubuntu24.04 .
ARG BASE=debian:12-slim
FROM ${BASE}
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1 HF_HUB_OFFLINE=1 PATH=/opt/venv/bin:$PATH
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY genre_lightning genre_lightning
COPY configs configs
COPY slurm slurm
# the tested versions
ARG TORCH_INDEX=
RUN python3 -m venv /opt/venv \
 && pip install --constraint requirements.lock ${TORCH_INDEX:+--extra-index-url "$TORCH_INDEX"} '.[serve]' \
 && useradd --system --uid 10001 --create-home films \
 && mkdir /data && chown films /data
USER 10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# STOPSIGNAL is SIGTERM: the requests that were received are finished
ENTRYPOINT ["genre-lightning", "serve"]
CMD ["/run/model", "--host", "0.0.0.0", "--db", "/data/feedback.db"]
