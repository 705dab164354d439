"""Work pools and the templates of their processes, containers and pods: `python -m flows.work_pools NAME TYPE`.

Prefect's own templates support neither GPUs nor shared memory (which PyTorch's loaders need) nor volumes. These do: the
settings are job variables, so a deployment or a single run can set them (`--job-variable gpus=4`). A process pool needs
none: its runs inherit the agent's environment (`CUDA_VISIBLE_DEVICES`, `POSE_RFT_CACHE`, `POSE_RFT_SCRATCH`).

Sources: prefect-docker's `DockerWorkerJobConfiguration` (`container_create_kwargs` takes the arguments of docker-py's
`containers.create`), prefect-kubernetes' `KubernetesWorkerJobConfiguration`, Kubernetes' batch/v1 Job.
"""

import sys
from pathlib import Path
from typing import Any

import yaml
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
from prefect.exceptions import ObjectNotFound

from pose_rft.errors import PoseRftError

Template = dict[str, Any]
POOLS = ("cpu", "gpu")
TYPES = ("process", "docker", "kubernetes")
TEMPLATES = Path(__file__).with_name("job_templates.yaml")
OF_GPUS = ("gpus", "device_requests", "nvidia.com/gpu", "tolerations")  # keys removed for a cpu pool


def template(pool: str, kind: str) -> Template:
    """Returns the base job template of a pool; empty for a process pool, whose worker has its own.

    Raises:
        PoseRftError: the pool or type is unknown.
    """
    if pool not in POOLS or kind not in TYPES:
        raise PoseRftError(f"No pool {pool!r} of type {kind!r}; pools: {', '.join(POOLS)}; types: {', '.join(TYPES)}.")
    if kind == "process":
        return {}
    found = yaml.safe_load(TEMPLATES.read_text())[kind]
    return found if pool == "gpu" else _without_gpus(found)


def _without_gpus(content: Any) -> Any:
    if isinstance(content, list):
        return [_without_gpus(item) for item in content]
    if not isinstance(content, dict):
        return content
    return {key: _without_gpus(value) for key, value in content.items() if key not in OF_GPUS}


def ensure(pool: str, kind: str) -> None:
    """Creates the pool, or updates the template of an existing one.

    Raises:
        PoseRftError: the pool exists with another type.
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
