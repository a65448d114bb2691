# One image for the bot and the worker; docker-compose.yml says which of the two a container is.
FROM python:3.11-slim

ARG TORCH_BACKEND=cpu
WORKDIR /app

RUN pip install --no-cache-dir uv
COPY pyproject.toml constraints.txt ./
RUN uv pip install --system --no-cache --compile-bytecode --torch-backend=${TORCH_BACKEND} \
    --constraint constraints.txt --requirement pyproject.toml

# Editable, so that the presets in configs/ and the texts in corpora/ are found beside the code.
COPY . .
RUN uv pip install --system --no-cache --no-deps --editable . \
    && python -m compileall -q bot trainer \
    && useradd --uid 1000 --no-create-home trainer \
    && mkdir -p /data/corpus /data/artifacts /data/logs /data/corpus_cache /hf-cache \
    && chmod 1777 /data/* /hf-cache

ENV APP__DATA_ROOT=/data \
    APP__ARTIFACTS_ROOT=/data/artifacts \
    HF_HOME=/hf-cache \
    HOME=/tmp \
    PYTHONUNBUFFERED=1
VOLUME ["/data/artifacts", "/data/logs", "/data/corpus_cache", "/hf-cache"]
USER 1000
CMD ["mt", "up"]
