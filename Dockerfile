FROM python:3.13-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY migrations migrations
COPY llmproxy llmproxy
RUN python -m venv /opt/llmproxy
RUN /opt/llmproxy/bin/python -m pip install --no-cache-dir '.[postgres]'

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /data llmproxy \
    && install --directory --owner=llmproxy --mode=0700 /data
COPY --from=build /opt/llmproxy /opt/llmproxy
# Outside the container only the published port is reached; the address asks for LLMPROXY_ADMIN_TOKEN all the same.
ENV PATH=/opt/llmproxy/bin:$PATH
ENV LLMPROXY_HOST=0.0.0.0
ENV DATABASE_PATH=/data/llmproxy.db
ENV LLMPROXY_LOG_FORMAT=json
USER llmproxy
WORKDIR /data
VOLUME /data
EXPOSE 4141
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s CMD ["python", "-m", "llmproxy.cli.health"]
ENTRYPOINT ["llmproxy"]
CMD ["serve"]
