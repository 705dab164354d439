"""Work pools and how a flow run's process, container or pod is made: `python -m flows.work_pools NAME TYPE`.

Prefect's own templates know neither GPUs nor shared memory (which PyTorch's loaders need) nor volumes. These do: the
knobs are job variables, so a deployment or a single run may set them (`--job-variable gpus=4`). A process pool needs
none: its runs inherit the agent's environment (`CUDA_VISIBLE_DEVICES`, `POSE_RFT_CACHE`, `POSE_RFT_SCRATCH`).

Sources: prefect-docker's `DockerWorkerJobConfiguration` (what `container_create_kwargs` takes is docker-py's
`containers.create`), prefect-kubernetes' `KubernetesWorkerJobConfiguration`, Kubernetes' batch/v1 Job.
"""

import sys
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

from pose_rft.errors import PoseRftError

Template = dict[str, Any]
POOLS = ("cpu", "gpu")
TYPES = ("process", "docker", "kubernetes")
CACHE, DATASETS = "/cache", "/datasets"
ENVIRONMENT = {
    "POSE_RFT_CACHE": f"{CACHE}/dvc",
    "POSE_RFT_SCRATCH": f"{CACHE}/scratch",
    "DO_NOT_TRACK": "1",
}

COMMON = {name: f"{{{{ {name} }}}}" for name in ("command", "env", "labels", "name", "stream_output")}


def _string(title: str, description: str, default: str | None = None) -> Template:
    return {"title": title, "description": description, "type": "string"} | ({"default": default} if default else {})


def _variables(own: Template) -> Template:
    """The job variables that every type has, and its own."""
    common = {
        "command": _string("Command", "What starts the flow run; the worker knows, leave it empty."),
        "name": _string("Name", "Of the container or job."),
        "labels": {"title": "Labels", "type": "object", "additionalProperties": {"type": "string"}},
        "env": {
            "title": "Environment",
            "description": "The agent's share of the DVC cache and of scratch lie on the cache volume.",
            "type": "object",
            "additionalProperties": {"type": "string"},
            "default": ENVIRONMENT,
        },
        "image": _string(
            "Image", "One with this project's environment; docs/operations.md has its Dockerfile.", "pose-rft"
        ),
        "image_pull_policy": {
            "title": "Image pull policy",
            "type": "string",
            "enum": ["IfNotPresent", "Always", "Never"],
            "default": "IfNotPresent",
        },
        "stream_output": {"title": "Stream output", "type": "boolean", "default": True},
    }
    return {"type": "object", "properties": common | own}


def _gpus(default: int) -> Template:
    return {"title": "GPUs", "description": "Of one run.", "type": "integer", "default": default}


def docker(gpu: bool) -> Template:
    """A container with a shared-memory size, the cache and the releases as volumes, and, for `gpu`, GPUs (-1: all)."""
    create: Template = {"shm_size": "{{ shm_size }}"}
    own: Template = {
        "network_mode": _string("Network", "Of the container; host reaches a server on this machine.", "host"),
        "shm_size": _string("Shared memory", "For the workers of data loaders.", "16g"),
        "mem_limit": _string("Memory limit", "With a unit, such as 100g; none is no limit."),
        "cache_volume": _string("Cache", "Volume or folder with the shared DVC cache and scratch.", "pose-rft-cache"),
        "data_volume": _string("Releases", "Volume or folder with the releases, read-only.", "/datasets"),
    }
    if gpu:
        create["device_requests"] = [{"driver": "nvidia", "count": "{{ gpus }}", "capabilities": [["gpu"]]}]
        own["gpus"] = _gpus(-1)
    return {
        "job_configuration": COMMON
        | {
            "image": "{{ image }}",
            "image_pull_policy": "{{ image_pull_policy }}",
            "network_mode": "{{ network_mode }}",
            "auto_remove": True,
            "volumes": [f"{{{{ cache_volume }}}}:{CACHE}", f"{{{{ data_volume }}}}:{DATASETS}:ro"],
            "mem_limit": "{{ mem_limit }}",
            "container_create_kwargs": create,
        },
        "variables": _variables(own),
    }


def kubernetes(gpu: bool) -> Template:
    """A Job whose pod has /dev/shm in memory, the cache and the releases as claims, and, for `gpu`, GPUs."""
    own: Template = {
        "namespace": _string("Namespace", "Of the jobs.", "default"),
        "service_account_name": _string("Service account", "Of the pods."),
        "finished_job_ttl": {
            "title": "Keep finished jobs",
            "description": "Seconds.",
            "type": "integer",
            "default": 3600,
        },
        "job_watch_timeout_seconds": {"title": "Job watch time-out", "type": "integer"},
        "pod_watch_timeout_seconds": {
            "title": "Pod watch time-out",
            "description": "Seconds for the image and, with an autoscaler, the node to come.",
            "type": "integer",
            "default": 1800,
        },
        "cpu": _string("CPUs", "Request and limit.", "8"),
        "memory": _string("Memory", "Request and limit, /dev/shm included.", "64Gi"),
        "shm_size": _string("Shared memory", "For the workers of data loaders.", "16Gi"),
        "cache_claim": _string("Cache", "Claim (ReadWriteMany) with the DVC cache and scratch.", "pose-rft-cache"),
        "data_claim": _string("Releases", "Claim with the releases, read-only.", "pose-rft-datasets"),
    }
    resources = {"cpu": "{{ cpu }}", "memory": "{{ memory }}"}
    pod: Template = {"restartPolicy": "Never", "serviceAccountName": "{{ service_account_name }}"}
    if gpu:
        own["gpus"] = _gpus(1)
        resources["nvidia.com/gpu"] = "{{ gpus }}"
        pod["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    pod["containers"] = [
        {
            "name": "prefect-job",
            "env": "{{ env }}",
            "image": "{{ image }}",
            "imagePullPolicy": "{{ image_pull_policy }}",
            "args": "{{ command }}",
            "resources": {"limits": resources, "requests": dict(resources)},
            "volumeMounts": [
                {"name": "cache", "mountPath": CACHE},
                {"name": "datasets", "mountPath": DATASETS, "readOnly": True},
                {"name": "shm", "mountPath": "/dev/shm"},
            ],
        }
    ]
    pod["volumes"] = [
        {"name": "cache", "persistentVolumeClaim": {"claimName": "{{ cache_claim }}"}},
        {"name": "datasets", "persistentVolumeClaim": {"claimName": "{{ data_claim }}", "readOnly": True}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": "{{ shm_size }}"}},
    ]
    manifest = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"labels": "{{ labels }}", "namespace": "{{ namespace }}", "generateName": "{{ name }}-"},
        "spec": {
            "backoffLimit": 0,
            "parallelism": 1,
            "completions": 1,
            "ttlSecondsAfterFinished": "{{ finished_job_ttl }}",
            "template": {"spec": pod},
        },
    }
    return {
        "job_configuration": COMMON
        | {
            "namespace": "{{ namespace }}",
            "job_manifest": manifest,
            "job_watch_timeout_seconds": "{{ job_watch_timeout_seconds }}",
            "pod_watch_timeout_seconds": "{{ pod_watch_timeout_seconds }}",
        },
        "variables": _variables(own),
    }


def template(pool: str, kind: str) -> Template:
    """The base job template of a pool; empty for a process pool, whose worker brings its own.

    Raises:
        PoseRftError: such a pool or type is not known.
    """
    if pool not in POOLS or kind not in TYPES:
        raise PoseRftError(f"No pool {pool!r} of type {kind!r}; pools: {', '.join(POOLS)}; types: {', '.join(TYPES)}.")
    return {} if kind == "process" else (docker if kind == "docker" else kubernetes)(pool == "gpu")


def ensure(pool: str, kind: str) -> None:
    """Creates the pool, or gives the one that is there this template.

    Raises:
        PoseRftError: it is there with another type.
    """
    content = template(pool, kind)
    with get_client(sync_client=True) as client:
        try:
            there = client.read_work_pool(pool)
        except ObjectNotFound:
            client.create_work_pool(WorkPoolCreate(name=pool, type=kind, base_job_template=content))
            return
        if there.type != kind:
            raise PoseRftError(
                f"Pool {pool} is of type {there.type}; `prefect work-pool delete {pool}` first to make it {kind}."
            )
        if content:
            client.update_work_pool(pool, WorkPoolUpdate(base_job_template=content))


def main(arguments: list[str]) -> None:
    if len(arguments) != 2:
        raise PoseRftError(f"Name a pool ({', '.join(POOLS)}) and a type ({', '.join(TYPES)}).")
    ensure(*arguments)
    print(f"pool {arguments[0]}: {arguments[1]}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except PoseRftError as error:
        sys.exit(f"error: {error}")
