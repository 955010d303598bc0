"""What one row of a training file may look like, per method. Torch-free: the control plane checks with it."""

from engine.contract.formats.messages import FormatError
from engine.contract.formats.rows import check_dpo, check_reinforcement, check_supervised

__all__ = ["FormatError", "check_dpo", "check_reinforcement", "check_supervised"]
