// Reading over HTTP, as this browser's session.

export const session = new EventTarget();

// The answer's JSON and headers. A session that has ended is told to whoever listens (`ended`).
export async function read(path, query = {}) {
  const asked = new URLSearchParams(Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined));
  const answer = await fetch(asked.size ? `${path}?${asked}` : path, { headers: { accept: "application/json" } });
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
