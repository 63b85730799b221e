# One image for agent workers, the API and the CLI. The servers come from docker-compose.yml or from you.
FROM python:3.12.12-slim-bookworm AS build
WORKDIR /src
COPY pyproject.toml requirements.lock requirements-uv.lock README.md ./
RUN pip install --no-cache-dir --require-hashes -r requirements-uv.lock
# The lock has the tools of development too. `compile` picks the package's own versions from it; `install` compares each
# file with the lock's checksums. (`compile --generate-hashes` would take the checksums from the index itself.)
RUN uv pip compile --quiet --no-header --constraint requirements.lock pyproject.toml -o runtime.txt \
    && uv venv /venv \
    && VIRTUAL_ENV=/venv uv pip install --no-cache --compile-bytecode --require-hashes --constraint requirements.lock \
        -r runtime.txt
COPY . .
RUN VIRTUAL_ENV=/venv uv pip install --no-cache --no-deps --build-constraints requirements.lock .

FROM python:3.12.12-slim-bookworm
RUN useradd --create-home --uid 10001 holdfast
COPY --from=build /venv /venv
# Agents that are mounted into /app belong to a user of the host, not to ours: whoever starts the container chose them.
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HOLDFAST_SAFE_DIRECTORY=/app
WORKDIR /app
USER holdfast
CMD ["python", "-m", "holdfast.runtime", "agents"]
