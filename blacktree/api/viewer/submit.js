// A form for a spec; the server's own rules answer, by field.

import { element, fill, plain, tell } from "./format.js";
import { me } from "./me.js";

const FIELDS = [
  ["repository", "Repository", "https://…, ssh://…, git@host:path", true],
  ["ref", "Branch, tag or commit", "the remote's HEAD"],
  ["image", "Image", "from the repository's name"],
  ["tags", "Tags", "the short commit; several by commas"],
  ["context", "Context", "."],
  ["dockerfile", "Dockerfile", "Dockerfile"],
  ["target", "Target", "the last stage"],
  ["pool", "Pool", "default"],
];
const MORE = [
  ["platform", "Platform", "the worker's own"],
  ["builder", "Builder", "auto, buildkit or classic"],
  ["priority", "Priority", "5; 9 goes first"],
  ["timeout_seconds", "Timeout, in seconds", "3600, each attempt"],
  ["max_attempts", "Attempts", "3 at most"],
  ["secrets", "Secrets", "names; several by commas"],
];
const list = (text) => text.split(",").map((each) => each.trim()).filter(Boolean);
const number = (text) => (Number.isNaN(Number(text)) ? text : Number(text));
const KINDS = { tags: list, secrets: list, priority: number, timeout_seconds: number, max_attempts: number };

export class SubmitPage {
  constructor(connection, main) {
    document.title = "Build · Blacktree";
    this.inputs = new Map();
    this.notes = new Map();
    const flags = ["no_cache", "pull", "push"].map((name) => {
      const box = element("input", { type: "checkbox", id: `f-${name}` });
      this.inputs.set(name, box);
      return element("label", { class: "flag", for: `f-${name}` }, box, name.replace("_", " "));
    });
    const pairs = ["build_args", "labels"].map((name) => {
      const input = element("textarea", { id: `f-${name}`, rows: "3", placeholder: "NAME=value, one a line", spellcheck: "false" });
      return this.#field(name, name === "labels" ? "Labels" : "Build arguments", input);
    });
    this.said = element("p", { class: "bad", role: "alert" });
    this.scope = element("p", { class: "aside", hidden: true });
    this.more = element("details", {}, element("summary", {}, "More"), element("div", { class: "fields" }, this.#fields(MORE), pairs));
    this.form = element("form", { class: "submit sheet-like", novalidate: true, onsubmit: (event) => this.#send(event, connection) },
      this.scope, element("div", { class: "fields" }, this.#fields(FIELDS)),
      this.more,
      element("fieldset", { class: "flags" }, element("legend", {}, "Options"), flags),
      this.said, element("button", { class: "main" }, "Build"));
    const lacks = element("p", { class: "lacks", dataset: { lacks: "job.submit" } },
      "Your token may look, not build. An admin makes tokens that may: ", element("code", {}, "blacktree token create NAME --role submit"), ".");
    fill(main, element("div", { class: "page" }, element("div", { class: "title" }, element("h1", {}, "Build an image")), lacks, this.form));
    this.known = () => this.#scope();
    me.addEventListener("known", this.known);
    this.#scope();
    this.inputs.get("repository").focus();
  }

  close() {
    me.removeEventListener("known", this.known);
  }

  // A token that is for some repositories says so before the farm has to.
  #scope() {
    const patterns = me.token?.repositories ?? [];
    this.scope.hidden = !patterns.length;
    this.scope.textContent = `Your token is for ${patterns.map(plain).join(", ")}.`;
  }

  #fields(rows) {
    return rows.map(([name, label, hint, required]) =>
      this.#field(name, label, element("input", { id: `f-${name}`, placeholder: hint, required, autocomplete: "off", spellcheck: "false" }), required));
  }

  #field(name, label, input, required = false) {
    const note = element("p", { class: "bad", id: `n-${name}`, dataset: { for: name }, role: "alert" });
    input.setAttribute("aria-describedby", note.id);
    this.inputs.set(name, input);
    this.notes.set(name, note);
    return element("div", { class: `field ${name}` }, element("label", { for: `f-${name}` }, label, required ? element("span", { class: "aside" }, " (required)") : null), input, note);
  }

  #spec() {
    const spec = {};
    for (const [name, input] of this.inputs) {
      const text = input.value.trim();
      if (input.type === "checkbox") {
        if (input.checked) spec[name] = true;
      } else if (input.tagName === "TEXTAREA") {
        // A line without `=` is sent as it is: the server says what is wrong with it.
        const rows = input.value.split("\n").filter((row) => row.trim());
        if (rows.length) spec[name] = Object.fromEntries(rows.map((row) => (row.includes("=") ? [row.slice(0, row.indexOf("=")).trim(), row.slice(row.indexOf("=") + 1)] : [row.trim(), null])));
      } else if (text) spec[name] = (KINDS[name] ?? String)(text);
    }
    return spec;
  }

  // What is sent again because nobody knows whether it arrived is the same job.
  #key(text) {
    if (text !== this.sent) this.key = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    this.sent = text;
    return this.key;
  }

  async #send(event, connection) {
    event.preventDefault();
    for (const [name, note] of this.notes) {
      note.textContent = "";
      this.inputs.get(name).removeAttribute("aria-invalid");
    }
    this.said.textContent = "";
    try {
      const spec = this.#spec();
      const job = await connection.ask("job.submit", { ...spec, idempotency_key: this.#key(JSON.stringify(spec)) });
      location.hash = `#/job/${job.id}`;
    } catch (error) {
      const name = /^(?:spec|params)\.([a-z_]+)/.exec(error.data?.path ?? "")?.[1];
      const note = this.notes.get(name);
      const text = plain(error.data?.advice ? `${error.message}: ${error.data.advice}` : error.message);
      (note ?? this.said).textContent = text;
      if (note) {
        if (this.more.contains(note)) this.more.open = true;
        this.inputs.get(name).setAttribute("aria-invalid", "true");
        this.inputs.get(name).focus();
      }
      if (!error.data) tell(error);
    }
  }
}
