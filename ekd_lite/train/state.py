"""Everything that must survive a crash, in one object."""

from __future__ import annotations

import contextlib
import operator
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ekd_lite.distill import DISTILLERS, Distiller, Setting, parse_method
from ekd_lite.heads import HEADS, NormFace, PartialFC
from ekd_lite.models.sync_batch_norm import sync_batch_norms
from ekd_lite.ops import one_line
from ekd_lite.parallel import broadcast_bytes, gather_bytes, rank, world_size
from ekd_lite.train.config import TrainConfig
from ekd_lite.train.distributed import from_bytes, in_group, rng_state, set_rng_state, to_bytes
from ekd_lite.train.model_file import Model
from ekd_lite.train.net_form import shape_differences
from ekd_lite.train.objective import HALF, Objective
from ekd_lite.train.optim import build_optimizer
from ekd_lite.train.origin import Origin, differences
from ekd_lite.train.student import Student, build_student
from ekd_lite.train.teacher import Teacher, as_teacher
from ekd_lite.train.undo import not_sent

PARTS = ("backbone", "head", "distillers", "optimizer", "scaler")


@dataclass
class TrainState:
    """A run between two steps.

    The position in the data needs no field: batches, flips, learning rate and margin are functions
    of `step`, so restoring the step restores them all.

    Attributes:
        config: the run's configuration.
        backbone: the net in training.
        head: its margin head.
        distillers: name -> loss module; EKD keeps its running thresholds in it.
        optimizer: of all three.
        teacher: frozen, or None.
        objective: the three as one module; under torchrun wrapped by DistributedDataParallel.
        scaler: of the loss in fp16, idle otherwise.
        step: steps done.
        bad_steps: steps left out because something was not finite.
        seconds: time spent, over all restarts.
        origin: the run's faces, people and teacher (`ekd_lite.train.origin`), which a saved state
            must share; empty if nobody looks.
        people: numbers of the people (`Model.people`), for the finished model.
    """

    config: TrainConfig
    backbone: nn.Module
    head: NormFace | PartialFC
    distillers: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    teacher: Teacher | None
    objective: nn.Module
    scaler: torch.amp.GradScaler
    step: int = 0
    bad_steps: int = 0
    seconds: float = 0.0
    origin: Origin = field(default_factory=dict)
    people: Tensor | None = None

    @property
    def device(self) -> torch.device:
        """Where the nets are."""
        return self.head.prototypes.device

    def parameters(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Parameters that every process has, and those that only this one has."""
        modules = [self.backbone, self.distillers]
        sharded = list(self.head.parameters()) if isinstance(self.head, PartialFC) else []
        modules += [] if sharded else [self.head]
        return [p for module in modules for p in module.parameters()], sharded

    def no_sync(self) -> contextlib.AbstractContextManager[None]:
        """While open, a backward pass does not exchange gradients."""
        if isinstance(self.objective, DistributedDataParallel):
            return self.objective.no_sync()
        return contextlib.nullcontext()

    def state_dict(self) -> dict[str, Any]:
        """Plain tensors, numbers and text: readable with `weights_only=True`.

        All processes must call it; rank 0 gets everything, the others {}. What only one process
        knows, its generators and its shard of a PartialFC, is in "ranks", as bytes by rank.
        """
        own = rng_state()
        if isinstance(self.head, PartialFC):
            own["head"] = self.head.state_dict()
            own["momenta"] = self.optimizer.state.get(self.head.prototypes, {})
        ranks = gather_bytes(to_bytes(own))
        if rank():
            return {}
        state = {
            "config": self.config.to_json(),
            "step": self.step,
            "bad_steps": self.bad_steps,
            "seconds": self.seconds,
            "ranks": [torch.frombuffer(bytearray(data), dtype=torch.uint8) for data in ranks],
        }
        if self.origin:
            state["origin"] = self.origin
        for name in PARTS:
            if name == "head" and "head" in own:
                continue
            state[name] = getattr(self, name).state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go back to a saved state.

        Raises:
            ValueError: the state belongs to another configuration, other faces, another teacher or
                number of processes, every difference is named; or it is no state of a run.
        """
        try:
            found = self.config.differences(TrainConfig.from_json(state["config"]))
            if len(state["ranks"]) != world_size():
                found.append(f"processes: {world_size()} here, {len(state['ranks'])} there")
            if "origin" in state and self.origin:
                found += differences(self.origin, state["origin"])
            elif self.origin:
                warnings.warn(
                    "the checkpoint does not say which faces and which teacher it belongs to: they "
                    "are taken to be those given now",
                    stacklevel=2,
                )
            backbone = self.backbone.state_dict()
            misfits = shape_differences(backbone, state["backbone"], "here", "there")
            if not found and misfits:
                raise ValueError("; ".join(misfits))
            if not found:
                self._restore(state)
                return
            if any(line.startswith("student:") for line in found):
                found += misfits
        except (KeyError, TypeError, AttributeError, IndexError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"the checkpoint is no saved state of such a run: {one_line(error)}"
            ) from error
        raise ValueError(
            "the checkpoint belongs to another configuration, another student, other faces or "
            "another teacher:\n  "
            + "\n  ".join(found)
            + "\ngo on with those, or train into another folder"
        )

    def _restore(self, state: dict[str, Any]) -> None:
        own = from_bytes(state["ranks"][rank()].cpu().numpy().tobytes(), device=self.device)
        for name in PARTS:
            getattr(self, name).load_state_dict(own[name] if name in own else state[name])
        if "momenta" in own:
            self.optimizer.state[self.head.prototypes] = own["momenta"]
        self.step = operator.index(state["step"])
        self.bad_steps = operator.index(state["bad_steps"])
        self.seconds = float(state["seconds"])
        set_rng_state(own)

    def resume(self, saved: bytes | None) -> None:
        """Go back to what rank 0 read from its disk; nothing happens if that is nothing."""
        saved = broadcast_bytes(saved)
        if saved is None:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # torch on pickles that it is about to refuse
                state: Any = from_bytes(saved, device=self.device)
        except Exception as error:  # unpickling hostile bytes raises whatever it comes upon
            raise ValueError(
                "the checkpoint holds something else than tensors, numbers and text, or is damaged "
                f"({type(error).__name__}); nothing in it was executed. Delete it to start anew"
            ) from error
        self.load_state_dict(state)

    def full_head(self) -> NormFace:
        """The head with the prototypes of all identities; all processes must call it."""
        if isinstance(self.head, NormFace):
            return self.head
        config = self.config
        head = HEADS[config.head](
            config.embedding_dim, 1, scale=config.scale, margin=self.head.margin
        )
        head.prototypes = nn.Parameter(self.head.gather_prototypes())
        return head


def build_state(
    config: TrainConfig,
    num_identities: int,
    teacher: Teacher | Model | None,
    device: torch.device | str,
    *,
    methods: Mapping[str, Distiller] = DISTILLERS,
    student: Student | nn.Module | Callable[[], nn.Module] | None = None,
    threshold: float | None = None,
    gallery: tuple[Tensor, Tensor] | None = None,
) -> TrainState:
    """Fresh nets and optimizer; the seed decides every initial weight.

    Args:
        config: of the run.
        num_identities: C.
        teacher: whose embeddings the batches hold; None without a method.
        device: where the nets are.
        methods: what the names in `config.method` stand for.
        student: a net of your own, as for `fit`; left out, the one that the configuration names.
        threshold: the teacher's, if the configuration names none and a method needs it.
        gallery: the teacher's rows of the training set and their labels, for a method that looks at
            them.
    """
    device = torch.device(device)
    if not isinstance(student, Student):
        student = build_student(config, student, device=device)
    config, backbone = student.config, student.net
    torch.set_rng_state(student.generator)
    if config.sync_batch_norm:
        backbone = sync_batch_norms(backbone, device=device)
    head = _build_head(config, num_identities).to(device)
    distillers, teacher_head = nn.ModuleDict(), None
    if teacher is not None:
        teacher = as_teacher(teacher)
        assert teacher.width is not None  # load_teacher has seen to it
        teacher_head = teacher.head
        setting = Setting(
            student_dim=config.embedding_dim,
            teacher_dim=teacher.width,
            teacher_prototypes=(
                torch.zeros(0, teacher.width)
                if teacher_head is None
                else teacher_head.prototypes.detach()
            ),
            scale=config.scale,
            num_identities=num_identities,
            margin=config.margin,
            teacher_threshold=threshold if threshold is not None else config.teacher_threshold,
            gallery=gallery,
        )
        for name in parse_method(config.method):
            distillers[name] = methods[name].build(setting)
    distillers.to(device)
    objective: nn.Module = Objective(
        config, backbone, head, distillers, teacher_head, methods=methods
    )
    optimizer = build_optimizer([backbone, head, distillers], config)
    if config.compile:
        backbone.compile()
    if in_group():
        # Else it would send whole tables, and some hundred vectors, at every forward pass.
        ignore: Any = DistributedDataParallel._set_params_and_buffers_to_ignore_for_model
        ignore(objective, not_sent(objective))
        objective = DistributedDataParallel(
            objective,
            device_ids=[device.index] if device.type == "cuda" else None,
            find_unused_parameters=bool(student.idle),
        )
    if rank():
        torch.manual_seed(config.seed + 0x9E3779B9 * rank())  # the processes' dropouts differ
    scaler = torch.amp.GradScaler(device.type, enabled=HALF[config.precision] == torch.float16)
    return TrainState(config, backbone, head, distillers, optimizer, teacher, objective, scaler)


def _build_head(config: TrainConfig, num_identities: int) -> NormFace | PartialFC:
    """The ordinary head, or the one whose prototypes are split among the processes."""
    head, dim = HEADS[config.head], config.embedding_dim
    if not config.partial_fc:
        return head(dim, num_identities, scale=config.scale, margin=config.margin)
    return PartialFC(
        head,
        dim,
        num_identities,
        scale=config.scale,
        margin=config.margin,
        sample_rate=config.partial_fc,
        sparse=True,  # of rows that took no part neither gradient nor moments are touched
        seed=config.seed,
    )


def distiller_stats(state: TrainState) -> dict[str, float]:
    """What the losses tell of the last batch, e.g. {"ekd_critical_share": 0.03}."""
    return {
        f"{name}_{key}": float(value)
        for name, module in state.distillers.items()
        for key, value in getattr(module, "stats", {}).items()
    }
