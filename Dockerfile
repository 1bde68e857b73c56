# A batch job that scores prompts, on CPU. The artefact is mounted, never built in.
#
#   docker build --tag promptassay --build-arg TORCH_INDEX_URL=… .
#   docker run --rm --network none --read-only --tmpfs /tmp --user "$(id -u):$(id -g)" \
#       --volume "$PWD/build/demo/model:/model:ro" --volume "$PWD/prompts:/data" \
#       promptassay score prompts.jsonl --model /model --output scored.parquet --threads 2
#
# /model  an artefact's folder; reading is enough
# /data   the working directory: prompts, outputs and their ledgers. Whoever runs the job must be able to write here.
# /tmp    all else that is written
#
# Under --cpus the network would still start a thread for every core of the host: say --threads, or use --cpuset-cpus.
# A stopped job keeps what it has scored and goes on with --resume.

# No registry was at hand to look up a digest: pin one (python:…@sha256:…) where builds must be repeatable to the byte.
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
# Where torch for CPU alone is found; without it pip takes the default build for Linux, which brings gigabytes of CUDA.
ARG TORCH_INDEX_URL=
# pip reads both by itself, and passes over them where they are empty. Nothing of this stage but /opt/promptassay ships.
ARG PIP_INDEX_URL=
ARG PIP_EXTRA_INDEX_URL=
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY constraints.txt ./
RUN python -m venv --without-pip /opt/promptassay \
    && pip --python /opt/promptassay/bin/python install --no-cache-dir --no-deps --constraint constraints.txt \
        ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} torch
COPY pyproject.toml README.md LICENSE ./
COPY inference inference
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels . \
    && pip --python /opt/promptassay/bin/python install --no-cache-dir --constraint constraints.txt /wheels/*.whl

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="promptassay" \
    org.opencontainers.image.description="Tells from the content of a prompt whether it is built to distil a language model" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/promptassay /opt/promptassay
# HOME lets any user run it, also one without an account here. SIGINT ends a job in order; PID 1 would ignore SIGTERM.
ENV PATH="/opt/promptassay/bin:$PATH" HOME=/tmp HF_HUB_OFFLINE=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
STOPSIGNAL SIGINT
WORKDIR /data
USER 10001:10001
ENTRYPOINT ["promptassay"]
CMD ["--help"]
