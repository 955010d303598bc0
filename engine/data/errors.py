"""What is wrong with a run's data, in words for its owner."""


class DataError(Exception):
    """`param` is `training_file` or `validation_file`."""

    def __init__(self, message: str, *, param: str) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
