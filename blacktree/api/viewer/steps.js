// The steps of a build on one axis of time; stages that BuildKit runs beside each other stand side by side.

import { ENDED, duration, element, fill, plain } from "./format.js";

const STAGED = /^\[(?:[\w.-]+\/[\w./-]+ )?([A-Za-z_][\w.-]*) +(\d+\/\d+)\] +(.*)$/s;
const WORDS = { cached: "cached", ok: "done", bad: "failed", now: "running", open: "not finished" };

// Steps before, between and after the stages, in the order in which they began.
export function blocks(steps) {
  const staged = steps.map((step) => ({ step, stage: STAGED.exec(step.name) }));
  const names = [...new Set(staged.filter(({ stage }) => stage).map(({ stage }) => stage[1]))];
  if (names.length < 2) return steps.length ? [{ steps }] : [];
  const first = staged.findIndex(({ stage }) => stage);
  const last = staged.findLastIndex(({ stage }) => stage);
  const others = (from, to) => staged.slice(from, to).filter(({ stage }) => !stage).map(({ step }) => step);
  const stages = names.map((name) => ({
    name, steps: staged.filter(({ stage }) => stage?.[1] === name).map(({ step, stage }) => ({ ...step, name: `${stage[2]} ${stage[3]}` })),
  }));
  return [{ steps: others(0, first) }, { stages }, { steps: [...others(first, last), ...others(last, steps.length)] }]
    .filter((block) => block.stages || block.steps.length);
}

const LANES = 5;

export class Steps {
  // Which colour tells a step's stage apart, where there are several.
  lanes = new Map();

  constructor(onChoose) {
    this.onChoose = onChoose;
    this.list = element("div", { class: "timeline" });
    this.title = element("span");
    this.box = element("details", { class: "steps", open: true }, element("summary", {}, element("h2", {}, "Steps"), this.title), this.list);
  }

  show(job) {
    const steps = job.steps.filter((step) => step.attempt === job.attempt);
    const began = Date.parse(job.attempts.at(-1)?.started_at ?? job.started_at ?? job.created_at);
    const now = job.finished_at ? Date.parse(job.finished_at) : Date.now();
    this.axis = { began, now, whole: Math.max(1, now - began), ended: ENDED.has(job.state) };
    this.box.hidden = !steps.length;
    const cached = steps.filter((step) => step.cached).length;
    this.title.textContent = `${steps.length}${cached ? `, ${cached} cached` : ""}`;
    const focused = this.list.contains(document.activeElement) ? document.activeElement.dataset.step : "";
    fill(this.list, blocks(steps).map((block) => (block.stages ? this.#stages(block.stages) : this.#list(block.steps))));
    if (focused) this.list.querySelector(`[data-step="${CSS.escape(focused)}"]`)?.focus();
  }

  #stages(stages) {
    return element("div", { class: "stages" }, stages.map((stage, index) => {
      const lane = (index % LANES) + 1;
      for (const step of stage.steps) this.lanes.set(step.step, lane);
      return element("section", { class: "stage", "aria-label": `Stage ${plain(stage.name)}` },
        element("h3", {}, element("span", { class: `name lane${lane}` }, plain(stage.name)), element("span", { class: "took" }, this.#sum(stage.steps))), this.#list(stage.steps));
    }));
  }

  #sum(steps) {
    const known = steps.filter((step) => step.started_at && step.seconds !== null);
    if (known.length < steps.length || !known.length) return "";
    const from = Math.min(...known.map((step) => Date.parse(step.started_at)));
    const to = Math.max(...known.map((step) => Date.parse(step.started_at) + step.seconds * 1000));
    return duration((to - from) / 1000);
  }

  #list(steps) {
    return element("ol", {}, steps.map((step) => this.#step(step)));
  }

  #step(step) {
    const { began, now, whole, ended } = this.axis;
    const at = step.started_at ? Date.parse(step.started_at) : began;
    const running = step.ok === null && !ended;
    const length = step.seconds !== null ? step.seconds * 1000 : running ? Math.max(0, now - at) : 0;
    const how = step.cached ? "cached" : step.ok ? "ok" : step.ok === false ? "bad" : running ? "now" : "open";
    const bar = element("span", { class: `span ${how}` });
    bar.style.left = `${Math.max(0, Math.min(98, ((at - began) / whole) * 100))}%`;
    bar.style.width = `${Math.max(0.6, Math.min(100, (length / whole) * 100))}%`;
    const took = step.cached ? "cached" : how === "open" ? "–" : duration(length / 1000);
    return element("li", {},
      element("button", { type: "button", class: `step ${how}`, title: plain(step.name), dataset: { step: step.step }, onclick: () => this.onChoose(step) },
        element("span", { class: "dot", "aria-hidden": "true" }),
        element("span", { class: "name" }, plain(step.name)),
        step.cached ? null : element("span", { class: "unseen" }, `, ${WORDS[how]}, `),
        element("span", { class: "took" }, took),
        element("span", { class: "track", "aria-hidden": "true" }, bar)));
  }
}
