// What is kept running: every deployment with its version, health and front ports.

import { element, fill, imageName, plain, since, state, table } from "./format.js";

const PERIOD = 2000;
const COLUMNS = ["State", "Deployment", "Image", "Replicas", "Ports", "Changed"];

export const healthy = (deployment, version) =>
  deployment.replicas.filter((each) => each.version === version && each.state === "healthy").length;

// A deployment that runs is as it should be; a job that runs is under way.
export const standing = (name) => state(name, name === "running" ? "ok" : name);

export function serving(deployment) {
  return deployment.versions.find((each) => each.number === (deployment.serving ?? deployment.target)) ?? deployment.versions.at(-1);
}

export class DeploymentsPage {
  constructor(connection, main) {
    this.connection = connection;
    this.rows = new Map();
    document.title = "Deployments · Blacktree";
    this.table = table(COLUMNS, [], { class: "list" });
    this.said = element("span", { class: "aside", role: "status" });
    this.scroll = element("div", { class: "scroll sheet-like", hidden: true }, this.table);
    this.empty = element("p", { class: "empty" }, "…");
    fill(main, element("div", { class: "page" }, element("div", { class: "title" }, element("h1", {}, "Deployments"), this.said), this.scroll, this.empty));
    this.asking = setInterval(() => this.#ask(), PERIOD);
    this.#ask();
  }

  close() {
    this.closed = true;
    clearInterval(this.asking);
  }

  async #ask() {
    try {
      const { deployments } = await this.connection.ask("deployment.list");
      if (!this.closed) this.#draw(deployments);
    } catch {
      // Asked again in a moment; the connection's state stands above.
    }
  }

  #draw(deployments) {
    this.scroll.hidden = !deployments.length;
    this.empty.hidden = deployments.length > 0;
    fill(this.empty, "Nothing is deployed. ", element("code", {}, "blacktree deploy IMAGE --name NAME"), " keeps containers of an image running.");
    const running = deployments.filter((each) => each.serving !== null).length;
    this.said.textContent = deployments.length ? `${deployments.length} in all, ${running} serving` : "";
    fill(this.table.tBodies[0], deployments.map((each) => {
      const sign = JSON.stringify(each);
      let kept = this.rows.get(each.name);
      if (kept?.sign !== sign) {
        kept = { sign, node: this.#row(each) };
        this.rows.set(each.name, kept);
      }
      return kept.node;
    }));
  }

  #row(each) {
    const version = serving(each);
    const ports = version?.run.ports?.map((port) => `${port.host} → ${port.container}`) ?? [];
    const wanted = version?.run.replicas ?? 1;
    return element("tr", {},
      element("td", {}, standing(each.state)),
      element("td", { class: "wide" }, element("a", { href: `#/deployment/${each.name}`, class: "name" }, plain(each.name)),
        element("div", { class: "note" }, each.serving === null ? "nothing serves" : `version ${each.serving} serves`,
          each.target !== null && each.target !== each.serving ? `, version ${each.target} is to take over` : ""),
        each.waiting ? element("div", { class: "waiting" }, `Waits for ${plain(each.waiting)}`) : null),
      element("td", { class: "second" }, plain(imageName(version?.reference || version?.image))),
      element("td", { class: "figure" }, version ? `${healthy(each, version.number)} of ${wanted} healthy` : ""),
      element("td", { class: "second" }, plain(ports.join(", "))),
      element("td", { class: "figure second" }, since(each.updated_at)));
  }
}
