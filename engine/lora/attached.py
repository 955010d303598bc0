"""peft's LoRA on a transformers model, with all its weights in one flat row as in `engine.lora.adapter`."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from engine.contract.spec import LoraOptions
from engine.core.batches import derived_seed
from engine.lora.adapter import copy_named, draw

A, B = ".lora_A.weight", ".lora_B.weight"


class FlatAdapter:
    """`weights` (P,) float32: the modules' A and B, by peft's names, behind each other. `gradient`: as long, or empty
    where nothing is ever learned."""

    def __init__(
        self,
        options: LoraOptions,
        *,
        shapes: Mapping[str, torch.Size],
        weights: torch.Tensor,
        gradient: torch.Tensor,
    ) -> None:
        self.options, self.shapes = options, shapes
        self.weights, self.gradient = weights, gradient

    def initialise(self, seed: int) -> None:
        """As `Adapter.initialise`, number for number. The global generator stays as it was."""
        for name, tensor in views(self.weights, self.shapes):
            if name.endswith(B):
                tensor.zero_()
                continue
            draw(tensor, seed=derived_seed(seed, name.removesuffix(A)))

    def state(self) -> dict[str, torch.Tensor]:
        """Views by peft's names."""
        return dict(views(self.weights, self.shapes))

    def load_state(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Raises ValueError when the weights are another adapter's."""
        copy_named(weights, into=self.state())

    def frozen_copy(self) -> "FlatAdapter":
        empty = self.gradient.new_empty(0)
        return FlatAdapter(self.options, shapes=self.shapes, weights=self.weights.clone(), gradient=empty)


def views(flat: torch.Tensor, shapes: Mapping[str, torch.Size]) -> Iterator[tuple[str, torch.Tensor]]:
    start = 0
    for name, shape in shapes.items():
        yield name, flat[start : start + shape.numel()].view(shape)
        start += shape.numel()


def lora_config(options: LoraOptions) -> LoraConfig:
    return LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        use_rslora=options.rslora,
        target_modules=sorted(options.target_modules),
        task_type="CAUSAL_LM",
    )


def attach(causal_lm: Any, options: LoraOptions) -> tuple[PeftModel, FlatAdapter]:
    """The modules' parameters become views of the adapter's row, and their gradients of its gradient.

    Raises ValueError when the model has none of the modules; then it is as it was.
    """
    with torch.random.fork_rng():  # peft draws an A that nobody keeps
        model = get_peft_model(causal_lm, lora_config(options))
    parameters = {
        name.replace(".default.", "."): parameter
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    size = sum(shape.numel() for shape in shapes.values())
    weights, gradient = (torch.zeros(size, device=causal_lm.device) for _ in range(2))
    found = zip(views(weights, shapes), views(gradient, shapes), parameters.values(), strict=True)
    for (_, weight), (_, grad), parameter in found:
        parameter.data, parameter.grad = weight, grad
    return model, FlatAdapter(options, shapes=shapes, weights=weights, gradient=gradient)


def detach(model: PeftModel) -> None:
    """Leaves the base model as it was."""
    model.unload()
    base = model.get_base_model()
    if hasattr(base, "peft_config"):
        del base.peft_config
