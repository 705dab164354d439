"""`pose-rft demo` as a user starts it, with the policy that `make run` trained, on a photograph, in a real browser."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trimesh

from pose_rft.body.joints import SMPL24
from tests.demo.test_page import changed, downloaded, ready
from tests.support.browser import Browser
from tests.support.bvh import read_bvh

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "models/rft_hygrpo"
PHOTO = ROOT / "docs/images/photo.jpg"
SKIER = (400, 220)  # px, her middle

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not MODEL.exists(), reason="`make run` trains the policy")]


@pytest.fixture(scope="module")
def link():
    command = [Path(sys.executable).with_name("pose-rft"), "demo", "--port", "0", "--model", MODEL]
    page = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert page.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+/#\S+", page.stdout.readline())
        assert found, "no link is printed"
        yield found[0]
    finally:
        page.terminate()
        assert page.wait(30) in (0, -15)


@pytest.fixture
def browser(link, tmp_path):
    browser = Browser(tmp_path)
    try:
        browser.open(link)
        browser.until("document.querySelector('#busy').hidden")
        yield browser
        assert browser.complaints == []
        own = link.partition("#")[0]
        assert all(asked.startswith((own, f"blob:{own}", "data:", "about:")) for asked in browser.requested)
    finally:
        browser.close()


def test_a_photograph_becomes_a_body_files_and_an_answer(browser):
    empty = browser.picture("#view")
    browser.choose("#file", PHOTO)
    ready(browser)
    assert browser.text("#found").startswith("One person")
    assert changed(empty, browser.picture("#view")) > 0.01, "no body is shown"
    browser.click("#coloured")
    assert re.fullmatch(r"± \d+°", browser.text("#most")) and browser.text("#caption")
    for kind in ("json", "glb", "bvh"):
        browser.click(f"[data-kind={kind}]")
    content = json.loads(downloaded(browser, "pose_1.json"))
    x, y, width, height = content["person"]["box_px"]
    assert x < SKIER[0] < x + width and y < SKIER[1] < y + height, "the box is around somebody else"
    scene = trimesh.load(io.BytesIO(downloaded(browser, "pose_1.glb")), file_type="glb")
    assert set(SMPL24.joints) <= set(scene.graph.nodes)
    bones, _ = read_bvh(downloaded(browser, "pose_1.bvh").decode())
    assert set(bones) == set(SMPL24.joints)
    browser.write("#question", "What is the person doing?")
    browser.click("#ask button")
    browser.until("!document.querySelector('#reply').hidden")
    assert browser.text("#reply").strip()


def test_two_sentences_are_two_poses(browser):
    seen = []
    for sentence in ("The person is sitting on the ground.", "He is standing with both arms raised."):
        browser.write("#text", sentence)
        browser.click("#words button")
        browser.until(f"document.querySelector('#said').innerText === {json.dumps(sentence)}")
        ready(browser)
        seen.append(browser.picture("#view"))
    assert changed(*seen) > 0.01
