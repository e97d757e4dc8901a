"""The `ekd-lite` command; `python -m ekd_lite` is the same."""

from __future__ import annotations

import gc
import sys
from typing import Annotated

import tyro

from ekd_lite import __version__
from ekd_lite.commands.bench import Bench
from ekd_lite.commands.compare import Compare
from ekd_lite.commands.data import Convert, Download, Info, Preview, Verify
from ekd_lite.commands.demo import Demo
from ekd_lite.commands.export import Export
from ekd_lite.commands.nets import Embed, Evaluate
from ekd_lite.commands.notes import warnings_as_notes
from ekd_lite.commands.parsing import parse
from ekd_lite.commands.train import Train, recipe_of
from ekd_lite.train.batches import LoaderError

# Torch's objects live as long as the command: a collection that walks through them takes 0.1 s.
gc.freeze()

Command = (
    Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[
        Annotated[Preview, tyro.conf.subcommand("preview")]
        | Annotated[Info, tyro.conf.subcommand("info")]
        | Annotated[Convert, tyro.conf.subcommand("convert")]
        | Annotated[Verify, tyro.conf.subcommand("verify")]
        | Annotated[Download, tyro.conf.subcommand("download")],
        tyro.conf.subcommand("data", description="Look at, convert and check sets of faces."),
    ]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Embed, tyro.conf.subcommand("embed")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Export, tyro.conf.subcommand("export")]
    | Annotated[Compare, tyro.conf.subcommand("compare")]
    | Annotated[Bench, tyro.conf.subcommand("bench")]
)


# What another command line would mend; the exit status is 2. ConnectionError and its like are no
# usage, though they are OSErrors.
USAGE = (
    *(ValueError, ModuleNotFoundError, FileNotFoundError, FileExistsError),
    *(IsADirectoryError, NotADirectoryError, PermissionError),
)
# What happened to a command that was right: a full disk, a broken image, a loss that is not finite,
# another process that died. The exit status is 1, and the same command goes on from there.
FAILURE = (OSError, FloatingPointError, LoaderError)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; errors of use are one message, not a trace, and warnings one note.

    Returns:
        0; 2 if the command line or what it names is wrong; 1 if the work failed; 130 after Ctrl-C.
        A run that SIGTERM stops saves its state and exits with 143.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments == ["--version"]:
        print(f"ekd-lite {__version__}")
        return 0
    try:
        recipe = recipe_of(arguments) if arguments[:1] == ["train"] else None
        command = parse(
            Command,
            arguments,
            default=tyro.MISSING if recipe is None else Train.from_recipe(recipe),
            description="Knowledge distillation for face recognition, from ArcFace to EKD.",
            config=(tyro.conf.OmitArgPrefixes,),
        )
        with warnings_as_notes():
            command.run()
    except USAGE as error:
        print(f"ekd-lite: {error}", file=sys.stderr)
        return 2
    except FAILURE as error:
        print(f"ekd-lite: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("ekd-lite: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
