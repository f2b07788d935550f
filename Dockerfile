# One build for both: `docker build .` for CPU, `docker build --build-arg FLAVOUR=gpu .` for CUDA.
ARG FLAVOUR=default
ARG BASE_default=python:3.12-slim-bookworm
ARG BASE_gpu=nvidia/cuda:12.8.1-runtime-ubuntu24.04

FROM ${BASE_default} AS base-default
FROM ${BASE_gpu} AS base-gpu
RUN apt-get update \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends python3 python3-venv python-is-python3 \
    && rm -rf /var/lib/apt/lists/*

FROM base-${FLAVOUR} AS final
ARG FLAVOUR=default
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/docfleet/bin:$PATH
WORKDIR /srv/docfleet
COPY requirements/ requirements/
RUN python -m venv /opt/docfleet \
    && pip install --no-cache-dir --no-deps --require-hashes -r requirements/${FLAVOUR}.txt
COPY server.py client.py _config_endpoint.py device_utils.py LICENSE ./
COPY docfleet/ docfleet/
RUN useradd --system --create-home --uid 10001 docfleet && install -d -o docfleet /data
USER docfleet
ENV DOCFLEET_HOST=0.0.0.0 DOCFLEET_DATA_DIR=/data
VOLUME /data
EXPOSE 8000
# Loading models takes longer than starting: /livez tells that the server is up, /readyz that it can parse.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/livez', timeout=4)"]
ENTRYPOINT ["python", "server.py"]
