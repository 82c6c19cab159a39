#!/bin/sh
# Wheels that a bare machine with torch, transformers and Triton (Python 3.12, x86-64, no network) lacks for the whole package.
# `benchmarks/gpu.py` itself needs none of them; a run of a recipe does. usage: sh benchmarks/gpu_wheels.sh [folder]
# There: python3 -m pip install -q --no-index --no-deps --no-compile --no-cache-dir --upgrade --target /tmp/site .whl/*.whl
#        export PYTHONPATH=/tmp/site:src
set -e
folder=${1:-.whl}
version() { python3 -c "import importlib.metadata as m; print(m.version('$1'))"; }
pydantic=$(version pydantic)
core=$(python3 -c "
import importlib.metadata as m, re
print(next(re.search(r'==([\d.]+)', r)[1] for r in m.requires('pydantic') if r.startswith('pydantic-core')))")
python3 -m pip download --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  --platform manylinux_2_28_x86_64 --platform manylinux_2_27_x86_64 --platform manylinux_2_17_x86_64 \
  --platform manylinux2014_x86_64 --platform manylinux1_x86_64 -d "$folder" \
  "pydantic==$pydantic" "pydantic-core==$core" "annotated-types==$(version annotated-types)" \
  "typing-inspection==$(version typing-inspection)" "math-verify==0.9.0" \
  "latex2sympy2-extended==$(version latex2sympy2-extended)" "antlr4-python3-runtime==$(version antlr4-python3-runtime)" \
  "datasets==$(version datasets)" "dill==$(version dill)" "multiprocess==$(version multiprocess)" \
  "xxhash==$(version xxhash)" "truststore==$(version truststore)" "httpx2==$(version httpx2)" "httpcore2==$(version httpcore2)"
ls -lh "$folder"
