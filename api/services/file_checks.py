"""Files of jobs, read line by line: what is wrong with one, by name and line, or how many examples it holds."""

from random import Random
from typing import Final, assert_never

from api.blobs.objects import Blobs, file_key
from api.domain.estimates import Checked
from api.domain.jobs import DpoMethod, JobError, Method, ReinforcementMethod, SupervisedMethod
from api.domain.sampling import Reservoir
from api.services.jsonl import LineError, lines_from
from api.services.rows import CheckLine, checker_for
from api.store import files
from api.store.database import Database
from engine.contract.formats import FormatError
from engine.graders.item_keys import item_keys

MIN_EXAMPLES: Final = 10
SAMPLE: Final = 256  # rows whose tokens are counted for the estimate


class InvalidFileError(Exception):
    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


class FileChecks:
    def __init__(self, *, database: Database, blobs: Blobs) -> None:
        self._database, self._blobs = database, blobs

    async def check(self, file_id: str, *, project_id: str, method: Method, param: str) -> Checked:
        """Raises InvalidFileError."""
        async with self._database.transaction() as connection:
            file = await files.get(connection, project_id=project_id, file_id=file_id)
        if file is None:
            raise gone(file_id, param=param)
        examples, line_number, check = 0, 0, checker_of(method)
        sample = Reservoir(SAMPLE, random=Random(file_id))
        async for lines in lines_from(self._blobs.read(file_key(file_id))):
            for line in lines:
                line_number += 1
                if not line or line.isspace():
                    continue
                examples += 1
                try:
                    check(line)
                except (FormatError, LineError) as error:
                    raise bad_format(error.reason, example=examples, line=line_number, param=param) from error
                if examples == sample.wants:
                    sample.take(line)
        least = MIN_EXAMPLES if param == "training_file" else 1
        if examples < least:
            raise too_few(examples, least=least, param=param)
        return Checked(
            examples=examples, size=max(0, file.size_bytes - line_number + 1), sample=sample.taken()
        )


def checker_of(method: Method) -> CheckLine:
    match method:
        case SupervisedMethod():
            return checker_for("supervised")
        case DpoMethod():
            return checker_for("dpo")
        case ReinforcementMethod():
            return checker_for("reinforcement", needed=item_keys(method.grader))
        case _:
            assert_never(method)


def named(param: str) -> str:
    return param.replace("_", " ")


def gone(file_id: str, *, param: str) -> InvalidFileError:
    message = f"The {named(param)} {file_id} has been deleted. Upload it again and create a new job."
    return InvalidFileError(JobError(code=f"invalid_{param}", message=message, param=param))


def too_few(examples: int, *, least: int, param: str) -> InvalidFileError:
    plural = "example" if least == 1 else "examples"
    message = (
        f"{named(param).capitalize()} has {examples} example(s), but must have at least {least} {plural}. "
        "Add more and create a new job."
    )
    return InvalidFileError(JobError(code="invalid_n_examples", message=message, param=param))


def bad_format(reason: str, *, example: int, line: int, param: str) -> InvalidFileError:
    joint = "" if reason.startswith(",") else " "
    message = (
        f"The job failed due to a file format error in the {named(param)}. Invalid file format. "
        f"Example {example} (line {line}){joint}{reason}"
    )
    return InvalidFileError(JobError(code="invalid_file_format", message=message, param=param))
