# glore in a container: the target `cpu`, or `cuda` (needs the NVIDIA Container Toolkit on the host).
#   docker build --target cpu --tag glore .
#   docker run --rm --user "$(id -u):$(id -g)" --env HOME=/tmp --volume "$PWD":/work glore run quickstart
#   docker build --target cuda --tag glore:cuda .
#   docker run --rm --gpus all … glore:cuda run gsm8k
ARG PYTHON=3.12-slim-bookworm

FROM python:${PYTHON} AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY src src
COPY recipes recipes
RUN pip install --no-cache-dir hatchling==1.33.0 \
    && pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheel .

FROM python:${PYTHON} AS base
# The sampler compiles its CPU kernels at the first use, and Triton its GPU kernels. Debian keeps no
# older versions of a package, so a pinned one could not be installed for long.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home glore
COPY requirements.lock /tmp/requirements.lock

FROM base AS cpu
RUN pip install --no-cache-dir --constraint /tmp/requirements.lock torch \
    --index-url https://download.pytorch.org/whl/cpu
COPY --from=wheel /wheel /tmp/wheel
RUN pip install --no-cache-dir --constraint /tmp/requirements.lock \
    "$(echo /tmp/wheel/*.whl)[serve,gguf,peft,tensorboard]"
USER 1000
WORKDIR /work
ENTRYPOINT ["glore"]
CMD ["--help"]

FROM base AS cuda
# PyPI's torch brings CUDA's libraries along; the driver is the host's.
RUN pip install --no-cache-dir --constraint /tmp/requirements.lock torch
COPY --from=wheel /wheel /tmp/wheel
RUN pip install --no-cache-dir --constraint /tmp/requirements.lock \
    "$(echo /tmp/wheel/*.whl)[serve,gguf,peft,tensorboard]"
USER 1000
WORKDIR /work
ENTRYPOINT ["glore"]
CMD ["--help"]
