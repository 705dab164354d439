"""`sweep/gpu`: one pipeline run per entry in a list of params overrides, and a comparison of their metrics.

Each run has a clone of the project in the scratch folder, named after its params, and all share one DVC cache: stages
that do not depend on an override are restored, not retrained, and a sweep that is triggered again continues.
"""

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from dvc.exceptions import DvcException
from dvc.utils.serialize import dump_yaml, load_yaml
from prefect import flow, get_run_logger

from flows import artifacts
from flows.dvc_graph import has_remote
from flows.graph_run import HERE, StagesFailed
from flows.metrics_diff import PARAMS, SUMMARY, flatten
from flows.pipeline import Hours, pipeline
from pose_rft.errors import PoseRftError
from pose_rft.io import atomic

Overrides = dict[str, Any]
LOCK = "dvc.lock"


@flow(name="sweep", persist_result=False)
def sweep(
    overrides: list[Overrides],
    metrics: list[str] | None = None,
    root: Path = HERE,
    hours: Hours | None = None,
    agents: str | None = None,
) -> list[artifacts.Row]:
    """Runs the pipeline once per entry; a failed run is reported in its row and does not stop the others.

    Args:
        overrides: dotted keys of params.yaml and their values, such as `[{"rft.beta_pose": 0.0}, {"rft.batch": 8}]`.
        metrics: dotted prefixes of the metrics to compare (default: `pose_error` and `heldout_gain`).
        root, hours, agents: as in `pipeline`.
    """
    if not overrides:
        raise PoseRftError('The sweep has no overrides; give a list such as [{"rft.beta_pose": 0.0}].')
    root = root.resolve()
    base = yaml.safe_load((root / PARAMS).read_text())
    contents = [override(base, entry) for entry in overrides]  # all are checked before the first run
    rows = []
    for entry, params in zip(overrides, contents, strict=True):
        label = ", ".join(f"{name}={value}" for name, value in entry.items()) or "as it is"
        clone = prepare(root, params)
        row: artifacts.Row = {"run": label, "state": "Completed"}
        try:
            pipeline.with_options(flow_run_name=label)(clone, hours, agents)
        except (StagesFailed, PoseRftError) as error:
            row |= {"state": "Failed", "why": str(error)}
        else:
            row |= numbers(clone, metrics or ["pose_error", "heldout_gain"])
        rows.append(row)
        artifacts.stage_table("sweep-comparison", comparison(rows))  # grows run by run
    get_run_logger().info("%s", json.dumps(rows))
    if failed := [row["run"] for row in rows if row["state"] == "Failed"]:
        raise StagesFailed(f"{len(failed)} of {len(rows)} runs failed: {'; '.join(failed)}; the table says why.")
    return rows


def override(base: Mapping[str, Any], entry: Overrides) -> dict[str, Any]:
    """Returns a copy of `base` with the values of dotted keys set.

    Raises:
        PoseRftError: a key does not exist or is a section, or its value would make it one: section names become names
            of stages, files and commands, so only those of params.yaml are allowed.
    """
    content = copy.deepcopy(dict(base))
    for dotted, value in entry.items():
        *sections, key = dotted.split(".")
        node: Any = content
        for section in sections:
            node = node.get(section) if isinstance(node, dict) else None
        if not isinstance(node, dict) or key not in node:
            node = _by_default(content, dotted)
        now = node.get(key)
        if isinstance(now, Mapping) or (isinstance(value, Mapping) and now is not None):
            raise PoseRftError(f"An override sets a value, and `{dotted}` is or would be a section; name its keys.")
        node[key] = value
    return content


def _by_default(content: dict[str, Any], dotted: str) -> dict[str, Any]:
    """Returns the mapping that holds a key which params.yaml omits because its section's type has a default.

    Raises:
        PoseRftError: no type has such a key.
    """
    from stages.sections import is_key  # imports torch, so only when needed

    node = content
    for name in dotted.split(".")[:-1]:
        if not isinstance(node.setdefault(name, {}), dict):
            node[name] = {}
        node = node[name]
    if not is_key(dotted):
        raise PoseRftError(f"params.yaml has no key `{dotted}`; an override sets a key that is known.")
    return node


def prepare(root: Path, params: Mapping[str, Any]) -> Path:
    """Returns a clone of the committed project with these params and the project's cache; reuses an existing clone."""
    text = yaml.safe_dump(dict(params), sort_keys=False)
    head = _run(root, "git", "rev-parse", "HEAD").strip()
    clone = scratch(root) / hashlib.sha256(f"{head}{text}".encode()).hexdigest()[:16]
    if fresh := not (clone / ".git").is_dir():
        shutil.rmtree(clone, ignore_errors=True)
        clone.parent.mkdir(parents=True, exist_ok=True)
        _run(root, "git", "clone", "--quiet", str(root.resolve()), str(clone.resolve()))
        _run(clone, "git", "checkout", "--quiet", "--detach", head)
    cache = _run(root, sys.executable, "-m", "dvc", "cache", "dir").strip()
    _run(clone, sys.executable, "-m", "dvc", "config", "--local", "cache.dir", cache)
    if (root / LOCK).is_file() and not (clone / LOCK).is_file():
        shutil.copy(root / LOCK, clone / LOCK)
    if fresh and not has_remote(clone):  # a remote supplies what the cache lacks
        _forget_other_caches(clone / LOCK, Path(cache))
    atomic.write_text(clone / PARAMS, text)
    return clone


def _forget_other_caches(lock: Path, cache: Path) -> None:
    """Removes stages from dvc.lock whose outs this cache lacks, such as a sample that another machine rendered.

    DVC searches its run cache for a stage that is not in the lock, but reruns one whose locked outs are missing.
    """
    if not lock.is_file():
        return
    try:
        content = load_yaml(lock)
        stages = content.get("stages", {}).items()
        sums = {name: [out.get("md5", "") for out in stage.get("outs", [])] for name, stage in stages}
    except (DvcException, AttributeError, TypeError):  # not a lock file, which DVC itself reports
        return
    for name, of_outs in sums.items():
        if not all((cache / "files/md5" / md5[:2] / md5[2:]).is_file() for md5 in of_outs):
            del content["stages"][name]
    dump_yaml(lock, content)


def scratch(root: Path) -> Path:
    """Returns the folder of the clones: below `POSE_RFT_SCRATCH` if set, so that an agent's next clone finds them."""
    return Path(os.environ.get("POSE_RFT_SCRATCH", root / ".scratch")).resolve() / "sweep"


def numbers(clone: Path, wanted: list[str]) -> artifacts.Row:
    """Returns the metrics in metrics/summary.json whose dotted names start with one of `wanted`."""
    content = json.loads((clone / SUMMARY).read_text())
    return {name: value for name, value in flatten(content) if any(name.startswith(start) for start in wanted)}


def comparison(rows: list[artifacts.Row]) -> list[artifacts.Row]:
    """Returns one row per metric and one column per run: a sweep has few runs and many metrics."""
    names = list(dict.fromkeys(name for row in rows for name in row if name != "run"))
    return [{"": name} | {row["run"]: _cell(row.get(name, "")) for row in rows} for name in names]


def _cell(value: Any) -> Any:
    return round(value, 4) if isinstance(value, float) else value


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise PoseRftError(f"`{' '.join(command)}` in {folder} failed: {done.stderr.strip() or done.stdout.strip()}.")
    return done.stdout
