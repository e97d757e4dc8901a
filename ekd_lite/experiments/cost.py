r"""How cost grows with images, identities and processes: the formulas of the book's scaling page.

For a step of W processes with n images each, N = W n, C identities, embeddings of width D, student
and teacher of f_s and f_t multiply-adds an image (1 MAC = 2 FLOP; a backward pass costs two forward
passes):

    student  6 f_s n            teacher  2 f_t n            (a process)
    head     6 n C D on every process with an ordinary head,
             6 N D C r / W with prototypes that are split, of which a share r takes part
    pairs    4 N^2 D            EKD on the gathered batch, once on every process

    state    4 (2 + m) (P + C D) bytes, or C / W with split prototypes; m moments of the optimizer
    logits   8 n C bytes with the ordinary head (four such matrices under plain autograd: 16 n C),
             8 N C r / W in closed form;  pairs  8 N^2 bytes
    sent     8 (W - 1) / W P bytes of gradients, 8 N D bytes of embeddings and their gradients

Time is FLOP over the rate that a kind of net sustains, which must be measured once.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Machine:
    """Sustained rates of one process, FLOP a second.

    Attributes:
        student: of the student's training. Depthwise nets are bound by memory and stay far below
            the peak.
        dense: of large products and of ResNets.
    """

    student: float
    dense: float


@dataclass(frozen=True)
class PlannedRun:
    """A training run that is only planned: its shape, from which the cost follows.

    Attributes:
        steps: optimizer steps.
        images: n, of one process and step.
        processes: W.
        identities: C.
        student_macs: f_s, an image.
        student_parameters: P, of the backbone.
        teacher_macs: f_t; 0 if its embeddings are cached.
        dim: D.
        sample_rate: r.
        is_split: whether the processes share the prototypes.
        moments: m, 1 for SGD with momentum and 2 for AdamW.
    """

    steps: int
    images: int
    processes: int
    identities: int
    student_macs: float = 221_161_984
    student_parameters: int = 1_199_488
    teacher_macs: float = 6_296_485_888
    dim: int = 512
    sample_rate: float = 1.0
    is_split: bool = True
    moments: int = 1

    @property
    def gathered(self) -> int:
        """N, images a step of all processes."""
        return self.images * self.processes

    def flop(self) -> dict[str, float]:
        """Operations of one process and step, by part."""
        shard = self.identities * self.sample_rate / self.processes
        columns, rows = (shard, self.gathered) if self.is_split else (self.identities, self.images)
        return {
            "student": 6 * self.student_macs * self.images,
            "teacher": 2 * self.teacher_macs * self.images,
            "head": 6 * rows * columns * self.dim,
            "pairs": 4 * self.gathered**2 * self.dim,
        }

    def seconds(self, machine: Machine) -> dict[str, float]:
        """Seconds of one step, by part."""
        return {
            name: flop / (machine.student if name == "student" else machine.dense)
            for name, flop in self.flop().items()
        }

    def hours(self, machine: Machine) -> float:
        """Hours of the run; exchange and reading are taken to overlap with computing."""
        return sum(self.seconds(machine).values()) * self.steps / 3600

    def bytes(self) -> dict[str, float]:
        """Memory of one process, by part; activations of the backbones are not in it."""
        share = self.processes if self.is_split else 1
        shard = self.identities / share
        prototypes = shard * self.dim
        rows = self.gathered if self.is_split else self.images
        rate = self.sample_rate if self.is_split else 1.0
        return {
            "backbone": 4 * (2 + self.moments) * self.student_parameters,
            "prototypes": 4 * (2 + self.moments) * prototypes,
            "logits": (8 if self.is_split else 16) * rows * shard * rate,
            "pairs": 8.0 * self.gathered**2,
        }

    def sent(self) -> float:
        """Bytes that one process sends in a step."""
        others = (self.processes - 1) / self.processes
        return 8 * others * (self.student_parameters + self.gathered * self.dim)
