// Calls of the JSON API. The token stands behind # in the printed link and is kept for this tab only.

const given = location.hash.slice(1);
if (given) {
  sessionStorage.setItem("token", given);
  history.replaceState(null, "", location.pathname);
}
const headers = { authorization: `Bearer ${sessionStorage.getItem("token") ?? ""}` };

async function call(path, options = {}) {
  let answer;
  try {
    answer = await fetch(path, { ...options, headers: { ...headers, ...options.headers } });
  } catch {
    throw new Error("The server does not answer; is `pose-rft demo` still running?");
  }
  if (answer.ok) return answer;
  const said = await answer.json().catch(() => ({}));
  throw new Error(said.error ?? `The server answered with status ${answer.status}.`);
}

export const json = async (path, options) => (await call(path, options)).json();
export const blob = async (path) => (await call(path)).blob();
export const numbers = async (path, Kind) => new Kind(await (await call(path)).arrayBuffer());

export const post = (path, content) =>
  json(path, { method: "POST", body: JSON.stringify(content), headers: { "content-type": "application/json" } });

export const upload = (file, samples, box) => {
  const query = new URLSearchParams({ name: file.name, samples });
  if (box) query.set("box", box.join(","));
  return json(`/api/photographs?${query}`, { method: "POST", body: file });
};

// Waits for a job; `tell` hears how many are done before it.
export async function finished(job, tell) {
  while (job.state === "waiting" || job.state === "working") {
    tell(job.before);
    await new Promise((go) => setTimeout(go, 300));
    job = await json(`/api/jobs/${job.job}`);
  }
  if (job.state === "failed") throw new Error(job.error);
  return job;
}
