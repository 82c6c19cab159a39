"""A model's folder, checked before transformers reads it: no code, no pickles, no damage, no absurd
sizes.

Every refusal is a ModelError in one line. The files are untrusted data: JSON is read up to a
limit, and only the headers of the weights are read.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from glore.adapter_folder import is_adapter, is_own_adapter
from glore.config.training import is_local
from glore.digests import DIGESTS, check_digests, read_digests
from glore.errors import ModelError, printable, shown

__all__ = [
    "LOOPED",
    "PICKLES",
    "SAFE",
    "SAFE_INDEX",
    "ModelFolder",
    "check_config",
    "in_one_line",
    "is_pickled",
    "open_folder",
    "own_code",
    "read_json",
    "sizes",
    "split_reference",
]

_log = logging.getLogger(__name__)

SAFE, SAFE_INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
"""The files of pickled weights that transformers reads."""
_PICKLED = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_READ = re.compile(
    r".*\.(safetensors|model|jinja|bin)|.*\.safetensors\.index\.json"
    r"|(adapter|generation)_config\.json|(vocab|added_tokens|chat_template|tokenizer"
    r"|tokenizer_config|special_tokens_map)\.json|(vocab|merges)\.txt"
)
"""Files at the top of a folder that a loader reads."""
_WANTED = ["*.json", "*.txt", "*.model", "*.tiktoken", "*.jinja"]
_WANTED_WEIGHTS = ["model.safetensors", "model-?????-of-?????.safetensors"]
_MAX_JSON_BYTES = 1 << 24
_PINNED = re.compile(r"([\w.-]+(?:/[\w.-]+)?)@([\w./-]+)")

LOOPED = re.compile(
    r"(num_|n_)?(hidden_|encoder_|decoder_)?layers?|num_(encoder|decoder)_layers|n_layer|num_labels"
)
"""Settings of a config.json for which transformers makes that many objects."""
_SIZES = re.compile(
    r"(.*_)?(size|dim|layers?|heads?|experts|embd|inner|ctx|positions|embeddings|d_model|d_ff|d_kv|d_inner)"
)
MAX_LOOPED, MAX_SIZE = 10_000, 1 << 31
_said: set[str] = set()


class ModelFolder(NamedTuple):
    """A model whose files were found and checked."""

    name: str
    """Argument of `from_pretrained`: a folder, or a name on the Hub."""
    folder: Path
    """Where its files are."""
    revision: str | None
    """The commit of a model on the Hub."""
    pickle: bool
    """True if its pickled weights were requested by name."""
    config: Mapping[str, object]
    """The content of config.json."""

    @property
    def options(self) -> dict[str, object]:
        """Keyword arguments of `from_pretrained` for a configuration or a tokenizer."""
        return {"trust_remote_code": False} | ({"revision": self.revision} if self.revision else {})

    @property
    def weight_options(self) -> dict[str, object]:
        """The same for weights: safetensors, or pickles without objects that run code."""
        return {**self.options, "use_safetensors": not self.pickle, "weights_only": True}


def split_reference(path: str | Path) -> tuple[str, str | None]:
    """`NAME@REVISION` of the Hub → name and revision. A folder or a bare name has no revision."""
    text = str(path)
    found = None if isinstance(path, Path) or Path(text).is_dir() else _PINNED.fullmatch(text)
    return (found[1], found[2]) if found else (text, None)


def open_folder(path: str | Path, what: str, weights: bool = True) -> ModelFolder:
    """Find and check the model at `path`. `what`: the kind of model, for messages; `weights`: the
    weights are needed too. Raises ModelError.

    `path` is a folder, a name on the Hub, NAME@REVISION (which is fetched), or a file
    `…/pytorch_model.bin` to request pickled weights by name.
    """
    (text, revision), pickle = split_reference(path), False
    if Path(text).name in PICKLES and Path(text).is_file():
        text, pickle = str(Path(text).parent), True
    if (isinstance(path, Path) or is_local(text)) and not Path(text).is_dir():
        raise ModelError(
            f"no model folder {shown(text)}; give the folder of a saved model, or a Hub name like "
            "Qwen/Qwen2.5-0.5B"
        )
    is_here = Path(text).is_dir()
    folder = Path(text) if is_here else _fetched(text, what, revision, weights)
    where = f"can't load a {what} from {shown(str(path))}"
    if is_adapter(folder) and (weights or not is_own_adapter(folder)):
        raise ModelError(
            f"{where}: it holds an adapter (adapter_config.json); merge it into its base first "
            "(docs/usage.md, Adapters) and give the merged model"
        )
    if not (folder / "config.json").is_file():
        raise ModelError(
            f"the folder {shown(text)} holds no config.json, so it is no saved model; give a "
            "folder that save_pretrained wrote"
        )
    if is_here:
        _check_unchanged(folder, where)
    config = read_json(folder / "config.json", where)
    check_config(config, where)
    if weights and not pickle:
        _check_safe(folder, config, where)
    return ModelFolder(text, folder, None if is_here else folder.name, pickle, config)


def _fetched(name: str, what: str, revision: str | None, weights: bool) -> Path:
    """Download a model of the Hub to the cache, and return the folder. Neither code nor pickles are
    fetched.
    """
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    bars = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        wanted = [*_WANTED, *(_WANTED_WEIGHTS if weights else ())]
        return Path(
            snapshot_download(
                name,
                revision=revision,
                allow_patterns=wanted,
                ignore_patterns=["*/*"],
                # Without it, huggingface_hub before 2.0 asks the Hub about a commit even offline.
                local_files_only=constants.HF_HUB_OFFLINE,
            )
        )
    except Exception as error:
        asked = name if revision is None else f"{name}@{revision}"
        raise ModelError(
            f"can't load a {what} from {shown(asked)}: it is no local folder, and can't be fetched "
            f"from the Hugging Face Hub ({in_one_line(error)}); give the folder of a saved model, "
            "or a Hub name like Qwen/Qwen2.5-0.5B"
        ) from error
    finally:
        if bars:
            enable_progress_bars()


def _check_unchanged(folder: Path, where: str) -> None:
    """Refuse a folder that glore wrote if a file has changed, or if a file was added that a loader
    would read.
    """
    check_digests(folder)
    known = read_digests(folder)
    if known is None:
        return
    for path in sorted(folder.iterdir()):
        if path.name not in known and path.name != DIGESTS and _READ.fullmatch(path.name):
            raise ModelError(
                f"{where}: it holds {shown(path.name)}, which glore did not write there; remove "
                "that file, or use a copy of the folder elsewhere"
            )


def read_json(path: Path, where: str) -> dict[str, object]:
    """The JSON object in a file. `where`: how a message begins. Raises ModelError."""
    try:
        with path.open("rb") as stream:
            text = stream.read(_MAX_JSON_BYTES + 1)
        data = json.loads(text) if len(text) <= _MAX_JSON_BYTES else None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(
            f"{where}: its {path.name} can't be read ({in_one_line(error)}); copy it again"
        ) from error
    if not isinstance(data, dict):
        raise ModelError(
            f"{where}: its {path.name} holds no JSON object of at most {_MAX_JSON_BYTES:,} bytes; "
            "copy it again"
        )
    return data


def own_code(found: ModelFolder, what: str) -> list[str]:
    """Names of the code that the folder brings along (`auto_map`). glore doesn't run it, and warns
    once per folder.
    """
    where = f"can't load a {what} from {shown(found.name)}"
    maps = [found.config.get("auto_map")]
    if (found.folder / "tokenizer_config.json").is_file():
        maps.append(read_json(found.folder / "tokenizer_config.json", where).get("auto_map"))
    named = [printable(str(name), 80) for given in maps for name in _leaves(given)]
    if named and found.name not in _said:
        _said.add(found.name)
        _log.warning(
            "%s: its own code (%s) is not run; transformers' own code is used instead",
            shown(found.name),
            ", ".join(named[:3]),
        )
    return named


def _leaves(given: object) -> Iterator[object]:
    if isinstance(given, dict | list):
        for value in given.values() if isinstance(given, dict) else given:
            yield from _leaves(value)
    elif given is not None:
        yield given


def check_config(config: Mapping[str, object], where: str) -> None:
    """Refuse a config.json that would run code from elsewhere or make a model of absurd size."""
    named = config.get("transformers_weights")
    if named is not None and not (isinstance(named, str) and named in (SAFE, SAFE_INDEX)):
        raise ModelError(
            f"{where}: its config.json names the weights {shown(named)}; they are read from {SAFE} "
            f"or {SAFE_INDEX} only"
        )
    for key, value in sizes(config):
        # Written so that NaN is refused, too.
        if not value <= (most := MAX_LOOPED if LOOPED.fullmatch(key) else MAX_SIZE):
            raise ModelError(
                f"{where}: its config.json sets {printable(key, 60)} to {shown(value, 40)}, and "
                f"the limit is {most:,}; correct the file"
            )


def sizes(config: object, depth: int = 0) -> Iterator[tuple[str, int | float]]:
    """Name and value of every size in a config.json, with those of models inside the model."""
    if isinstance(config, dict) and depth < 8:
        for key, value in config.items():
            if isinstance(value, dict):
                yield from sizes(value, depth + 1)
            elif (
                isinstance(value, int | float)
                and not isinstance(value, bool)
                and (LOOPED.fullmatch(key) or _SIZES.fullmatch(key))
            ):
                yield key, value


def _check_safe(folder: Path, config: Mapping[str, object], where: str) -> None:
    """Refuse weights that are not safetensors, or that are quantised."""
    if config.get("quantization_config") is not None:
        raise ModelError(
            f"{where}: its weights are quantised (quantization_config); give the model in float32, "
            "float16 or bfloat16"
        )
    if (folder / SAFE).exists() or (folder / SAFE_INDEX).exists():
        return
    pickles = sorted(p.name for p in folder.iterdir() if is_pickled(p))
    if pickles:
        name = next(
            (p for p in (PICKLES[1], PICKLES[0]) if p in pickles or (folder / p).exists()), None
        )
        asked = (
            f"name the file itself on the command line: base.model={folder / name}"
            if name
            else "convert them first"
        )
        raise ModelError(
            f"{where}: its weights are pickled ({shown(pickles[0])}), and pickles can run code "
            f"when they are read; give a model in safetensors, or, if you trust it, {asked}"
        )
    raise ModelError(
        f"{where}: it holds no weights ({SAFE} or {SAFE_INDEX}); copy the whole folder"
    )


def is_pickled(path: Path) -> bool:
    """Whether the file's name is one of pickled weights."""
    return path.suffix in _PICKLED or path.name in PICKLES


def in_one_line(error: Exception) -> str:
    """An error's message on one line, cut to 200 characters."""
    return printable(" ".join(str(error).split()) or type(error).__name__, 200)
