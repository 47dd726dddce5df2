// The picture of the farm: its rooms in the order in which a job walks through them.

import { chart } from "./charts.js";
import { action, bytes, count, duration, element, plain, repositoryName, since, span, state } from "./format.js";

const room = (name, value, kind, ...details) =>
  element("div", { class: `room ${kind}` }, element("h2", {}, name), element("strong", {}, value), details.filter(Boolean).map((each) => element("small", {}, each)));

export function house({ queue, info, rates, workers }) {
  const figures = info?.figures ?? {};
  const waiting = Object.entries(queue.queued).filter(([, number]) => number > 0);
  const total = waiting.reduce((sum, [, number]) => sum + number, 0);
  const bins = rates?.bins.slice(-5) ?? [];
  const rate = (of) => (bins.length ? bins.reduce((sum, bin) => sum + of(bin), 0) / bins.length : 0);
  const alive = workers.filter((worker) => worker.state !== "dead");
  const slots = alive.reduce((sum, worker) => sum + worker.slots, 0);
  const busy = alive.reduce((sum, worker) => sum + worker.busy, 0);
  const dead = workers.length - alive.length;
  const heard = alive.length ? Math.max(...alive.map((worker) => Date.now() - Date.parse(worker.last_seen_at))) / 1000 : null;
  const delay = figures.loop_delay_seconds ?? 0;
  return [
    room("Queue", `${total} waiting`, total && !alive.length ? "bad" : "",
      waiting.length ? waiting.map(([pool, number]) => `${plain(pool)}: ${number}`).join(", ") : "nothing waits",
      `${rate((bin) => bin.started).toFixed(1)} begun a minute`),
    room("Broker", queue.connected ? "connected" : "away", queue.connected ? "good" : "bad", plain(queue.kind), plain(queue.reason)),
    room("Dispatcher", info?.status === "draining" ? "draining" : info ? "handing off" : "…", info?.status === "draining" ? "wait" : "",
      figures.hand_offs_total === undefined ? "" : count(figures.hand_offs_total, "hand-off"),
      figures.attempts_lost_total ? `${count(figures.attempts_lost_total, "attempt")} lost` : "", `loop ${(delay * 1000).toFixed(0)} ms late`),
    room("Health", dead ? `${dead} lost` : alive.length ? "all heard" : "nobody", dead || !alive.length ? "bad" : "good",
      heard === null ? "no worker is here" : `the longest silence is ${duration(heard)}`),
    room("Workers", `${busy} of ${slots} slots`, "", `${count(alive.length, "worker")}`, `${rate((bin) => bin.succeeded + bin.failed).toFixed(1)} jobs ended a minute`),
    room("Readers", String(figures.log_readers ?? "…"), "", "of logs, now", info ? `version ${plain(info.version)}` : ""),
  ];
}

export function tile(worker, jobs, drain) {
  const draining = worker.state === "draining";
  const squares = Array.from({ length: Math.min(64, worker.slots) }, (_, index) => element("span", { class: index < worker.busy ? "slot taken" : "slot" }));
  const names = worker.warm.map((each) => plain(repositoryName(each)));
  return element("article", { class: `tile is-${worker.state}`, "aria-label": `Worker ${plain(worker.id)}` },
    element("header", {}, element("h3", {}, plain(worker.id)), state(worker.state, `worker-${worker.state}`), element("span", { class: "gap" }),
      action(draining ? "Undo drain" : "Drain", () => drain(worker), { class: "small", dataset: { asks: "worker.drain" } })),
    worker.refusal ? element("p", { class: "waiting" }, plain(worker.refusal)) : null,
    element("div", { class: "slots", role: "img", "aria-label": `${worker.busy} of ${worker.slots} slots busy` }, squares),
    jobs.length ? element("ul", { class: "builds" }, jobs.map((job) => element("li", {},
      element("a", { href: `#/job/${job.id}` }, plain(repositoryName(job.spec?.repository ?? job.id))),
      element("span", { class: "figure aside" }, job.started_at ? span(job.started_at, job.finished_at) : "")))) : element("p", { class: "aside" }, "Nothing to do"),
    element("dl", {},
      element("div", {}, element("dt", {}, "Pool"), element("dd", {}, plain(worker.pool))),
      element("div", {}, element("dt", {}, "Free disk"), element("dd", {}, bytes(worker.free_disk_bytes))),
      element("div", { class: "seen" }, element("dt", {}, "Heard"), element("dd", {}, since(worker.last_seen_at))),
      element("div", {}, element("dt", {}, "Platform"), element("dd", {}, plain(worker.platform))),
      element("div", { class: "whole" }, element("dt", {}, "Warm repositories"), element("dd", { title: names.join("\n") },
        names.length ? `${names.slice(0, 3).join(", ")}${names.length > 3 ? ` and ${names.length - 3} more` : ""}` : "none"))));
}

export function charts({ bins, end, bin_seconds: binSeconds, complete }) {
  const good = bins.reduce((sum, bin) => sum + bin.succeeded, 0);
  const bad = bins.reduce((sum, bin) => sum + bin.failed, 0);
  const waits = bins.map((bin) => bin.wait_p90).filter((each) => each !== null);
  const less = complete ? "" : " (the newest alone: there are too many)";
  return [
    chart({
      title: "Throughput", said: `${good} succeeded, ${bad} did not${less}`, end, binSeconds, told: (value) => String(Math.round(value * 10) / 10),
      bins: bins.map((bin) => [["succeeded", bin.succeeded], ["failed", bin.failed]]),
    }),
    chart({
      title: "Wait before the start", said: waits.length ? `at most ${duration(Math.max(...waits))} for nine in ten` : "nothing has started", end, binSeconds, told: duration, stacked: false,
      bins: bins.map((bin) => [["nine-in-ten", bin.wait_p90 ?? 0], ["half", bin.wait_p50 ?? 0]]),
    }),
  ];
}
