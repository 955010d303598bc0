"""AdamW on one run's flat row: its own moments, step count, rate and clipping, whatever its neighbours do."""

from typing import Final

import torch

from engine.contract.spec import TrainingOptions

BETAS: Final = (0.9, 0.95)
MOMENTS: Final = ("exp_avg", "exp_avg_sq")


class RowOptimizer:
    """`weights` and `gradient`: (P,) float32. With the two moments a run costs 16 bytes per weight."""

    def __init__(self, weights: torch.Tensor, gradient: torch.Tensor, *, options: TrainingOptions) -> None:
        self._weights = weights
        self._row = torch.nn.Parameter(weights)
        self._row.grad = gradient
        self._most = options.max_grad_norm
        self._adam = torch.optim.AdamW(
            [self._row], lr=0.0, betas=BETAS, weight_decay=options.weight_decay, fused=True
        )

    def step(self, learning_rate: float) -> float:
        """One step on the gradient, which is then zero. Returns the gradient's norm before it was clipped."""
        norm = torch.nn.utils.clip_grad_norm_([self._row], self._most)
        self._adam.param_groups[0]["lr"] = learning_rate
        self._adam.step()
        torch.autograd.graph.increment_version(self._weights)  # a Parameter counts its own changes alone
        self.forget_gradient()
        return float(norm)

    def forget_gradient(self) -> None:
        assert self._row.grad is not None
        self._row.grad.zero_()

    def state(self) -> tuple[int, dict[str, torch.Tensor]]:
        """Steps taken, and the moments by name."""
        found = self._adam.state.get(self._row, {})
        moments = {name: found.get(name, torch.zeros_like(self._row)).detach() for name in MOMENTS}
        return int(found.get("step", 0)), moments

    def load_state(self, steps: int, moments: dict[str, torch.Tensor]) -> None:
        device = self._row.device
        self._adam.state[self._row] = {
            "step": torch.tensor(float(steps), device=device),
            **{name: moments[name].to(device) for name in MOMENTS},
        }
