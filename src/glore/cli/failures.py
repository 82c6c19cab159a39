"""How a command ends: every error as one line on stderr, and the exit code.

0    done
1    a bug, a write to stdout failed, or `glore validate` found faults
2    a mistake in the input, or an error of the system, such as a missing file or a full disk
130  Ctrl-C
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

import typer

from glore.cli.streams import OutputError, guard_streams, stdout_failed
from glore.errors import GloreError, out_of_memory, printable, shown

__all__ = ["Outcome", "outcome", "run_app"]

UsageError: type[Exception] = typer.BadParameter.__mro__[2]
"""Base of what typer raises for wrong arguments; the class itself has no public name."""
FIXES = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "choose a place that can be read and written, or change its permissions",
    ),
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT),
        "all finished work is kept: free some space and run the same command again",
    ),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE),
        "raise the number of open files (ulimit -n) and run the same command again",
    ),
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENXIO),
        "check that path",
    ),
    errno.ENAMETOOLONG: "use a shorter name",
}
"""Error number of the system → what to do. For all others: try again."""


class Outcome:
    """What a running command wants to happen when it fails."""

    def __init__(self) -> None:
        self.log_dir: Path | None = None
        """Folder for tracebacks."""
        self.on_interrupt = ""
        """Message after Ctrl-C."""


def run_app(app: typer.Typer) -> NoReturn:
    """Run the command in `sys.argv`, and end the process."""
    code = 1
    with outcome():
        guard_streams()
        try:
            code = app(prog_name="glore", standalone_mode=False) or 0
        except UsageError as error:
            _fail(_usage(error, sys.argv[1:]), 2)
        finally:
            # Here, an error can still be shown in one line.
            sys.stdout.flush()
    sys.exit(code or int(stdout_failed()))


@contextlib.contextmanager
def outcome() -> Iterator[Outcome]:
    """Turn any error inside the block into one line on stderr, and end the process."""
    command = Outcome()
    try:
        yield command
    except KeyboardInterrupt:
        _fail(f"stopped by Ctrl-C{'; ' if command.on_interrupt else ''}{command.on_interrupt}", 130)
    except typer.Exit:
        raise
    except Exception as error:
        log = None if isinstance(error, GloreError) else _log_traceback(command.log_dir)
        line, code = _line_of(error)
        if code == 1 and log is not None:
            line += f", its traceback is in {log}"
        _fail(line, code)


def _line_of(error: Exception) -> tuple[str, int]:
    """An error → its line and the exit code."""
    if isinstance(error, GloreError):
        return str(error), 1 if isinstance(error, OutputError) else 2
    said = shown(" ".join(str(error).split()) or type(error).__name__, 200)
    if out_of_memory(error):
        return (
            f"out of memory ({said}); use a smaller model or another machine, or lower "
            "engine.max_rows, engine.scoring_tokens or the batch_size of the training"
        ), 2
    if isinstance(error, OSError) and error.errno is not None:
        name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
        what = "" if name is None else f"{shown(name, 120)}: "
        fix = FIXES.get(error.errno, "fix that, then run the same command again")
        return f"{what}{error.strerror or error}; {fix}", 2
    if isinstance(error, ImportError):
        return (
            f"a package that glore needs can't be imported ({said}); install glore again: pip "
            "install --force-reinstall glore",
            2,
        )
    return f"unexpected {type(error).__name__}: {said}; this is a bug", 1


def _usage(error: Exception, arguments: Sequence[str]) -> str:
    """A mistake in the arguments → its line."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "glore"
    if type(error).__name__ == "NoArgsIsHelpError":  # the help has been printed
        return "no command was given; choose one of those above, such as: glore run quickstart"
    said = " ".join(str(getattr(error, "format_message", error.__str__)()).split())
    option = getattr(error, "option_name", None)
    given = next((a for a in arguments if isinstance(option, str) and a.startswith(option)), None)
    if given is not None and command.endswith("refine"):
        said = (
            f"{said.rstrip('.')} in {shown(given, 60)}; put a question that begins with - after "
            f"--, as in: glore refine RUN -- {shown(given, 60)}"
        )
    return f"{said.rstrip('.')}; see: {command} --help"


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(code)


def _log_traceback(log_dir: Path | None) -> Path:
    """Append the current traceback to the run's error log, or else to a temporary file. Returns the
    file.
    """
    places = [(log_dir, "error.log")] if log_dir is not None else []
    for folder, name in (*places, (Path(tempfile.gettempdir()), "glore-error.log")):
        with contextlib.suppress(OSError):
            if folder.parent.is_dir():
                folder.mkdir(exist_ok=True)
                with (folder / name).open(
                    "a", encoding="utf-8", errors="backslashreplace"
                ) as stream:
                    traceback.print_exc(file=stream)
                return folder / name
    traceback.print_exc()
    return Path("stderr")
