"""Compiles forward.c, the C twin of the forward pass, once per machine, and loads it.

Nothing depends on it: torch does the work without a C compiler, for models that forward.c does not
know, and on other devices. A model uses it only if the logits agree with its own forward pass
(`glore.engines.local.runner`). `GLORE_NATIVE=0` switches it off.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from glore.errors import EngineError

__all__ = [
    "KINDS",
    "KNOWN",
    "Library",
    "can_quantize",
    "compiled",
    "compiler",
    "is_switched_off",
    "library",
    "no_quantization",
]

KNOWN = ("llama", "mistral", "qwen2", "qwen3")
"""Types of models that forward.c knows."""
KINDS = ("float32", "bfloat16", "int16", "int8")
"""Types of products, in the order of forward.c."""

_FLAGS = (
    "-O3",
    "-march=native",
    "-std=gnu11",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-shared",
    "-fPIC",
)
_COMPILE_SECONDS = 120
_log = logging.getLogger(__name__)

Library = ctypes.CDLL


def can_quantize(kind: str, model_type: str | None) -> bool:
    """Whether this machine computes products of this kind for this type of model.

    `model_type` none: for a known one.
    """
    code = library()
    return (
        (model_type is None or model_type in KNOWN)
        and code is not None
        and bool(code.glore_has(KINDS.index(kind)))
    )


def no_quantization(kind: str, model_type: str, refusal: str = "") -> EngineError:
    """The error for a model or machine that can't be quantized.

    `refusal`: why the start-up check refused this model, if it got that far.
    """
    if refusal:
        return EngineError(
            f"engine.quantization {kind} does not suit this {model_type} model: {refusal}. Leave "
            "engine.quantization out, or use int16 or engine.dtype=bfloat16"
        )
    return EngineError(
        f"engine.quantization {kind} needs a C compiler, a CPU with AVX512-VNNI instructions and a "
        f"Llama, Mistral, Qwen2 or Qwen3 model; this {model_type} model can't use it here. Leave "
        "engine.quantization out"
    )


def is_switched_off() -> bool:
    """Whether the user wants no compiled code."""
    return os.environ.get("GLORE_NATIVE", "1") == "0"


@cache
def library() -> Library | None:
    """The compiled code; none if it is switched off or can't be compiled (the log says why)."""
    if is_switched_off():
        return None
    found = compiler()
    if found is None:
        _log.info(
            "no C compiler (cc, gcc, clang): sampling runs on torch alone, several times slower "
            "on a CPU"
        )
        return None
    try:
        source, included = (Path(__file__).with_name(name) for name in ("forward.c", "pages.h"))
        return _typed(ctypes.CDLL(str(compiled(found, source, included))))
    except (OSError, subprocess.SubprocessError) as error:
        _log.warning(
            "forward.c was not compiled, sampling runs on torch alone: %s",
            " ".join(str(error).split())[:300],
        )
        return None


def compiler() -> str | None:
    """The C compiler: `CC`, or the first of cc, gcc and clang that is there."""
    names = (os.environ.get("CC"), "cc", "gcc", "clang")
    return next((path for name in names if name and (path := shutil.which(name))), None)


def compiled(compiler: str, source: Path, *included: Path) -> Path:
    """A shared library of a C file, which includes the others, for this processor.

    It comes from the cache if that has one for this source, compiler and processor. Raises OSError
    and subprocess.SubprocessError where it can't be compiled.
    """
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, check=True, timeout=_COMPILE_SECONDS
    ).stdout
    text = b"".join(
        (
            *(file.read_bytes() for file in (source, *included)),
            version,
            repr((_FLAGS, _processor())).encode(),
        )
    )
    key = hashlib.blake2b(text, digest_size=12).hexdigest()
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "glore"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if not os.access(folder, os.W_OK) or folder.stat().st_uid != os.getuid():
            raise PermissionError(folder)
    except (OSError, RuntimeError):  # RuntimeError: no home folder
        folder = Path(tempfile.mkdtemp(prefix="glore-"))
    target = folder / f"{source.stem}-{key}.so"
    if not target.is_file():
        # Of this process alone: machines that share a home folder share process numbers too.
        with tempfile.TemporaryDirectory(prefix=".native-", dir=folder) as made:
            temporary = Path(made) / target.name
            command = [compiler, *_FLAGS, "-o", str(temporary), str(source), "-lm", "-lpthread"]
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=_COMPILE_SECONDS
            )
            if done.returncode != 0:
                raise OSError(f"{compiler}: {done.stderr}")
            temporary.replace(target)
    return target


def _processor() -> str:
    """What `-march=native` depends on, since machines may share a cache."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return platform.machine() + next(
        (line for line in lines if line.lower().startswith(("flags", "features"))), ""
    )


def _typed(code: Library) -> Library:
    pointer, number, real = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double
    code.glore_forward.argtypes = [pointer, pointer, number]
    code.glore_attend.argtypes = [
        pointer,
        number,
        pointer,
        pointer,
        pointer,
        pointer,
        number,
        number,
        number,
        real,
        real,
        number,
        number,
    ]
    code.glore_draw.argtypes = [
        pointer,
        pointer,
        number,
        number,
        pointer,
        pointer,
        pointer,
        number,
    ]
    code.glore_pack.argtypes = [pointer, pointer, number, number, number, pointer]
    code.glore_has.argtypes = [number]
    code.glore_has.restype = number
    code.glore_packed_size.argtypes = [number, number, number, number]
    code.glore_packed_size.restype = number
    return code
