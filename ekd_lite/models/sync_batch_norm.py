"""Batch norm over the batches of all processes.

torch's own `SyncBatchNorm` runs on GPUs only; where there is none this one takes its place, so that
two processes on a CPU can be shown to do what one does with the joined batch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ekd_lite.parallel import sum_over_ranks, world_size


def sync_batch_norms(net: nn.Module, *, device: torch.device) -> nn.Module:
    """Replace every batch norm of a net by one that normalises over all processes.

    Parameters and buffers keep their names and values, so that state dicts fit both ways.
    """
    if device.type != "cpu":
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(net)  # type: ignore[no-untyped-call]
        return converted
    for module in net.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, _share(child))
    return net


def _share(norm: nn.modules.batchnorm._BatchNorm) -> CpuSyncBatchNorm:
    shared = CpuSyncBatchNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats
    )
    shared.load_state_dict(norm.state_dict())
    for name, parameter in norm.named_parameters():
        getattr(shared, name).requires_grad_(parameter.requires_grad)
    return shared.train(norm.training)


class CpuSyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Mean and variance over all images of all processes; as `nn.BatchNorm2d` in evaluation."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.ndim < 2:
            raise ValueError(f"expected (N, C, ...), got {tuple(input.shape)}")

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, ...) -> the same shape."""
        if not self.training or world_size() == 1:
            return super().forward(input)
        self._check_input_dim(input)
        axes = [0, *range(2, input.ndim)]
        shape = [1, -1, *[1] * (input.ndim - 2)]
        count = input.numel() // input.shape[1] * world_size()
        mean = sum_over_ranks(input.sum(axes)) / count
        centred = input - mean.view(shape)
        variance = sum_over_ranks(centred.square().sum(axes)) / count
        if self.track_running_stats:
            self._track(mean.detach(), variance.detach() * count / max(count - 1, 1))
        output = centred * (variance + self.eps).rsqrt().view(shape)
        if self.affine:
            output = output * self.weight.view(shape) + self.bias.view(shape)
        return output

    def _track(self, mean: Tensor, variance: Tensor) -> None:
        """One step of the running statistics, as torch does it."""
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked += 1
        weight = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, weight)
        self.running_var.lerp_(variance, weight)
