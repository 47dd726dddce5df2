// Reading over HTTP, as this browser's session.

export const session = new EventTarget();

// Between tries, in milliseconds. A browser whose network changes drops what is under way; a farm may be restarting.
const WAITS = [200, 500, 1000, 2000, 4000];

// The answer's JSON and headers. A session that has ended is told to whoever listens (`ended`).
export async function read(path, query = {}) {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  const address = asked.size ? `${path}?${asked}` : path;
  for (const wait of WAITS) {
    try {
      return await once(address);
    } catch (error) {
      // That is how `fetch` says that no answer came, or only a part of it.
      if (!(error instanceof TypeError)) throw error;
      await new Promise((done) => setTimeout(done, wait));
    }
  }
  return once(address);
}

async function once(address) {
  const answer = await fetch(address, { headers: { accept: "application/json" } });
  if (answer.status === 401) session.dispatchEvent(new Event("ended"));
  if (!answer.ok) {
    let problem = {};
    try {
      problem = await answer.json();
    } catch {
      // No JSON: the status has to do.
    }
    const error = new Error(problem.detail ?? problem.message ?? problem.title ?? `the farm answered ${answer.status}`);
    error.status = answer.status;
    error.data = problem;
    throw error;
  }
  return { value: await answer.json(), headers: answer.headers };
}
