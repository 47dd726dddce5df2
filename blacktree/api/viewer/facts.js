// What a job is, beside its log: how it stands, why it failed, its attempts and its spec.

import { ENDED, action, announce, count, duration, element, field, fill, plain, pretty, repositoryName, seconds, since, span, state, table } from "./format.js";

export class Facts {
  constructor(connection, onJob) {
    this.connection = connection;
    this.onJob = onJob;
    this.head = element("section", { class: "head", "aria-label": "Job" });
    this.trouble = element("section", { class: "trouble", hidden: true, "aria-label": "Failure" });
    this.list = element("dl", { class: "facts" });
    this.attempts = element("div");
    this.spec = element("pre", { tabindex: "0", "aria-label": "Spec" });
    this.more = element("details", { class: "more" }, element("summary", {}, element("h2", {}, "Attempts and spec")), this.attempts, this.spec);
    this.aside = element("section", { "aria-label": "Facts" }, this.list, this.more);
  }

  show(job) {
    this.#head(job);
    this.#list(job);
    this.#trouble(job);
    this.#attempts(job);
    const spec = pretty(job.spec);
    if (this.spec.textContent !== spec) this.spec.textContent = spec;
    announce(`Job ${job.state.replaceAll("_", " ")}${job.waiting ? `: ${plain(job.waiting)}` : ""}`);
  }

  #head(job) {
    const ended = ENDED.has(job.state);
    const act = (name, method, more) => action(name, async () => {
      const next = await this.connection.call(method, { id: job.id });
      if (method === "job.retry") location.hash = `#/job/${next.id}`;
      else this.onJob(next);
    }, { ...more, dataset: { asks: method } });
    const signature = JSON.stringify([job.state, job.waiting, job.commit, job.retry_of, job.parts?.length]);
    if (signature === this.shown) return;
    this.shown = signature;
    fill(this.head,
      element("div", { class: "what" },
        state(job.state),
        element("h1", {}, element("span", { title: plain(job.spec.repository) }, plain(repositoryName(job.spec.repository)))),
        element("span", { class: "ref" }, plain(job.spec.ref ?? "default branch")),
        job.commit ? element("code", { class: "commit", title: plain(job.commit) }, plain(job.commit.slice(0, 10))) : null,
        element("span", { class: "gap" }),
        job.retry_of ? element("a", { href: `#/job/${job.retry_of}` }, "first try") : null,
        job.part_of ? element("a", { href: `#/job/${job.part_of}` }, "all platforms") : null,
        ...(job.parts ?? []).map((part) => element("a", { href: `#/job/${part.job_id}` }, plain(part.platform))),
        ended ? act("Build again", "job.retry", { class: "main" }) : act("Cancel", "job.cancel", { class: "danger", disabled: job.state === "canceling" })),
      job.waiting ? element("p", { class: "waiting" }, `Waits: ${plain(job.waiting)}`) : null);
  }

  #list(job) {
    const names = job.image ? (job.image.references?.length ? job.image.references : [job.image.reference]) : [];
    const end = job.started_at ?? job.finished_at;
    const parts = [
      field("Worker", plain(job.worker_id ?? job.attempts.at(-1)?.worker_id ?? "none yet")),
      field("Waited", span(job.created_at, end)),
      field("Took", job.started_at ? span(job.started_at, job.finished_at) : "not begun"),
      field("Created", since(job.created_at)),
      field("Attempts", String(job.attempt)),
      job.spec.pool !== "default" ? field("Pool", plain(job.spec.pool)) : null,
      job.cancel_reason ? field("Canceled", plain(job.cancel_reason)) : null,
      job.origin ? field("Came by", plain([job.origin.source, job.origin.event, job.origin.branch || job.origin.tag].filter(Boolean).join(" · "))) : null,
      names.length ? field("Image", names.map((name) => element("code", { class: "line" }, plain(name)))) : null,
      job.image?.digest ? field("Digest", element("code", {}, plain(job.image.digest))) : null,
      job.image ? field("Image id", element("code", {}, plain(job.image.id))) : null,
      field("Job", element("code", {}, plain(job.id))),
    ];
    fill(this.list, parts);
  }

  #trouble({ error, steps }) {
    this.trouble.hidden = !error;
    if (!error || JSON.stringify(error) === this.told) return;
    this.told = JSON.stringify(error);
    const small = [error.code, error.exit_code === null || error.exit_code === undefined ? "" : `exit code ${error.exit_code}`, error.retryable ? "may succeed when tried again" : ""];
    fill(this.trouble,
      element("h2", {}, plain(error.message)),
      error.step ? element("p", { class: "aside" }, "In ", plain(steps.findLast((step) => step.step === error.step)?.name ?? `step ${error.step}`)) : null,
      error.advice ? element("p", { class: "advice" }, plain(error.advice)) : null,
      error.last_lines?.length ? element("details", {}, element("summary", {}, `Its last ${count(error.last_lines.length, "line")}`),
        element("pre", { tabindex: "0", "aria-label": "Last lines" }, error.last_lines.map(plain).join("\n"))) : null,
      element("p", { class: "aside" }, plain(small.filter(Boolean).join(", "))));
  }

  #attempts(job) {
    const rows = job.attempts.map((each) => element("tr", {},
      element("td", {}, String(each.attempt)), element("td", {}, plain(each.worker_id)),
      element("td", { class: "figure" }, each.started_at ? since(each.started_at) : "not begun"),
      element("td", { class: "figure" }, each.started_at && each.finished_at ? duration(seconds(each.started_at, each.finished_at)) : ""),
      element("td", {}, plain(each.outcome ?? "under way"), each.error ? `: ${plain(each.error.message)}` : "")));
    fill(this.attempts, rows.length
      ? element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Attempts" }, table(["Attempt", "Worker", "Began", "Took", "Ended as"], rows))
      : element("p", { class: "aside" }, "No worker has had it yet."));
  }
}
