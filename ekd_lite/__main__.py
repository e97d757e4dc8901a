"""The `ekd-lite` command; `python -m ekd_lite` is the same."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from ekd_lite.demo import DemoConfig
from ekd_lite.train.config import TrainConfig

FPRS = (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)


@dataclass(frozen=True)
class Preview:
    """Write a contact sheet of the procedural faces."""

    out: Path = Path("faces.png")
    """The picture to write."""
    identities: int = 9
    """Rows."""
    images: int = 10
    """Columns; the first is the studio portrait."""
    image_size: int = 112
    """Side of a face, pixels."""
    seed: int = 0
    """Of the population."""
    identity_spread: float = 1.5
    """How far apart people are."""
    nuisance_strength: float = 0.4
    """How much pictures of one person differ."""


@dataclass(frozen=True)
class Info:
    """Count the images and identities of a set, and read every image once."""

    faces: Path
    """Folder of identity/image.jpg, .rec file, or packed set."""


@dataclass(frozen=True)
class Convert:
    """Turn a folder of faces or a .rec file into a set that opens at once and has checksums."""

    faces: Path
    """Folder of identity/image.jpg, or .rec file."""
    out: Path
    """New folder to write."""
    to: Literal["packed", "rec"] = "packed"
    """Decoded pixels to be memory-mapped, or the encoded images in one RecordIO file."""
    image_size: int = 112
    """Side of the decoded images, pixels."""
    max_bad_fraction: float = 0.0
    """Share of undecodable images that are left out by name; one more, and nothing is written."""


@dataclass(frozen=True)
class Verify:
    """Name every damaged image and file of a set; the exit status is 2 if there is one."""

    faces: Path
    """Folder of identity/image.jpg, .rec or .bin file, or what `convert` wrote."""
    write_checksums: bool = False
    """For a folder of images: write SHA256SUMS, which later finds damage that still decodes."""


@dataclass(frozen=True)
class Download:
    """Download a data set by its name, or say where and how to ask for it."""

    name: str
    """Such as lfw, lfw-pairs, ms1mv3; an unknown one lists all."""
    out: Path = Path("downloads")
    """Folder to put it in."""


@dataclass(frozen=True)
class Train:
    """Train one net, alone or under a teacher."""

    out: Path
    """Folder of the run; calling again goes on where it stopped."""
    faces: Path | None = None
    """Folder of identity/image.jpg, 60 % of whose people train; left out: procedural faces."""
    config: TrainConfig = field(default_factory=TrainConfig)
    """How to train."""


@dataclass(frozen=True)
class Embed:
    """Embed a folder of faces with a trained net."""

    model: Path
    """Run folder or model.safetensors."""
    faces: Path
    """Folder of identity/image.jpg."""
    out: Path = Path("embeddings.safetensors")
    """File for embeddings (N, D) and labels (N,), with the file names in its metadata."""


@dataclass(frozen=True)
class Evaluate:
    """TPR at FPR over all pairs, with 95 % intervals from an identity bootstrap."""

    source: Path
    """Embeddings written by `embed`; or a run folder or model, to be tested on unseen people."""
    faces: Path | None = None
    """With a model: the folder it was trained from; procedural faces if left out."""
    fprs: tuple[float, ...] = FPRS
    """False-positive rates."""
    resamples: int = 1000
    """Bootstrap resamples; 0 leaves the intervals out."""


Command = (
    Annotated[DemoConfig, tyro.conf.subcommand("demo")]
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
)


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; errors of use are one message, not a trace."""
    try:
        command = tyro.cli(
            Command,
            args=arguments,
            prog="ekd-lite",
            description="Knowledge distillation for face recognition, from ArcFace to EKD.",
            config=(tyro.conf.OmitArgPrefixes,),
        )
        run(command)
    except (ValueError, FileNotFoundError, FloatingPointError, ConnectionError) as error:
        print(f"ekd-lite: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("ekd-lite: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    return 0


def run(command: object) -> None:
    """Do what one of the command dataclasses asks."""
    if isinstance(command, DemoConfig):
        from ekd_lite.demo import run_demo

        run_demo(command)
    elif isinstance(command, Preview):
        from ekd_lite.data import preview

        preview(
            command.out,
            num_identities=command.identities,
            images_per_identity=command.images,
            image_size=command.image_size,
            seed=command.seed,
            identity_spread=command.identity_spread,
            nuisance_strength=command.nuisance_strength,
        )
        print(f"wrote {command.out}")
    elif isinstance(command, Info):
        _info(command)
    elif isinstance(command, Convert):
        _convert(command)
    elif isinstance(command, Verify):
        _verify(command)
    elif isinstance(command, Download):
        _download(command)
    elif isinstance(command, Train):
        _train(command)
    elif isinstance(command, Embed):
        _embed(command)
    elif isinstance(command, Evaluate):
        _evaluate(command)


def _info(command: Info) -> None:
    import torch
    from tqdm import tqdm

    from ekd_lite.data import open_faces, open_packed
    from ekd_lite.data.align import MIN_EYE_CONTRAST, eye_contrast

    packed = (command.faces / "images.npy").is_file()
    faces = open_packed(command.faces) if packed else open_faces(command.faces)
    for index in tqdm(range(len(faces)), desc="reading", disable=None):
        faces.batch([index])
    sizes = torch.bincount(faces.labels)
    print(
        f"{len(faces):,} readable images of {faces.num_identities:,} identities, "
        f"{int(sizes.min())} to {int(sizes.max())} each; "
        f"{int((sizes > 1).sum()):,} identities have two or more"
    )
    contrast = eye_contrast(faces)
    if contrast < MIN_EYE_CONTRAST:
        print(
            f"note: in the mean of 64 faces the eyes are not where aligned faces have them "
            f"(contrast {contrast:.2f}, aligned photographs have more than {MIN_EYE_CONTRAST}); "
            "nets expect crops aligned to the 112x112 template, see ekd_lite.data.align"
        )


def _convert(command: Convert) -> None:
    from ekd_lite.data import PackedFaces, convert, open_faces

    faces = open_faces(
        command.faces, image_size=command.image_size, max_bad_fraction=command.max_bad_fraction
    )
    if isinstance(faces, PackedFaces):
        raise ValueError(f"{command.faces} is packed already")
    convert(faces, command.out, to=command.to)
    for name in faces.bad:
        print(f"left out: {name}")
    print(f"wrote {command.out}: {len(faces):,} images of {faces.num_identities:,} identities")


def _verify(command: Verify) -> None:
    from ekd_lite.data import verify
    from ekd_lite.data.sets import write_checksums

    if command.write_checksums:
        count = write_checksums(command.faces)
        print(f"wrote {command.faces / 'SHA256SUMS'}: {count:,} images, all of them readable")
        return
    count, faults = verify(command.faces)
    for fault in faults:
        print(fault)
    if faults:
        raise ValueError(f"{len(faults):,} damaged of {count:,} in {command.faces}; named above")
    print(f"{count:,} checked in {command.faces}: none damaged")


def _download(command: Download) -> None:
    from ekd_lite.data.download import download
    from ekd_lite.data.registry import REGISTRY

    path = download(command.name, command.out)
    source = REGISTRY[command.name]
    print(f"{path}: {source.how}; its checksum is right. Terms: {source.terms}")


def _train(command: Train) -> None:
    from ekd_lite.data import load_splits
    from ekd_lite.evaluate import all_pairs_tpr_at_fpr
    from ekd_lite.evaluate.embed import embed
    from ekd_lite.train import fit, load_model

    config = command.config
    splits = load_splits(command.faces, image_size=config.image_size)
    validation = splits.validation
    levels = (1e-2, 1e-3)

    def report(name: str, path: Path | str) -> None:
        rows = embed(load_model(path).backbone, validation)
        tpr = all_pairs_tpr_at_fpr(rows, validation.labels, levels).tolist()
        text = "{:.1%} at FPR 1e-2, {:.1%} at FPR 1e-3".format(*tpr)
        print(f"{name}: TPR on validation identities {text}", flush=True)

    if config.method != "none" and config.teacher is not None:
        report(f"teacher {config.teacher}", config.teacher)
    path = fit(config, splits.train, command.out)
    report(f"{command.out}", path)
    print(f"wrote {path}")


def _embed(command: Embed) -> None:
    import json

    from safetensors.torch import save

    from ekd_lite.data import ImageFolder
    from ekd_lite.evaluate.embed import embed
    from ekd_lite.files import write_atomically
    from ekd_lite.train import load_model

    model = load_model(command.model)
    faces = ImageFolder(command.faces, image_size=model.info["image_size"])
    rows = embed(model.backbone, faces, progress="embedding")
    names = [file.relative_to(faces.root).as_posix() for file in faces.files]
    data = save({"embeddings": rows, "labels": faces.labels}, {"files": json.dumps(names)})
    write_atomically(command.out, data)
    print(f"wrote {command.out}: {tuple(rows.shape)}, {faces.num_identities} identities")


def _evaluate(command: Evaluate) -> None:
    from ekd_lite.evaluate import all_pairs_tpr_at_fpr, bootstrap_tpr_at_fpr
    from ekd_lite.evaluate.pairs import count_pairs

    rows, labels = _embeddings_of(command)
    num_genuine, num_impostor = count_pairs(labels)
    print(f"{len(rows):,} images, {num_genuine:,} genuine and {num_impostor:,} impostor pairs")
    shown = tuple(fpr for fpr in command.fprs if fpr * num_impostor >= 1)
    for fpr in set(command.fprs) - set(shown):
        print(f"FPR {fpr:.0e}: not measurable with {num_impostor:,} impostor pairs")
    if command.resamples:
        result = bootstrap_tpr_at_fpr(rows, labels, shown, num_resamples=command.resamples)
        for m, fpr in enumerate(shown):
            low, high = 100 * float(result.low[m]), 100 * float(result.high[m])
            tpr = 100 * float(result.estimate[m])
            print(f"FPR {fpr:.0e}: TPR {tpr:6.2f} % [{low:.2f}, {high:.2f}]")
    else:
        for fpr, tpr in zip(shown, all_pairs_tpr_at_fpr(rows, labels, shown).tolist(), strict=True):
            print(f"FPR {fpr:.0e}: TPR {100 * tpr:6.2f} %")


def _embeddings_of(command: Evaluate):  # type: ignore[no-untyped-def]
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from ekd_lite.data import load_splits
    from ekd_lite.evaluate.embed import embed
    from ekd_lite.train import load_model

    if command.source.is_file():
        try:
            tensors = load_file(command.source)
        except SafetensorError as error:
            raise ValueError(f"{command.source} is no safetensors file: {error}") from error
        if {"embeddings", "labels"} <= tensors.keys():
            return tensors["embeddings"], tensors["labels"]
    model = load_model(command.source)
    test = load_splits(command.faces, image_size=model.info["image_size"]).test
    return embed(model.backbone, test, progress="embedding"), test.labels


if __name__ == "__main__":
    sys.exit(main())
