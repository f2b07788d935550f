"""Facts become numbers with names and labels. Pure.

Labels take words of a bounded number: devices and slots of the plan, states, codes, templates of routes, and VLM
servers that the settings allow. Kinds that are known beforehand are told from the beginning, as 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping

from docfleet.devices.records import Reading
from docfleet.metrics.exposition import Distribution, Sample
from docfleet.metrics.facts import PARTS, DiskFacts, Facts, StoreFacts, VlmFacts
from docfleet.metrics.traffic import REQUEST_SECONDS, TrafficCounts
from docfleet.records import WorkerSlot, WorkerState
from docfleet.store.tallies import SHARD_SECONDS, Event, Tallies
from docfleet.vlm.local import LocalState
from docfleet.vlm.records import EndpointState

_KILLS = ("silent", "deadline", "memory", "cancelled")
_RECYCLINGS = ("documents", "hours", "memory", "weights")
#: Work of a database of an earlier version, of which nobody knows where it was done.
_UNKNOWN = "unknown"

Told = Iterator[Sample | Distribution]


def samples(facts: Facts) -> Told:
    """Return all numbers of one moment."""
    yield Sample("docfleet_build_info", 1, {"version": facts.version, "python": facts.python})
    yield Sample("docfleet_start_time_seconds", facts.begun)
    yield Sample("docfleet_api_start_time_seconds", facts.api_begun)
    yield from _by("docfleet_collection_up", "part", {part: int(part not in facts.failed) for part in PARTS})
    yield Sample("docfleet_collection_duration_seconds", facts.seconds)
    yield Sample("docfleet_waiting_requests", facts.waiting_requests)
    yield Sample("docfleet_waiting_for_room_requests", facts.waiting_for_room)
    yield Sample("docfleet_backlog_jobs_limit", facts.jobs_limit)
    yield Sample("docfleet_backlog_pages_limit", facts.pages_limit)
    yield Sample("docfleet_disk_free_limit_bytes", facts.disk_reserve)
    yield from _by("docfleet_workers_planned", "device", Counter(slot.device for slot in facts.plan))
    if facts.store is not None:
        yield from _jobs(facts.store)
        yield from _pages(facts.store)
        yield from _work(facts.store.tallies)
        yield from _workers(facts, facts.store)
    for device, reading in (facts.devices or {}).items():
        if reading is not None:
            yield from _device(device, reading)
    yield from _by("docfleet_process_resident_bytes", "process", facts.processes or {})
    if facts.disk is not None:
        yield from _disk(facts.disk)
    if facts.vlm is not None:
        yield from _vlm(facts.vlm)
    yield from _http(facts.traffic)


def _by(name: str, label: str, values: Mapping[str, float]) -> Told:
    for word, value in values.items():
        yield Sample(name, value, {label: word})


def _jobs(store: StoreFacts) -> Told:
    totals = store.totals
    ended = {
        "completed": totals.completed,
        "partial": totals.partial,
        "failed": totals.failed,
        "cancelled": totals.cancelled,
    }
    yield from _by("docfleet_jobs_total", "state", ended)
    yield Sample("docfleet_jobs_cached_total", totals.cached)
    yield Sample("docfleet_jobs_refused_total", totals.refused + store.unwritten)
    yield from _by("docfleet_job_failures_total", "code", store.tallies.events[Event.JOB_FAILED])
    open_jobs = {"queued": totals.queued_jobs, "running": totals.running_jobs}
    yield from _by("docfleet_open_jobs", "state", open_jobs)
    yield Sample("docfleet_backlog_jobs", totals.backlog_jobs)


def _pages(store: StoreFacts) -> Told:
    yield Sample("docfleet_pages_delivered_total", store.totals.pages)
    for one in store.tallies.devices:
        labels = {"device": one.device or _UNKNOWN}
        yield Sample("docfleet_pages_read_total", one.pages_done, labels)
        yield Sample("docfleet_pages_failed_total", one.pages_failed, labels)
        yield Sample("docfleet_pages_per_second", one.pages_per_second, labels)
    yield Sample("docfleet_backlog_pages", store.totals.backlog_pages)
    if store.progress.seconds_left is not None:
        yield Sample("docfleet_backlog_seconds", store.progress.seconds_left)
    yield Sample("docfleet_queued_pages", store.totals.queued_pages)
    yield Sample("docfleet_retries_total", store.totals.retries)


def _work(tallies: Tallies) -> Told:
    for one in tallies.devices:
        labels = {"device": one.device or _UNKNOWN}
        yield Sample("docfleet_shards_total", one.shards_done, labels)
        yield Sample("docfleet_shard_attempts_failed_total", one.shards_failed, labels)
    yield from _by("docfleet_attempt_failures_total", "code", tallies.failures)
    for took in tallies.durations:
        yield Distribution(
            "docfleet_shard_duration_seconds",
            SHARD_SECONDS,
            took.counts,
            took.seconds,
            {"tier": took.tier or _UNKNOWN, "stage": took.stage},
        )


def _workers(facts: Facts, store: StoreFacts) -> Told:
    newest = {report.slot: report for report in store.reports}

    def state(slot: WorkerSlot) -> str:
        return (newest[slot.index].state if slot.index in newest else WorkerState.STARTING).value

    standing = Counter((slot.device, state(slot)) for slot in facts.plan)
    for device in dict.fromkeys(slot.device for slot in facts.plan):
        # All of them: a sum over states in which there is nobody must be 0, and not nothing.
        for word in WorkerState:
            yield Sample("docfleet_workers", standing[device, word.value], {"device": device, "state": word.value})
    yield from _by("docfleet_spare_workers", "state", Counter(state(slot) for slot in facts.spares))
    for slot in (*facts.plan, *facts.spares):
        report = newest.get(slot.index)
        if report is not None and not report.ended:
            labels = {"slot": str(slot.index)}
            yield Sample("docfleet_worker_resident_bytes", report.rss, labels)
            age = max(0.0, facts.now - report.heartbeat_at)
            yield Sample("docfleet_worker_heartbeat_age_seconds", age, labels)
    events = store.tallies.events
    yield from _by("docfleet_worker_exits_total", "how", events[Event.WORKER_EXIT])
    yield from _by("docfleet_worker_kills_total", "reason", _from_zero(_KILLS, events[Event.WORKER_KILL]))
    recycled = _from_zero(_RECYCLINGS, events[Event.WORKER_RECYCLED])
    yield from _by("docfleet_workers_recycled_total", "reason", recycled)
    if store.max_concurrent is not None:
        yield Sample("docfleet_max_concurrent_shards", store.max_concurrent)


def _from_zero(known: Iterable[str], counted: Mapping[str, int]) -> dict[str, int]:
    return {**dict.fromkeys(known, 0), **counted}


def _device(device: str, reading: Reading) -> Told:
    values = {
        "docfleet_device_memory_bytes": reading.memory_total,
        "docfleet_device_memory_free_bytes": reading.memory_free,
        "docfleet_device_utilization_ratio": None if reading.utilisation is None else reading.utilisation / 100,
        "docfleet_device_temperature_celsius": reading.temperature,
        "docfleet_device_power_watts": reading.power,
    }
    for name, value in values.items():
        if value is not None:
            yield Sample(name, value, {"device": device})


def _disk(disk: DiskFacts) -> Told:
    yield Sample("docfleet_disk_free_bytes", disk.free)
    yield Sample("docfleet_database_bytes", disk.database)
    yield Sample("docfleet_results_bytes", disk.results)


def _vlm(vlm: VlmFacts) -> Told:
    yield Sample("docfleet_vlm_available", int(vlm.rows is not None))
    yield Sample("docfleet_vlm_waiting_requests", vlm.waiting)
    for server in vlm.servers:
        place = {"endpoint": server.url, "device": server.device}
        for local in LocalState:
            yield Sample("docfleet_vlm_server_state", int(local is server.state), {**place, "state": local.value})
        yield Sample("docfleet_vlm_server_restarts_total", server.restarts, place)
    for row in vlm.rows or ():
        labels = {"endpoint": row.url}
        for state in EndpointState:
            here = int(state is row.state)
            yield Sample("docfleet_vlm_endpoint_state", here, {**labels, "state": state.value})
        yield Sample("docfleet_vlm_endpoint_requests_total", row.done, labels)
        yield Sample("docfleet_vlm_endpoint_failures_total", row.failed, labels)
        yield Sample("docfleet_vlm_endpoint_pages_total", row.pages, labels)
        yield Sample("docfleet_vlm_endpoint_outstanding_requests", row.in_flight, labels)
        yield Sample("docfleet_vlm_endpoint_requests_limit", row.limit, labels)
        if row.seconds is not None:
            yield Sample("docfleet_vlm_endpoint_request_seconds", row.seconds, labels)


def _http(traffic: TrafficCounts) -> Told:
    for (method, route, status), number in traffic.requests.items():
        yield Sample("docfleet_http_requests_total", number, {"method": method, "route": route, "status": status})
    for took in traffic.durations:
        labels = {"method": took.method, "route": took.route}
        yield Distribution("docfleet_http_request_duration_seconds", REQUEST_SECONDS, took.counts, took.seconds, labels)
    yield Sample("docfleet_http_requests_in_progress", traffic.in_progress)
    yield from _by("docfleet_http_refusals_total", "code", traffic.refusals)
    yield from _by("docfleet_http_errors_total", "code", traffic.errors)
