"""Which token comes next. Rows do not see each other.

Shapes: B rows, V tokens of the vocabulary.
"""

import torch


def drawn(logits: torch.Tensor, uniform: torch.Tensor, *, temperature: float, top_p: float) -> torch.Tensor:
    """(B,) from logits (B, V), which are overwritten, and a number in [0, 1) for each row.

    Temperature 0 takes the likeliest token.
    """
    if temperature == 0:
        return logits.argmax(-1)
    # The highest is taken off first: a tiny temperature would make it infinite.
    powers = logits.sub_(logits.amax(-1, keepdim=True)).div_(temperature).exp_()
    if top_p < 1:
        powers = nucleus(powers, top_p)
    # A parallel sum need not rise where nothing is added: what is impossible must not be met by rounding.
    sums = powers.cumsum(-1).masked_fill_(powers == 0, 0)
    total = sums.amax(-1)
    below = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return (sums > below[:, None]).to(torch.uint8).argmax(-1)


def nucleus(powers: torch.Tensor, top_p: float) -> torch.Tensor:
    """Keeps the likeliest tokens up to the one that brings their share to `top_p`; the first in any case.

    Source: Holtzman et al., "The Curious Case of Neural Text Degeneration" (2020), section 3.1.
    """
    ordered, tokens = powers.sort(-1, descending=True)
    before = ordered.cumsum(-1).sub_(ordered)
    outside = before >= top_p * ordered.sum(-1, keepdim=True)
    outside[:, 0] = False
    return powers.scatter(-1, tokens, ordered.masked_fill_(outside, 0))
