// A form for a spec; the server's own rules answer, by field.

import { element, fill, plain, tell } from "/viewer/format.js";

const FIELDS = [
  ["repository", "Repository", "https://…, ssh://…, git@host:path", true],
  ["ref", "Branch, tag or commit", "the remote's HEAD"],
  ["image", "Image", "from the repository's name"],
  ["tags", "Tags", "the short commit; several by commas"],
  ["context", "Context", "."],
  ["dockerfile", "Dockerfile", "Dockerfile"],
  ["target", "Target", "the last stage"],
  ["pool", "Pool", "default"],
  ["priority", "Priority", "5; 9 goes first"],
];
const KINDS = { tags: (text) => text.split(",").map((each) => each.trim()).filter(Boolean), priority: Number };

export class SubmitPage {
  constructor(connection, main) {
    document.title = "Build · Blacktree";
    this.inputs = new Map();
    this.args = element("textarea", { id: "f-build_args", rows: "3", placeholder: "NAME=value, one a line" });
    const flags = ["no_cache", "pull", "push"].map((name) => {
      const box = element("input", { type: "checkbox", id: `f-${name}` });
      this.inputs.set(name, box);
      return element("label", { class: "flag", for: `f-${name}` }, box, name.replace("_", " "));
    });
    this.said = element("p", { class: "bad", role: "alert" });
    fill(main, 
      element("h1", {}, "Build an image"),
      element("form", { class: "submit", novalidate: true, onsubmit: (event) => this.#send(event, connection) },
        FIELDS.map(([name, label, hint, required]) => {
          const input = element("input", { id: `f-${name}`, placeholder: hint, required, autocomplete: "off", spellcheck: "false" });
          this.inputs.set(name, input);
          return element("div", { class: "field" }, element("label", { for: `f-${name}` }, label), input, element("p", { class: "bad", dataset: { for: name } }));
        }),
        element("div", { class: "field" }, element("label", { for: "f-build_args" }, "Build arguments"), this.args, element("p", { class: "bad", dataset: { for: "build_args" } })),
        element("div", { class: "flags" }, flags), this.said, element("button", { class: "main" }, "Build")),
    );
    this.form = main.querySelector("form");
    this.inputs.get("repository").focus();
  }

  close() {}

  async #send(event, connection) {
    event.preventDefault();
    for (const note of this.form.querySelectorAll("[data-for]")) note.textContent = "";
    this.said.textContent = "";
    const spec = {};
    for (const [name, input] of this.inputs) {
      if (input.type === "checkbox") {
        if (input.checked) spec[name] = true;
      } else if (input.value.trim()) spec[name] = (KINDS[name] ?? String)(input.value.trim());
    }
    const pairs = this.args.value.split("\n").filter((line) => line.includes("="));
    if (pairs.length) spec.build_args = Object.fromEntries(pairs.map((line) => [line.slice(0, line.indexOf("=")).trim(), line.slice(line.indexOf("=") + 1)]));
    try {
      const job = await connection.call("job.submit", spec);
      location.hash = `#/job/${job.id}`;
    } catch (error) {
      const name = /^(?:spec|params)\.([a-z_]+)/.exec(error.data?.path ?? "")?.[1];
      const note = name && this.form.querySelector(`[data-for="${name}"]`);
      const text = plain(error.data?.advice ? `${error.message}: ${error.data.advice}` : error.message);
      (note ?? this.said).textContent = text;
      if (note) this.inputs.get(name)?.focus();
      if (!error.data) tell(error);
    }
  }
}
