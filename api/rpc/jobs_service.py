"""Fine-tuning jobs over gRPC."""

from collections.abc import AsyncIterator
from typing import Any

from tuningfork.v1 import jobs_pb2 as pb
from tuningfork.v1 import jobs_pb2_grpc

from api.domain.events import JobEvent
from api.domain.jobs import Job
from api.forms.jobs import CreateJobBody, event_object, job_object, new_job
from api.forms.pages import EventsPage, JobsPage
from api.forms.words import checked
from api.rpc.calls import caller, current
from api.rpc.convert import fields_of, shown
from api.services.services import Services


class JobServicer(jobs_pb2_grpc.JobServiceServicer):  # type: ignore[misc]
    def __init__(self, services: Services) -> None:
        self._services = services

    async def CreateJob(self, request: pb.CreateJobRequest, context: Any) -> pb.CreateJobResponse:
        call = current.get()
        body = checked(CreateJobBody, fields_of(request))
        new = new_job(body)
        if body.dry_run:
            return pb.CreateJobResponse(job=job_to_pb(await self._services.jobs.dry_run(call.caller, new)))
        return pb.CreateJobResponse(
            job=job_to_pb(await self._services.jobs.create(call.caller, new, once=call.once))
        )

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=job_to_pb(await self._services.jobs.retrieve(caller(), request.job_id)))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        asked = checked(JobsPage, fields_of(request))
        page = await self._services.jobs.list(caller(), **asked.model_dump())
        return pb.ListJobsResponse(data=[job_to_pb(job) for job in page.items], has_more=page.has_more)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        return pb.CancelJobResponse(job=job_to_pb(await self._services.jobs.cancel(caller(), request.job_id)))

    async def PauseJob(self, request: pb.PauseJobRequest, context: Any) -> pb.PauseJobResponse:
        return pb.PauseJobResponse(job=job_to_pb(await self._services.jobs.pause(caller(), request.job_id)))

    async def ResumeJob(self, request: pb.ResumeJobRequest, context: Any) -> pb.ResumeJobResponse:
        return pb.ResumeJobResponse(job=job_to_pb(await self._services.jobs.resume(caller(), request.job_id)))

    async def ListJobEvents(self, request: pb.ListJobEventsRequest, context: Any) -> pb.ListJobEventsResponse:
        asked = checked(EventsPage, fields_of(request))
        page = await self._services.jobs.events(caller(), asked.job_id, after=asked.after, limit=asked.limit)
        data = [event_to_pb(event) for event in page.items]
        return pb.ListJobEventsResponse(data=data, has_more=page.has_more)

    async def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> AsyncIterator[pb.WatchJobResponse]:
        after = request.after_event_id if request.HasField("after_event_id") else None
        async for event in self._services.jobs.watch(caller(), request.job_id, after=after):
            yield pb.WatchJobResponse(event=event_to_pb(event))


def job_to_pb(job: Job) -> pb.Job:
    return shown(pb.Job, job_object(job))


def event_to_pb(event: JobEvent) -> pb.JobEvent:
    return shown(pb.JobEvent, event_object(event))
