# The program and its tracing, which is off by default; PostgreSQL and the queue are elsewhere. Build it in a checkout:
#   docker build --tag birthday-scheduler --build-arg REVISION="$(git rev-parse HEAD)" .
FROM python:3.11-slim-bookworm AS build
RUN python -m venv /opt/birthday-scheduler
ENV PATH=/opt/birthday-scheduler/bin:$PATH
WORKDIR /build
# What is pinned changes less often than the program, so it is a layer of its own.
COPY requirements-container.lock ./
RUN pip install --no-cache-dir --no-deps --require-hashes --requirement requirements-container.lock
COPY pyproject.toml README.md LICENSE ./
COPY birthday birthday
COPY schema schema
COPY docs/runbook.md docs/
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && pip check \
    && pip uninstall --yes setuptools pip

FROM python:3.11-slim-bookworm
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Birthday Scheduler" \
    org.opencontainers.image.description="Sends each user one birthday message at 09:00 in their own time zone" \
    org.opencontainers.image.licenses="MIT" \
    org.opencontainers.image.revision="$REVISION"
RUN groupadd --gid 10001 birthday \
    && useradd --uid 10001 --gid birthday --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin birthday \
    && install --directory --owner birthday --group birthday /var/log/birthday-scheduler
COPY --from=build /opt/birthday-scheduler /opt/birthday-scheduler
# Nobody outside reaches loopback. With this address and without API_KEYS the role api does not start.
ENV PATH=/opt/birthday-scheduler/bin:$PATH \
    HOST=0.0.0.0 \
    BIRTHDAY_COMMIT=$REVISION \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1
# A number, because Kubernetes cannot tell from a name that it is not root.
USER 10001:10001
WORKDIR /tmp
EXPOSE 3000
STOPSIGNAL SIGTERM
# Not through urllib, which would ask HTTP_PROXY. A HOST that is neither loopback nor everything needs a check of its own.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 CMD ["python", "-c", "\
import http.client, os, sys; \
connection = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PORT') or 3000), timeout=4); \
connection.request('GET', '/alive'); \
sys.exit(connection.getresponse().status != 200)"]
ENTRYPOINT ["birthday"]
