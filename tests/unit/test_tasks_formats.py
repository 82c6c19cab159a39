"""What `task.path` reads: every form in which users of `datasets` keep problems, each the same
problems; and what it refuses.
"""

from __future__ import annotations

import bz2
import csv
import gzip
import json
import lzma
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, load_dataset_builder

from glore.config import TaskSettings
from glore.errors import ConfigError, DataError
from glore.records import Problem
from glore.tasks import open_task
from glore.tasks.data.layout import find_data
from glore.tasks.data.readers import read_rows
from glore.tasks.open import data_contents

Rows = list[dict[str, str]]

TRAIN: Rows = [
    {
        "question": f'Line\u2028{i} and\u0085 a, "comma"?',
        "answer": f"{i} + 1 = {i + 1}\n#### {i + 1}",
    }
    for i in range(7)
]
TEST: Rows = [{"question": f"T{i}?", "answer": f"#### {i}"} for i in range(3)]
DEV: Rows = [{"question": f"D{i}?", "answer": "#### 9"} for i in range(2)]


def as_jsonl(rows: Rows, ascii_only: bool = False) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=ascii_only).encode() + b"\n" for row in rows)


def write(path: Path, rows: Rows) -> Path:
    """The rows in the form that the name's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pack = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}.get(path.suffix)
    form = Path(path.stem).suffix if pack else path.suffix
    if form == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=2)
        return path
    if form == ".arrow":
        table = pa.Table.from_pylist(rows)
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)
        return path
    if form in (".csv", ".tsv"):
        with path.open("w", encoding="utf-8", newline="") as file:
            table_writer = csv.DictWriter(
                file, list(rows[0]), delimiter="," if form == ".csv" else "\t"
            )
            table_writer.writeheader()
            table_writer.writerows(rows)
        data = path.read_bytes()
    else:
        data = json.dumps(rows, indent=1).encode() if form == ".json" else as_jsonl(rows)
    path.write_bytes(pack(data) if pack else data)
    return path


def settings(path: Path, kind: str = "gsm8k", **more: object) -> TaskSettings:
    return TaskSettings.model_validate({"kind": kind, "path": str(path), "n_dev": 1, **more})


def problems(path: Path, **more: object) -> dict[str, Problem]:
    task = open_task(settings(path, **more), seed=0)
    return {p.question: p for split in ("train", "dev", "test") for p in task.problems(split)}


def two_files(suffix: str) -> Callable[[Path], Path]:
    def build(path: Path) -> Path:
        write(path / f"train{suffix}", TRAIN)
        write(path / f"test{suffix}", TEST)
        return path

    return build


def saved_dict(path: Path) -> Path:
    splits = {
        "train": Dataset.from_list(TRAIN),
        "test": Dataset.from_list(TEST),
        "another": Dataset.from_list(DEV),
    }
    DatasetDict(splits).save_to_disk(
        str(path / "saved"), num_shards={"train": 3, "test": 1, "another": 1}
    )
    return path / "saved"


def clone_without_readme(path: Path) -> Path:
    """As the Hub's gsm8k looked, with a script that must not run and another configuration."""
    for config, rows in (("main", TRAIN), ("socratic", DEV)):
        write(path / config / "train-00000-of-00001.parquet", rows)
        write(path / config / "test-00000-of-00001.parquet", TEST)
    (path / "gsm8k.py").write_text("raise SystemExit('a script ran')")
    write(path / ".git" / "train.jsonl", DEV)
    return path


def clone_with_readme(path: Path) -> Path:
    """As the Hub's openai/gsm8k looks today."""
    clone_without_readme(path)
    configs = [
        {
            "config_name": name,
            "data_files": [
                {"split": "train", "path": f"{name}/train-*"},
                {"split": "test", "path": [f"{name}/test-00000-of-00001.parquet"]},
            ],
        }
        for name in ("main", "socratic")
    ]
    (path / "README.md").write_text(
        f"---\nlicense: mit\nconfigs: {json.dumps(configs)}\n---\n# GSM8K\n"
    )
    return path


def converted(path: Path) -> Path:
    """The revision refs/convert/parquet."""
    for split, rows in (("train", TRAIN[:4]), ("test", TEST)):
        write(path / "main" / split / "0000.parquet", rows)
    write(path / "main" / "train" / "0001.parquet", TRAIN[4:])
    return path


def in_data_folder(path: Path) -> Path:
    write(path / "data" / "train-00000-of-00002.parquet", TRAIN[:4])
    write(path / "data" / "train-00001-of-00002.parquet", TRAIN[4:])
    write(path / "data" / "test-00000-of-00001.parquet", TEST)
    (path / "README.md").write_text("No head here.\n---\nconfigs: [{config_name: x}]\n---\n")
    return path


def default_config(path: Path) -> Path:
    write(path / "en" / "a.jsonl", TRAIN)
    write(path / "en" / "b.jsonl", TEST)
    write(path / "de" / "a.jsonl", DEV)
    (path / "README.md").write_text(
        "---\nconfigs:\n- config_name: german\n  data_files: de/*\n- config_name: english\n  "
        "default: true\n  data_files:\n  - {split: train, path: en/a.jsonl}\n  - {split: test, "
        "path: '**/b.jsonl'}\n---\n"
    )
    return path


def data_dir_config(path: Path) -> Path:
    two_files(".csv")(path / "inside")
    (path / "README.md").write_text("---\nconfigs:\n- config_name: only\n  data_dir: inside\n---\n")
    return path


def cache_of_datasets(path: Path) -> Path:
    write(path / "gsm8k-train.arrow", TRAIN)
    (path / "dataset_info.json").write_text("{}")
    write(path / "gsm8k-test.arrow", TEST)
    write(path / "cache-1f3b.arrow", DEV)
    return path


def with_older_copies(path: Path) -> Path:
    two_files(".parquet")(path)
    write(path / "train_old.parquet", DEV)
    write(path / "backup" / "train.parquet", DEV)
    return path


FORMS: dict[str, Callable[[Path], Path]] = {
    **{
        suffix: two_files(suffix)
        for suffix in (
            ".jsonl",
            ".jsonl.gz",
            ".jsonl.bz2",
            ".jsonl.xz",
            ".ndjson",
            ".json",
            ".json.gz",
        )
    },
    **{suffix: two_files(suffix) for suffix in (".csv", ".tsv", ".csv.gz", ".parquet", ".arrow")},
    **{
        f.__name__: f
        for f in (
            saved_dict,
            clone_without_readme,
            clone_with_readme,
            converted,
            in_data_folder,
            default_config,
        )
    },
    **{f.__name__: f for f in (data_dir_config, cache_of_datasets, with_older_copies)},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_holds_the_same_problems(tmp_path: Path, form: str) -> None:
    plain = two_files(".jsonl")(tmp_path / "plain")
    path = FORMS[form](tmp_path / "other")
    assert problems(path) == problems(plain)
    assert len(problems(path)) == 10
    assert problems(path)[TRAIN[3]["question"]].solution == ("3 + 1 = 4", "#### 4")


@pytest.mark.parametrize("form", FORMS)
def test_what_is_read_is_what_is_hashed(tmp_path: Path, form: str) -> None:
    path = FORMS[form](tmp_path)
    read = {file for files in find_data(settings(path)).values() for file in files}
    before = data_contents(settings(path))["task.path"]
    for file in sorted(
        p
        for p in path.rglob("*")
        if p.is_file() and p.name not in ("README.md", "state.json", "dataset_dict.json")
    ):
        whole = file.read_bytes()
        file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert (data_contents(settings(path))["task.path"] != before) == (file in read), file
        file.write_bytes(whole)
    assert data_contents(settings(path)) == {"task.path": before}


@pytest.mark.parametrize(
    "form",
    [
        "clone_with_readme",
        "converted",
        "in_data_folder",
        "default_config",
        "data_dir_config",
        ".parquet",
        ".jsonl.gz",
    ],
)
def test_the_files_are_those_that_datasets_finds(tmp_path: Path, form: str) -> None:
    path = FORMS[form](tmp_path / "data_set")
    name = {
        "clone_with_readme": "main",
        "data_dir_config": "only",
        "default_config": "english",
    }.get(form)
    theirs = load_dataset_builder(
        str(path / "main" if form == "converted" else path), name, cache_dir=str(tmp_path / "cache")
    ).config
    ours = find_data(settings(path))
    names = {"train": "train", "dev": "validation", "test": "test"}
    assert theirs.data_files is not None
    assert {names[split]: [str(f) for f in files] for split, files in ours.items()} == {
        str(split): list(files) for split, files in theirs.data_files.items()
    }


def test_a_configuration_is_chosen(tmp_path: Path) -> None:
    for build in (clone_with_readme, clone_without_readme):
        path = build(tmp_path / build.__name__)
        assert "D1?" in problems(path, config="socratic")
        assert problems(path, config="main") == problems(path)
        with pytest.raises(ConfigError, match=r"'main', 'socratic'"):
            problems(path, config="other")
        with pytest.raises(
            ConfigError,
            match=r"several configurations needs one of them as task.config.*'main', 'socratic'",
        ):
            problems(path, kind="jsonl")
    assert problems(in_data_folder(tmp_path / "one"), config="default")
    file = write(tmp_path / "all.jsonl", TRAIN)
    with pytest.raises(
        ConfigError,
        match=r"task.config 'main' is for folders, but task.path .* is a file; set it to null",
    ):
        problems(file, kind="jsonl", config="main")


def test_one_file_or_an_unsplit_set_is_split_by_hash(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": str(i)} for i in range(10)]
    expected = problems(write(tmp_path / "all.jsonl", rows), kind="jsonl")
    places = [
        write(tmp_path / f"all{suffix}", rows)
        for suffix in (".parquet", ".jsonl.gz", ".json", ".csv", ".arrow")
    ]
    Dataset.from_list(rows).save_to_disk(str(tmp_path / "one"))
    DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(str(tmp_path / "dict"))
    for i in range(2):
        write(tmp_path / "parts" / f"part-{i:05d}.parquet", rows[5 * i :][:5])
    for place in (*places, tmp_path / "one", tmp_path / "dict", tmp_path / "parts"):
        assert problems(place, kind="jsonl") == expected, place
        with pytest.raises(DataError, match=r"gsm8k needs the folder|lacks .*test.jsonl"):
            problems(place)


def test_a_name_does_not_hide_what_a_file_is(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": str(i)} for i in range(10)]
    expected = [row.fields for row in read_rows(write(tmp_path / "a.jsonl", rows))]
    for number, suffix in enumerate((".parquet", ".jsonl.gz", ".arrow")):
        odd = write(tmp_path / f"b{suffix}", rows).rename(tmp_path / f"odd{number}.txt")
        assert [row.fields for row in read_rows(odd)] == expected
    (tmp_path / "lines.json").write_bytes(as_jsonl(rows))
    (tmp_path / "pretty.json").write_text("\n".join(json.dumps(row, indent=2) for row in rows))
    for name in ("lines.json", "pretty.json"):
        assert [row.fields for row in read_rows(tmp_path / name)] == expected


def test_numbers_nulls_and_rows_of_tables(tmp_path: Path) -> None:
    table = pa.table(
        {
            "question": ["a", "b", "c", "d", "e", "f"],
            "answer": pa.array([1.0, 2.5, 3.0, 4.0, 5.0, 1e22]),
            "solution": pa.array([None, "x\n#### 2.5", "", None, None, None]),
            "id": pa.array([11, 12, 13, 14, 15, 16]),
        }
    )
    pq.write_table(table, tmp_path / "x.parquet")
    found = problems(tmp_path / "x.parquet", kind="jsonl")
    assert [found[q].answer for q in "abcdef"] == ["1", "2.5", "3", "4", "5", "1" + 22 * "0"]
    assert (found["a"].solution, found["b"].solution, found["c"].solution) == (
        None,
        ("x", "#### 2.5"),
        None,
    )
    assert found["b"].id == "12"
    pq.write_table(
        table.set_column(1, "answer", pa.array([1.0, float("nan"), None, 4, 5, 6])),
        tmp_path / "x.parquet",
    )
    with pytest.raises(
        DataError, match=r"x.parquet, row 2: the field 'answer' is nan, no finite number"
    ):
        problems(tmp_path / "x.parquet", kind="jsonl")
    pq.write_table(
        table.set_column(1, "answer", pa.array(["1", "", "3", "4", "5", "6"])),
        tmp_path / "x.parquet",
    )
    with pytest.raises(DataError, match=r"x.parquet, row 2: the field 'answer' is empty"):
        problems(tmp_path / "x.parquet", kind="jsonl")


LFS = (
    b"version https://git-lfs.github.com/spec/v1\n"
    b"oid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\n"
    b"size 12345\n"
)


def cut(path: Path, rows: Rows) -> bytes:
    whole = write(path.with_name(f"whole{path.name}"), rows).read_bytes()
    path.with_name(f"whole{path.name}").unlink()
    return whole[: len(whole) * 2 // 3]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.parquet", LFS, "is a pointer of Git LFS, not the data itself; run git lfs pull"),
        ("a.zip", b"PK\x03\x04", "is a zip archive; unpack it"),
        ("a.jsonl.zst", b"\x28\xb5\x2f\xfd", "compressed with zstd; decompress it"),
        ("a.parquet", b"", "is no parquet file, or damaged"),
        ("a.parquet", b"PAR1", "damaged after row 0"),
        ("a.parquet", None, "damaged after row 0"),
        ("a.arrow", None, "damaged after row"),
        ("a.jsonl.gz", None, "the compressed file is damaged or cut off"),
        ("a.jsonl.bz2", None, "the compressed file is damaged or cut off"),
        ("a.jsonl.xz", None, "the compressed file is damaged or cut off"),
        ("a.jsonl", gzip.compress(b" " * 2**21), "line 1: longer than 1024 KiB"),
        (
            "a.jsonl",
            b'{"question": "x", "answer": 1, "answer": 2}',
            "line 1: not usable JSON .*the field answer is there twice",
        ),
        (
            "a.jsonl",
            b'{"question": "x",\r"answer": 1}\r{"question": "y", "answer": 2}',
            "line 1: not valid JSON",
        ),
        ("a.jsonl", "\u2028\n".encode(), "line 1: not valid JSON"),
        ("a.jsonl", b"{}\0{}", "line 1: not valid JSON"),
        (
            "a.csv",
            b"question,answer\nx,1\n\ny,2,3\n",
            "line 4: 3 fields, but the first line names 2",
        ),
        ("a.csv", b'question,answer\nx,"1\n', "line 2: not valid CSV"),
        ("a.csv", b"question,question\nx,1\n", "line 1: two columns are called 'question'"),
        ("a.csv", b"question,answer\n", "has no problems"),
        ("a.csv", b'question,answer\n"a\nb",1\nc,\n', "line 4: the field 'answer' is empty"),
        (
            "a.csv",
            b"question;answer\nx;1\n",
            "the field 'question' is missing .the row has: question;answer",
        ),
        ("a.csv", b"question,answer\nx,caf\xe9\n", "line 2: byte 6 is not UTF-8"),
    ],
)
def test_damaged_and_hostile_files_are_one_line(
    tmp_path: Path, name: str, content: bytes | None, complaint: str
) -> None:
    path = tmp_path / name
    path.write_bytes(
        cut(path, [{"question": f"q{i}", "answer": str(i * 7919)} for i in range(200)])
        if content is None
        else content
    )
    with pytest.raises(DataError, match=complaint) as caught:
        problems(path, kind="jsonl")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_wrong_lengths_inside_a_file_do_not_end_the_process(tmp_path: Path) -> None:
    """Every four bytes of a small file set to a large number, in a process of its own, since a
    crash has no traceback.
    """
    rows = [{"question": f"q{i}", "answer": str(i)} for i in range(3)]
    for suffix in (".arrow", ".parquet"):
        write(tmp_path / f"whole{suffix}", rows)
    code = f"""
from pathlib import Path
from glore.errors import DataError
from glore.tasks.data.readers import read_rows
n_refused = 0
for whole in Path({str(tmp_path)!r}).glob("whole*"):
    data = whole.read_bytes()
    for at in range(8, len(data) - 4, 4):
        path = whole.with_name("bad")
        path.write_bytes(data[:at] + (2**29).to_bytes(4, "little") + data[at + 4:])
        try:
            read_rows(path)
        except DataError:
            n_refused += 1
print(n_refused)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=120, check=False, text=True
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert int(done.stdout) > 50


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    table = pa.Table.from_arrays(
        [pa.array(["q"]), pa.array(["1"]), pa.array(["2"])], names=["question", "answer", "answer"]
    )
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match="two columns are called 'answer'"):
        problems(tmp_path / "a.parquet", kind="jsonl")
    pq.write_table(
        pa.table({"question": ["x" * (2**20 + 1)], "answer": ["1"]}), tmp_path / "a.parquet"
    )
    with pytest.raises(DataError, match="row 1: the field 'question' is longer than 1024 KiB"):
        problems(tmp_path / "a.parquet", kind="jsonl")


def readme(told: str) -> Callable[[Path], None]:
    def build(path: Path) -> None:
        clone_with_readme(path)
        (path / "README.md").write_text(f"---\nconfigs:\n- config_name: main\n  {told}\n---\n")
        write(path.parent / "outside.jsonl", TRAIN)

    return build


def twice(path: Path) -> None:
    two_files(".parquet")(path)
    write(path / "train.csv", TRAIN)


def twice_in_shards(path: Path) -> None:
    two_files(".parquet")(path)
    write(path / "train-00000-of-00001.parquet", TRAIN)


def shard_missing(path: Path) -> None:
    in_data_folder(path)
    (path / "data" / "train-00001-of-00002.parquet").unlink()


def only_a_script(path: Path) -> None:
    path.mkdir()
    (path / "gsm8k.py").write_text("raise SystemExit('a script ran')")


def saved_shard_missing(path: Path) -> None:
    saved_dict(path.parent)
    (path.parent / "saved").rename(path)
    (path / "train" / "data-00001-of-00003.arrow").unlink()


def saved_elsewhere(path: Path) -> None:
    saved_dict(path.parent)
    (path.parent / "saved").rename(path)
    state = json.loads((path / "train" / "state.json").read_text())
    (path / "train" / "state.json").write_text(
        json.dumps({**state, "_data_files": [{"filename": "../../outside.arrow"}]})
    )
    write(path.parent / "outside.arrow", TRAIN)


def bomb(path: Path) -> None:
    path.mkdir()
    levels = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]\n" for i in range(1, 12))
    (path / "README.md").write_text(
        f"---\na0: &a0 [x]\n{levels}configs: [{{config_name: *a11, data_files: *a11}}, *a11]\n---\n"
    )


def two_meanings(path: Path) -> None:
    write(path / "train" / "test.jsonl", TRAIN)


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (
            readme("data_files: ../outside.jsonl"),
            "must be patterns of files in this folder, got '../outside.jsonl'",
        ),
        (readme("data_files: /etc/passwd"), "must be patterns of files in this folder"),
        (
            readme("data_files: https://example.com/train.jsonl"),
            "must be patterns of files in this folder",
        ),
        (
            readme("data_files: hf://datasets/a/b/train.jsonl"),
            "must be patterns of files in this folder",
        ),
        (
            readme("data_files: [{split: train, path: 7}]"),
            "must be patterns of files in this folder, got something else",
        ),
        (
            readme("data_files: [{split: train, path: 'main/trian-*'}]"),
            "lacks 'main/trian-.', which its README.md names",
        ),
        (readme("data_files: 7"), "name no files"),
        (
            readme(
                "data_files: [{split: dev, path: main/*}, {split: validation, path: socratic/*}]"
            ),
            "two splits for the same purpose",
        ),
        (readme("data_dir: ../../x"), "must name a folder of this clone"),
        (readme("data_files: ["), "the head between '---' is not valid YAML"),
        (twice, "has train more than once .train.csv, train.parquet.; keep one"),
        (twice_in_shards, "has train more than once"),
        (two_meanings, "has the names of test and train; rename it"),
        (shard_missing, "lacks train-00001-of-00002.parquet, one of 2 parts"),
        (
            only_a_script,
            "has a loading script and no data; scripts are never run: get its Parquet files",
        ),
        (saved_shard_missing, "lacks 'data-00001-of-00003.arrow', which its state.json names"),
        (saved_elsewhere, "'_data_files' must list the files of this folder"),
        (bomb, "lacks train.jsonl and test.jsonl"),
        (lambda path: write(path / "train.jsonl", TRAIN), "lacks test.jsonl; put the"),
    ],
)
def test_what_is_unclear_or_reaches_outside_is_refused(
    tmp_path: Path, build: Callable[[Path], object], complaint: str
) -> None:
    path = tmp_path / "clone"
    build(path)
    for attempt in (problems, lambda p: data_contents(settings(p))):
        with pytest.raises(DataError, match=complaint) as caught:
            attempt(path)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 600


def test_names_of_files_colour_no_terminal(tmp_path: Path) -> None:
    for name in ("train-\x1b[31m\n.jsonl", "train-\x1b[31m.csv"):
        write(tmp_path / name, [{"question": "q"}])
    for attempt in (
        lambda: problems(tmp_path, kind="jsonl"),
        lambda: read_rows(tmp_path / "no\x1b[31m\nfile"),
    ):
        with pytest.raises(DataError) as caught:
            attempt()
        assert str(caught.value).isprintable()
        assert "[31m" in str(caught.value)


def test_patterns_take_no_time(tmp_path: Path) -> None:
    """A pattern of many stars against many names, in a process of its own so that a hang is a
    failure.
    """
    for i in range(50):
        write(tmp_path / "a" / "b" / "c" / f"{'a' * 60}{i}.jsonl", DEV)
    pattern = "**/" * 50 + "*/**/" * 20 + "*a" * 40 + "*.b"
    (tmp_path / "README.md").write_text(f"---\nconfigs: [{{data_files: '{pattern}'}}]\n---\n")
    code = (
        "from glore.config import TaskSettings; from glore.tasks.open import data_contents; "
        f"data_contents(TaskSettings(kind='jsonl', path={str(tmp_path)!r}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, timeout=60, check=False, text=True
    )
    assert "DataError" in done.stderr
    assert "which its README.md names" in done.stderr


def test_a_revision_is_read_from_the_cache_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load_dataset` would take any cached copy where the Hub can't be reached."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "datasets--openai--gsm8k"
    (repository / "refs" / "refs").mkdir(parents=True)
    for name, commit, build in (
        ("main", "a" * 40, clone_with_readme),
        ("v1", "b" * 40, converted),
        ("refs/x", "c" * 40, two_files(".jsonl")),
    ):
        build(repository / "snapshots" / commit)
        (repository / "refs" / name).write_text(commit)
    expected = problems(two_files(".jsonl")(tmp_path / "plain"))

    def read(**more: object) -> dict[str, Problem]:
        task = open_task(TaskSettings.model_validate({"kind": "gsm8k", "n_dev": 1, **more}), seed=0)
        return {p.question: p for split in ("train", "dev", "test") for p in task.problems(split)}

    for revision in ("main", "v1", "refs/x", "b" * 40):
        assert read(revision=revision) == expected, revision
    assert "D1?" in read(revision="main", config="socratic")
    with pytest.raises(DataError, match=r"openai/gsm8k@nowhere"):
        read(revision="nowhere")
    with pytest.raises(
        DataError, match=r"is not in the local cache and HF_HUB_OFFLINE is set|can't load"
    ):
        read(revision="main", hub="other/data")


def test_a_revision_is_for_the_hub_and_a_hub_name_is_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        ValueError,
        match=r"revision 'v1' pins a dataset on the Hub, but path is set, "
        r".* \(task.revision=null\)",
    ):
        settings(tmp_path, revision="v1")
    with pytest.raises(ValueError, match=r"revision is for tasks of kind gsm8k or"):
        TaskSettings.model_validate({"kind": "stories", "revision": "v1"})
    monkeypatch.chdir(tmp_path)
    two_files(".jsonl")(tmp_path / "openai" / "gsm8k")
    with pytest.raises(DataError, match=r"task.hub 'openai/gsm8k' is also a local folder"):
        open_task(TaskSettings(kind="gsm8k"), seed=0)


def test_gsm8k_in_other_forms(tmp_path: Path, data_dir: Path) -> None:
    """The real data: 7,473 and 1,319 problems, as Parquet shards of a clone and as what
    `save_to_disk` writes.
    """
    plain = problems(data_dir / "gsm8k", n_dev=500)
    rows = {
        name: [dict(r.fields) for r in read_rows(data_dir / "gsm8k" / f"{name}.jsonl")]
        for name in ("train", "test")
    }
    for name, part in rows.items():
        write(tmp_path / "clone" / "main" / f"{name}-00000-of-00001.parquet", part)
    DatasetDict({name: Dataset.from_list(part) for name, part in rows.items()}).save_to_disk(
        str(tmp_path / "saved")
    )
    assert (
        problems(tmp_path / "clone", n_dev=500) == problems(tmp_path / "saved", n_dev=500) == plain
    )
