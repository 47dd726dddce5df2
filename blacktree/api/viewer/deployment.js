// One deployment: its replicas, its versions, and what it prints, as it prints it.

import { absent, action, announce, element, field, fill, imageName, plain, pretty, since, state, toast } from "./format.js";
import { healthy, serving, standing } from "./deployments.js";
import { LogBox } from "./logbox.js";
import { Pages } from "./pages.js";

export class DeploymentPage {
  constructor(connection, main, name, place) {
    this.connection = connection;
    this.main = main;
    this.name = name;
    document.title = `${plain(name)} · Blacktree`;
    this.pages = new Pages(`/api/v1/deployments/${encodeURIComponent(name)}`);
    this.box = new LogBox(this.pages, { address: `#/deployment/${encodeURIComponent(name)}`, download: `${name}.log`, label: "What it prints", job: false });
    this.box.log.look.lanes = LANES;
    this.head = element("section", { class: "head", "aria-label": "Deployment" });
    this.facts = element("dl", { class: "facts" });
    this.replicas = element("ul", { class: "cards" });
    this.versions = element("ol", { class: "cards", reversed: true });
    this.run = element("pre", { tabindex: "0", "aria-label": "How it is run" });
    fill(main, element("div", { class: "workbench" }, this.head,
      element("div", { class: "side" }, this.facts,
        element("section", { class: "first" }, element("h2", {}, "Replicas"), this.replicas),
        element("section", {}, element("h2", {}, "Versions"), this.versions),
        element("details", { class: "more" }, element("summary", {}, element("h2", {}, "How it is run")), this.run)),
      this.box.box));
    this.ready = this.#open(place);
  }

  close() {
    this.closed = true;
    this.watch?.close();
    this.box.close();
  }

  keys() {
    return this.box.keys();
  }

  place(range) {
    this.ready.then(() => this.box.show(range[0], range));
  }

  async #open(place) {
    try {
      this.#take(await this.connection.ask("deployment.get", { name: this.name }));
      await this.pages.open();
    } catch (error) {
      if (!this.closed) fill(this.main, absent("deployment", error));
      return;
    }
    if (this.closed) return;
    if (place) this.box.show(Math.max(place[0], this.pages.first), place);
    else this.box.log.follow();
    this.box.log.view.focus({ preventScroll: true, focusVisible: false });
    this.watch = this.connection.watch("deployment.watch", () => ({ name: this.name, from_seq: this.pages.heard + 1 }), {
      begun: (result, resumed) => {
        this.pages.first = Math.max(this.pages.first, result.first_seq);
        this.#take(result.deployment);
        if (resumed) this.box.caughtUp();
      },
      "deployment.events": ({ events }) => this.box.hear(events),
      "deployment.changed": ({ deployment }) => this.#take(deployment),
    });
  }

  #take(deployment) {
    if (this.closed) return;
    const version = serving(deployment);
    this.box.log.look.startedAt = Date.parse(deployment.created_at);
    announce(`Deployment ${deployment.state}${deployment.waiting ? `, waits for ${plain(deployment.waiting)}` : ""}`);
    this.#head(deployment, version);
    this.box.choices([...deployment.versions].reverse().flatMap(choices));
    fill(this.facts,
      field("Serves", deployment.serving === null ? "nothing" : `version ${deployment.serving}`),
      field("Healthy", version ? `${healthy(deployment, version.number)} of ${version.run.replicas ?? 1}` : "none"),
      version?.run.ports?.length ? field("Ports", version.run.ports.map((port) => element("code", { class: "line" }, plain(`${port.address ?? ""}:${port.host} → ${port.container}`)))) : null,
      field("Image", element("code", {}, plain(imageName(version?.reference || version?.image)))),
      version?.digest ? field("Digest", element("code", {}, plain(version.digest))) : null,
      field("Created", since(deployment.created_at)),
      field("Changed", since(deployment.updated_at)));
    fill(this.replicas, deployment.replicas.length ? deployment.replicas.map(replica) : element("li", { class: "aside" }, "No container runs."));
    this.#versions(deployment);
    const run = version ? pretty(version.run) : "";
    if (this.run.textContent !== run) this.run.textContent = run;
  }

  #call(method, more = {}) {
    return this.connection.call(method, { name: this.name, ...more });
  }

  #head(deployment, version) {
    const sign = JSON.stringify([deployment.state, deployment.desired, deployment.waiting, deployment.serving, version?.number]);
    if (sign === this.shown) return;
    this.shown = sign;
    const stopped = deployment.desired === "stopped";
    fill(this.head,
      element("div", { class: "what" }, standing(deployment.state), element("h1", {}, plain(deployment.name)),
        element("span", { class: "ref" }, version ? `version ${version.number}` : ""),
        element("span", { class: "gap" }),
        action(stopped ? "Start" : "Restart", async () => this.#take(await this.#call("deployment.restart")), { dataset: { asks: "deployment.restart" } }),
        action("Stop", async () => {
          if (confirm(`Stop ${plain(deployment.name)}? Its containers are ended.`)) this.#take(await this.#call("deployment.stop"));
        }, { class: "danger", disabled: stopped, dataset: { asks: "deployment.stop" } })),
      deployment.waiting ? element("p", { class: "waiting" }, `Waits for ${plain(deployment.waiting)}`) : null);
  }

  #versions(deployment) {
    const sign = JSON.stringify([deployment.versions, deployment.serving, deployment.target]);
    if (sign === this.told) return;
    this.told = sign;
    fill(this.versions, [...deployment.versions].reverse().map((each) => {
      const current = each.number === deployment.serving;
      const back = !current && each.number !== deployment.target && each.image;
      return element("li", { class: "card" },
        element("div", { class: "what" }, element("strong", {}, `Version ${each.number}`), standing(each.state), current ? element("span", { class: "aside" }, "serves") : null,
          element("span", { class: "gap" }),
          back ? action("Roll back", async () => {
            const done = await this.#call("deployment.rollback", { version: each.number });
            this.#take(done.deployment);
            toast(`Version ${done.version} will be like version ${each.number}`);
          }, { class: "small", dataset: { asks: "deployment.rollback" }, "aria-label": `Roll back to version ${each.number}` }) : null),
        element("div", { class: "note" }, element("code", {}, plain(imageName(each.reference || each.image) || "not built yet")),
          each.rollback_of ? ` · like version ${each.rollback_of}` : "", each.commit ? ` · ${plain(each.commit.slice(0, 10))}` : "", " · ", since(each.created_at),
          each.job_id ? [" · ", element("a", { href: `#/job/${each.job_id}` }, "build")] : ""),
        each.reason ? element("div", { class: each.state === "failed" ? "note bad" : "note" }, plain(each.reason)) : null,
        each.state === "failed" && each.last_lines?.length ? element("pre", { tabindex: "0", "aria-label": `Last lines of version ${each.number}` }, each.last_lines.map(plain).join("\n")) : null);
    }));
  }
}

// Replicas beside each other, and a version beside the one before, have colours of their own.
const LANES = {
  has: (step) => Boolean(step),
  get: (step) => (step ? step.split("/").reduce((sum, part) => sum + Number(part), 0) % 5 + 1 : undefined),
};

function choices({ number, run }) {
  const replicas = run.replicas ?? 1;
  const each = Array.from({ length: replicas > 1 ? replicas : 0 }, (_, index) => [`${number}/${number}/${index}`, `Version ${number}, replica ${index}`]);
  return [[`${number}/`, `Version ${number}`], ...each];
}

function replica(each) {
  const ended = each.exit_code === null || each.exit_code === undefined ? "" : ` · ended with ${each.exit_code}${each.oom_killed ? ", out of memory" : ""}`;
  return element("li", { class: "card" },
    element("div", { class: "what" }, state(each.state, `replica-${each.state}`), element("strong", {}, `v${each.version} #${each.index}`), element("span", {}, "on ", plain(each.worker_id)),
      each.serving ? element("span", { class: "aside" }, "serves") : null),
    element("div", { class: "note" }, each.since ? ["since ", since(each.since)] : "no word yet", each.restarts ? ` · ${each.restarts} restarts` : "", ended, each.address ? [" · ", element("code", {}, plain(each.address))] : ""),
    each.reason ? element("div", { class: "note bad" }, plain(each.reason)) : null);
}
