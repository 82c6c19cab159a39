"""The commands on what comes with glore: `glore recipes · settings`."""

from __future__ import annotations

from typing import Annotated

import typer

from glore.cli.failures import outcome
from glore.errors import ConfigError, printable, shown

__all__ = ["recipes", "settings"]


def recipes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]", help="A recipe, or accelerate/ddp, …: printed. Default: the list."
        ),
    ] = None,
    path: Annotated[
        bool, typer.Option("--path", help="Print the file's path (without NAME: the folder's).")
    ] = False,
) -> None:
    """List the recipes that come with glore, or print one: glore recipes small > mine.yaml."""
    with outcome():
        from glore.config.packaged import packaged_recipes, recipe_summary, recipes_folder

        if name is None:
            if path:
                print(recipes_folder())
                return
            known = packaged_recipes()
            width = max(map(len, known), default=0)
            for recipe, file in known.items():
                print(f"{recipe:{width}}  {recipe_summary(file)}")
            return
        folder = recipes_folder()
        files = {str(p.relative_to(folder).with_suffix("")): p for p in folder.rglob("*.yaml")}
        if name not in files:
            raise ConfigError(
                f"there is no recipe {shown(name)}; there are {', '.join(sorted(files))}"
            )
        print(
            files[name] if path else files[name].read_text(encoding="utf-8"),
            end="\n" if path else "",
        )


def settings(
    word: Annotated[
        str | None,
        typer.Argument(
            metavar="[WORD]", help="Part of a setting's path, such as labels or lora.r."
        ),
    ] = None,
) -> None:
    """Print the settings of a recipe: values, default, meaning."""
    with outcome():
        from glore.config.reference import as_lines

        lines = as_lines(word)
        if not lines:
            raise ConfigError(
                f"no setting has {shown(word)} in its path; glore settings prints all of them"
            )
        print("\n".join(map(printable, lines)))
