"""Every choice a training run makes, checked before anything starts."""

from __future__ import annotations

import dataclasses
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from ekd_lite.distill import DISTILLERS, parse_method
from ekd_lite.files import check_regular
from ekd_lite.heads import HEADS, NormFace
from ekd_lite.models import BACKBONES, MAX_EMBEDDING_DIM
from ekd_lite.ops import check_image_size, nearest_name

# Fields that a resumed run may change: the weights come out the same.
CHANGES_NOTHING = ("workers", "loader_timeout", "rank_timeout", "teacher_cache", "tensorboard")
OWN = "own:"  # before the class of a net that is not of this library


@dataclass(frozen=True)
class TrainConfig:
    """One run: a backbone under a margin head, alone or under a teacher.

    The defaults train the tiny student of the default experiment.
    """

    backbone: str = "tiny_student"
    """Name of the net, one of ekd_lite.models.BACKBONES; if fit is given a net of your own, its
    class is noted here, own:Net, and its width as embedding_dim."""
    embedding_dim: int = 128
    """Width D of the embedding."""
    image_size: int = 32
    """Side of the square images, pixels, a multiple of 16."""
    head: str = "arcface"
    """Name of the margin head, one of ekd_lite.heads.HEADS."""
    scale: float = 28.0
    """Scale s of the cosine logits; 64 is usual for many thousand identities."""
    margin: float = 0.4
    """Margin m: radians for ArcFace, cosine for CosFace."""
    method: str = "none"
    """Distillation: none, one of ekd_lite.distill.DISTILLERS, or several, as in ekd:2+fitnet."""
    teacher: str | None = None
    """File of the teacher (model.safetensors of its run, or any that Teacher.from_file reads);
    every method but none needs it, or a teacher handed to fit."""
    teacher_threshold: float | None = None
    """Cosine from which the teacher holds two images for one person, for the methods NAME_decisions
    and the sampler neighbours: Teacher.threshold_at measures it, best on people whom it was not
    trained on. Left out, these methods take that of the training rows at FPR 1e-4, by labels."""
    steps: int = 1500
    """Optimizer steps."""
    sampler: Literal["identities", "neighbours"] = "identities"
    """Where the genuine pairs of a batch come from: images of one label, or, without any label,
    images that the teacher accepts for one another. With neighbours, identity_weight 0 and a method
    that needs none, nothing looks at labels."""
    general: int = 48
    """Random images a batch."""
    identities: int = 12
    """Identities, or images with their neighbours, in the balanced part of a batch."""
    images_per_identity: int = 4
    """Images of each of them."""
    identity_weight: float = 1.0
    """Of the margin softmax; 0 leaves it out: distillation that needs no labels."""
    identity_loss_on: Literal["all", "general"] = "all"
    """Images the margin softmax sees; the EKD authors give it only the general part."""
    flip: bool = False
    """Mirror half of the images. Not for procedural faces: a mole on the left cheek is identity."""
    augment: bool = False
    """Shift images, change their light, make some coarser or compress them, at random. The target
    stays the teacher's embedding of the unchanged image, unless it is asked in every step."""
    optimizer: Literal["adamw", "sgd"] = "adamw"
    """AdamW, or SGD with momentum 0.9."""
    learning_rate: float = 3e-3
    """Peak rate, reached at the end of the warm-up."""
    schedule: Literal["cosine", "step"] = "cosine"
    """After the warm-up the rate falls to zero as a cosine, or by ten at each milestone."""
    milestones: tuple[float, ...] = (0.4, 0.7, 0.85)
    """Shares of the steps at which the "step" schedule divides the rate by ten."""
    weight_decay: float = 0.05
    """Not applied to batch-norm parameters, biases and other vectors."""
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises."""
    margin_ramp: float = 0.3
    """Share of the steps over which the margin rises from 0: at full size from the start, a small
    net may never begin to learn."""
    clip_norm: float = 0.0
    """Longest gradient (Euclidean norm over all parameters); 0 does not clip."""
    accumulate: int = 1
    """Batches whose gradients are averaged for a step. Losses on pairs still see one at a time."""
    precision: Literal["float32", "bf16", "fp16"] = "float32"
    """Of the backbones' arithmetic; heads and losses always have float32."""
    channels_last: bool = True
    """Memory format of the images; 1.3 to 1.7 times faster for these convolutions on a CPU."""
    compile: bool = False
    """Compile the backbone with torch.compile; needs a C++ compiler on a CPU."""
    sync_batch_norm: bool = False
    """With several processes: batch norm over the images of all of them."""
    partial_fc: float = 0.0
    """Split the prototypes among the processes, and let this share of them take part in a step; 1
    is exact, 0 keeps the ordinary head, all prototypes on every process."""
    max_bad_steps: int = 0
    """Steps with a loss or gradient that is not finite that are left out before the run stops."""
    seed: int = 0
    """Of weights, batches and flips."""
    device: str = "auto"
    """cpu, cuda, cuda:1, ... or auto: cuda where there is one."""
    workers: int = 0
    """Processes that read images ahead; 0: a thread does where files are decoded."""
    loader_timeout: float = 120.0
    """Seconds after which a batch that does not come is an error."""
    rank_timeout: float = 120.0
    """Seconds after which a process that does not answer the others is an error."""
    cache_teacher: bool = True
    """Embed the set once with the teacher instead of in every step. Only for sets that give the
    same image every time; that is checked."""
    teacher_cache: str | None = None
    """File that keeps these embeddings, for all runs with this teacher and these faces."""
    tensorboard: bool = False
    """Write TensorBoard files too."""
    log_every: int = 25
    """Steps between two lines of the log."""
    checkpoint_every: int = 250
    """Steps between two checkpoints."""

    def __post_init__(self) -> None:
        """Collect every problem and raise them as one ValueError."""
        problems = self._type_problems()
        if problems:  # nothing more can be asked of values of other types
            raise ValueError("bad training configuration:\n  " + "\n  ".join(problems))
        object.__setattr__(self, "milestones", tuple(self.milestones))  # JSON has lists only
        for value, known, what in (
            (self.backbone, BACKBONES, "backbone"),
            (self.head, HEADS, "head"),
        ):
            is_own = what == "backbone" and value.startswith(OWN)
            if value not in known and not is_own:
                problems.append(f"unknown {what} {value!r}{nearest_name(value, known)}")
        for check in (lambda: parse_method(self.method), lambda: check_image_size(self.image_size)):
            try:
                check()
            except ValueError as error:
                problems.append(str(error))
        if self.head in HEADS:
            try:
                HEADS[self.head].check_margin(self.margin)
            except ValueError as error:
                problems.append(str(error))
        problems += [
            f"{name} must be positive, got {getattr(self, name)}"
            for name in (
                *("embedding_dim", "scale", "steps", "learning_rate"),
                *("log_every", "checkpoint_every", "accumulate", "loader_timeout", "rank_timeout"),
            )
            if not 0 < getattr(self, name) < math.inf
        ]
        problems += [
            f"{name} must lie in [0, 1), got {getattr(self, name)}"
            for name in ("warmup", "margin_ramp")
            if not 0 <= getattr(self, name) < 1
        ]
        problems += [
            f"{name} must not be negative, got {getattr(self, name)}"
            for name in (
                *("identity_weight", "margin", "weight_decay", "clip_norm", "seed", "workers"),
                *("max_bad_steps", "general", "identities", "images_per_identity"),
            )
            if not 0 <= getattr(self, name) < math.inf
        ]
        problems += self._classifier_problems()
        if self.seed >= 2**63:
            problems.append(f"seed must be below 2^63, got {self.seed}")
        if self.method == "none" and self.identity_weight == 0:
            problems.append("identity_weight 0 without a method leaves nothing to learn from")
        problems += self._threshold_problems()
        problems += self._distributed_problems()
        if self.embedding_dim > MAX_EMBEDDING_DIM:
            problems.append(f"embedding_dim must be at most {MAX_EMBEDDING_DIM}")
        if not all(0 < share < 1 for share in self.milestones):
            problems.append(f"milestones must lie in (0, 1), got {self.milestones}")
        if problems:
            raise ValueError("bad training configuration:\n  " + "\n  ".join(problems))

    def _type_problems(self) -> list[str]:
        """Fields whose values are of another type than the class says."""
        problems = []
        for name, hint in get_type_hints(type(self)).items():
            value, choices = getattr(self, name), get_args(hint)
            if get_origin(hint) is Literal:
                is_right = value in choices
            elif get_origin(hint) is tuple:
                is_right = isinstance(value, tuple | list) and all(map(_is_number, value))
            elif hint is float:
                is_right = _is_number(value)
            else:  # bool is a kind of int only to Python
                is_right = isinstance(value, hint) and isinstance(value, bool) == (hint is bool)
            if not is_right:
                wanted = str(hint) if choices else hint.__name__
                problems.append(f"{name} must be {wanted.removeprefix('typing.')}, got {value!r}")
        return problems

    def _classifier_problems(self) -> list[str]:
        """What does not go with a loss that classifies by itself."""
        names = [part.partition(":")[0].strip() for part in self.method.split("+")]
        used = {name: DISTILLERS[name] for name in names if name in DISTILLERS}
        problems = []
        replacing = [name for name, method in used.items() if method.replaces_identity_loss]
        if len(replacing) > 1:
            problems.append(
                f"{' and '.join(map(repr, replacing))} in method {self.method!r} both take the "
                "place of the identity loss: keep one of them"
            )
        unit = HEADS[self.head].margins[2] if self.head in HEADS else "radians"
        angular = [name for name, method in used.items() if method.takes_margin]
        if angular and not unit.startswith("radians"):
            problems.append(
                f"method {angular[0]!r} adds the margin to an angle, and that of head "
                f"{self.head!r} is none ({unit}): choose head 'arcface'"
            )
        return problems

    def _threshold_problems(self) -> list[str]:
        """What is wrong with the teacher's threshold, and with what needs it."""
        problems = []
        if self.teacher_threshold is not None and not -1 < self.teacher_threshold < 1:
            problems.append(f"teacher_threshold must be a cosine, got {self.teacher_threshold}")
        if self.sampler == "neighbours" and self.method == "none":
            problems.append("sampler 'neighbours' asks the teacher, and method 'none' has none")
        elif self.sampler == "neighbours" and self.teacher_threshold is None:
            problems.append(
                "sampler 'neighbours' needs teacher_threshold, the cosine from which the teacher "
                "holds two images for one person: Teacher.threshold_at measures it on other "
                "people, threshold_bounds without labels"
            )
        return problems

    def _distributed_problems(self) -> list[str]:
        """What does not go with prototypes that are split among the processes."""
        problems = []
        if not 0 <= self.partial_fc <= 1:
            problems.append(f"partial_fc must lie in [0, 1], got {self.partial_fc}")
        if self.partial_fc:
            names = [part.partition(":")[0].strip() for part in self.method.split("+")]
            if any(name in DISTILLERS and DISTILLERS[name].needs == "logits" for name in names):
                problems.append(
                    f"method {self.method!r} compares the logits of all identities, and with "
                    "partial_fc no process has them"
                )
            head = HEADS.get(self.head)
            if head is not None and head.forward is not NormFace.forward:
                problems.append(f"head {self.head!r} cannot be split (partial_fc)")
        return problems

    def to_json(self) -> str:
        """The configuration as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> TrainConfig:
        """Read `to_json` text back, with all checks."""
        values: dict[str, Any] = json.loads(text)
        return cls(**values)

    def differences(self, other: TrainConfig) -> list[str]:
        """One line for every field in which another configuration differs, and that matters."""
        return [
            f"{name}: {mine!r} here, {getattr(other, name)!r} there"
            for name, mine in dataclasses.asdict(self).items()
            if mine != getattr(other, name) and name not in CHANGES_NOTHING
        ]


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_config(path: Path) -> TrainConfig:
    """Read a configuration file; a ValueError names the file and what is wrong with it."""
    check_regular(path)
    try:
        return TrainConfig.from_json(path.read_text(encoding="utf-8"))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no training configuration: {error}") from error
