# SplitVeil's server, and nothing of the lab: docker build -t registry/splitveil:0.1.0 .
# A base image that cannot change: --build-arg BASE=python@sha256:... (docker buildx imagetools inspect tells it).
# The KServe manifest of `splitveil bundle export --to kserve` names such an image and gives it other arguments.
ARG BASE=python:3.11-slim
FROM ${BASE} AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY locks ./locks
COPY src ./src
# Every package is one whose hash the lock names; ours is built by such packages, and brings no other.
RUN python -m venv /opt/build && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement locks/build.txt \
    && /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && python -m venv /opt/splitveil \
    && /opt/splitveil/bin/pip install --no-cache-dir --require-hashes --only-binary :all: --requirement locks/server.txt \
    && /opt/splitveil/bin/pip install --no-cache-dir --no-deps --no-index /wheels/*.whl

FROM ${BASE}
COPY --from=build /opt/splitveil /opt/splitveil
# Nobody in particular; the manifest runs it under the same number.
USER 65532:65532
ENV PYTHONUNBUFFERED=1
EXPOSE 8001 8000
# The server's own metrics, plain on loopback, whatever TLS and tokens it asks of others; `splitveil_model` is there
# once the golden self-test has passed. Kubernetes has a probe of its own.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["/opt/splitveil/bin/python", "-c", "from urllib.request import urlopen; assert b'splitveil_model{' in urlopen('http://127.0.0.1:9090/metrics', timeout=2).read()"]
ENTRYPOINT ["/opt/splitveil/bin/splitveil"]
# Mount the cloud half, the certificate with its key, and the tokens at these places.
CMD ["serve", "/mnt/models", "--host", "0.0.0.0", "--http-port", "8000", "--metrics-port", "9090", "--tls-cert", "/etc/splitveil/tls/tls.crt", "--tls-key", "/etc/splitveil/tls/tls.key", "--token-file", "/etc/splitveil/tokens/tokens"]
