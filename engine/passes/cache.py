"""Keys and values of answers in the making: each prompt's once, and of every answer those of its own tokens.

All answers are equally long, as they begin together; one that ends gives its place to the last.
Shapes: N prompts, P tokens of the longest, B answers, W the most of one prompt, S own tokens, H heads, K key heads,
G = H / K, E features of a head.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

GROWTH: Final = 64  # own tokens that room is made for at a time


@dataclass(frozen=True, kw_only=True)
class Grid:
    """Where each answer lies when every prompt has `width` places. `slots`: (B,), None where it is their order already.

    `unseen`: (B, 1, 1, P), what of the padded prompts is no prompt; None where nothing is padded.
    """

    prompts: int
    width: int
    slots: torch.Tensor | None
    unseen: torch.Tensor | None

    def by_prompt(self, x: torch.Tensor) -> torch.Tensor:
        """(B, K, G, X) -> (N, K, W * G, X): what reads the same prompt is one product."""
        _, key_heads, group, features = x.shape
        if self.slots is not None:
            laid = x.new_zeros(self.prompts * self.width, key_heads, group, features)
            laid[self.slots] = x
            x = laid
        x = x.reshape(self.prompts, self.width, key_heads, group, features).transpose(1, 2)
        return x.reshape(self.prompts, key_heads, self.width * group, features)

    def by_answer(self, x: torch.Tensor) -> torch.Tensor:
        """The other way."""
        _, key_heads, rows, features = x.shape
        group = rows // self.width
        x = x.view(self.prompts, key_heads, self.width, group, features).transpose(1, 2)
        x = x.reshape(self.prompts * self.width, key_heads, group, features)
        return x if self.slots is None else x[self.slots]


def grid_of(prompt_of: Sequence[int], lengths: torch.Tensor) -> Grid:
    """prompt_of: of each answer; lengths: (N,), of each prompt."""
    seen: Counter[int] = Counter()
    places = []
    for prompt in prompt_of:
        places.append((prompt, seen[prompt]))
        seen[prompt] += 1
    width, prompts, device = max(seen.values()), len(lengths), lengths.device
    slots = [prompt * width + nth for prompt, nth in places]
    ordered = slots == list(range(prompts * width))
    unseen = torch.arange(int(lengths.max()), device=device) >= lengths[:, None]
    return Grid(
        prompts=prompts,
        width=width,
        slots=None if ordered else torch.tensor(slots, device=device),
        unseen=unseen[list(prompt_of), None, None] if unseen.any() else None,
    )


class Cache:
    def __init__(self, lengths: Sequence[int], counts: Sequence[int], *, device: torch.device) -> None:
        """Tokens of each prompt, and how many answers it has. Answers stand in the order of their prompts."""
        self.prompt_of = [prompt for prompt, count in enumerate(counts) for _ in range(count)]
        self._lengths, self._device = list(lengths), device
        self._gather = gathering(lengths, device=device)
        self._prompts: list[torch.Tensor] = []  # of each layer: (2, N, K, P, E)
        self._own: list[torch.Tensor] = []  # of each layer: (2, B, K, room, E)
        self._room = self._taken = 0
        self._grid: Grid | None = None

    def keep(self, key: torch.Tensor, value: torch.Tensor) -> None:
        """The next layer's, of all prompts behind each other: (T, K, E)."""
        self._prompts.append(torch.stack([t[self._gather].transpose(1, 2) for t in (key, value)]))

    def next_token(self) -> torch.Tensor:
        """Makes room for one more token of each answer; its positions (B,)."""
        if self._taken == self._room:
            self._grow()
        lengths = torch.tensor(self._lengths, device=self._device)
        if self._grid is None:
            self._grid = grid_of(self.prompt_of, lengths)
        self._taken += 1
        return lengths[self.prompt_of] + (self._taken - 1)

    def attend(self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
        """(B, H * E) of the newest tokens: each sees its prompt and its own answer, itself included."""
        grid = self._grid
        assert grid is not None
        answers, key_heads, size = key.shape
        own = self._own[layer][:, :answers, :, : self._taken]
        own[0, :, :, -1], own[1, :, :, -1] = key, value
        longest = max(self._lengths)
        prompts = self._prompts[layer][:, : grid.prompts, :, :longest]
        q = (query * size**-0.5).view(answers, key_heads, -1, size)
        before = grid.by_answer(grid.by_prompt(q) @ prompts[0].mT)
        if grid.unseen is not None:
            before = before.masked_fill_(grid.unseen, -torch.inf)
        scores = torch.cat([before, q @ own[0].mT], dim=-1)
        weights = scores.softmax(-1, dtype=torch.float32).to(value.dtype)
        mixed = grid.by_answer(grid.by_prompt(weights[..., :longest]) @ prompts[1])
        out: torch.Tensor = mixed + weights[..., longest:] @ own[1]
        return out.flatten(1)

    def drop(self, answer: int) -> None:
        """The last answer takes its place, and the last prompt that of a prompt without answers."""
        prompt, last = self.prompt_of[answer], len(self.prompt_of) - 1
        move(self._own, last, answer)
        self.prompt_of[answer] = self.prompt_of[last]
        self.prompt_of.pop()
        if prompt not in self.prompt_of:
            last = len(self._lengths) - 1
            move(self._prompts, last, prompt)
            self._lengths[prompt] = self._lengths[last]
            self._lengths.pop()
            self.prompt_of = [prompt if each == last else each for each in self.prompt_of]
        self._grid = None

    def _grow(self) -> None:
        """Layer by layer, and for the answers that are left."""
        self._room += GROWTH
        answers, before = len(self.prompt_of), self._own
        self._own = []
        for layer, prompts in enumerate(self._prompts):
            room = prompts.new_empty((2, answers, prompts.shape[2], self._room, prompts.shape[4]))
            if before:
                room[:, :, :, : self._taken] = before[layer][:, :answers, :, : self._taken]
                before[layer] = room  # nothing holds the smaller one any longer
            self._own.append(room)


def move(layers: Sequence[torch.Tensor], source: int, target: int) -> None:
    if source != target:
        for layer in layers:
            layer[:, target] = layer[:, source]


def gathering(lengths: Sequence[int], *, device: torch.device) -> torch.Tensor:
    """(N, P): where each prompt's tokens lie when they lie behind each other; past its end any token, which is unseen."""
    sizes = torch.tensor(lengths)
    starts = sizes.cumsum(0) - sizes
    within = torch.arange(max(lengths))
    return torch.where(within < sizes[:, None], starts[:, None] + within, 0).to(device)
