"""Our job templates against the types of the workers that use them, and docker-py's and Kubernetes' own objects."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from flows import up, work_pools
from pose_rft.errors import PoseRftError
from pose_rft.policy import pretrained

ROOT = Path(__file__).resolve().parents[2]


def filled(kind, pool, **values):
    """The worker's job configuration for these job variables."""
    if kind == "docker":
        from prefect_docker.worker import DockerWorkerJobConfiguration as Configuration
    else:
        from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration as Configuration
    from prefect.utilities.templating import apply_values

    template = work_pools.template(pool, kind)
    defaults = {k: v["default"] for k, v in template["variables"]["properties"].items() if "default" in v}
    return Configuration(**apply_values(template["job_configuration"], defaults | values))


@pytest.mark.parametrize("kind", ["docker", "kubernetes"])
@pytest.mark.parametrize("pool", work_pools.POOLS)
def test_a_template_is_sound(kind, pool):
    """What braces name are the variables, no more and no fewer, and the variables are a JSON schema."""
    template = work_pools.template(pool, kind)
    jsonschema.Draft202012Validator.check_schema(template["variables"])
    text = json.dumps(template["job_configuration"])
    used = {part.split("}}")[0].strip() for part in text.split("{{")[1:]}
    assert used == set(template["variables"]["properties"])
    defaults = {k: v["default"] for k, v in template["variables"]["properties"].items() if "default" in v}
    jsonschema.validate(defaults, template["variables"])


@pytest.mark.parametrize("gpus, count", [(-1, -1), (4, 4)])
def test_a_container_gets_gpus_shared_memory_and_the_cache(gpus, count):
    from docker.types import HostConfig

    configuration = filled("docker", "gpu", gpus=gpus)
    host = HostConfig(version="1.43", binds=configuration.volumes, **configuration.container_create_kwargs)
    (request,) = host["DeviceRequests"]
    assert (request["Driver"], request["Count"], request["Capabilities"]) == ("nvidia", count, [["gpu"]])
    assert host["ShmSize"] == 16 * 2**30
    assert "pose-rft-cache:/cache" in configuration.volumes
    assert configuration.env["POSE_RFT_CACHE"].startswith("/cache/")
    assert configuration.env["POSE_RFT_SCRATCH"].startswith("/cache/")


def test_no_environment_of_flows_moves_the_pretrained_networks(tmp_path, monkeypatch):
    """One variable once named both the shared DVC cache and the networks' folder, so agents missed networks."""
    fetched = pretrained.cache_folder()
    agents = up.environment(tmp_path, 4200)
    containers = work_pools.template("gpu", "docker")["variables"]["properties"]["env"]["default"]
    for name, value in {**agents, **containers}.items():
        if name.startswith("POSE_RFT"):
            monkeypatch.setenv(name, value)
    assert pretrained.cache_folder() == fetched


def test_a_container_without_gpus_asks_for_none():
    assert "device_requests" not in filled("docker", "cpu").container_create_kwargs


def test_a_pod_gets_gpus_shared_memory_and_the_cache():
    configuration = filled("kubernetes", "gpu", gpus=8, shm_size="64Gi", cache_claim="lab")
    spec = configuration.job_manifest["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 8
    assert container["resources"]["requests"]["nvidia.com/gpu"] == 8
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "64Gi"}
    assert volumes["cache"]["persistentVolumeClaim"]["claimName"] == "lab"
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts["shm"] == "/dev/shm" and mounts["cache"] == "/cache"
    assert set(mounts) == set(volumes)


def test_a_pod_has_only_fields_that_kubernetes_knows():
    from kubernetes_asyncio import client

    manifest = filled("kubernetes", "gpu").job_manifest

    def check(content, kind):
        names = {json_name: name for name, json_name in kind.attribute_map.items()}
        for key, value in content.items():
            assert key in names, f"{kind.__name__} has no {key}"
            inner = kind.openapi_types[names[key]]
            items = value if inner.startswith("list[") else [value]
            model = getattr(client, inner.removeprefix("list[").removesuffix("]"), None)
            for item in items:
                if model is not None and isinstance(item, dict):
                    check(item, model)

    check({k: v for k, v in manifest.items() if k in ("apiVersion", "kind", "spec")}, client.V1Job)


def test_cpu_pods_ask_for_no_gpu():
    spec = filled("kubernetes", "cpu").job_manifest["spec"]["template"]["spec"]
    assert "nvidia.com/gpu" not in json.dumps(spec)


def test_an_unknown_pool_or_type_is_one_sentence():
    with pytest.raises(PoseRftError, match="types: process, docker, kubernetes"):
        work_pools.template("gpu", "slurm")


def test_every_deployment_names_a_flow_and_a_pool_that_exist():
    content = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    found = {}
    for deployment in content["deployments"]:
        file, function = deployment["entrypoint"].split(":")
        source = (ROOT / file).read_text()
        name = source.split(f"\ndef {function}(")[0].rpartition('@flow(name="')[2].partition('"')[0]
        assert f"\ndef {function}(" in source
        assert deployment["work_pool"]["name"] in work_pools.POOLS
        found[f"{name}/{deployment['name']}"] = deployment
    assert set(found) == {"pipeline/local", "pipeline/cluster", "convert/cpu", "stage/gpu", "sweep/gpu"}
    assert found["pipeline/cluster"]["parameters"]["agents"] in found
