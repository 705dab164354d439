"""The API of `pose-rft demo`: what it makes, whom it lets in, and that wrong input is one sentence."""

import io
import socket
import threading
import time

import numpy as np
import pytest
import trimesh
from starlette.testclient import TestClient

from pose_rft.body.joints import SMPL24
from pose_rft.demo import api as module
from pose_rft.demo.api import build
from pose_rft.demo.desk import MOST_KEPT, MOST_WAITING, Desk, Full
from pose_rft.demo.gate import closed
from pose_rft.demo.serve import listening
from pose_rft.errors import PoseRftError
from tests.demo.conftest import png
from tests.support.bvh import read_bvh

PORT, TOKEN = 8765, "secret"
MILLIMETRE = 1e-3
KEY = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def client(studio):
    app = closed(build(studio, Desk()), PORT, TOKEN)
    with TestClient(app, base_url=f"http://127.0.0.1:{PORT}", headers=KEY) as client:
        yield client


def finished(client, answer):
    """The last state of the job that an answer names."""
    assert answer.status_code == 202, answer.text
    job = answer.json()
    while job["state"] in ("waiting", "working"):
        job = client.get(f"/api/jobs/{job['job']}").json()
        time.sleep(0.01)
    return job


def done(client, answer):
    job = finished(client, answer)
    assert job["state"] == "done", job["error"]
    return job


def test_a_photograph_becomes_everyone_in_it_with_samples_and_files(client, studio):
    job = done(client, client.post("/api/photographs?name=us.png&samples=3", content=png()))
    result, at = job["result"], f"/api/results/{job['job']}"
    assert result["name"] == "us.png" and result["size"] == [160, 120] and len(result["people"]) == 2
    for number, person in enumerate(result["people"]):
        assert np.shape(person["joints"]) == (4, 24, 3) and person["caption"] and len(person["spread_degrees"]) == 24
        bodies = np.frombuffer(client.get(f"{at}/{number}/bodies").content, "<f4").reshape(4, -1, 3)
        assert np.abs(bodies[0] - bodies[1]).max() > 0.01, "samples differ from the mean"
        content = client.get(f"{at}/{number}/pose.json").json()
        assert content["source"] == "us.png" and np.shape(content["samples_rotation_matrices"]) == (3, 24, 3, 3)
        stands = np.asarray(person["joints"])[0] + np.array([0, 0, -4.0])  # in the picture, in a viewer's axes
        scene = trimesh.load(io.BytesIO(client.get(f"{at}/{number}/pose.glb").content), file_type="glb")
        nodes = np.stack([scene.graph.get(name)[0][:3, 3] for name in SMPL24.joints])
        bones, _ = read_bvh(client.get(f"{at}/{number}/pose.bvh").text)
        for found in (nodes, np.concatenate([bones[name] for name in SMPL24.joints])):
            np.testing.assert_allclose(found, stands, atol=MILLIMETRE)
    assert client.get(f"{at}/overlay.png").content.startswith(b"\x89PNG")
    faces = np.frombuffer(client.get("/api/body/faces").content, "<u4").reshape(-1, 3)
    weights = np.frombuffer(client.get("/api/body/weights").content, "<f4").reshape(-1, 24)
    assert faces.max() < len(weights) == bodies.shape[1]
    np.testing.assert_allclose(weights.sum(1), 1, atol=1e-5)


def test_a_box_names_the_person(client):
    job = done(client, client.post("/api/photographs?box=10,20,40,60", content=png()))
    (person,) = job["result"]["people"]
    np.testing.assert_allclose(np.mean(person["outline"], 0), [30, 50], atol=0.2)


def test_a_sentence_becomes_a_pose_and_a_question_needs_a_photograph(client):
    job = done(client, client.post("/api/sentences", json={"text": "he stands", "samples": 2}))
    (person,) = job["result"]["people"]
    assert np.shape(person["joints"]) == (3, 24, 3) and person["outline"] is None
    asked = client.post("/api/questions", json={"job": job["job"], "question": "Who?"})
    assert asked.status_code == 422 and "needs a photograph" in asked.json()["error"]
    photograph = done(client, client.post("/api/photographs", content=png()))
    answer = done(client, client.post("/api/questions", json={"job": photograph["job"], "person": 1, "question": "?"}))
    assert answer["result"]["answer"] == "the person is standing."


WRONG = {
    "no picture": lambda c: c.post("/api/photographs?name=a.txt", content=b"hello"),
    "nothing": lambda c: c.post("/api/photographs?name=a.jpg", content=b""),
    "a huge picture": lambda c: c.post("/api/photographs?name=a.png", content=png()[:16] + b"\x7f" * 40),
    "samples": lambda c: c.post("/api/photographs?samples=1000", content=png()),
    "samples that are no number": lambda c: c.post("/api/sentences", json={"text": "x", "samples": "many"}),
    "no words": lambda c: c.post("/api/sentences", json={"text": "  "}),
    "too many words": lambda c: c.post("/api/sentences", json={"text": "word " * 300}),
    "one endless word": lambda c: c.post("/api/sentences", json={"text": "x" * 100_000}),
    "half an emoji": lambda c: c.post("/api/sentences", content=b'{"text": "\\ud83d"}'),
    "no JSON": lambda c: c.post("/api/sentences", content=b"{{{"),
    "no such job": lambda c: c.get("/api/jobs/none"),
    "no such result": lambda c: c.get("/api/results/none/0/pose.json"),
    "no such person": lambda c: c.get("/api/results/none/x/pose.json"),
    "no such page": lambda c: c.get("/../../etc/passwd"),
    "a method that is none": lambda c: c.delete("/api/about"),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_input_is_one_sentence(client, wrong):
    answer = WRONG[wrong](client)
    sentence = answer.json()["error"]
    assert 400 <= answer.status_code < 500 and sentence.endswith(".") and "\n" not in sentence and len(sentence) < 300


@pytest.mark.parametrize(
    "data, query, said",
    [
        (png()[:-200], "name=cut.png", "cut.png"),
        (png(64, 64), "name=wall.png", "draw a box around one"),
        (png(), "box=1,2,3", "is not X,Y,W,H"),
    ],
)
def test_what_a_job_finds_wrong_is_one_sentence_without_paths(client, data, query, said):
    job = finished(client, client.post(f"/api/photographs?{query}", content=data))
    assert job["state"] == "failed" and said in job["error"] and "/tmp" not in job["error"]


def test_a_file_that_is_too_large_is_refused_without_being_held(client, monkeypatch):
    monkeypatch.setattr(module, "MOST_BYTES", 1000)

    for content in (b"x" * 2000, iter([b"x" * 500] * 4)):  # the second says no length
        answer = client.post("/api/photographs?name=big.jpg", content=content)
        assert answer.status_code == 413 and "big.jpg has more than" in answer.json()["error"]


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": ""},
        {"authorization": "Bearer guess"},
        {"authorization": "Bearer sécret".encode("latin-1")},
        {"host": "evil.example"},
        {"host": "evil.example:8765"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
    ],
)
def test_another_page_or_account_gets_nothing(client, headers):
    for answer in (client.get("/api/about", headers=headers), client.post("/api/sentences", headers=headers, json={})):
        assert answer.status_code in (401, 403) and set(answer.json()) == {"error"}
        assert "access-control-allow-origin" not in answer.headers


def test_the_page_needs_no_token_and_loads_from_here_only(client):
    page = client.get("/", headers={"authorization": ""})
    assert page.status_code == 200 and "Pose-RFT" in page.text and TOKEN not in page.text
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "http" not in page.text.replace('http-equiv="', "")
    described = client.get("/openapi.json").json()
    assert {"/api/photographs", "/api/sentences", "/api/questions", "/api/jobs/{key}"} <= set(described["paths"])


def test_the_queue_is_short_and_keeps_its_order():
    desk: Desk[int] = Desk()
    gate, order = threading.Event(), []
    first = desk.submit(lambda: gate.wait() and 0)  # type: ignore[arg-type, return-value]
    while first.state == "waiting":
        time.sleep(0.001)
    waiting = [desk.submit(lambda i=i: order.append(i) or i) for i in range(MOST_WAITING)]  # type: ignore[misc]
    assert [desk.before(job) for job in waiting] == list(range(1, MOST_WAITING + 1))
    with pytest.raises(Full, match="wait already"):
        desk.submit(lambda: 1)
    gate.set()
    while waiting[-1].state != "done":
        time.sleep(0.001)
    assert order == sorted(order) and waiting[-1].result == MOST_WAITING - 1


def test_old_results_are_forgotten_and_a_bug_ends_one_job_only():
    desk: Desk[int] = Desk()

    def wait(job):
        while job.state in ("waiting", "working"):
            time.sleep(0.001)
        return job

    broken = wait(desk.submit(lambda: 1 // 0))
    assert broken.state == "failed" and "ZeroDivisionError" in broken.error
    for _ in range(MOST_KEPT + 2):
        wait(desk.submit(lambda: 1))
    with pytest.raises(PoseRftError, match="no longer kept"):
        desk.job(broken.id)


def test_work_that_takes_too_long_is_a_sentence_and_its_result_is_dropped():
    desk: Desk[int] = Desk(longest=0)
    gate = threading.Event()
    job = desk.submit(lambda: gate.wait() and 1)  # type: ignore[arg-type, return-value]
    while desk.job(job.id).state == "waiting":
        time.sleep(0.001)
    assert desk.job(job.id).state == "failed" and "takes more than" in str(job.error)
    gate.set()
    desk.submit(lambda: 2)
    assert job.result is None


def test_only_this_machine_is_listened_to_and_a_taken_port_is_one_sentence():
    with listening(0) as first:
        first.listen()
        host, port = first.getsockname()
        assert host == "127.0.0.1"
        with pytest.raises(PoseRftError, match=f"Port {port} cannot be used"):
            listening(port)
    assert isinstance(first, socket.socket)
