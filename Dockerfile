# Two images: `bot` (no torch) and `worker`; docker-compose.yml builds both.
# docker build --target worker --build-arg TORCH_BACKEND=cu130 .    (cpu, the default, or a CUDA version as uv names it)
# EXTRAS: corpora fetches batteries by name and builds corpora; corpora,turkic also those of Turkic languages.
FROM python:3.11-slim AS build
RUN pip install --no-cache-dir uv==0.13.9 && python -m venv --without-pip /opt/venv
ENV VIRTUAL_ENV=/opt/venv
WORKDIR /app
COPY pyproject.toml constraints.txt ./

FROM build AS build-bot
RUN uv pip install --no-cache --compile-bytecode \
    --constraint constraints.txt --requirement pyproject.toml --extra discord --extra agents
COPY . .
RUN uv pip install --no-cache --no-deps --compile-bytecode .

FROM build AS build-worker
ARG TORCH_BACKEND=cpu
RUN uv pip install --no-cache --compile-bytecode --torch-backend=${TORCH_BACKEND} \
    --constraint constraints.txt --requirement pyproject.toml --extra train --extra onnx
ARG EXTRAS="corpora"
COPY . .
RUN uv pip install --no-cache --compile-bytecode --constraint constraints.txt ".${EXTRAS:+[${EXTRAS}]}"

# Letters of most scripts for pictures; FONTS="fonts-noto-core fonts-noto-extra" takes others.
FROM build AS fonts
ARG FONTS="fonts-noto-core fonts-noto-cjk"
# Debian removes earlier versions, so a pinned one would end the build.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends ${FONTS}

FROM python:3.11-slim AS app
COPY --from=fonts /usr/share/fonts /usr/share/fonts
# Volumes start with the rights of these folders, so that each user of compose's MT_USER can write to them.
RUN useradd --uid 1000 --no-create-home trainer \
    && mkdir -p /data/corpus /data/artifacts /data/batteries /data/corpus_cache /hf-cache \
    && chmod 1777 /data/* /hf-cache
ENV PATH=/opt/venv/bin:$PATH \
    APP__DATA_ROOT=/data \
    APP__ARTIFACTS_ROOT=/data/artifacts \
    HF_HOME=/hf-cache \
    HOME=/tmp \
    PYTHONUNBUFFERED=1
WORKDIR /app
VOLUME ["/data/artifacts", "/data/batteries", "/data/corpus_cache", "/hf-cache"]
USER 1000

FROM app AS worker
COPY --from=build-worker /opt/venv /opt/venv
# The worker's own record in Redis, which it renews while its event loop runs.
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s CMD ["python", "-P", "-m", "trainer.worker.health_check"]
CMD ["mt", "worker"]

FROM app AS bot
COPY --from=build-bot /opt/venv /opt/venv
ENV QUEUE__EMBEDDED_WORKERS=0
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=30s \
    CMD ["python", "-P", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
CMD ["mt", "up"]
