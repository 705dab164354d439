// The page: what was dropped or typed becomes a job, and its result is shown, person by person.

import * as api from "./api.js";
import { Viewer, colourOf } from "./viewer.js";

const SAMPLES = 8;
const LEAST_SCALE = 15; // degrees: a sure pose does not look like an unsure one
const at = (id) => document.getElementById(id);
const state = { file: null, url: null, overlay: null, job: null, person: 0, about: null, viewer: null };

// --- one thing at a time, and what went wrong

async function attempt(work) {
  at("error").hidden = true;
  document.querySelectorAll("form button").forEach((button) => (button.disabled = true));
  try {
    await work();
  } catch (error) {
    at("error").textContent = error.message;
    at("error").hidden = false;
  } finally {
    at("busy").hidden = true;
    document.querySelectorAll("form button").forEach((button) => (button.disabled = false));
  }
}

function busy(words) {
  at("busy").lastElementChild.textContent = words;
  at("busy").hidden = false;
}

async function done(asked, words) {
  busy(words);
  return api.finished(await asked, (before) => busy(before ? `${words} (${before} before this one)` : words));
}

// --- input

function photograph(file, box) {
  return attempt(async () => {
    if (state.about && file.size > state.about.most_bytes) {
      throw new Error(`${file.name} has more than ${state.about.most_bytes / 1e6} MB; make the photograph smaller.`);
    }
    await lay(file);
    const job = await done(api.upload(file, SAMPLES, box), "Looking for people …");
    state.overlay = URL.createObjectURL(await api.blob(`/api/results/${job.job}/overlay.png`));
    await open(job);
  });
}

function sentence(text) {
  return attempt(async () => {
    const job = await done(api.post("/api/sentences", { text, samples: SAMPLES }), "Posing …");
    at("picture").hidden = true;
    await open(job);
  });
}

at("file").addEventListener("change", () => {
  const [file] = at("file").files;
  if (file) photograph(file);
  at("file").value = "";
});
at("words").addEventListener("submit", (event) => {
  event.preventDefault();
  sentence(at("text").value);
});
// Anywhere on the page: a photograph dropped beside the field would otherwise replace the page.
addEventListener("dragover", (event) => {
  event.preventDefault();
  at("drop").classList.add("over");
});
addEventListener("dragleave", () => at("drop").classList.remove("over"));
addEventListener("drop", (event) => {
  event.preventDefault();
  at("drop").classList.remove("over");
  const [file] = event.dataTransfer.files;
  if (file) photograph(file);
});

// --- result

async function open(job) {
  state.job = job;
  const { people, size, name } = job.result;
  at("ask").hidden = !size;
  at("said").hidden = Boolean(size);
  at("said").textContent = size ? "" : name;
  if (size) {
    picture();
    mark(people, size);
    at("found").textContent = people.length === 1 ? "One person." : `${people.length} people: pick one.`;
  }
  await choose(0);
}

// Nothing of an earlier result stays beside a new photograph.
function clear() {
  state.job = null;
  at("ask").hidden = at("controls").hidden = at("said").hidden = at("legend").hidden = true;
  at("hint").hidden = false;
  at("found").textContent = "";
  state.viewer?.clear();
}

async function choose(number) {
  state.person = number;
  const person = state.job.result.people[number];
  document.querySelectorAll("#marks [data-person]").forEach((mark) => {
    mark.classList.toggle("chosen", Number(mark.dataset.person) === number);
  });
  at("reply").hidden = true;
  const bodies = await api.numbers(`/api/results/${state.job.job}/${number}/bodies`, Float32Array);
  at("hint").hidden = true;
  at("controls").hidden = false;
  at("caption").textContent = person.caption;
  at("sample").max = person.joints.length - 1;
  at("sample").value = 0;
  bars(person.spread_degrees);
  state.viewer?.load(bodies, person.joints);
  appearance();
}

function scale(spread) {
  return Math.max(LEAST_SCALE, ...Object.values(spread));
}

function appearance() {
  const spread = state.job.result.people[state.person].spread_degrees;
  const coloured = at("coloured").checked && spread !== null;
  const most = spread ? scale(spread) : 1;
  const number = Number(at("sample").value);
  at("which").textContent = number ? `sample ${number} of ${at("sample").max}` : "mean pose";
  at("legend").hidden = !coloured;
  at("most").textContent = `± ${most.toFixed(0)}°`;
  state.viewer?.show({
    number, most, spread: coloured ? Object.values(spread) : null,
    joints: at("joints").checked, ghosts: at("ghosts").checked,
  });
}

function bars(spread) {
  const rows = Object.entries(spread ?? {}).map(([name, degrees]) => {
    const row = document.createElement("li");
    const label = document.createElement("span");
    const value = document.createElement("b");
    const bar = svg("svg", { preserveAspectRatio: "none", viewBox: "0 0 100 1" });
    const share = degrees / scale(spread);
    bar.append(svg("rect", { width: 100 * share, height: 1, fill: `#${colourOf(share).getHexString()}` }));
    label.textContent = name.replace("_", " ");
    value.textContent = `± ${degrees.toFixed(0)}°`;
    row.append(label, bar, value);
    return row;
  });
  at("spread").replaceChildren(...rows);
}

["coloured", "joints", "ghosts"].forEach((id) => at(id).addEventListener("change", appearance));
at("sample").addEventListener("input", appearance);
at("front").addEventListener("click", () => state.viewer?.front());

// --- the photograph and who is in it

function svg(kind, attributes) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", kind);
  Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
  return made;
}

// Shows a photograph as it is; a file that the browser cannot decode leaves everything as it was.
async function lay(file) {
  const url = URL.createObjectURL(file);
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    return;
  }
  [state.url, state.overlay].forEach((old) => old && URL.revokeObjectURL(old));
  Object.assign(state, { file, url, overlay: null });
  clear();
  picture();
  mark([], [image.naturalWidth, image.naturalHeight]);
  at("picture").hidden = false;
}

function picture() {
  at("photo").src = (at("overlaid").checked && state.overlay) || state.url;
}
at("overlaid").addEventListener("change", picture);

function mark(people, [width, height]) {
  const unit = Math.max(width, height) / 640;
  const within = (value, length) => Math.min(Math.max(value, 14 * unit), length - 14 * unit);
  const squares = people.map(({ outline }, i) => [svg("polygon", { points: outline.join(" ") }), outline, i]);
  const badges = people.map(({ outline }, i) => {
    const badge = svg("g", {});
    const x = within(outline.reduce((sum, corner) => sum + corner[0] / 4, 0), width);
    const y = within(Math.min(...outline.map((corner) => corner[1])) + 14 * unit, height);
    const label = svg("text", { x, y, "font-size": 14 * unit });
    label.textContent = i + 1;
    badge.append(svg("circle", { cx: x, cy: y, r: 11 * unit }), label);
    return [badge, outline, i];
  });
  const side = ([a, b]) => Math.hypot(a[0] - b[0], a[1] - b[1]);
  squares.sort((one, other) => side(other[1]) - side(one[1])); // the small ones on top
  at("marks").setAttribute("viewBox", `0 0 ${width} ${height}`);
  at("marks").replaceChildren(...[...squares, ...badges].map(([shape, , i]) => {
    shape.dataset.person = i;
    shape.addEventListener("click", () => attempt(() => choose(i)));
    return shape;
  }));
}

// A box drawn over the photograph names a person who was not found.
function point(event) {
  const place = new DOMPoint(event.clientX, event.clientY).matrixTransform(at("marks").getScreenCTM().inverse());
  return [place.x, place.y];
}
let drawn = null;
at("marks").addEventListener("pointerdown", (event) => {
  drawn = { from: point(event), rect: svg("rect", {}), box: null };
});
at("marks").addEventListener("pointermove", (event) => {
  if (!drawn || !event.buttons) return;
  const to = point(event);
  const [x, y] = [0, 1].map((i) => Math.min(drawn.from[i], to[i]));
  const [width, height] = [0, 1].map((i) => Math.abs(drawn.from[i] - to[i]));
  drawn.box = [x, y, width, height];
  ["x", "y", "width", "height"].forEach((name, i) => drawn.rect.setAttribute(name, drawn.box[i]));
  if (!drawn.rect.isConnected) at("marks").append(drawn.rect);
});
addEventListener("pointerup", () => {
  if (!drawn) return;
  const { box, rect } = drawn;
  drawn = null;
  rect.remove();
  const least = at("marks").viewBox.baseVal.width / 40;
  if (box && box[2] > least && box[3] > least) photograph(state.file, box.map(Math.round));
});

// --- questions and files

at("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  attempt(async () => {
    const question = { job: state.job.job, person: state.person, question: at("question").value };
    const job = await done(api.post("/api/questions", question), "Thinking …");
    at("reply").textContent = job.result.answer || "(The model says nothing.)";
    at("reply").hidden = false;
  });
});

at("downloads").addEventListener("click", (event) => {
  const { kind } = event.target.dataset;
  if (!kind) return;
  attempt(async () => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await api.blob(`/api/results/${state.job.job}/${state.person}/pose.${kind}`));
    link.download = `pose_${state.person + 1}.${kind}`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
  });
});

// --- start

async function start() {
  state.about = await api.json("/api/about");
  at("notice").hidden = !state.about.notice;
  at("notice").lastElementChild.textContent = state.about.notice;
  at("licence").textContent = state.about.licence;
  const [faces, weights] = await Promise.all([
    api.numbers("/api/body/faces", Uint32Array),
    api.numbers("/api/body/weights", Float32Array),
  ]);
  try {
    state.viewer = new Viewer(at("view"), { faces, weights, parents: state.about.parents });
  } catch {
    throw new Error("This browser shows no 3D (WebGL is off); pictures, captions and downloads work.");
  }
}
attempt(start);
