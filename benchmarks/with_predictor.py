"""The command line that the benchmarks of a trained policy share."""

import argparse
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pose_rft.errors import PoseRftError


def parser(name: str, doc: str | None) -> argparse.ArgumentParser:
    """Returns a parser with options for the policy and the body model."""
    made = argparse.ArgumentParser(
        f"python -m benchmarks.{name}", description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--model", type=Path, default=Path("models/rft_hygrpo"))
    made.add_argument("--body-model", type=Path, default=Path("data/sample/body_models"))
    made.add_argument("--json", action="store_true", help="one JSON object")
    return made


def show(
    asked: argparse.Namespace,
    measure: Callable[[argparse.Namespace], Mapping[str, Any]],
    said: Callable[[Mapping[str, Any]], str],
) -> None:
    """Measures and prints the result; prints an error that the user can fix as one sentence."""
    try:
        measured = measure(asked)
    except PoseRftError as error:
        raise SystemExit(f"error: {error}") from None
    print(json.dumps(measured) if asked.json else said(measured))
