"""How a command ends: every kind of failure as one line on stderr, and the exit code. The only
place that knows.

0    done
1    a bug, or stdout that takes no more
2    a mistake in what was asked, or something the machine refused: no such file, no space
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
LOOK = "look at that path"
MENDS = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS),
        "give a place that may be read and written, or change its permissions",
    ),
    **dict.fromkeys(
        (errno.ENOSPC, errno.EDQUOT),
        "everything finished is kept: free some space and run the same command again",
    ),
    **dict.fromkeys(
        (errno.EMFILE, errno.ENFILE),
        "raise the number of open files (ulimit -n) and run the same command again",
    ),
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ELOOP, errno.ENXIO), LOOK
    ),
    errno.ENAMETOOLONG: "use a shorter name",
}
"""What to do about an error of the system; about any other: try again."""


class Outcome:
    """What a command tells about itself while it works."""

    def __init__(self) -> None:
        self.log_dir: Path | None = None
        """Where tracebacks go."""
        self.on_interrupt = ""
        """What to say after Ctrl-C."""


def run_app(app: typer.Typer) -> NoReturn:
    """Carry out the command line in `sys.argv` and end the process."""
    code = 1
    with outcome():
        guard_streams()
        try:
            code = app(prog_name="glore", standalone_mode=False) or 0
        except UsageError as error:
            _fail(_usage(error, sys.argv[1:]), 2)
        finally:
            # Here, where it can still be said in one line.
            sys.stdout.flush()
    sys.exit(code or int(stdout_failed()))


@contextlib.contextmanager
def outcome() -> Iterator[Outcome]:
    """Turn what a command raises into one line on stderr and the end of the process."""
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
    """What to say about an error, and the exit code."""
    if isinstance(error, GloreError):
        return str(error), 1 if isinstance(error, OutputError) else 2
    said = shown(" ".join(str(error).split()) or type(error).__name__, 200)
    if out_of_memory(error):
        return (
            f"out of memory ({said}); use a smaller model or another machine, or lower what is "
            "worked on at once: engine.max_rows, engine.scoring_tokens, batch_size of a training"
        ), 2
    if isinstance(error, OSError) and error.errno is not None:
        name = os.fsdecode(error.filename) if isinstance(error.filename, bytes) else error.filename
        what = "" if name is None else f"{shown(name, 120)}: "
        mend = MENDS.get(error.errno, "mend that, then run the same command again")
        return f"{what}{error.strerror or error}; {mend}", 2
    if isinstance(error, ImportError):
        return (
            f"a package that glore needs can't be imported ({said}); install glore again: pip "
            "install --force-reinstall glore",
            2,
        )
    return f"unexpected {type(error).__name__}: {said}; this is a bug", 1


def _usage(error: Exception, arguments: Sequence[str]) -> str:
    """A mistake in the arguments."""
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "glore"
    if type(error).__name__ == "NoArgsIsHelpError":  # the help has been printed
        return (
            "no command was given; choose one of those above, "
            "such as: glore run recipes/quickstart.yaml"
        )
    said = " ".join(str(getattr(error, "format_message", error.__str__)()).split())
    option = getattr(error, "option_name", None)
    given = next((a for a in arguments if isinstance(option, str) and a.startswith(option)), None)
    if given is not None and command.endswith("refine"):
        said = (
            f"{said.rstrip('.')} in {shown(given, 60)}; a question that begins with - goes after "
            f"--, as in: glore refine RUN -- {shown(given, 60)}"
        )
    return f"{said.rstrip('.')}; see: {command} --help"


def _fail(message: str, code: int) -> NoReturn:
    print(f"error: {printable(message)}", file=sys.stderr)
    sys.exit(code)


def _log_traceback(log_dir: Path | None) -> Path:
    """Append the traceback in hand to the run's error log, or to a temporary file where that can't
    be written.
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
