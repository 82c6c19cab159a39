"""Files and folders that are written whole or not at all, and files read up to a limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from glore.errors import RunError
from glore.files import (
    LEFTOVER,
    move_folder,
    read_given,
    remove_folder,
    replacing,
    replacing_folder,
    split_lines,
)


def tree(folder: Path) -> dict[str, str]:
    """Relative name → content of every file below the folder."""
    return {
        p.relative_to(folder).as_posix(): p.read_text() for p in folder.rglob("*") if p.is_file()
    }


def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.txt"
    with replacing(path) as stream:
        stream.write(b"first")
    with pytest.raises(TypeError, match="bytes-like"), replacing(path) as stream:
        stream.writelines([b"half of the sec", "no bytes"])  # type: ignore[list-item]
    assert tree(tmp_path) == {"deep/a.txt": "first"}


def test_a_file_that_can_t_be_written_is_a_run_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(RunError, match=r"^can't write .*file/a: File exists; free some space"),
        replacing(tmp_path / "file" / "a"),
    ):
        pass


def test_a_folder_is_replaced_whole_or_stays_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "models" / "student"
    with replacing_folder(folder) as made:
        (made / "sub").mkdir()
        (made / "sub" / "a").write_text("1")
        assert not folder.exists(), "it gets its name when it is complete"
    assert tree(tmp_path) == {"models/student/sub/a": "1"}
    with replacing_folder(folder) as made:
        (made / "b").write_text("2")
    assert tree(tmp_path) == {"models/student/b": "2"}, "nothing of the old folder stays"
    with pytest.raises(FileNotFoundError), replacing_folder(folder) as made:
        (made / "missing" / "c").write_text("3")
    assert tree(tmp_path) == {"models/student/b": "2"}


def test_every_file_of_a_new_folder_is_flushed_before_the_folder_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[str] = []

    def fsync(number: int) -> None:
        assert not (tmp_path / "new").exists()
        flushed.append(Path(os.readlink(f"/proc/self/fd/{number}")).name)

    monkeypatch.setattr(os, "fsync", fsync)
    with replacing_folder(tmp_path / "new") as made:
        (made / "sub").mkdir()
        (made / "sub" / "b").touch()
        (made / "a").touch()
    assert sorted(flushed) == ["a", "b"]


def test_a_refused_move_leaves_the_old_folder_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    rename = Path.rename

    def refuses(self: Path, target: Path) -> Path:
        if self.name == "new":
            raise PermissionError(13, "no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuses)
    with pytest.raises(PermissionError):
        move_folder(tmp_path / "new", tmp_path / "old")
    assert tree(tmp_path) == {"old/old": "", "new/new": ""}


def test_a_removed_folder_is_gone_and_an_interrupted_removal_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "stage"
    remove_folder(folder)
    (folder / "deep").mkdir(parents=True)
    remove_folder(folder)
    assert list(tmp_path.iterdir()) == []
    folder.mkdir()
    monkeypatch.setattr("shutil.rmtree", lambda *_, **__: None)  # as if killed before it
    remove_folder(folder)
    (left,) = tmp_path.iterdir()
    match = LEFTOVER.fullmatch(left.name)
    assert match is not None
    assert (int(match[1]), match[2]) == (os.getpid(), "old")


def test_only_line_feeds_end_lines() -> None:
    assert split_lines("a\u2028b\r\nc\x0bd\n") == ["a\u2028b", "c\x0bd", ""]


def test_a_file_is_read_up_to_a_limit(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * 10)
    assert read_given(tmp_path / "a", 10) == b"x" * 10
    with pytest.raises(OSError, match="larger than 0 MiB"):
        read_given(tmp_path / "a", 9)
    with pytest.raises(OSError, match="its name holds a NUL character"):
        read_given(tmp_path / "a\0b", 9)
