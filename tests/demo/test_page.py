"""The page of `pose-rft demo` in a real browser: its parts work, nothing leaves the machine, the console is silent."""

import io
import json
import socket
import threading
import time

import cv2
import numpy as np
import pytest
import trimesh
import uvicorn

from pose_rft.body.joints import SMPL24
from pose_rft.demo.api import build
from pose_rft.demo.desk import Desk
from pose_rft.demo.gate import closed
from pose_rft.demo.serve import listening
from tests.demo.conftest import EMPTY, png
from tests.support.browser import Browser
from tests.support.bvh import read_bvh

pytestmark = pytest.mark.slow
TOKEN = "a-token-of-this-start"


@pytest.fixture(scope="module")
def address(studio):
    with listening(0) as taken:
        port = taken.getsockname()[1]
        server = uvicorn.Server(uvicorn.Config(closed(build(studio, Desk()), port, TOKEN), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [taken]})
        thread.start()
        yield f"http://127.0.0.1:{port}/"
        server.should_exit = True
        thread.join()


@pytest.fixture
def browser(address, tmp_path):
    browser = Browser(tmp_path)
    try:
        browser.open(f"{address}#{TOKEN}")
        browser.until("!document.querySelector('#notice').hidden || document.querySelector('#busy').hidden")
        yield browser
        assert browser.complaints == []
        assert all(asked.startswith((address, f"blob:{address}", "data:", "about:")) for asked in browser.requested)
        assert len(browser.requested) > 5
    finally:
        browser.close()


def ready(browser):
    """Waits for the body of a result."""
    browser.until("document.querySelector('#busy').hidden && !document.querySelector('#controls').hidden")


def changed(before: bytes, after: bytes) -> float:
    """Share of pixels that differ between two PNGs of one size."""
    pictures = [cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) for data in (before, after)]
    return float((np.abs(pictures[0].astype(int) - pictures[1]).max(-1) > 8).mean())


def downloaded(browser, name: str) -> bytes:
    file = browser.downloads / name
    for _ in range(100):
        if file.exists() and file.stat().st_size:
            return file.read_bytes()
        time.sleep(0.1)
    raise AssertionError(f"{name} was not downloaded")


def test_a_photograph_its_people_samples_colours_and_files(browser, photo):
    empty = browser.picture("#view")
    browser.choose("#file", photo)
    ready(browser)
    assert browser.text("#found").startswith("2 people") and browser.text("#which") == "mean pose"
    mean = browser.picture("#view")
    assert changed(empty, mean) > 0.01, "no body is shown"
    browser.drag("#view", (0.4, 0.5), (0.7, 0.5))
    turned = browser.picture("#view")
    assert changed(mean, turned) > 0.01, "the body does not turn"
    browser.value("(e => { e.value = 3; e.dispatchEvent(new Event('input')); })(document.querySelector('#sample'))")
    sample = browser.picture("#view")
    assert browser.text("#which") == "sample 3 of 8" and changed(turned, sample) > 0.005
    browser.click("#coloured")
    assert changed(sample, browser.picture("#view")) > 0.005 and browser.text("#most") == "± 20°"
    browser.click("#joints")
    browser.click("#ghosts")
    assert browser.value("document.querySelectorAll('#spread li').length") == 24
    browser.click("#marks g[data-person='1'] circle")
    browser.until("document.querySelector('#marks polygon.chosen').dataset.person === '1'")
    ready(browser)
    for kind in ("json", "glb", "bvh"):
        browser.click(f"[data-kind={kind}]")
    content = json.loads(downloaded(browser, "pose_2.json"))
    assert content["source"] == "people.png" and len(content["rotation_matrices"]) == 24
    scene = trimesh.load(io.BytesIO(downloaded(browser, "pose_2.glb")), file_type="glb")
    assert len(scene.geometry) == 1 and set(SMPL24.joints) <= set(scene.graph.nodes)
    bones, _ = read_bvh(downloaded(browser, "pose_2.bvh").decode())
    assert set(bones) == set(SMPL24.joints)
    assert browser.text("#licence").startswith("The body is")


def test_a_question_about_the_person(browser, photo):
    browser.choose("#file", photo)
    ready(browser)
    browser.write("#question", "What is the person doing?")
    browser.click("#ask button")
    browser.until("!document.querySelector('#reply').hidden")
    assert browser.text("#reply") == "the person is standing."


def test_a_sentence(browser):
    browser.write("#text", "sitting with <b>crossed</b> legs")
    browser.click("#words button")
    ready(browser)
    assert browser.text("#said") == "sitting with <b>crossed</b> legs" and browser.hidden("#picture")
    assert browser.text("#caption") and browser.value("document.querySelectorAll('#said b').length") == 0


def test_wrong_input_is_a_sentence_and_costs_nothing(browser, photo, tmp_path):
    browser.choose("#file", photo)
    ready(browser)
    (tmp_path / "notes.jpg").write_text("no picture")
    browser.choose("#file", tmp_path / "notes.jpg")
    browser.until("!document.querySelector('#error').hidden")
    assert "notes.jpg" in browser.text("#error") and not browser.hidden("#controls")
    browser.write("#text", " ")
    browser.click("#words button")
    browser.until("document.querySelector('#error').innerText.includes('no words')")
    browser.complaints.clear()  # the browser notes each answer with an error's status


def test_who_is_not_found_gets_a_box(browser, tmp_path):
    (tmp_path / "wall.png").write_bytes(png(*EMPTY))
    browser.choose("#file", tmp_path / "wall.png")
    browser.until("!document.querySelector('#error').hidden")
    assert "wall.png shows no person that is found; draw a box" in browser.text("#error")
    assert browser.hidden("#controls") and not browser.hidden("#picture")
    browser.drag("#marks", (0.2, 0.2), (0.8, 0.8))
    ready(browser)
    assert browser.text("#found").startswith("One person") and browser.hidden("#error")


def test_without_the_token_the_page_says_what_to_do(address, tmp_path):
    browser = Browser(tmp_path)
    try:
        browser.open(address)
        browser.until("!document.querySelector('#error').hidden")
        assert "open the link that was printed" in browser.text("#error")
    finally:
        browser.close()


def test_the_server_answers_on_no_other_address(address):
    port = int(address.split(":")[2].strip("/"))
    with socket.socket() as other:
        other.settimeout(5)
        assert other.connect_ex(("127.0.0.2", port)) != 0
