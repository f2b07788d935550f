"""Every metric there is. The table in docs/metrics.md is made from this list, and nothing else is told.

Names follow https://prometheus.io/docs/practices/naming/: base units, `_total` for counters.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Types of metrics, in Prometheus' words."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Since(StrEnum):
    """When a count began; it begins anew with what it is named after."""

    #: Kept in the database: it outlives the server.
    FOLDER = "the data folder"
    #: Kept by the process that answers requests.
    API = "the API process"
    #: Kept by the process that runs the machine's own VLM servers.
    LAUNCHER = "the launcher"
    NOW = ""


@dataclass(frozen=True)
class Metric:
    """One family."""

    name: str
    kind: Kind
    meaning: str
    labels: tuple[str, ...] = ()
    since: Since = Since.NOW


def _kept(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, meaning, labels, Since.FOLDER)


def _counted(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(name, Kind.COUNTER, meaning, labels, Since.API)


def _now(name: str, meaning: str, *labels: str) -> Metric:
    return Metric(name, Kind.GAUGE, meaning, labels)


_SERVER = (
    _now("docfleet_build_info", "1; versions of the server and its Python", "version", "python"),
    _now("docfleet_start_time_seconds", "when the server began, since 1970-01-01 UTC"),
    _now("docfleet_api_start_time_seconds", "when the process that answers requests began, since 1970-01-01 UTC"),
    _now(
        "docfleet_collection_up",
        "1 if this part could be read for this answer: store, devices, processes, disk, vlm",
        "part",
    ),
    _now("docfleet_collection_duration_seconds", "seconds that reading all parts took"),
)
_JOBS = (
    _kept("docfleet_jobs_total", "documents that ended: completed, partial, failed, cancelled", "state"),
    _kept("docfleet_jobs_cached_total", "of these, served with the result of another request for the same"),
    _kept("docfleet_jobs_refused_total", "documents and requests sent away because there was too much to do"),
    _kept("docfleet_job_failures_total", "documents that failed, by the code of their error", "code"),
    _now("docfleet_open_jobs", "documents accepted and not done: queued, running", "state"),
    _now("docfleet_backlog_jobs", "documents accepted and not done"),
    _now("docfleet_backlog_jobs_limit", "documents that may be; over it new ones get 429"),
    _now("docfleet_waiting_requests", "requests that wait for a document"),
    _now("docfleet_waiting_for_room_requests", "requests that wait before they are let in"),
)
_PAGES = (
    _kept("docfleet_pages_delivered_total", "pages in the results of documents that were parsed"),
    _kept("docfleet_pages_read_total", "pages read by workers", "device"),
    _kept("docfleet_pages_failed_total", "pages given up", "device"),
    _now("docfleet_pages_per_second", "over the last minute, or the part of it in which there was work", "device"),
    _now("docfleet_backlog_pages", "pages accepted and not read"),
    _now("docfleet_backlog_pages_limit", "pages that may be; over it new documents get 429"),
    _now("docfleet_backlog_seconds", "until all that waits is done; absent while no speed was measured"),
    _now("docfleet_queued_pages", "pages that no worker holds"),
)
_SHARDS = (
    _kept("docfleet_shards_total", "pieces of work delivered", "device"),
    _kept("docfleet_shard_attempts_failed_total", "attempts at a piece that ended without a result", "device"),
    _kept("docfleet_attempt_failures_total", "the same, by the code of the error", "code"),
    _kept("docfleet_retries_total", "attempts that ended without a result and were tried again"),
    Metric(
        "docfleet_shard_duration_seconds",
        Kind.HISTOGRAM,
        "from a worker's taking a piece to its delivery",
        ("tier", "stage"),
        Since.FOLDER,
    ),
)
_WORKERS = (
    _now("docfleet_workers_planned", "workers that there should be", "device"),
    _now("docfleet_workers", "workers of the plan by state", "device", "state"),
    _now("docfleet_spare_workers", "processes that wait to take over from a worker, by state", "state"),
    _now("docfleet_worker_resident_bytes", "resident memory of the slot's process, children included", "slot"),
    _now("docfleet_worker_heartbeat_age_seconds", "since the slot's process was heard of", "slot"),
    _kept("docfleet_worker_exits_total", "worker processes that ended: status_<number>, or a signal's name", "how"),
    _kept("docfleet_worker_kills_total", "killed by the supervisor: silent, deadline, memory, cancelled", "reason"),
    _kept("docfleet_workers_recycled_total", "left to be replaced: documents, hours, memory, weights", "reason"),
    _now("docfleet_max_concurrent_shards", "cap on pieces held at once; absent while there is none"),
)
_DEVICES = (
    _now("docfleet_device_memory_bytes", "memory of the device; of device cpu: main memory", "device"),
    _now("docfleet_device_memory_free_bytes", "memory of it that is free", "device"),
    _now("docfleet_device_utilization_ratio", "load, from 0 to 1", "device"),
    _now("docfleet_device_temperature_celsius", "temperature", "device"),
    _now("docfleet_device_power_watts", "power that it draws", "device"),
)
_VLM = (
    _now("docfleet_vlm_available", "1 if the router answers; absent where there are no VLM servers"),
    _now("docfleet_vlm_waiting_requests", "requests that have no VLM server yet"),
    _now("docfleet_vlm_endpoint_state", "1 for the state that the VLM server is in, 0 for others", "endpoint", "state"),
    _counted("docfleet_vlm_endpoint_requests_total", "requests answered", "endpoint"),
    _counted("docfleet_vlm_endpoint_failures_total", "requests not answered as they should be", "endpoint"),
    _counted("docfleet_vlm_endpoint_pages_total", "pages of which the layout was read there", "endpoint"),
    _now("docfleet_vlm_endpoint_outstanding_requests", "requests that it has now", "endpoint"),
    _now("docfleet_vlm_endpoint_requests_limit", "requests at once that it gets at present", "endpoint"),
    _now("docfleet_vlm_endpoint_request_seconds", "that a request takes there, smoothed", "endpoint"),
    _now(
        "docfleet_vlm_server_state",
        "1 for the state that a VLM server run by this machine is in, 0 for others",
        "endpoint",
        "device",
        "state",
    ),
    Metric(
        "docfleet_vlm_server_restarts_total",
        Kind.COUNTER,
        "how often it was started again",
        ("endpoint", "device"),
        Since.LAUNCHER,
    ),
)
_STORAGE = (
    _now("docfleet_database_bytes", "size of the job database with its log"),
    _now("docfleet_results_bytes", "documents and results that are kept; looked at once a minute"),
    _now("docfleet_disk_free_bytes", "free room on the disk of the data folder"),
    _now("docfleet_disk_free_limit_bytes", "with less, documents get 507"),
    _now(
        "docfleet_process_resident_bytes",
        "resident memory: main, api, helpers (what the API process started)",
        "process",
    ),
)
_HTTP = (
    _counted(
        "docfleet_http_requests_total",
        "requests by route and class of status; none: the caller left",
        "method",
        "route",
        "status",
    ),
    Metric(
        "docfleet_http_request_duration_seconds",
        Kind.HISTOGRAM,
        "from a request's arrival to the end of its answer",
        ("method", "route"),
        Since.API,
    ),
    _now("docfleet_http_requests_in_progress", "requests under way"),
    _counted("docfleet_http_refusals_total", "answers 429, 503 and 507, by the code of the error", "code"),
    _counted("docfleet_http_errors_total", "other answers that are errors, by code", "code"),
)

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        *_SERVER, *_JOBS, *_PAGES, *_SHARDS, *_WORKERS, *_DEVICES, *_VLM, *_STORAGE, *_HTTP
    )
}  # fmt: skip
