"""What is past its time goes, with its bytes; what a job needs stays."""

import io

from api.blobs.objects import file_key, part_key
from api.domain.uploads import NewUpload
from api.services.expiry import Expiry
from api.services.uploads import UploadService
from tests.store.test_leases import queued
from tests.support.stores import World


async def test_expired_files_go_but_not_those_of_live_jobs(world: World) -> None:
    job = await queued(world)
    idle = await world.files.create(
        world.caller, filename="a.txt", purpose="user_data", source=io.BytesIO(b"x"), size_bytes=1
    )
    async with world.database.transaction() as connection:
        await connection.execute("update file set expires_at = now() - interval '1 minute'")
    expiry = Expiry(database=world.database, blobs=world.blobs)
    await expiry.sweep()
    assert await world.blobs.size(file_key(idle.id)) is None
    assert await world.blobs.size(file_key(job.training_file)) is not None
    await world.jobs.cancel(world.caller, job.id)
    await expiry.sweep()
    assert await world.blobs.size(file_key(job.training_file)) is None


async def test_parts_of_dead_uploads_go(world: World) -> None:
    service = UploadService(
        database=world.database,
        blobs=world.blobs,
        new_id=world.new_id,
        files=world.files,
        quotas=world.quotas,
    )
    new = NewUpload(filename="a.txt", purpose="user_data", size_bytes=2)
    keys = []
    for ending in ("cancelled", "forgotten", "live"):
        upload = await service.create(world.caller, new)
        part = await service.add_part(world.caller, upload.id, source=io.BytesIO(b"x"), size_bytes=1)
        keys.append(part_key(upload.id, part.id))
        if ending == "cancelled":
            await service.cancel(world.caller, upload.id)
        if ending == "forgotten":
            query = "update upload set expires_at = now() - interval '1 hour' where id = %s"
            async with world.database.transaction() as connection:
                await connection.execute(query, (upload.id,))
    await Expiry(database=world.database, blobs=world.blobs).sweep()
    assert [await world.blobs.size(key) for key in keys] == [None, None, 1]
