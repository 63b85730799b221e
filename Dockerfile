# One image for agent workers, the API and the CLI. The servers come from docker-compose.yml or from you.
FROM python:3.12.12-slim-bookworm AS build
RUN pip install --no-cache-dir uv==0.9.7
WORKDIR /src
COPY pyproject.toml requirements.lock README.md ./
# The lock has the tools of development too: take its versions and hashes for what the package itself needs.
RUN uv pip compile --quiet --no-header --generate-hashes --constraint requirements.lock pyproject.toml -o runtime.lock \
    && uv venv /venv \
    && VIRTUAL_ENV=/venv uv pip install --no-cache --compile-bytecode --require-hashes -r runtime.lock
COPY . .
RUN VIRTUAL_ENV=/venv uv pip install --no-cache --no-deps .

FROM python:3.12.12-slim-bookworm
RUN useradd --create-home --uid 10001 holdfast
COPY --from=build /venv /venv
# Agents that are mounted into /app belong to a user of the host, not to ours: whoever starts the container chose them.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HOLDFAST_SAFE_DIRECTORY=/app
WORKDIR /app
USER holdfast
CMD ["python", "-m", "holdfast.runtime", "agents"]
