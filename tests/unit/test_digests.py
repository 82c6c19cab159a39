"""Folders with the digests of their files: any change of content is noticed, nothing else is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glore.digests import DIGESTS, check_digests, damage, is_inside, read_digests, write_digests
from glore.errors import ModelError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "m" / "deep").mkdir(parents=True)
    (tmp_path / "m" / "model.safetensors").write_bytes(bytes(range(256)) * 40)
    (tmp_path / "m" / "deep" / "tokenizer.json").write_text("{}")
    (tmp_path / "m" / "README.md").write_text("a card")
    write_digests(tmp_path / "m")
    return tmp_path / "m"


def test_a_folder_as_written_passes_and_so_does_one_from_elsewhere(
    folder: Path, tmp_path: Path
) -> None:
    check_digests(folder)
    assert sorted(read_digests(folder) or {}) == ["deep/tokenizer.json", "model.safetensors"]
    (tmp_path / "plain").mkdir()
    check_digests(tmp_path / "plain")
    assert damage(tmp_path / "plain") is not None


@pytest.mark.parametrize("name", ["model.safetensors", "deep/tokenizer.json"])
def test_one_flipped_bit_is_noticed_though_size_and_time_stay(folder: Path, name: str) -> None:
    check_digests(folder)
    before = (folder / name).stat()
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    os.utime(folder / name, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(ModelError, match=f"{name} has changed since it was written"):
        check_digests(folder)


def test_a_file_that_is_gone_is_named(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors is missing or unreadable"):
        check_digests(folder)


def test_modes_times_links_and_the_card_are_no_damage(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("another card")
    for path in folder.rglob("*"):
        path.chmod(0o755)
        os.utime(path, (1, 1))
    os.link(folder / "model.safetensors", tmp_path / "linked")
    check_digests(folder)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"a": 1}', '{"../x": "0"}', '{"/etc/passwd": "0"}', "[" * 100_000]
)
def test_digests_that_are_no_digests_are_damage(folder: Path, text: str) -> None:
    (folder / DIGESTS).write_text(text)
    with pytest.raises(ModelError, match=f"{DIGESTS} is missing or unreadable"):
        check_digests(folder)


@given(st.lists(st.sampled_from(["..", ".", "a", "", "b c", "/"]), max_size=6).map("/".join))
def test_a_name_is_inside_where_joining_it_stays_below(name: str) -> None:
    inside = os.path.normpath(os.path.join("/run", name)).startswith("/run/")
    assert not is_inside(name) or inside
    assert is_inside(json.loads(json.dumps("a/b")))
