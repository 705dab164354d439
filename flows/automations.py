"""Server-side automation: a flow run whose machine was lost is marked as crashed.

When a process dies, its worker marks the run. When worker and process die together, nobody does, and the run would stay
"Running" for ever; this automation makes the server mark a run whose heartbeat stops.
"""

import os
from datetime import timedelta

from prefect.automations import Automation
from prefect.client.orchestration import get_client
from prefect.events.actions import ChangeFlowRunState
from prefect.events.schemas.automations import EventTrigger, Posture

HEARTBEAT = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
NAME = "lost runs are crashed"
FINAL = ("Completed", "Cached", "Restored", "Failed", "Cancelled", "Crashed")


def heartbeat_seconds() -> int:
    return int(os.environ.get(HEARTBEAT, "30"))


def ensure() -> None:
    """Creates the automation if the server lacks it; a run counts as lost after three missed heartbeats."""
    with get_client(sync_client=True) as client:
        if client.read_automations_by_name(NAME):
            return
    Automation(
        name=NAME,
        description="No heartbeat: the machine that ran it is gone. Trigger again; finished stages are not repeated.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={f"prefect.flow-run.{name}" for name in ("heartbeat", *FINAL)},
            match={"prefect.resource.id": ["prefect.flow-run.*"]},
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=3 * heartbeat_seconds()),
        ),
        actions=[ChangeFlowRunState(state="CRASHED", name="Crashed", message="its machine does not answer any more")],
    ).create()
