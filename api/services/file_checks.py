"""Files of jobs, read line by line: what is wrong with one, by name and line, or how many examples it holds.

A file's bytes never change, so a right one that was read lately is not read again: a job with a budget is looked at in its
request and in validation, and many jobs may name one file.
"""

from random import Random
from typing import Final, assert_never

from api.blobs.objects import Blobs, file_key
from api.domain.estimates import Checked
from api.domain.files import File
from api.domain.jobs import DpoMethod, JobError, Method, ReinforcementMethod, SupervisedMethod
from api.domain.sampling import Reservoir
from api.services.jsonl import LineError, lines_from
from api.services.remembered import Remembered
from api.services.rows import CheckLine, MethodName, checker_for
from api.store import files
from api.store.database import Database
from engine.contract.formats import FormatError
from engine.graders.item_keys import item_keys

MIN_EXAMPLES: Final = 10
SAMPLE: Final = 256  # rows whose tokens are counted for the estimate
REMEMBERED_BYTES: Final = 64 * 1024 * 1024  # of all samples that are kept
Key = tuple[str, MethodName, frozenset[str]]


class InvalidFileError(Exception):
    def __init__(self, error: JobError) -> None:
        super().__init__(error.message)
        self.error = error


def weight(checked: Checked) -> int:
    return 1024 + sum(map(len, checked.sample))


class FileChecks:
    def __init__(self, *, database: Database, blobs: Blobs) -> None:
        self._database, self._blobs = database, blobs
        self._remembered = Remembered[Key, Checked](most_bytes=REMEMBERED_BYTES, weigh=weight)

    async def check(self, file_id: str, *, project_id: str, method: Method, param: str) -> Checked:
        """For a request. Raises InvalidFileError."""
        async with self._database.transaction() as connection:
            file = await files.get(connection, project_id=project_id, file_id=file_id)
        return await self._checked(file, file_id, method=method, param=param)

    async def check_kept(self, file_id: str, *, project_id: str, method: Method, param: str) -> Checked:
        """For a job that is there: its file may have come to its time while it waited. Raises InvalidFileError."""
        async with self._database.transaction() as connection:
            file = await files.kept(connection, project_id=project_id, file_id=file_id)
        return await self._checked(file, file_id, method=method, param=param)

    async def _checked(self, file: File | None, file_id: str, *, method: Method, param: str) -> Checked:
        if file is None:
            raise gone(file_id, param=param)
        key = (file_id, *asked_by(method))
        checked = self._remembered.of(key)
        if checked is None:
            checked = await self._read(file, checker_for(key[1], needed=key[2]), param=param)
            self._remembered.keep(key, checked)
        least = MIN_EXAMPLES if param == "training_file" else 1
        if checked.examples < least:
            raise too_few(checked.examples, least=least, param=param)
        return checked

    async def _read(self, file: File, check: CheckLine, *, param: str) -> Checked:
        examples, line_number = 0, 0
        sample = Reservoir(SAMPLE, random=Random(file.id))
        async for lines in lines_from(self._blobs.read(file_key(file.id))):
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
        return Checked(
            file_id=file.id,
            examples=examples,
            size=max(0, file.size_bytes - line_number + 1),
            sample=sample.taken(),
        )


def asked_by(method: Method) -> tuple[MethodName, frozenset[str]]:
    """What its rows must be, and must hold."""
    match method:
        case SupervisedMethod():
            return "supervised", frozenset()
        case DpoMethod():
            return "dpo", frozenset()
        case ReinforcementMethod():
            return "reinforcement", item_keys(method.grader)
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
