"""`python -m engine.worker`: leases runs from the control plane and has its trainer train them. No torch here."""

import asyncio
import logging
import signal
from typing import Final

from engine.contract import failpoints
from engine.settings import EngineSettings, trainer_environment
from engine.worker import workspace
from engine.worker.control_plane import ControlPlane, credentials
from engine.worker.session import Session, Stopping
from engine.worker.trainer_process import TrainerDiedError, TrainerProcess
from engine.worker.transfers import Transfers

FIRST_PAUSE_SECONDS: Final = 1.0
LONGEST_PAUSE_SECONDS: Final = 30.0

log = logging.getLogger("tuningfork.worker")


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)  # its lines hold signed URLs
    settings = EngineSettings()
    with workspace.held(settings.workspace):
        asyncio.run(work(settings))


async def work(settings: EngineSettings) -> None:
    """Until SIGTERM or SIGINT: then every run is given back with all that was done, and the trainer has ended."""
    stopping = Stopping()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.signalled)
    control = ControlPlane(
        address=settings.control_plane,
        token=settings.worker_token.get_secret_value(),
        engine_id=settings.engine_id,
        base_model=settings.base_model,
        tls=credentials(ca=settings.control_plane_ca, certificate=settings.certificate, key=settings.key),
    )
    transfers = Transfers()
    pause = FIRST_PAUSE_SECONDS
    while not stopping.asked.is_set():
        try:
            await one_trainer(settings, control=control, transfers=transfers, stopping=stopping)
            pause = FIRST_PAUSE_SECONDS
        except TrainerDiedError as error:
            log.error("the trainer died (%s); another starts in %.0f s", error, pause)
            await asyncio.wait({asyncio.create_task(stopping.asked.wait())}, timeout=pause)
            pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
    await transfers.close()
    await control.close()


async def one_trainer(
    settings: EngineSettings, *, control: ControlPlane, transfers: Transfers, stopping: Stopping
) -> None:
    starting = asyncio.create_task(TrainerProcess.start(settings, environment=trainer_environment()))
    stop = asyncio.create_task(stopping.asked.wait())
    await asyncio.wait({starting, stop}, return_when=asyncio.FIRST_COMPLETED)
    stop.cancel()
    if stopping.asked.is_set():
        starting.cancel()
        await asyncio.wait({starting})
        return
    trainer = starting.result()
    session = Session(
        trainer=trainer,
        control=control,
        transfers=transfers,
        workspace=settings.workspace,
        failpoints=failpoints.parse(settings.failpoints),
        drain_seconds=settings.drain_seconds,
    )
    try:
        await session.serve(stopping)
    finally:
        await trainer.end()


if __name__ == "__main__":
    main()
